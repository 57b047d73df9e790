/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NODE_FOREIGN_H
#define NODE_FOREIGN_H

/* Programs of another processor than this host's: run by QEMU's user mode where the kernel was told so (binfmt_misc). */

#include "base/err.h"
#include "engine/qemu/board.h"

/* An image for this processor can be run in namespaces here; NULL is this host's own. */
bool foreign_runs(const char *architecture);
/* The same for one processor, with the reason why not. */
int foreign_check(const struct machine_board *board, struct err *e) must_check;

#endif
