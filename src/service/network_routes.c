/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A network is in memory before it is in the database, marked `uncommitted`: a second request for the name, the number or the
 * pool meets it there, and a commit that fails takes it out again. A removal is marked likewise, so that nobody joins what is
 * about to go. Hosts are told after the commit, never before.
 *
 * The shape of a request is not the model's: a user may leave pools to the service or say "none", and define() makes of it
 * what the model's own checks accept. Who may create and remove is the route's affair (routes.c).
 */
#include <string.h>

#include "base/mem.h"
#include "base/own.h"
#include "db/network.h"
#include "service/event.h"
#include "service/handlers.h"
#include "service/network.h"
#include "service/routes.h"

/* --- what is shown --- */

struct network_view {
	char *name, *ipv4, *ipv6, *zone, *bridge, *created;
	unsigned kind;
	uint64_t number, vlan, mtu, used, resting, free;
	struct texts reserved, dns;
	struct pairs labels;
};
#define V(member) offsetof(struct network_view, member)
static const struct field view_fields[] = {
	{ "name", FIELD_TEXT, V(name), "name", .required = true },
	{ "kind", FIELD_ENUM, V(kind), "kind", .required = true, .names = network_kind_names },
	{ "number", FIELD_NUMBER, V(number), "number in the site", .required = true },
	{ "ipv4", FIELD_TEXT, V(ipv4), "IPv4 pool" },
	{ "ipv6", FIELD_TEXT, V(ipv6), "IPv6 pool" },
	{ "reserved", FIELD_TEXTS, V(reserved), "addresses that are not given out" },
	{ "zone", FIELD_TEXT, V(zone), "DNS zone", .required = true },
	{ "bridge", FIELD_TEXT, V(bridge), "bridge of the site" },
	{ "vlan", FIELD_NUMBER, V(vlan), "VLAN on it" },
	{ "mtu", FIELD_NUMBER, V(mtu), "largest packet in bytes", .required = true },
	{ "dns", FIELD_TEXTS, V(dns), "servers for names outside" },
	{ "labels", FIELD_PAIRS, V(labels), "labels" },
	{ "used", FIELD_NUMBER, V(used), "interfaces on it", .required = true },
	{ "resting", FIELD_NUMBER, V(resting), "addresses that rest before another workspace gets them", .required = true },
	{ "free", FIELD_NUMBER, V(free), "free IPv4 addresses" },
	{ "created", FIELD_TEXT, V(created), "when it was created", .required = true },
	{ 0 },
};
const struct shape network_view_shape = { "network-view", sizeof(struct network_view), view_fields, "A network of the site.",
					  .open = true };

static json_t *to_json(const struct net *n)
{
	json_t *json = encode(&network_shape, &n->def);
	own_str char *created = service_time_text(n->created_ms);
	char zone[80];

	(void)json_object_set_new(json, "kind", json_string(network_kind_names[n->def.kind]));
	(void)json_object_set_new(json, "zone", json_string(network_zone(&n->def, zone)));
	(void)json_object_set_new(json, "mtu", json_integer((json_int_t)n->def.mtu));
	(void)json_object_set_new(json, "used", json_integer((json_int_t)n->used));
	(void)json_object_set_new(json, "resting", json_integer((json_int_t)n->resting));
	if (n->def.ipv4)
		(void)json_object_set_new(json, "free", json_integer((json_int_t)pool_left(&n->ipv4)));
	(void)json_object_set_new(json, "created", json_string(created ? created : ""));
	return json;
}

int handle_networks_list(struct request *r, struct err *e)
{
	const struct networks *all = r->service->networks;
	json_t *items = json_array();
	struct page page;
	size_t i = 0;
	int result = page_parse(r, &page, e);

	if (result < 0) {
		json_decref(items);
		return result;
	}
	while (i < all->count && all->items[i]->def.number <= (uint64_t)page.after)
		i++;
	for (; i < all->count && json_array_size(items) < page.limit; i++)
		(void)json_array_append_new(items, to_json(all->items[i]));
	json_t *answer = json_pack("{s:o}", "items", items);
	if (i < all->count && i > 0) {
		own_str char *next = mem_printf("%llu", (unsigned long long)all->items[i - 1]->def.number);
		(void)json_object_set_new(answer, "next", json_string(next));
	}
	request_reply_json(r, 200, answer);
	return 0;
}

