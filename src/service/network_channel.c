/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. Each host knows the whole directory of the site: all of it after its hello, then every change as it is committed.
 * What was told of a workspace is kept as text, so that only what differs is told again. A member is told before the assignment
 * that needs it.
 *
 * Inwards come counters and drops (levels, the newest counts, kept in memory only) and the answers of a host's judge.
 */
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/own.h"
#include "model/rule.h"
#include "service/handlers.h"
#include "service/host.h"
#include "service/network.h"
#include "service/routes.h"

#define JUDGE_WAIT_MS 10000

/* --- the directory --- */

static void tell_everyone(struct service *s, json_t *message)
{
	for (struct host *h = s->hosts; h; h = h->next)
		if (host_connected(h))
			host_send(h, json_incref(message));
	json_decref(message);
}

static json_t *counters_of(const struct workspace *w, const struct attachment *a);

/* The network's, or what the site's DHCP gave as the host told last; NULL: none that is known. */
static const char *ipv4_of(const struct workspace *w, const struct attachment *a)
{
	const char *learned = a->ipv4 ? NULL : json_string_value(json_object_get(counters_of(w, a), "ipv4"));
	struct err ignored;

	return learned && network_check_address(learned, &ignored) == 0 ? learned : a->ipv4;
}

static json_t *member_of(const struct workspace *w)
{
	const struct attachment *a = w->wish.attachments.items;
	json_t *addresses = json_array(), *groups = json_array();

	for (size_t i = 0; i < w->wish.attachments.count; i++) {
		char text[NETWORK_ADDRESS_SIZE];
		json_t *one = json_pack("{s:s, s:I, s:s}", "network", a[i].network, "number", (json_int_t)a[i].number, "mac",
					a[i].mac);
		const char *const keys[] = { "ipv4", "ipv6" }, *const values[] = { ipv4_of(w, &a[i]), a[i].ipv6 };
		for (int j = 0; j < 2; j++) {
			if (!values[j])
				continue;
			network_address(values[j], text);
			(void)json_object_set_new(one, keys[j], json_string(text));
		}
		(void)json_array_append_new(addresses, one);
	}
	for (size_t i = 0; i < w->wish.spec->groups.count; i++)
		(void)json_array_append_new(groups, json_string(w->wish.spec->groups.items[i]));
	return json_pack("{s:s, s:s, s:I, s:o, s:o}", "id", w->id, "name", w->name, "owner", (json_int_t)w->owner_uid, "groups",
			 groups, "addresses", addresses);
}

static json_t *directory(bool full, const char *key, json_t *items)
{
	return json_pack("{s:s, s:b, s:o}", "type", "networks", "full", full, key, items);
}

void network_tell_all(struct service *s, struct host *h)
{
	json_t *networks = json_array(), *members = json_array();

	for (size_t i = 0; i < s->networks->count; i++)
		(void)json_array_append_new(networks, encode(&network_shape, &s->networks->items[i]->def));
	for (size_t i = 0; i < s->workspaces.count; i++) {
		struct workspace *w = s->workspaces.items[i];
		json_t *member = w->wish.attachments.count ? member_of(w) : NULL;
		free(w->told);
		w->told = member && !w->uncommitted ? json_dumps(member, JSON_COMPACT) : NULL;
		if (member)
			(void)json_array_append_new(members, member);
	}
	json_t *message = directory(true, "networks", networks);
	(void)json_object_set_new(message, "members", members);
	host_send(h, message);
}

void network_tell(struct service *s, struct workspace *w)
{
	json_t *member = w->wish.attachments.count ? member_of(w) : NULL;
	own_str char *text = member ? json_dumps(member, JSON_COMPACT) : NULL;

	if (str_eq(text, w->told)) {
		json_decref(member);
		return;
	}
	if (member)
		tell_everyone(s, directory(false, "members", json_pack("[o]", member)));
	else
		tell_everyone(s, directory(false, "gone", json_pack("[s]", w->id)));
	free(w->told);
	w->told = TAKE(text);
}

