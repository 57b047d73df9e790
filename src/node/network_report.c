/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Questions about the networks of this host: what the filter shall know, what was counted, and who may talk to whom. Nothing
 * here changes anything. An intent borrows from directory and locals, so it lives under the lock under which it was made; a
 * question is judged on an intent like the one that the filter was compiled from, and so answers for rules that are wished,
 * even while they are being applied.
 *
 * Counts are as the workspace sees them: bytes in are those that the host sent to its port, with those that went by the short
 * way.
 */
#include "node/network_private.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"
#include "network/fast.h"

void bridge_of(const struct networks *s, const struct network *w, char out[static NETWORK_DEVICE_LENGTH + 1])
{
	const struct carried *c = map_get(&s->carried, w->name);

	if (c)
		(void)snprintf(out, NETWORK_DEVICE_LENGTH + 1, "%s", c->bridge);
	else if (w->kind == NETWORK_BRIDGE)
		(void)snprintf(out, NETWORK_DEVICE_LENGTH + 1, "%s", w->bridge);
	else
		(void)snprintf(out, NETWORK_DEVICE_LENGTH + 1, "crn%s%" PRIx64, s->instance, w->number & 0xffffff);
}

void intent_done(struct intent *i)
{
	free(i->networks);
	free(i->workspaces);
	free(i->members); /* borrowed inside */
	free(i->bridges);
	free(i->learned);
}

void intent_make(struct networks *s, struct intent *out)
{
	size_t at = 0;

	*out = (struct intent){ .networks = mem_alloc_array(s->directory.networks.count + 1, sizeof *out->networks),
				.workspaces = mem_alloc_array(s->locals.count + 1, sizeof *out->workspaces),
				.members = mem_alloc_array(s->directory.members.count + 1, sizeof *out->members),
				.learned = mem_alloc_array(s->locals.count + 1, NETWORK_INTERFACES * sizeof *out->learned),
				.bridges = mem_alloc_array(s->directory.networks.count + 1, sizeof *out->bridges) };
	for (size_t i = 0; i < s->directory.networks.capacity; i++)
		if (s->directory.networks.entries[i].key) {
			const struct network *w = s->directory.networks.entries[i].value;
			bridge_of(s, w, out->bridges[at]);
			out->networks[at] = (struct filter_network){ w, out->bridges[at] };
			at++;
		}
	out->intent.network_count = at;
	at = 0;
	for (size_t i = 0; i < s->directory.members.capacity; i++)
		if (s->directory.members.entries[i].key)
			out->members[at++] = *(const struct member *)s->directory.members.entries[i].value;
	out->intent.member_count = at;
	at = 0;
	for (size_t i = 0; i < s->locals.capacity; i++)
		if (s->locals.entries[i].key) {
			const struct assignment *a = &((const struct local *)s->locals.entries[i].value)->wish;
			const char **learned = out->learned + at * NETWORK_INTERFACES;
			for (size_t j = 0; j < a->attachments.count && j < NETWORK_INTERFACES; j++)
				learned[j] = network_learned(s, ((const struct attachment *)a->attachments.items)[j].port);
			out->workspaces[at++] = (struct filter_workspace){
				a->id, a->spec, a->attachments.items, a->attachments.count, a->owner_uid, learned
			};
		}
	out->intent.workspace_count = at;
	out->intent.instance = s->instance;
	out->intent.networks = out->networks;
	out->intent.members = out->members;
	out->intent.workspaces = out->workspaces;
	out->intent.metadata_port = s->metadata_port;
}

/* --- what was counted --- */

struct device_counts {
	uint64_t in_bytes, in_packets, out_bytes, out_packets; /* as the workspace sees it */
};

/* /proc/net/dev: what the host receives on a port the workspace has sent. */
static bool read_device(const char *table, const char *port, struct device_counts *out)
{
	own_str char *key = mem_printf(" %s:", port);
	const char *at = strstr(table, key);
	unsigned long long v[10];

	if (!at || sscanf(at + strlen(key), "%llu %llu %*u %*u %*u %*u %*u %*u %llu %llu", &v[0], &v[1], &v[2], &v[3]) != 4)
		return false;
	*out = (struct device_counts){ .out_bytes = v[0], .out_packets = v[1], .in_bytes = v[2], .in_packets = v[3] };
	return true;
}

