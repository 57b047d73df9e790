/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NETWORK_FILTER_PRIVATE_H
#define NETWORK_FILTER_PRIVATE_H

/* What filter.c, which changes rules, shares with filter_connections.c, which ends what they do not allow any more. */

#include <net/if.h>

#include "network/filter.h"
#include "network/filter_compile.h"
#include "network/filter_netlink.h"

/* A workspace that was applied: how its elements and counters are found again without the intent. */
struct seat {
	char id[20];
	struct spec rules; /* allow, deny and from only: the words behind the codes */
	size_t interface_count;
	struct {
		char port[IFNAMSIZ], bridge[IFNAMSIZ];
		uint32_t mark;
		bool has[2];
		struct filter_address address[2];
	} interfaces[NETWORK_INTERFACES];
};

struct filter {
	char instance[FILTER_TABLE];
	struct filter_netlink *netlink;
	struct filter_ruleset known;
	struct seat *seats;
	size_t seat_count, seat_room;
	bool whole;
	bool asked, follows; /* whether the kernel follows connections in family bridge */
	uint32_t generation; /* after our last change; 0: somebody else came between */
	uint64_t digest;
	bool digested;
	unsigned judge; /* how many times connections are still to be compared with the rules */
	struct filter_counts past; /* of rules and tables that were replaced */
};

/* After a change of ours: if exactly so many transactions happened they were ours. -1: as many as there were, and none of them
 * about anything that the digest has. */
void filter_note_generation(struct filter *f, int transactions);

/* Those that `m` does not allow, or (NULL) all of a workspace. */
int filter_end_connections(struct filter *f, const struct filter_model *m, const struct seat *seat, struct err *e) must_check;

#endif