static int need(struct request *r, struct net **ret_net, struct err *e)
{
	*ret_net = network_by_name(r->service, r->params[0]);
	if (*ret_net)
		return 0;
	(void)err_set(e, ERR_NOT_FOUND, "no network '%.64s'", r->params[0]);
	return err_hint(e, "carrel network ls");
}

static json_t *with_users(const struct request *r, const struct net *n)
{
	json_t *users = json_array(), *json = to_json(n);

	for (size_t i = 0; i < r->service->workspaces.count; i++) {
		const struct workspace *w = r->service->workspaces.items[i];
		const struct attachment *a = w->wish.attachments.items;
		for (size_t j = 0; j < w->wish.attachments.count; j++) {
			if (!str_eq(a[j].network, n->def.name) || !workspace_visible(w, &r->who))
				continue;
			json_t *one = json_pack("{s:s, s:s, s:s}", "workspace", w->name, "device", a[j].device, "mac",
						a[j].mac);
			if (a[j].ipv4)
				(void)json_object_set_new(one, "ipv4", json_string(a[j].ipv4));
			if (a[j].ipv6)
				(void)json_object_set_new(one, "ipv6", json_string(a[j].ipv6));
			(void)json_array_append_new(users, one);
		}
	}
	(void)json_object_set_new(json, "workspaces", users);
	return json;
}

int handle_network_show(struct request *r, struct err *e)
{
	struct net *n;
	int result = need(r, &n, e);

	if (result < 0)
		return result;
	request_reply_tagged(r, 200, with_users(r, n));
	return 0;
}

/* --- create and remove --- */

/* "none" for a family that the network shall not have. */
static int check_pool(const char *text, struct err *e) { return str_eq(text, "none") ? 0 : network_check_prefix(text, e); }

#define N(member) offsetof(struct network, member)
static const struct field create_fields[] = {
	{ "name", FIELD_TEXT, N(name), "name, unique in the site", .required = true, .check = name_check },
	{ "kind", FIELD_ENUM, N(kind), "kind", .names = network_kind_names },
	{ "ipv4", FIELD_TEXT, N(ipv4), "IPv4 pool; a free /24 is chosen when missing (kinds nat and isolated); none: no IPv4",
	  .check = check_pool },
	{ "ipv6", FIELD_TEXT, N(ipv6),
	  "IPv6 pool; a /64 of the site's own prefix when missing (kinds nat and isolated); none: no IPv6",
	  .check = check_pool },
	{ "reserved", FIELD_TEXTS, N(reserved), "addresses and FIRST-LAST ranges that are not given out", .max = 256,
	  .check = network_check_range },
	{ "zone", FIELD_TEXT, N(zone), "DNS zone of its workspaces; NAME.carrel when missing", .max = 79 },
	{ "bridge", FIELD_TEXT, N(bridge), "bridge of the site (kind bridge)", .max = NETWORK_DEVICE_LENGTH,
	  .check = network_check_device },
	{ "vlan", FIELD_NUMBER, N(vlan), "VLAN on it, or on any other interface of the site", .max = 4094 },
	{ "mtu", FIELD_NUMBER, N(mtu), "largest packet in bytes", .min = 576, .max = 65521, .preset = 1500 },
	{ "dns", FIELD_TEXTS, N(dns), "servers for names outside; the host's when missing", .max = 8,
	  .check = network_check_address },
	{ "labels", FIELD_PAIRS, N(labels), "free key-value pairs", .check = name_check_key },
	{ 0 },
};
const struct shape network_create_shape = { "network-create", sizeof(struct network), create_fields, "A network to make." };

struct network_commit {
	struct request *request;
	struct service *service;
	char *name;
	bool removed;
};

static void committed(void *data, const struct err *failure)
{
	struct network_commit *c = data;
	struct net *n = network_by_name(c->service, c->name);

	if (failure) {
		if (n && c->removed)
			n->uncommitted = false;
		else if (n)
			network_free(c->service, n);
		request_fail(c->request, failure);
	} else if (c->removed) {
		if (n)
			network_free(c->service, n);
		network_tell_network(c->service, NULL, c->name);
		request_reply_nothing(c->request);
	} else {
		n->uncommitted = false;
		network_tell_network(c->service, n, NULL);
		request_reply_json(c->request, 201, to_json(n));
	}
	events_committed(c->service);
	free(c->name);
	free(c);
}