void network_tell_gone(struct service *s, const char *workspace)
{
	tell_everyone(s, directory(false, "gone", json_pack("[s]", workspace)));
}

void network_tell_network(struct service *s, const struct net *n, const char *gone)
{
	if (n)
		tell_everyone(s, directory(false, "networks", json_pack("[o]", encode(&network_shape, &n->def))));
	else
		tell_everyone(s, directory(false, "gone-networks", json_pack("[s]", gone)));
}

/* --- traffic --- */

static void traffic_gone(struct workspace *w)
{
	json_decref(w->traffic);
	w->traffic = NULL;
}

static bool has_learners(const struct workspace *w)
{
	const struct attachment *a = w->wish.attachments.items;

	for (size_t i = 0; i < w->wish.attachments.count; i++)
		if (!a[i].ipv4)
			return true;
	return false;
}

void network_on_traffic(struct host *h, json_t *message)
{
	json_t *item;
	size_t i;

	json_array_foreach(json_object_get(message, "items"), i, item) {
		const char *id = json_string_value(json_object_get(item, "workspace"));
		struct workspace *w = id ? workspace_by_id(h->service, id) : NULL;
		if (!w || !str_eq(w->host, h->name))
			continue;
		traffic_gone(w);
		w->traffic = json_incref(item);
		if (!w->uncommitted && has_learners(w))
			network_tell(h->service, w);
	}
}

static json_t *counters_of(const struct workspace *w, const struct attachment *a)
{
	json_t *item;
	size_t i;

	json_array_foreach(json_object_get(w->traffic, "interfaces"), i, item) {
		if (str_eq(json_string_value(json_object_get(item, "port")), a->port) ||
		    str_eq(json_string_value(json_object_get(item, "device")), a->device))
			return item;
	}
	return NULL;
}

/* Counters of a workspace; a new reference, NULL: nothing reported. */
static json_t *interfaces_of(const struct workspace *w)
{
	const struct attachment *a = w->wish.attachments.items;
	json_t *list = json_array();

	for (size_t i = 0; i < w->wish.attachments.count; i++) {
		json_t *one = encode(&attachment_shape, &a[i]), *counters = counters_of(w, &a[i]), *value;
		const char *key;
		json_object_foreach(counters, key, value) {
			if (!json_object_get(one, key))
				(void)json_object_set(one, key, value);
		}
		(void)json_array_append_new(list, one);
	}
	return list;
}

static json_t *traffic_of(const struct workspace *w)
{
	json_t *dropped = json_object_get(w->traffic, "dropped");
	return json_pack("{s:o, s:o}", "interfaces", interfaces_of(w), "dropped",
			 json_is_array(dropped) ? json_incref(dropped) : json_array());
}

struct interface_view {
	char *network, *device, *port, *mac, *ipv4, *ipv6;
	uint64_t number;
	void *rates;
};
#define I(member) offsetof(struct interface_view, member)
static const struct field interface_fields[] = {
	{ "network", FIELD_TEXT, I(network), "network", .required = true },
	{ "number", FIELD_NUMBER, I(number), "number in the site", .required = true },
	{ "device", FIELD_TEXT, I(device), "name inside", .required = true },
	{ "port", FIELD_TEXT, I(port), "name on the host", .required = true },
	{ "mac", FIELD_TEXT, I(mac), "hardware address", .required = true },
	{ "ipv4", FIELD_TEXT, I(ipv4), "ADDRESS/LENGTH; the address alone when the site's DHCP gave it" },
	{ "ipv6", FIELD_TEXT, I(ipv6), "ADDRESS/LENGTH" },
	{ "rates", FIELD_OBJECT, I(rates), "bandwidth", .shape = &network_rates_shape },
	{ 0 },
};
static const struct shape interface_view_shape = { "interface-view", sizeof(struct interface_view), interface_fields,
					    "An interface of a workspace.", .open = true };

