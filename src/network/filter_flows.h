/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NETWORK_FILTER_FLOWS_H
#define NETWORK_FILTER_FLOWS_H

/*
 * What reflexive rules remember (network/filter_site.c): read from the kernel, put back after the table was replaced, and ended
 * when rules change. The counterpart of the kernel's connections, for bridges of the site.
 */

#include "network/filter_netlink.h"

struct filter_flows {
	struct filter_netlink_flow *items;
	size_t count, room;
};

void filter_flows_done(struct filter_flows *f);
#define own_flows __attribute__((cleanup(filter_flows_done)))

/* All of a table; no table has none. */
int filter_flows_read(struct filter_netlink *n, const char *table, struct filter_flows *ret_flows, struct err *e) must_check;
/* Both do what they can: a flow that is there already, or not any more, is fine. */
int filter_flows_put(struct filter_netlink *n, const char *table, const struct filter_flows *f, struct err *e) must_check;
int filter_flows_drop(struct filter_netlink *n, const char *table, const struct filter_flows *f, struct err *e) must_check;

/* The workspace's port. */
const char *filter_flow_port(const struct filter_netlink_flow *f);
/* What it is about; false: not a connection (an address that was given, a fragment, who talks with whom). */
bool filter_flow_connection(const struct filter_netlink_flow *f, struct filter_connection *ret_connection, bool *ret_left);
/* Of `all`, those that `ends` says, and what only they kept. */
typedef bool filter_flow_ends(void *context, const struct filter_netlink_flow *f);
void filter_flows_ended(const struct filter_flows *all, filter_flow_ends *ends, void *context, struct filter_flows *ret_ended);

#endif
