/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ENFORCE_PRIVATE_H
#define ENFORCE_PRIVATE_H

/* Between apply.c and change.c. */

#include "enforce/enforce.h"

/* A negative errno. */
int enforce_write_file(const char *path, const char *text) must_check;
/* In order, and what failed once more after all others; the first that failed again is *ret_failed, the result its errno. */
int enforce_write_all(const struct enforce_write *writes, size_t count, const struct enforce_write **ret_failed) must_check;

#endif