struct traffic_view {
	struct objects interfaces;
	json_t *dropped;
};
#define T(member) offsetof(struct traffic_view, member)
static const struct field traffic_fields[] = {
	{ "interfaces", FIELD_OBJECTS, T(interfaces), "its interfaces, with the counters that the host told last",
	  .required = true, .shape = &interface_view_shape },
	{ "dropped", FIELD_JSON, T(dropped), "what was dropped: rule, packets and the time of the last", .required = true },
	{ 0 },
};
const struct shape traffic_shape = { "traffic", sizeof(struct traffic_view), traffic_fields,
				     "What passed and what was dropped.", .open = true };

int handle_workspace_traffic(struct request *r, struct err *e)
{
	struct workspace *w;
	int result = workspace_find(r, r->params[0], &w, e);

	if (result == 0)
		request_reply_json(r, 200, traffic_of(w));
	return result;
}

static void count_interfaces(struct service *s, struct str *text, const char *key)
{
	for (size_t i = 0; i < s->workspaces.count; i++) {
		const struct workspace *w = s->workspaces.items[i];
		const struct attachment *a = w->wish.attachments.items;
		for (size_t j = 0; j < w->wish.attachments.count; j++) {
			json_t *counter = json_object_get(counters_of(w, &a[j]), key);
			own_str char *name = mem_strdup(key);
			for (char *c = name; *c; c++)
				*c = *c == '-' ? '_' : *c;
			if (json_is_integer(counter))
				str_printf(text, "carrel_interface_%s_total{workspace=\"%s\",network=\"%s\"} %lld\n", name,
					   w->name, a[j].network, (long long)json_integer_value(counter));
		}
	}
}

void network_metrics(struct service *s, struct str *text)
{
	static const struct {
		const char *key, *help;
	} counters[] = { { "in-bytes", "Bytes towards the workspace." }, { "in-packets", "Packets towards the workspace." },
			 { "out-bytes", "Bytes from the workspace." }, { "out-packets", "Packets from the workspace." } };

	str_puts(text, "# TYPE carrel_network_addresses gauge\n# HELP carrel_network_addresses Attachments of a network.\n");
	for (size_t i = 0; i < s->networks->count; i++) {
		const struct net *n = s->networks->items[i];
		str_printf(text, "carrel_network_addresses{network=\"%s\",state=\"used\"} %zu\n", n->def.name, n->used);
		str_printf(text, "carrel_network_addresses{network=\"%s\",state=\"resting\"} %zu\n", n->def.name, n->resting);
	}
	for (size_t i = 0; i < ARRAY_SIZE(counters); i++) {
		own_str char *name = mem_strdup(counters[i].key);
		for (char *c = name; *c; c++)
			*c = *c == '-' ? '_' : *c;
		str_printf(text, "# TYPE carrel_interface_%s counter\n# HELP carrel_interface_%s %s\n", name, name,
			   counters[i].help);
		count_interfaces(s, text, counters[i].key);
	}
	str_puts(text, "# TYPE carrel_dropped_packets counter\n# HELP carrel_dropped_packets Packets that rules dropped.\n");
	for (size_t i = 0; i < s->workspaces.count; i++) {
		json_t *item;
		size_t j;
		json_int_t sum = 0;
		json_array_foreach(json_object_get(s->workspaces.items[i]->traffic, "dropped"), j, item) {
			sum += json_integer_value(json_object_get(item, "packets"));
		}
		if (sum)
			str_printf(text, "carrel_dropped_packets_total{workspace=\"%s\"} %lld\n", s->workspaces.items[i]->name,
				   (long long)sum);
	}
}

/* --- the judge --- */

struct judged {
	uint64_t id;
	struct request *request;
	struct service *service;
	struct loop_source *timer;
	struct judged *next;
};
static struct judged *waiting;
static uint64_t last_id;

static struct judged *take(uint64_t id)
{
	for (struct judged **at = &waiting; *at; at = &(*at)->next) {
		struct judged *j = *at;
		if (j->id != id)
			continue;
		*at = j->next;
		return j;
	}
	return NULL;
}

