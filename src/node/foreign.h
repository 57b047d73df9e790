/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NODE_FOREIGN_H
#define NODE_FOREIGN_H

/* Programs of another processor than this host's: run by QEMU's user mode where the kernel was told so (binfmt_misc). */

#include "base/err.h"
#include "model/board.h"

/* An image for this processor can be run in namespaces here; NULL is this host's own. */
bool foreign_runs(const char *architecture);
/* A workspace with such an image has to register its programs itself; NULL: it has not. */
const struct machine_board *foreign_board(const char *architecture);
/* The same as foreign_runs for one processor, with the reason why not. */
int foreign_check(const struct machine_board *board, struct err *e) must_check;

#endif
