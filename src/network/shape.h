/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NETWORK_SHAPE_H
#define NETWORK_SHAPE_H

/*
 * Bandwidth of the workspaces of one host: what each may use at most, and what it gets when all want everything. The same for
 * veth and tap; docs/decisions/0071.
 *
 *   plan   pure: the host's ports and their rates -> one class for each port and direction
 *   apply  makes the kernel have it: only what differs from the last call
 *
 * A most is kept whatever the host's own link can do. A guarantee is a share of that link, so its speed must be known; once one
 * port of a direction has a guarantee, all ports go by the scheduler of that direction, as one that does not could take
 * everything.
 */

#include <stdbool.h>

#include "base/str.h"
#include "model/network.h"

enum shape_direction { SHAPE_IN, SHAPE_OUT, SHAPE_DIRECTIONS }; /* towards the workspaces, from them */

struct shape_port {
	const char *port; /* the device on the host; one that is not there (yet) is passed over */
	const struct attachment *attachment;
};

struct shape_intent {
	const char *instance; /* [a-z0-9]{1,8} */
	uint64_t link_bits;   /* a second, of the host's link to the site; 0: not known */
	const struct shape_port *ports; /* all of this host, with rates or without */
	size_t port_count;
};

struct shape_class {
	char port[NETWORK_DEVICE_LENGTH + 1];
	uint64_t number;                           /* of the attachment */
	uint32_t minor;                            /* of its classes, in both directions */
	uint32_t index;                            /* of the device that has it; 0: none (not part of the plan) */
	bool used[SHAPE_DIRECTIONS];
	uint64_t least_bits[SHAPE_DIRECTIONS], most_bits[SHAPE_DIRECTIONS];
};

struct shape_plan {
	uint64_t total_bits; /* that classes share, each direction */
	struct shape_class *classes; /* by attachment number */
	size_t count;
};

/* A port that was in `before` (NULL: none) keeps its minor. ERR_NO_CAPACITY when more was guaranteed than there is. */
int shape_plan(const struct shape_intent *intent, const struct shape_plan *before, struct shape_plan *ret_plan,
	       struct err *e) must_check;
void shape_plan_done(struct shape_plan *plan);

struct shaper;

/* Nothing is touched yet. The first shape_apply builds everything anew beside what an earlier process left, moves the ports
 * over, and takes the old away: nothing is let through unshaped and hardly a packet is lost. */
struct shaper *shaper_new(void);
void shaper_free(struct shaper *s); /* the rates stay in force */
/* Says in the error which part the kernel lacks (ERR_UNSUPPORTED). */
int shape_apply(struct shaper *s, const struct shape_intent *intent, struct err *e) must_check;

/* Bits a second of the device of the default route, as it says itself; 0: it does not say. */
uint64_t shape_link_bits(void);

#endif