static void commit(struct request *r, const char *name, bool removed, struct db_batch *b)
{
	struct network_commit *c = mem_alloc(sizeof *c);

	*c = (struct network_commit){ r, r->service, mem_strdup(name), removed };
	db_submit(r->service->db, b, r->service->loop, committed, c);
}

/* The whole definition, with what the service decides; all rules of the model are met. */
static int define(struct service *s, const struct network *asked, struct network *ret_network, struct err *e)
{
	json_t *json = encode(&network_create_shape, asked);
	struct network probe = { .number = s->networks->last_network + 1, .ipv4 = asked->ipv4, .ipv6 = asked->ipv6 };
	bool own = asked->kind == NETWORK_NAT || asked->kind == NETWORK_ISOLATED;
	int r = own ? network_choose_pools(s, &probe, !asked->ipv6 && asked->mtu >= 1280, e) : 0;

	const char *const keys[] = { "ipv4", "ipv6" }, *const values[] = { probe.ipv4, probe.ipv6 };
	for (int i = 0; r == 0 && i < 2; i++)
		(void)(str_eq(values[i], "none") || !values[i] ? json_object_del(json, keys[i]) :
								  json_object_set_new(json, keys[i], json_string(values[i])));
	if (probe.ipv4 != asked->ipv4)
		free(probe.ipv4);
	if (probe.ipv6 != asked->ipv6)
		free(probe.ipv6);
	(void)json_object_set_new(json, "number", json_integer((json_int_t)(s->networks->last_network + 1)));
	if (r == 0)
		r = decode_json(json, "network", &network_shape, ret_network, e);
	json_decref(json);
	return r;
}

int handle_networks_create(struct request *r, struct err *e)
{
	const struct network *asked = r->value;
	struct service *s = r->service;
	struct net *n = mem_alloc(sizeof *n);
	int result = define(s, asked, &n->def, e);

	if (result == 0)
		result = network_check_new(s, &n->def, e);
	if (result < 0) {
		network_done(&n->def);
		free(n);
		return result;
	}
	n->created_ms = service_now_ms();
	n->uncommitted = true;
	network_insert(s, n);
	json_t *json = encode(&network_shape, &n->def);
	own_str char *text = json_dumps(json, JSON_COMPACT);
	json_decref(json);
	own_str char *last = mem_printf("%llu", (unsigned long long)s->networks->last_network);
	struct db_batch *b = db_batch_new();
	db_network_insert(b, &(struct db_network){ n->def.number, n->created_ms, n->def.name, text });
	db_site_put(b, "network", last);
	event_add(s, b, "network.created", n->def.name, r->who.uid,
		  json_pack("{s:s}", "kind", network_kind_names[n->def.kind]));
	commit(r, n->def.name, false, b);
	return 0;
}

/* Those of deployments that are not committed count, too: they are in memory. */
int handle_network_remove(struct request *r, struct err *e)
{
	own_strbuf struct str users = { 0 };
	struct net *n;
	int result = need(r, &n, e);

	if (result == 0)
		result = request_check_match(r, with_users(r, n), "the network", e);
	if (result < 0)
		return result;
	if (n->used) {
		network_users(r->service, n, &r->who, &users);
		(void)err_set(e, ERR_CONFLICT, "network '%s' is in use by %s", n->def.name,
			      users.length ? users.bytes : "a workspace");
		return err_hint(e, "disconnect or remove them first: carrel disconnect WORKSPACE %s", n->def.name);
	}
	if (n->uncommitted)
		return err_set(e, ERR_CONFLICT, "network '%s' is just being created or removed", n->def.name);
	n->uncommitted = true;
	struct db_batch *b = db_batch_new();
	db_network_delete(b, n->def.number, n->def.name);
	event_add(r->service, b, "network.removed", n->def.name, r->who.uid, json_object());
	network_leave_rest(r->service, n);
	commit(r, n->def.name, true, b);
	return 0;
}
