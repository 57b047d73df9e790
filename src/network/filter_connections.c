/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rules are asked once a connection, so after a change the table of connections is read and those are ended which the
 * judge does not allow any more. This costs nothing per packet, which a generation in the connection's mark would, and answers
 * of an ended connection cannot go on, which with a mark they would until the next packet from the other side.
 *
 * On bridges of the site what reflexive rules remember (filter_flows.h) is gone through the same way.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "network/filter_compile.h"
#include "network/filter_flows.h"
#include "network/filter_judge.h"
#include "network/filter_private.h"

struct port_owner {
	const struct filter_party *party;
	const struct filter_interface *interface;
};

struct ending {
	const struct filter_model *model; /* NULL: all of `seat` end */
	const struct seat *seat;
	struct map ports; /* on bridges of the site: struct port_owner */
	struct filter_address *hosts;
	size_t host_count;
};

static bool among(const struct filter_address *list, size_t count, const struct filter_address *a)
{
	for (size_t i = 0; i < count; i++)
		if (list[i].ipv6 == a->ipv6 && !memcmp(list[i].bytes, a->bytes, 16))
			return true;
	return false;
}

/* The host's own addresses: what it opens or answers itself is not in the forward chain. */
static void hosts_read(struct ending *end)
{
	struct ifaddrs *list = NULL;
	size_t room = 0;

	if (getifaddrs(&list) < 0)
		return;
	for (const struct ifaddrs *i = list; i; i = i->ifa_next) {
		struct filter_address a = { 0 };
		if (!i->ifa_addr || (i->ifa_addr->sa_family != AF_INET && i->ifa_addr->sa_family != AF_INET6))
			continue;
		a.ipv6 = i->ifa_addr->sa_family == AF_INET6;
		if (a.ipv6)
			memcpy(a.bytes, &((const struct sockaddr_in6 *)(const void *)i->ifa_addr)->sin6_addr, 16);
		else
			memcpy(a.bytes, &((const struct sockaddr_in *)(const void *)i->ifa_addr)->sin_addr, 4);
		MEM_PUSH_ROOM(end->hosts, end->host_count, room);
		end->hosts[end->host_count++] = a;
	}
	freeifaddrs(list);
}

static bool seat_at(const struct seat *s, const struct filter_address *a)
{
	for (size_t i = 0; i < s->interface_count; i++)
		if (s->interfaces[i].has[a->ipv6] && !memcmp(s->interfaces[i].address[a->ipv6].bytes, a->bytes, 16))
			return true;
	return false;
}

/* What `k` lacks besides its parties. */
static void case_set(struct filter_case *k, const struct filter_connection *c)
{
	k->from_address = c->from;
	k->to_address = c->to;
	k->published = c->published;
	k->plain = c->protocol != IPPROTO_TCP && c->protocol != IPPROTO_UDP && c->protocol != IPPROTO_ICMP &&
		   c->protocol != IPPROTO_ICMPV6;
	k->protocol = c->protocol == IPPROTO_TCP ? RULE_TCP : c->protocol == IPPROTO_UDP ? RULE_UDP : RULE_ICMP;
	k->port = k->protocol == RULE_ICMP ? 0 : c->port;
}

static bool connection_ends(void *context, const struct filter_connection *c)
{
	const struct ending *end = context;
	const struct filter_party *whose;
	enum filter_side side;

	if (!end->model)
		return seat_at(end->seat, &c->from) || seat_at(end->seat, &c->to);
	if (among(end->hosts, end->host_count, &c->from) || among(end->hosts, end->host_count, &c->to))
		return false;
	struct filter_case k = { .from = filter_model_at(end->model, &c->from), .to = filter_model_at(end->model, &c->to) };
	case_set(&k, c);
	if ((!k.from || !k.from->local) && (!k.to || !k.to->local))
		/* of a workspace that is gone */
		return filter_model_ours(end->model, &c->from) || filter_model_ours(end->model, &c->to);
	return !filter_code_allows(filter_judge_case(end->model, &k, &side, &whose));
}

/* On bridges of the site. The port says whose it is: an address may be one that the site's DHCP gave. */
static bool flow_ends(void *context, const struct filter_netlink_flow *flow)
{
	const struct ending *end = context;
	const struct filter_party *whose;
	struct filter_connection c;
	struct filter_case k = { 0 };
	enum filter_side side;
	bool left;

	if (!end->model) {
		for (size_t i = 0; i < end->seat->interface_count; i++)
			if (!strncmp(end->seat->interfaces[i].port, filter_flow_port(flow), IFNAMSIZ))
				return true;
		return false;
	}
	const struct port_owner *owner = map_get(&end->ports, filter_flow_port(flow));
	if (!owner)
		return true;
	if (!filter_flow_connection(flow, &c, &left) || (!left && among(end->hosts, end->host_count, &c.from)))
		return false;
	k.from = left ? owner->party : filter_model_at(end->model, &c.from);
	k.to = left ? filter_model_at(end->model, &c.to) : owner->party;
	*(left ? &k.from_at : &k.to_at) = owner->interface;
	case_set(&k, &c);
	return !filter_code_allows(filter_judge_case(end->model, &k, &side, &whose));
}

static struct port_owner *ports_read(struct ending *end)
{
	const struct filter_model *m = end->model;
	struct port_owner *owners = NULL;
	size_t count = 0, room = 0;

	for (size_t i = 0; m && i < m->party_count; i++)
		for (size_t k = 0; m->parties[i].local && k < m->parties[i].interface_count; k++) {
			if (!filter_interface_sited(&m->parties[i].interfaces[k]))
				continue;
			MEM_PUSH_ROOM(owners, count, room);
			owners[count++] = (struct port_owner){ &m->parties[i], &m->parties[i].interfaces[k] };
		}
	for (size_t i = 0; i < count; i++)
		map_put(&end->ports, owners[i].interface->attachment->port, &owners[i]);
	return owners;
}

/* What reflexive rules remember: none of it is a transaction that rules have changed. */
static int end_flows(struct filter *f, struct ending *end, struct err *e)
{
	own_flows struct filter_flows all = { 0 }, ended = { 0 };
	char table[FILTER_TABLE];

	if (!f->known.sited)
		return 0;
	if (filter_table_name(f->instance, table, e) < 0 || filter_flows_read(f->netlink, table, &all, e) < 0)
		return -EIO;
	struct port_owner *owners = ports_read(end);
	filter_flows_ended(&all, flow_ends, end, &ended);
	map_done(&end->ports);
	free(owners);
	int r = filter_flows_drop(f->netlink, table, &ended, e);
	if (ended.count)
		filter_note_generation(f, -1);
	return r < 0 ? r : (int)ended.count;
}

int filter_end_connections(struct filter *f, const struct filter_model *m, const struct seat *seat, struct err *e)
{
	struct ending end = { .model = m, .seat = seat };

	if (m)
		hosts_read(&end);
	int ended = filter_netlink_connections(f->netlink, connection_ends, &end, e),
	    flows = ended < 0 ? 0 : end_flows(f, &end, e);
	free(end.hosts);
	ended = flows < 0 ? flows : ended + flows;
	if (ended > 0)
		log_detail("network filter: %d connections ended that are not allowed any more", ended);
	return ended < 0 ? ended : 0;
}
