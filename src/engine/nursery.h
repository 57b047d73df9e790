/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_NURSERY_H
#define ENGINE_NURSERY_H

/* Where runners come from: one process that executed carrel-run and forks a runner for each socket it is sent. From any
 * thread. */

#include "base/err.h"

/* Our end of the new runner's socket. The runner is nobody's child, outlives us, and ends by itself when the socket is closed
 * before it got a plan. */
int nursery_runner(int *ret_socket, struct err *e) must_check;
/* Ends it; runners stay. The next call makes a new one. */
void nursery_end(void);

#endif
