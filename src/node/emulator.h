/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NODE_EMULATOR_H
#define NODE_EMULATOR_H

/*
 * What a QEMU of this host says of itself. It is asked once for each file that is its program, and again when that was
 * replaced: what was handed out before stays as it was until its last holder lets it go. From any thread.
 */

#include "base/err.h"

struct emulator {
	const char *version;         /* "7.2.22" */
	const char *const *machines; /* types that it knows; NULL-terminated */
};

/* ERR_UNSUPPORTED: it does not tell its version; -ENOENT: there is none. */
int emulator_get(const char *program, const struct emulator **ret_emulator, struct err *e) must_check;
void emulator_unref(const struct emulator *m); /* NULL: nothing */
static inline void emulator_unref_at(const struct emulator **m) { emulator_unref(*m); }
#define own_emulator __attribute__((cleanup(emulator_unref_at)))

#endif
