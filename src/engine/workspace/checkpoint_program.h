/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_WORKSPACE_CHECKPOINT_PROGRAM_H
#define ENGINE_WORKSPACE_CHECKPOINT_PROGRAM_H

/* Which CRIU, and what it says. */

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

#define CHECKPOINT_PROGRAM_HINT                                                                                                \
	"tools/get-criu fetches one that works with new kernels (guide: suspend); Debian's package is criu"

/* $CARREL_CRIU; the one beside our programs (tools/get-criu); the host's. NULL: there is none. Whether it works is a matter of
 * trying. */
const char *checkpoint_program(void);
/* The line of CRIU's log that says what went wrong, without its time and place; false: none. */
bool checkpoint_log_error(const char *log, char *out, size_t size);
/* Such a line in words that help. Returns as err_set. */
int checkpoint_explain(const char *line, const char *what, struct err *e) must_check;

#endif
