/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NETWORK_FAST_H
#define NETWORK_FAST_H

/*
 * A short way for packets of connections that the rules let through: from the port where they come in straight into the
 * receiver's namespace, past bridge, routing and rules (docs/decisions/0115). It decides nothing:
 *
 *   - a flow (one direction of a TCP or UDP connection between two workspaces of this host) comes to be only when a packet of
 *     it has passed the rules, and connection tracking has seen both sides;
 *   - twice a second, and after each change of the rules, its next packet takes the usual way again. If that does not let
 *     it through, no other follows.
 *
 * So what the rules say holds as without it, within half a second also when this agent is dead. Where the kernel lacks
 * something all packets take the usual way, always.
 */

#include <net/if.h>

#include "network/filter_model.h"

/* A port that may use it: a veth of a workspace on a network of ours. */
struct fast_port {
	char port[IFNAMSIZ], bridge[IFNAMSIZ];
	uint32_t number;      /* of the attachment: what the filter marks its packets with */
	unsigned char mac[6]; /* inside */
	bool slow;            /* it may not (it has rates); what took the short way before is still counted */
	bool has[2];
	struct filter_address address[2];
};

/* false: its addresses cannot be read. */
bool fast_port_set(struct fast_port *p, const struct attachment *a, const char *bridge) must_check;

struct fast;

/* Whether the kernel has what it takes; ERR_UNSUPPORTED says what it lacks. Nothing stays. */
int fast_probe(struct err *e) must_check;

/* Touches nothing yet. */
int fast_new(struct fast **ret_fast, struct err *e) must_check;
void fast_free(struct fast *f); /* flows and programs stay: workspaces outlive the agent */

/* All that may use it. One that is not there (yet) is passed over; one that was among them before loses its flows. Programs
 * and flows of an agent before this one are taken over. After a failure no port has new flows until it worked. */
int fast_set_ports(struct fast *f, const struct fast_port *ports, size_t count, struct err *e) must_check;

/* After each change of rules: every flow meets them once more. */
int fast_rules_changed(struct fast *f, struct err *e) must_check;

/* Readable when packets were seen for which there may be flows. -1: not yet, after the next fast_set_ports. */
int fast_fd(const struct fast *f);
int fast_learn(struct fast *f, struct err *e) must_check;

/* Every FAST_CARE_MS as long as it answers more than 0, the number of flows: those of silent connections end. */
#define FAST_CARE_MS 1000
int fast_care(struct fast *f, struct err *e) must_check;

/* What reached each port by the short way since it has been there, and its device did not count. Sorted by port. */
struct fast_count {
	char port[IFNAMSIZ];
	uint64_t packets, bytes;
};
int fast_counts(struct fast *f, struct fast_count **ret_counts, size_t *ret_count,
		struct err *e) must_check; /* the caller's to free */

#endif