struct fast_table {
	struct fast_count *items;
	size_t count;
};

static int compare_port(const void *port, const void *item) { return strcmp(port, ((const struct fast_count *)item)->port); }

/* What reached it by the short way is not in the device's count of what the host sent to it. */
static void add_fast(const struct fast_table *t, const char *port, struct device_counts *c)
{
	const struct fast_count *f = t->count ? bsearch(port, t->items, t->count, sizeof *t->items, compare_port) : NULL;

	c->in_bytes += f ? f->bytes : 0;
	c->in_packets += f ? f->packets : 0;
}

static json_t *interfaces_of(const struct networks *s, const struct assignment *a, const char *table,
			     const struct fast_table *fast)
{
	const struct attachment *all = a->attachments.items;
	json_t *list = json_array();

	for (size_t i = 0; i < a->attachments.count; i++) {
		struct device_counts c;
		const char *learned = network_learned(s, all[i].port);
		if (!read_device(table, all[i].port, &c))
			continue;
		add_fast(fast, all[i].port, &c);
		(void)json_array_append_new(list, json_pack("{s:s, s:I, s:I, s:I, s:I}", "port", all[i].port, "in-bytes",
							    (json_int_t)c.in_bytes, "in-packets", (json_int_t)c.in_packets,
							    "out-bytes", (json_int_t)c.out_bytes, "out-packets",
							    (json_int_t)c.out_packets));
		if (learned)
			(void)json_object_set_new(json_array_get(list, json_array_size(list) - 1), "ipv4",
						  json_string(learned));
	}
	return list;
}

static json_t *drops_of(const struct filter_counts *counts, const char *id)
{
	json_t *list = json_array();

	for (size_t i = 0; i < counts->count; i++) {
		const struct filter_count *c = &counts->items[i];
		if (str_eq(c->workspace, id) && !c->allowed && c->packets)
			(void)json_array_append_new(list,
						    json_pack("{s:s, s:s, s:I}", "rule", c->rule, "side",
							      filter_side_names[c->side], "packets", (json_int_t)c->packets));
	}
	return list;
}

json_t *network_read_traffic(struct networks *s)
{
	own_strbuf struct str table = { 0 };
	struct filter_counts counts = { 0 };
	struct fast_table fast = { 0 };
	json_t *items = json_array();

	if (fs_read_file(AT_FDCWD, "/proc/thread-self/net/dev", (size_t)16 << 20, &table, NULL) < 0 ||
	    filter_counters(s->filter, &counts, NULL) < 0)
		return items;
	if (s->fast && fast_counts(s->fast, &fast.items, &fast.count, NULL) < 0)
		fast.count = 0;
	for (char *c = table.bytes; c && *c; c++) /* names are set in blanks: make the first of each line one */
		*c = *c == '\n' ? ' ' : *c;
	for (size_t i = 0; i < s->locals.capacity; i++)
		if (s->locals.entries[i].key) {
			const struct local *l = s->locals.entries[i].value;
			json_t *interfaces = interfaces_of(s, &l->wish, str_text(&table), &fast),
			       *drops = drops_of(&counts, l->wish.id);
			(void)json_array_append_new(items,
						    json_pack("{s:s, s:o, s:o, s:s}", "workspace", l->wish.id, "interfaces",
							      interfaces, "dropped", drops, "problem", l->problem));
		}
	filter_counts_done(&counts);
	free(fast.items);
	return items;
}

/* --- questions --- */

/* An id, a name that one member has, or an address. */
static struct filter_end end_of(const struct networks *s, const char *text)
{
	const struct member *m = map_get(&s->directory.members, text);

