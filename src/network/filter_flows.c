/* SPDX-License-Identifier: Apache-2.0 */
#include "network/filter_flows.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/map.h"
#include "base/mem.h"

enum flow_kind { FLOW_CONNECTION, FLOW_TALK, FLOW_OTHER };

static const struct {
	const char *set;
	enum flow_kind kind;
	unsigned protocol;
	bool left, ipv6;
} sets[] = {
	{ "left_tcp4", FLOW_CONNECTION, IPPROTO_TCP, true, false },
	{ "left_tcp6", FLOW_CONNECTION, IPPROTO_TCP, true, true },
	{ "left_udp4", FLOW_CONNECTION, IPPROTO_UDP, true, false },
	{ "left_udp6", FLOW_CONNECTION, IPPROTO_UDP, true, true },
	{ "left_ping4", FLOW_CONNECTION, IPPROTO_ICMP, true, false },
	{ "left_ping6", FLOW_CONNECTION, IPPROTO_ICMPV6, true, true },
	{ "reached_tcp4", FLOW_CONNECTION, IPPROTO_TCP, false, false },
	{ "reached_tcp6", FLOW_CONNECTION, IPPROTO_TCP, false, true },
	{ "reached_udp4", FLOW_CONNECTION, IPPROTO_UDP, false, false },
	{ "reached_udp6", FLOW_CONNECTION, IPPROTO_UDP, false, true },
	{ "reached_ping4", FLOW_CONNECTION, IPPROTO_ICMP, false, false },
	{ "reached_ping6", FLOW_CONNECTION, IPPROTO_ICMPV6, false, true },
	{ "talks4", FLOW_TALK, 0, false, false },
	{ "talks6", FLOW_TALK, 0, false, true },
	{ "leases", FLOW_OTHER, 0, false, false },
};

#define PORT_BYTES 16 /* of an interface's name in a key */

void filter_flows_done(struct filter_flows *f)
{
	free(f->items);
	*f = (struct filter_flows){ 0 };
}

static void push(struct filter_flows *f, const struct filter_netlink_flow *flow)
{
	MEM_PUSH_ROOM(f->items, f->count, f->room);
	f->items[f->count++] = *flow;
}

static void seen_flow(void *context, const struct filter_netlink_flow *flow) { push(context, flow); }

int filter_flows_read(struct filter_netlink *n, const char *table, struct filter_flows *ret_flows, struct err *e)
{
	struct filter_flows f = { 0 };

	for (size_t i = 0; i < ARRAY_SIZE(sets); i++) {
		size_t before = f.count;
		if (filter_netlink_flows(n, table, sets[i].set, seen_flow, &f, e) < 0) {
			filter_flows_done(&f);
			return -EIO;
		}
		for (size_t k = before; k < f.count; k++)
			f.items[k].set = (unsigned)i;
	}
	*ret_flows = f;
	return 0;
}

static int change(struct filter_netlink *n, const char *table, const struct filter_flows *f, bool come, struct err *e)
{
	size_t end;

	for (size_t i = 0; i < f->count; i = end) {
		for (end = i; end < f->count && f->items[end].set == f->items[i].set; end++)
			;
		if (filter_netlink_change_flows(n, table, sets[f->items[i].set].set, f->items + i, end - i, come, e) < 0)
			return -EIO;
	}
	return 0;
}

int filter_flows_put(struct filter_netlink *n, const char *table, const struct filter_flows *f, struct err *e)
{
	return change(n, table, f, true, e);
}

int filter_flows_drop(struct filter_netlink *n, const char *table, const struct filter_flows *f, struct err *e)
{
	return change(n, table, f, false, e);
}

const char *filter_flow_port(const struct filter_netlink_flow *f) { return (const char *)f->key; }

bool filter_flow_connection(const struct filter_netlink_flow *f, struct filter_connection *ret_connection, bool *ret_left)
{
	struct filter_connection c = { .protocol = sets[f->set].protocol };
	size_t length = sets[f->set].ipv6 ? 16 : 4;

	if (sets[f->set].kind != FLOW_CONNECTION || f->key_length < PORT_BYTES + 2 * length + 4)
		return false;
	c.from.ipv6 = c.to.ipv6 = sets[f->set].ipv6;
	memcpy(c.from.bytes, f->key + PORT_BYTES, length);
	memcpy(c.to.bytes, f->key + PORT_BYTES + length, length);
	if (f->key_length >= PORT_BYTES + 2 * length + 6) /* a ping has one number there */
		c.port = (uint16_t)(f->key[PORT_BYTES + 2 * length + 4] << 8 | f->key[PORT_BYTES + 2 * length + 5]);
	*ret_connection = c;
	*ret_left = sets[f->set].left;
	return true;
}

/* Port and both addresses, in hex. */
static void pair_text(const struct filter_netlink_flow *f, char out[static 2 * sizeof f->key + 1])
{
	size_t length = PORT_BYTES + 2 * (sets[f->set].ipv6 ? 16U : 4U);

	for (size_t i = 0; i < length; i++)
		(void)snprintf(out + 2 * i, 3, "%02x", f->key[i]);
}

void filter_flows_ended(const struct filter_flows *all, filter_flow_ends *ends, void *context, struct filter_flows *ret_ended)
{
	char pair[2 * sizeof all->items->key + 1];
	struct map kept = { 0 }; /* of flows that stay */
	size_t room = 0, count = 0;
	char(*names)[sizeof pair] = NULL;

	for (size_t i = 0; i < all->count; i++) {
		if (ends(context, &all->items[i])) {
			push(ret_ended, &all->items[i]);
		} else if (sets[all->items[i].set].kind == FLOW_CONNECTION) {
			MEM_PUSH_ROOM(names, count, room);
			pair_text(&all->items[i], names[count++]);
		}
	}
	for (size_t i = 0; i < count; i++)
		map_put(&kept, names[i], names);
	for (size_t i = 0; i < all->count; i++)
		if (sets[all->items[i].set].kind == FLOW_TALK && !ends(context, &all->items[i])) {
			pair_text(&all->items[i], pair);
			if (!map_get(&kept, pair))
				push(ret_ended, &all->items[i]);
		}
	map_done(&kept);
	free(names);
}
