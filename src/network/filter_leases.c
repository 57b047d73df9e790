/* SPDX-License-Identifier: Apache-2.0 */
/* The set `leases` of family bridge: filled by the answers of the site's DHCP that pass (filter_site.c), emptied from here. */
#include <string.h>

#include "network/filter_private.h"

#define LEASES "leases"
/* Its key: interface, hardware address (filled up to a multiple of four bytes), IPv4 address. */
enum { AT_MAC = 16, AT_ADDRESS = 24, KEY_BYTES = 28 };

struct reading {
	filter_lease_seen *seen;
	void *context;
};

static void seen_flow(void *context, const struct filter_netlink_flow *flow)
{
	const struct reading *r = context;
	struct filter_lease l = { 0 };

	if (flow->key_length != KEY_BYTES)
		return;
	memcpy(l.port, flow->key, sizeof l.port - 1);
	memcpy(l.mac, flow->key + AT_MAC, sizeof l.mac);
	memcpy(l.address, flow->key + AT_ADDRESS, sizeof l.address);
	r->seen(r->context, &l);
}

int filter_leases(struct filter *f, filter_lease_seen *seen, void *context, struct err *e)
{
	struct reading r = { seen, context };
	char table[FILTER_TABLE];
	int result = filter_table_name(f->instance, table, e);

	if (result == 0 && !f->netlink)
		result = filter_netlink_open(&f->netlink, e);
	return result < 0 ? result : filter_netlink_flows(f->netlink, table, LEASES, seen_flow, &r, e);
}

int filter_end_lease(struct filter *f, const struct filter_lease *lease, struct err *e)
{
	struct filter_netlink_flow flow = { .key_length = KEY_BYTES };
	char table[FILTER_TABLE];

	if (!f->netlink)
		return 0;
	memcpy(flow.key, lease->port, strlen(lease->port));
	memcpy(flow.key + AT_MAC, lease->mac, sizeof lease->mac);
	memcpy(flow.key + AT_ADDRESS, lease->address, sizeof lease->address);
	int result = filter_table_name(f->instance, table, e);
	if (result == 0)
		result = filter_netlink_change_flows(f->netlink, table, LEASES, &flow, 1, false, e);
	filter_note_generation(f, -1);
	return result;
}
