/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. What may be asked of networks. A pool that overlaps another network's, or a route that a host has, would take packets
 * away from what is there: it is refused with the other's name. Pools that nobody chose come from the ranges of the setting
 * network-pools: everything that is occupied is sorted once, and the lowest /24 in a gap is taken.
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/own.h"
#include "service/host.h"
#include "service/network.h"

/* --- routes of hosts --- */

struct route_list {
	struct {
		char prefix[POOL_TEXT_SIZE];
		char from[64];
	} *items;
	size_t count, capacity;
};

static void add_route(struct route_list *l, const char *prefix, const char *from)
{
	struct err ignored;

	if (network_check_prefix(prefix, &ignored) < 0 || str_ends(prefix, "/0") || strlen(prefix) >= POOL_TEXT_SIZE)
		return;
	MEM_PUSH_ROOM(l->items, l->count, l->capacity);
	(void)snprintf(l->items[l->count].prefix, POOL_TEXT_SIZE, "%s", prefix);
	(void)snprintf(l->items[l->count++].from, sizeof l->items->from, "%s", from);
}

static bool is_ours(const char *device) { return str_starts(device, "crn"); }

static void read_ipv4(struct route_list *l)
{
	own_file FILE *f = fopen("/proc/net/route", "re");
	char line[256], device[32], address[NETWORK_ADDRESS_SIZE];
	unsigned destination, mask;

	while (f && fgets(line, sizeof line, f)) {
		if (sscanf(line, "%31s %x %*x %*x %*d %*d %*d %x", device, &destination, &mask) != 3 || is_ours(device))
			continue;
		own_str char *prefix = mem_printf("%s/%d", inet_ntop(AF_INET, &destination, address, sizeof address),
						  __builtin_popcount(mask));
		own_str char *from = mem_printf("interface %s", device);
		add_route(l, prefix, from);
	}
}

static void read_ipv6(struct route_list *l)
{
	own_file FILE *f = fopen("/proc/net/ipv6_route", "re");
	char line[256], hex[40], device[32], address[NETWORK_ADDRESS_SIZE];
	unsigned length;

	while (f && fgets(line, sizeof line, f)) {
		unsigned char bytes[16];
		if (sscanf(line, "%32s %x %*s %*s %*s %*s %*s %*s %*s %31s", hex, &length, device) != 3 ||
		    str_eq(device, "lo") || is_ours(device))
			continue;
		for (int i = 0; i < 16; i++)
			if (sscanf(hex + 2 * i, "%2hhx", &bytes[i]) != 1)
				bytes[i] = 0;
		if (bytes[0] >= 0xfe) /* link-local and multicast: every interface has them */
			continue;
		own_str char *prefix = mem_printf("%s/%u", inet_ntop(AF_INET6, bytes, address, sizeof address), length);
		own_str char *from = mem_printf("interface %s", device);
		add_route(l, prefix, from);
	}
}

static struct route_list routes_of_hosts(const struct service *s)
{
	struct route_list l = { 0 };

	for (const struct host *h = s->hosts; h; h = h->next) {
		own_str char *from = mem_printf("host %.50s", h->name);
		json_t *route;
		size_t i;
		json_array_foreach(json_object_get(h->facts, "routes"), i, route) {
			if (json_is_string(route))
				add_route(&l, json_string_value(route), from);
		}
	}
	read_ipv4(&l);
	read_ipv6(&l);
	return l;
}

/* --- pools --- */

static int check_pool(const struct service *s, const struct network *n, const char *pool, const struct route_list *routes,
		      struct err *e)
{
	for (size_t i = 0; pool && i < s->networks->count; i++) {
		const struct network *other = &s->networks->items[i]->def;
		const char *theirs = strchr(pool, ':') ? other->ipv6 : other->ipv4;
		if (theirs && prefix_overlaps(pool, theirs))
			return err_set(e, ERR_CONFLICT, "pool %s overlaps %s of network '%s'", pool, theirs, other->name);
	}
	/* The pool of a bridge is the site's own: the host may well have a route to it. */
	for (size_t i = 0; pool && n->kind != NETWORK_BRIDGE && i < routes->count; i++)
		if (prefix_overlaps(pool, routes->items[i].prefix)) {
			(void)err_set(e, ERR_CONFLICT, "pool %s overlaps the route %s of %s", pool, routes->items[i].prefix,
				      routes->items[i].from);
			return err_hint(e, "choose another pool, or leave it out and one is chosen");
		}
	return 0;
}

