/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NODE_TRAVEL_TOOLS_H
#define NODE_TRAVEL_TOOLS_H

/* The disk of tools, a file in STATE/node/machines named by the digest of what went into it: made once. Any thread. */

#include "base/hash.h"
#include "node/node.h"

int travel_tools(struct node *n, const struct digest *kernel, int kernel_fd, int *ret_fd, struct err *e) must_check;

#endif
