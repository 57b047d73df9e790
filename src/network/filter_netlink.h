/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NETWORK_FILTER_NETLINK_H
#define NETWORK_FILTER_NETLINK_H

/* What the filter says to the kernel without nft: elements, counters, the state of our tables, and connections. */

#include "network/filter_model.h"
#include "network/filter_ruleset.h"

struct filter_netlink; /* an open socket to nfnetlink */
int filter_netlink_open(struct filter_netlink **ret_netlink, struct err *e) must_check;
void filter_netlink_free(struct filter_netlink *n);

/* One transaction: first the elements that go, then those that come. All or nothing; -ENOENT: a set or element is not there. */
int filter_netlink_change(struct filter_netlink *n, const char *table, const struct filter_element *const *gone,
			  size_t gone_count, const struct filter_element *const *come, size_t come_count,
			  struct err *e) must_check;

/* Number of the last transaction of any program. */
int filter_netlink_generation(struct filter_netlink *n, uint32_t *ret_generation, struct err *e) must_check;
/* A sum over chains, rules, sets and elements of both tables, whatever their order; what packets change is left out. */
int filter_netlink_digest(struct filter_netlink *n, const char *table, uint64_t *ret_digest, struct err *e) must_check;

/* Counters of a set that packets fill. A set that is not there has none. */
typedef void filter_counter_seen(void *context, const unsigned char *key, size_t key_length, uint64_t packets, uint64_t bytes);
int filter_netlink_counters(struct filter_netlink *n, bool bridge, const char *table, const char *set,
			    filter_counter_seen *seen, void *context, struct err *e) must_check;

/* All counters start anew, in one transaction. */
int filter_netlink_flush_counters(struct filter_netlink *n, const char *table, struct err *e) must_check;

/* A connection that the kernel follows, as it was opened and as it is answered. */
struct filter_connection {
	struct filter_address from, to;      /* who opened it; where it really leads (after published ports) */
	unsigned protocol;                   /* IPPROTO_* */
	uint16_t port;                       /* inside */
	bool published;
};
/* Ends the connections for which `ends` says so; returns how many. */
typedef bool filter_connection_ends(void *context, const struct filter_connection *c);
int filter_netlink_connections(struct filter_netlink *n, filter_connection_ends *ends, void *context, struct err *e) must_check;

/* An element that packets put into a set and that ends by itself, as family bridge remembers connections. */
struct filter_netlink_flow {
	unsigned set, key_length; /* `set` is the caller's */
	unsigned char key[64];
	uint64_t left_ms; /* 0: it stays */
};
typedef void filter_flow_seen(void *context, const struct filter_netlink_flow *flow);
/* A set that is not there has none. */
int filter_netlink_flows(struct filter_netlink *n, const char *table, const char *set, filter_flow_seen *seen, void *context,
			 struct err *e) must_check;
/* One that is there already, or not any more, is fine. */
int filter_netlink_change_flows(struct filter_netlink *n, const char *table, const char *set,
				const struct filter_netlink_flow *flows, size_t count, bool come, struct err *e) must_check;

/* Base chains of other programs in the forward hook that drop what nobody accepts. */
typedef void filter_chain_seen(void *context, const char *family, const char *table, const char *chain);
int filter_netlink_dropping(struct filter_netlink *n, filter_chain_seen *seen, void *context, struct err *e) must_check;

#endif