	for (size_t i = 0; i < s->directory.members.capacity && !m; i++) {
		const struct member *one = s->directory.members.entries[i].key ? s->directory.members.entries[i].value : NULL;
		const struct member_address *a = one ? one->addresses.items : NULL;
		if (one && str_eq(one->name, text))
			m = one;
		for (size_t j = 0; one && !m && j < one->addresses.count; j++)
			if (str_eq(a[j].ipv4, text) || str_eq(a[j].ipv6, text))
				return (struct filter_end){ .workspace = one->id, .address = text };
	}
	if (m)
		return (struct filter_end){ .workspace = m->id };
	return (struct filter_end){ .address = str_eq(text, "wan") ? NULL : text };
}

/* Two workspaces that share a network talk there: each is meant by its address on it. */
static void meet(const struct networks *s, struct filter_end *from, struct filter_end *to, bool six)
{
	const struct member *a = from->workspace ? map_get(&s->directory.members, from->workspace) : NULL,
			    *b = to->workspace ? map_get(&s->directory.members, to->workspace) : NULL;
	const struct member_address *left = a ? a->addresses.items : NULL, *right = b ? b->addresses.items : NULL;

	if (!a || !b || from->address)
		return;
	for (size_t j = 0; j < b->addresses.count; j++)
		for (size_t i = 0; i < a->addresses.count; i++) {
			const char *theirs = six ? right[j].ipv6 : right[j].ipv4, *ours = six ? left[i].ipv6 : left[i].ipv4;
			bool meant = !to->address || str_eq(to->address, right[j].ipv4) || str_eq(to->address, right[j].ipv6);
			if (!str_eq(left[i].network, right[j].network) || !meant || !theirs || !ours)
				continue;
			from->address = ours;
			to->address = theirs;
			return;
		}
}

static int judge(struct networks *s, json_t *message, struct filter_verdict *ret_verdict, struct err *e)
{
	const char *from = json_string_value(json_object_get(message, "from")),
		   *to = json_string_value(json_object_get(message, "to")),
		   *service = json_string_value(json_object_get(message, "service"));
	struct rule_service wanted;
	struct intent i;

	if (!from || !to || !service)
		return err_set(e, ERR_INVALID, "from, to and service are needed");
	int r = rule_parse_service(service, &wanted, e);
	if (r < 0)
		return r;
	struct filter_question question = { .from = end_of(s, from), .to = end_of(s, to), .protocol = wanted.protocol,
						  .port = wanted.port_count ? wanted.ports[0].first : 0,
						  .ipv6 = strchr(from, ':') || strchr(to, ':') };
	meet(s, &question.from, &question.to, question.ipv6);
	intent_make(s, &i);
	r = filter_judge(&i.intent, &question, ret_verdict, e);
	intent_done(&i);
	return r;
}

json_t *networks_judge(struct networks *s, json_t *message)
{
	json_t *id = json_object_get(message, "id");
	struct filter_verdict v = { 0 };
	struct err e = { 0 };

	(void)pthread_mutex_lock(&s->lock);
	int r = judge(s, message, &v, &e);
	(void)pthread_mutex_unlock(&s->lock);
	if (r < 0)
		return json_pack("{s:s, s:O?, s:{s:s, s:s, s:s}}", "type", "judged", "id", id, "error", "kind",
				 err_kind_name(e.kind), "message", e.message, "hint", e.hint);
	return json_pack("{s:s, s:O?, s:b, s:s, s:s, s:s}", "type", "judged", "id", id, "allowed", v.allowed, "rule", v.rule,
			 "side", filter_side_names[v.side], "workspace", v.workspace);
}

json_t *networks_plan(const struct node *n, const struct assignment *a)
{
	const struct attachment *all = a->attachments.items;
	json_t *lines = json_array();

	(void)n;
	for (size_t i = 0; i < a->attachments.count; i++)
		(void)json_array_append_new(lines,
					    json_sprintf("%s on network %s by port %s: %s%s%s, hardware address %s",
							 all[i].device, all[i].network, all[i].port,
							 all[i].ipv4 ? all[i].ipv4 : "", all[i].ipv4 && all[i].ipv6 ? ", " : "",
							 all[i].ipv6 ? all[i].ipv6 : "", all[i].mac));
	if (!a->attachments.count)
		(void)json_array_append_new(lines, json_string(a->spec->network == NETWORK_HOST ?
								       "the host's network" :
								       "own network namespace, loopback only"));
	return lines;
}
