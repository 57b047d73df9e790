/* SPDX-License-Identifier: Apache-2.0 */
#ifndef STORE_SEED_H
#define STORE_SEED_H

/*
 * A small read-only file system as guests read it from a CD or a disk: ISO 9660 with Joliet (ECMA-119), one folder. Names
 * without Joliet are the same in capitals. The same files give the same bytes.
 */

#include <stddef.h>

#include "base/str.h"

#define SEED_NAME_MOST 24

struct seed_file {
	const char *name; /* small letters, digits, '-' */
	const char *bytes;
	size_t length;
};

/* `label` as the files' names. A few files, each of at most 16 MiB. */
void seed_write(const char *label, const struct seed_file *files, size_t count, struct str *out);

#endif
