/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NODE_REFILL_PUMP_H
#define NODE_REFILL_PUMP_H

/* Files from the stream of a helper machine to that of a new volume (refill.c). The machine mounts what a guest made and is not
 * trusted: it could trickle or send for ever. */

#include <stdint.h>

#include "base/err.h"

struct refill_limits {
	uint64_t until_ms; /* loop_now_ms: all of it is done */
	uint64_t bytes;    /* that the machine may still send */
};

/* ERR_TIMEOUT, ERR_TOO_LARGE: a limit was met. */
int refill_pump(int from, int to, struct refill_limits *l, struct err *e) must_check;

#endif