int network_check_new(const struct service *s, const struct network *n, struct err *e)
{
	if (s->networks->count >= NETWORK_MOST)
		return err_set(e, ERR_NO_CAPACITY, "the site has %d networks, the most", NETWORK_MOST);
	if (network_by_name(s, n->name))
		return err_set(e, ERR_EXISTS, "network '%s' exists", n->name);
	if (!n->ipv4 && !n->ipv6 && n->kind != NETWORK_BRIDGE) /* there the site's own DHCP gives addresses */
		return err_set(e, ERR_INVALID, "a network of kind %s names its pools: --ipv4, --ipv6 or both",
			       network_kind_names[n->kind]);
	struct route_list routes = routes_of_hosts(s);
	int r = check_pool(s, n, n->ipv4, &routes, e);
	if (r == 0)
		r = check_pool(s, n, n->ipv6, &routes, e);
	free(routes.items);
	return r;
}

struct span {
	uint32_t first, last;
};

static bool span_of(const char *prefix, struct span *ret_span)
{
	char address[NETWORK_ADDRESS_SIZE];
	struct in_addr in;
	uint64_t length;
	const char *slash = strchr(prefix, '/');

	network_address(prefix, address);
	if (inet_pton(AF_INET, address, &in) != 1 || !slash || str_to_u64(slash + 1, 32, &length) < 0)
		return false;
	uint32_t mask = length ? UINT32_MAX << (32 - length) : 0;
	*ret_span = (struct span){ ntohl(in.s_addr) & mask, ntohl(in.s_addr) | ~mask };
	return true;
}

static int compare(const void *a, const void *b)
{
	uint32_t x = ((const struct span *)a)->first, y = ((const struct span *)b)->first;
	return x < y ? -1 : x > y;
}

/* The lowest free /24 of one range; `taken` is ascending. */
static bool free_in(const char *range, const struct span *taken, size_t count, uint32_t *ret_base)
{
	struct span whole;
	if (!span_of(range, &whole) || whole.last - whole.first < 255)
		return false;
	uint64_t base = whole.first;
	for (size_t i = 0; i < count && base + 255 <= whole.last; i++)
		if (taken[i].first <= base + 255 && taken[i].last >= base)
			base = ((uint64_t)taken[i].last | 255) + 1;
	if (base + 255 > whole.last)
		return false;
	*ret_base = (uint32_t)base;
	return true;
}

static int choose_ipv4(const struct service *s, const struct route_list *routes, char **ret_pool, struct err *e)
{
	static const char *const presets[] = { CONFIG_POOLS };
	const struct texts *given = &s->config.network_pools;
	const char *const *ranges = given->count ? (const char *const *)given->items : presets;
	size_t range_count = given->count ? given->count : ARRAY_SIZE(presets), count = 0;
	own_str struct span *taken = mem_alloc_array(s->networks->count + routes->count + 1, sizeof *taken);
	uint32_t base;

	for (size_t i = 0; i < s->networks->count; i++)
		count += s->networks->items[i]->def.ipv4 && span_of(s->networks->items[i]->def.ipv4, &taken[count]);
	for (size_t i = 0; i < routes->count; i++)
		count += span_of(routes->items[i].prefix, &taken[count]);
	qsort(taken, count, sizeof *taken, compare);
	for (size_t i = 0; i < range_count; i++) {
		if (!free_in(ranges[i], taken, count, &base))
			continue;
		*ret_pool = mem_printf("%u.%u.%u.0/24", base >> 24, base >> 16 & 255, base >> 8 & 255);
		return 0;
	}
	(void)err_set(e, ERR_NO_CAPACITY, "no free /24 is left in the ranges of the setting network-pools");
	return err_hint(e, "give a pool with --ipv4, or add a range to network-pools");
}

int network_choose_pools(const struct service *s, struct network *n, bool ipv6, struct err *e)
{
	struct err ignored;
	struct route_list routes = routes_of_hosts(s);
	int r = n->ipv4 ? 0 : choose_ipv4(s, &routes, &n->ipv4, e);

	for (uint64_t i = 0; r == 0 && ipv6 && !n->ipv6 && i < 65536; i++) {
		n->ipv6 = mem_printf("%s:%llx::/64", s->networks->prefix, (unsigned long long)((n->number + i) & 0xffff));
		if (check_pool(s, n, n->ipv6, &routes, &ignored) < 0) {
			free(n->ipv6);
			n->ipv6 = NULL;
		}
	}
	free(routes.items);
	return r;
}

/* --- workspaces --- */