static void too_late(void *data)
{
	struct judged *j = take(((struct judged *)data)->id);
	struct err e;

	if (!j)
		return;
	(void)err_set(&e, ERR_TIMEOUT, "the host did not judge in time");
	request_fail(j->request, &e);
	free(j);
}

void network_on_judged(struct host *h, json_t *m)
{
	struct judged *j = take((uint64_t)json_integer_value(json_object_get(m, "id")));
	json_t *error = json_object_get(m, "error");

	(void)h;
	if (!j)
		return;
	loop_remove(j->timer);
	if (error) {
		struct err e;
		const char *kind = json_string_value(json_object_get(error, "kind")),
			   *text = json_string_value(json_object_get(error, "message"));
		(void)err_set(&e, err_kind_from_name(kind ? kind : ""), "%s", text ? text : "the host could not judge");
		request_fail(j->request, &e);
	} else {
		json_t *answer = json_deep_copy(m);
		(void)json_object_del(answer, "type");
		(void)json_object_del(answer, "id");
		request_reply_json(j->request, 200, answer);
	}
	free(j);
}

struct judge_request {
	char *to, *service;
};
static int check_service(const char *text, struct err *e)
{
	struct rule_service ignored;
	return rule_parse_service(text, &ignored, e);
}

static const struct field judge_fields[] = {
	{ "to", FIELD_TEXT, offsetof(struct judge_request, to), "workspace, address, or wan", .required = true, .max = 64 },
	{ "service", FIELD_TEXT, offsetof(struct judge_request, service), "tcp/PORT, udp/PORT or icmp", .required = true,
	  .max = 64, .check = check_service },
	{ 0 },
};
const struct shape judge_shape = { "judge", sizeof(struct judge_request), judge_fields, "A connection that might be opened." };

struct judged_view {
	bool allowed;
	char *rule, *side, *message;
};
#define J(member) offsetof(struct judged_view, member)
static const struct field judged_fields[] = {
	{ "allowed", FIELD_BOOL, J(allowed), "whether it passes", .required = true },
	{ "rule", FIELD_TEXT, J(rule), "the rule that decides" },
	{ "side", FIELD_TEXT, J(side), "whose rule it is" },
	{ "message", FIELD_TEXT, J(message), "the same for people" },
	{ 0 },
};
const struct shape judged_shape = { "judged", sizeof(struct judged_view), judged_fields,
				    "Whether a connection passes, and why.", .open = true };

/* An address, or "wan" for any of it. */
static bool is_outside(const char *text)
{
	struct err ignored;
	return str_eq(text, "wan") || network_check_address(text, &ignored) == 0;
}

/* "from" is a workspace of the caller, or outside (of the WAN, of the site): then the host of the target judges. */
int handle_judge(struct request *r, struct err *e)
{
	const struct judge_request *body = r->value;
	struct workspace *from = NULL, *to = NULL;
	int result = is_outside(r->params[0]) ? 0 : workspace_find(r, r->params[0], &from, e);

	if (result == 0 && !is_outside(body->to))
		result = workspace_find(r, body->to, &to, e);
	if (result == 0 && !from && !to)
		result = err_set(e, ERR_INVALID, "one of the two must be a workspace");
	if (result < 0)
		return result;
	struct host *h = host_find(r->service, from ? from->host : to->host);
	if (!h || !host_connected(h))
		return err_set(e, ERR_UNAVAILABLE, "host %s is not connected", from ? from->host : to->host);
	struct judged *j = mem_alloc(sizeof *j);
	*j = (struct judged){ .id = ++last_id, .request = r, .service = r->service, .next = waiting };
	waiting = j;
	j->timer = loop_add_timer(r->service->loop, JUDGE_WAIT_MS, too_late, j);
	host_send(h, json_pack("{s:s, s:I, s:s, s:s, s:s}", "type", "judge", "id", (json_int_t)j->id, "from",
			       from ? from->id : r->params[0], "to", to ? to->id : body->to, "service", body->service));
	return 0;
}