static bool same_port(const struct network_publish *a, const struct network_publish *b)
{
	return a->outside == b->outside && a->udp == b->udp &&
	       (!a->address[0] || !b->address[0] || str_eq(a->address, b->address));
}

static int check_port(const struct request *r, const struct workspace *w, const struct network_publish *p, struct err *e)
{
	for (size_t i = 0; i < r->service->workspaces.count; i++) {
		const struct workspace *other = r->service->workspaces.items[i];
		const struct texts *theirs = &other->wish.spec->publish;
		struct network_publish its;
		if (other == w || (w && !str_eq(other->host, w->host)))
			continue;
		for (size_t j = 0; j < theirs->count; j++) {
			if (network_parse_publish(theirs->items[j], &its, e) < 0 || !same_port(p, &its))
				continue;
			if (!workspace_visible(other, &r->who))
				return err_set(e, ERR_CONFLICT, "port %u/%s is published by a workspace of another user",
					       p->outside, p->udp ? "udp" : "tcp");
			return err_set(e, ERR_CONFLICT, "port %u/%s is published by workspace '%s'", p->outside,
				       p->udp ? "udp" : "tcp", other->name);
		}
	}
	return 0;
}

static bool listed(const struct texts *list, const char *text)
{
	for (size_t i = 0; i < list->count; i++)
		if (str_eq(list->items[i], text))
			return true;
	return false;
}

/* A port of the host leads to a network that the host hides or routes; the default network is one of those, or has no ports. */
static int check_publish_network(const struct request *r, const struct spec *spec, struct err *e)
{
	const struct spec_interface *wanted = spec->networks.items;

	for (size_t i = 0; i < spec->networks.count; i++) {
		const struct net *n = network_by_name(r->service, wanted[i].network);
		if (!n || n->def.kind == NETWORK_NAT || n->def.kind == NETWORK_ROUTED)
			return 0;
	}
	if (!spec->publish.count || !spec->networks.count)
		return 0;
	(void)err_set(e, ERR_INVALID, "ports are published on networks of kind nat or routed, and this workspace is on none");
	return err_hint(e, "on a bridge of the site it is reached at its own address: say who may with 'from'");
}

static int check_publish(const struct request *r, const struct workspace *w, const struct spec *spec, struct err *e)
{
	struct network_publish p, other;
	int result = check_publish_network(r, spec, e);

	for (size_t i = 0; result == 0 && i < spec->publish.count; i++) {
		result = network_parse_publish(spec->publish.items[i], &p, e);
		for (size_t j = 0; result == 0 && j < i; j++)
			if ((result = network_parse_publish(spec->publish.items[j], &other, e)) == 0 && same_port(&p, &other))
				return err_set(e, ERR_INVALID, "publish: '%s' and '%s' are the same port of the host",
					       spec->publish.items[j], spec->publish.items[i]);
		bool kept = w && listed(&w->wish.spec->publish, spec->publish.items[i]);
		if (result == 0 && !kept && p.outside < 1024 && !r->who.admin && config_of(r)->low_ports == WHO_ADMINS) {
			(void)err_set(e, ERR_DENIED, "port %u of the host is published by administrators only", p.outside);
			return err_hint(e, "use a port from 1024 on, or ask an administrator");
		}
		if (result == 0)
			result = check_port(r, w, &p, e);
	}
	return result;
}

int network_check_policy(const struct request *r, const struct workspace *w, const struct spec *spec, struct err *e)
{
	const struct spec_interface *wanted = spec->networks.items;
	bool was_host = w && w->wish.spec->network == NETWORK_HOST;

	if (spec->network == NETWORK_HOST && !was_host && !r->who.admin && config_of(r)->host_network == WHO_ADMINS) {
		(void)err_set(e, ERR_DENIED, "network 'host' is for administrators");
		return err_hint(e, "leave 'network' out, or ask an administrator to deploy it");
	}
	for (size_t i = 0; i < spec->networks.count; i++) {
		const struct net *n = network_by_name(r->service, wanted[i].network);
		bool kept = false;
		const struct attachment *has = w ? w->wish.attachments.items : NULL;
		for (size_t j = 0; w && j < w->wish.attachments.count; j++)
			kept |= str_eq(has[j].network, wanted[i].network);
		if (n && n->def.kind == NETWORK_BRIDGE && !kept && !r->who.admin && config_of(r)->bridge_networks == WHO_ADMINS)
			return err_set(
				e, ERR_DENIED,
				"network '%s' joins the site's bridge %s: workspaces are connected by administrators only",
				n->def.name, n->def.bridge);
	}
	return check_publish(r, w, spec, e);
}
