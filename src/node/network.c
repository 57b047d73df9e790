/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. One lock guards directory, locals and what is known to be made; whoever holds it may talk to the kernel, which
 * takes a millisecond for one workspace. A start goes through alone (networks_attach: bridge, elements, names); everything else - the
 * service's messages, newer wishes, the regular look at the kernel - only notes that something changed and leaves the work to one job,
 * so that a hundred changes are one application of the rules.
 *
 * Networks whose last workspace left keep bridge and dnsmasq for a while, as the next one costs less then.
 */
#include "node/network_private.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/own.h"
#include "network/link.h"
#include "network/names.h"

#define LOOK_MS 5000       /* between looks at the kernel's rules and counters */
#define RETRY_MS 1000
#define KEEP_MS 60000      /* a network without workspaces */

/* --- names of things --- */

static void instance_of(const struct node *n, char out[static INSTANCE_LENGTH + 1])
{
	own_str char *text = mem_printf("%s %s", n->config.state, n->config.name);
	struct digest d = hash_bytes(text, strlen(text));
	char hex[DIGEST_HEX_SIZE];

	(void)digest_hex(&d, hex);
	memcpy(out, hex, INSTANCE_LENGTH);
	out[INSTANCE_LENGTH] = '\0';
}

static char *folder_of(const struct networks *s, const char *name) { return mem_printf("%s/%s", s->folder, name); }

/* --- locals --- */

static int copy_wish(const struct assignment *from, struct assignment *to, struct err *e)
{
	json_t *json = encode(&assignment_shape, from);
	int r = decode_json(json, "assignment", &assignment_shape, to, e);
	json_decref(json);
	return r;
}

static void local_free(struct local *l)
{
	if (l)
		assignment_done(&l->wish);
	free(l);
}

/* Replaces what is known of it. */
static struct local *put_local(struct networks *s, const struct assignment *a, struct err *e)
{
	struct local *l = mem_alloc(sizeof *l), *before;

	if (copy_wish(a, &l->wish, e) < 0) {
		free(l);
		return NULL;
	}
	before = map_remove(&s->locals, a->id);
	if (before) {
		l->pid = before->pid;
		l->machine_due = before->machine_due;
		l->machine_busy = before->machine_busy;
	}
	local_free(before);
	map_put(&s->locals, l->wish.id, l);
	return l;
}

/* --- rules --- */

/* All of it, or one workspace when the rest is there already. */
static int apply(struct networks *s, const char *id, struct err *e)
{
	struct intent i;

	intent_make(s, &i);
	int r = s->applied && id ? filter_add(s->filter, &i.intent, id, e) : filter_apply(s->filter, &i.intent, e);
	intent_done(&i);
	s->applied |= r >= 0;
	return r < 0 ? r : 0;
}

/* --- carrying a network --- */

static int make_bridge(struct networks *s, const struct network *w, const char *bridge, struct err *e)
{
	char four[NETWORK_ADDRESS_SIZE + 4] = "", six[NETWORK_ADDRESS_SIZE + 4] = "", address[NETWORK_ADDRESS_SIZE];
	unsigned length;

	if (w->ipv4) {
		network_gateway(w->ipv4, address, &length);
		(void)snprintf(four, sizeof four, "%s/%u", address, length);
	}
	if (w->ipv6) {
		network_gateway(w->ipv6, address, &length);
		(void)snprintf(six, sizeof six, "%s/%u", address, length);
	}
	const struct link_bridge b = { bridge, *four ? four : NULL, *six ? six : NULL, (uint32_t)w->number, (uint32_t)w->mtu };
	int r = s->forwarding ? 0 : link_forwarding(e);
	s->forwarding |= r == 0;
	return r < 0 ? r : link_bridge_make(&b, e);
}

static int put_names(struct networks *s, const struct network *w, const char *bridge, struct err *e)
{
	const struct names names = { w, bridge };
	own_str char *folder = folder_of(s, w->name);
	int r = names_start(folder, &names, e);

	if (r == 1)
		loop_post(s->node->loop, network_voices_open, s);
	for (size_t i = 0; i < s->directory.members.capacity && r >= 0; i++)
		if (s->directory.members.entries[i].key)
			r = names_put(folder, &names, s->directory.members.entries[i].value, e);
	return r < 0 ? r : 0;
}

/* The site's: it is only looked at. */
static int find_site_bridge(const struct network *w, const char *bridge, struct err *e)
{
	if (!link_index(bridge)) {
		(void)err_set(e, ERR_NOT_FOUND, "network %s: this host has no bridge %s of the site", w->name, bridge);
		return err_hint(e, "make it, or start the workspace on a host that has it");
	}
	if (str_starts(bridge, "crn") || !link_is_bridge(bridge))
		return err_set(e, ERR_INVALID, "network %s: interface %s is not a bridge of the site", w->name, bridge);
	return 0;
}

/* Its bridge is there, and who answers on it. */
static int carry(struct networks *s, const struct network *w, struct carried **ret_carried, struct err *e)
{
	struct carried *c = map_get(&s->carried, w->name);

	if (!c) {
		c = mem_alloc(sizeof *c);
		c->name = mem_strdup(w->name);
		c->ours = w->kind != NETWORK_BRIDGE;
		bridge_of(s->instance, w, c->bridge);
		map_put(&s->carried, c->name, c);
	}
	c->idle_since_ms = 0;
	*ret_carried = c;
	if (!c->ours)
		return find_site_bridge(w, c->bridge, e);
	if (!link_index(c->bridge)) {
		c->names = false;
		int r = make_bridge(s, w, c->bridge, e);
		if (r == 0)
			r = network_drop_ports(s, w->name, e);
		if (r < 0)
			return r;
	}
	if (c->names)
		return 0;
	int r = put_names(s, w, c->bridge, e);
	c->names = r == 0;
	return r;
}

static int drop(struct networks *s, struct carried *c, struct err *e)
{
	own_str char *folder = folder_of(s, c->name);
	int r = c->ours ? names_stop(folder, e) : 0;

	if (r == 0 && c->ours)
		r = link_remove(c->bridge, e);
	if (r < 0)
		return r;
	(void)map_remove(&s->carried, c->name);
	free(c->name);
	free(c);
	return 0;
}

static bool is_member(void *data, const char *id)
{
	struct networks *s = data;
	return map_get(&s->directory.members, id) || map_get(&s->locals, id);
}

/* Names follow the directory; networks that nobody used for long, or that are no more, go. */
static int look_after_carried(struct networks *s, struct err *e)
{
	size_t count = s->carried.count;
	own_str const void **all = directory_list(&s->carried);
	uint64_t now = loop_now_ms();
	int r = 0;

	for (size_t i = 0; i < count && r == 0; i++) {
		struct carried *c = (struct carried *)(uintptr_t)all[i];
		const struct network *w = map_get(&s->directory.networks, c->name);
		bool used = network_in_use(s, c->name);
		own_str char *folder = folder_of(s, c->name);
		if (used)
			c->idle_since_ms = 0;
		else if (!c->idle_since_ms)
			c->idle_since_ms = now;
		if (!used && (!w || now - c->idle_since_ms > KEEP_MS))
			r = drop(s, c, e);
		else if (w && c->ours)
			r = link_index(c->bridge) ? put_names(s, w, c->bridge, e) : used ? carry(s, w, &c, e) : 0;
		if (r == 0 && w && c->ours && used)
			r = names_sweep(folder, is_member, s, e);
	}
	return r;
}

/* --- interfaces --- */

static char *copy_or_null(const char *text) { return text ? mem_strdup(text) : NULL; }

static char *gateway_or_null(const char *pool)
{
	char address[NETWORK_ADDRESS_SIZE];
	unsigned length;

	if (!pool)
		return NULL;
	network_gateway(pool, address, &length);
	return mem_strdup(address);
}

static const char *name_server(const struct network *w, bool ipv6)
{
	for (size_t i = 0; i < w->dns.count; i++)
		if ((strchr(w->dns.items[i], ':') != NULL) == ipv6)
			return w->dns.items[i];
	return NULL;
}

/* What stands in one is its own. The default route goes by the first interface; on a bridge of the site IPv6's comes by advertisement. */
static void fill_interface(const struct network *w, const char *bridge, const struct attachment *a, bool first, struct launch_interface *out)
{
	char zone[80];
	bool ours = w->kind != NETWORK_BRIDGE;

	*out = (struct launch_interface){ .port = mem_strdup(a->port), .bridge = mem_strdup(bridge), .device = mem_strdup(a->device),
					  .mac = mem_strdup(a->mac), .mtu = (uint32_t)w->mtu, .isolated = ours, .vlan = (uint16_t)w->vlan,
					  .ipv4 = copy_or_null(a->ipv4), .ipv6 = copy_or_null(a->ipv6) };
	out->gateway4 = first && a->ipv4 ? gateway_or_null(w->ipv4) : NULL;
	if (!ours) {
		out->dns[0] = copy_or_null(name_server(w, false));
		out->dns[1] = copy_or_null(name_server(w, true));
		return;
	}
	out->zone = mem_strdup(network_zone(w, zone));
	out->dns[0] = gateway_or_null(w->ipv4);
	out->dns[1] = gateway_or_null(w->ipv6);
	out->gateway6 = first && a->ipv6 ? mem_strdup(LINK_GATEWAY6) : NULL;
	out->pool6 = !first && a->ipv6 ? copy_or_null(w->ipv6) : NULL;
}

static const struct network *network_of(struct networks *s, const struct attachment *a, struct err *e)
{
	const struct network *w = map_get(&s->directory.networks, a->network);

	if (!w) {
		(void)err_set(e, ERR_NOT_FOUND, "this host has not been told about network %s", a->network);
		(void)err_hint(e, "it will be, as soon as the service is connected");
	}
	return w;
}

int network_list_interfaces(struct networks *s, const struct assignment *a, struct launch_interface **ret_list, size_t *ret_count,
			    struct err *e)
{
	const struct attachment *all = a->attachments.items;
	struct launch_interface *list = *ret_list = mem_alloc_array(a->attachments.count + 1, sizeof *list);

	*ret_count = 0;
	for (size_t i = 0; i < a->attachments.count; i++) {
		struct carried *c;
		const struct network *w = network_of(s, &all[i], e);
		int r = w ? carry(s, w, &c, e) : -ENOENT;
		if (r < 0)
			return r;
		fill_interface(w, c->bridge, &all[i], i == 0, &list[(*ret_count)++]);
	}
	return 0;
}

static int attach_locked(struct networks *s, const struct assignment *a, struct isolate_parts *parts, struct err *e)
{
	const struct attachment *all = a->attachments.items;
	int r = network_list_interfaces(s, a, &parts->interfaces, &parts->interface_count, e);

	for (size_t i = 0; i < a->attachments.count && r == 0; i++)
		if (link_index(all[i].port)) /* of the run before, whose namespace the kernel still takes apart */
			r = link_remove(all[i].port, e);
	if (r < 0)
		return r;
	struct local *l = put_local(s, a, e);
	if (!l)
		return -EINVAL;
	l->pid = 0;
	l->machine = isolate_is_machine(a);
	if ((r = network_check_rates(s, e)) == 0)
		r = apply(s, a->id, e);
	if (r < 0)
		local_free(map_remove(&s->locals, a->id));
	return r;
}

int networks_attach(struct networks *s, const struct assignment *a, struct isolate_parts *parts, struct err *e)
{
	(void)pthread_mutex_lock(&s->lock);
	int r = attach_locked(s, a, parts, e);
	(void)pthread_mutex_unlock(&s->lock);
	return r;
}

int networks_detach(struct networks *s, const char *id, struct err *e)
{
	(void)pthread_mutex_lock(&s->lock);
	struct local *l = map_remove(&s->locals, id);
	int r = l ? filter_remove(s->filter, id, e) : 0;
	(void)pthread_mutex_unlock(&s->lock);
	/* They would go with the namespace, but a connection whose end nobody acknowledges holds that for minutes. */
	const struct attachment *all = l ? l->wish.attachments.items : NULL;
	for (size_t i = 0; l && i < l->wish.attachments.count && r == 0; i++)
		if (link_index(all[i].port))
			r = link_remove(all[i].port, e);
	local_free(l);
	return r;
}

int networks_running(struct networks *s, const char *id, uint64_t pid, struct err *e)
{
	(void)pthread_mutex_lock(&s->lock);
	struct local *l = map_get(&s->locals, id);
	if (l)
		l->pid = pid;
	int r = l ? network_keep_rates(s, e) : 0;
	(void)pthread_mutex_unlock(&s->lock);
	return r;
}

/* --- interfaces of a workspace that runs --- */

static bool lists_port(const struct assignment *a, const char *port)
{
	const struct attachment *all = a->attachments.items;

	for (size_t i = 0; i < a->attachments.count; i++)
		if (str_eq(all[i].port, port))
			return true;
	return false;
}

static int add_interface(struct networks *s, const struct local *l, const struct attachment *a, bool first, struct err *e)
{
	struct carried *c;
	struct launch_interface f;
	const struct network *w = network_of(s, a, e);
	int r = w ? carry(s, w, &c, e) : -ENOENT;

	if (r < 0)
		return r;
	own_str char *path = mem_printf("/proc/%" PRIu64 "/ns/net", l->pid);
	own_fd int space = open(path, O_RDONLY | O_CLOEXEC);
	if (space < 0)
		return errno == ENOENT ? 0 : err_errno(e, errno, "open %s", path); /* it has just ended */
	fill_interface(w, c->bridge, a, first, &f);
	uint32_t number = (uint32_t)strtoul(a->device + strcspn(a->device, "0123456789"), NULL, 10);
	const struct link_port p = { .port = f.port, .bridge = f.bridge, .owner = l->wish.id, .device = f.device, .mac = f.mac,
				     .index = LINK_INSIDE_FIRST + number, .mtu = f.mtu, .isolated = f.isolated, .vlan = f.vlan,
				     .ipv4 = f.ipv4, .ipv6 = f.ipv6, .gateway4 = f.gateway4, .gateway6 = f.gateway6, .pool6 = f.pool6 };
	r = link_ports_make(&p, 1, space, e);
	isolate_interface_done(&f);
	return r;
}

/* After the rules were applied, so that a new port meets its own. */
static int compare_links(struct networks *s, struct local *l, struct err *e)
{
	const struct attachment *all = l->wish.attachments.items;
	int r = 0;

	for (size_t i = 0; i < l->wish.attachments.count && r == 0; i++)
		if (!link_index(all[i].port))
			r = add_interface(s, l, &all[i], i == 0, e);
	return r;
}

static int remove_links(const struct assignment *before, const struct assignment *now, struct err *e)
{
	const struct attachment *all = before->attachments.items;
	int r = 0;

	for (size_t i = 0; i < before->attachments.count && r == 0; i++)
		if (!lists_port(now, all[i].port))
			r = link_remove(all[i].port, e);
	return r;
}

/* --- the job: everything as directory and locals say --- */

/* The first of several errors is told. */
static void keep_first(int r, struct err *one, int *first, struct err *e)
{
	if (r < 0 && *first == 0) {
		*first = r;
		if (e)
			*e = *one;
	}
}

/* Networks of workspaces that were found running. */
static int carry_all(const struct local *l, struct networks *s, struct err *e)
{
	const struct attachment *all = l->wish.attachments.items;
	int r = 0;

	for (size_t j = 0; j < l->wish.attachments.count && r == 0; j++) {
		struct carried *c;
		const struct network *w = network_of(s, &all[j], e);
		r = w ? carry(s, w, &c, e) : -ENOENT;
	}
	return r;
}

static int follow_links(struct networks *s, struct local *l, struct err *e)
{
	int r = 0;

	if (l->machine)
		l->machine_due |= l->links_due && l->pid;
	else if (l->links_due && l->pid)
		r = compare_links(s, l, e);
	l->links_due &= r < 0;
	return r;
}

/* What fails for one workspace or network (a bridge of the site that is gone) does not hold up the others; no port is made without rules. */
static int work_all(struct networks *s, struct err *e)
{
	struct err one;
	int first = 0;

	for (size_t i = 0; i < s->locals.capacity; i++)
		if (s->locals.entries[i].key)
			keep_first(carry_all(s->locals.entries[i].value, s, &one), &one, &first, e);
	int r = s->locals.count || s->applied ? apply(s, NULL, &one) : 0;
	keep_first(r, &one, &first, e);
	network_miss_ports(s);
	for (size_t i = 0; i < s->locals.capacity && r == 0; i++)
		if (s->locals.entries[i].key)
			keep_first(follow_links(s, s->locals.entries[i].value, &one), &one, &first, e);
	keep_first(look_after_carried(s, &one), &one, &first, e);
	keep_first(s->rates_failed = network_keep_rates(s, &one), &one, &first, e);
	return first;
}

/* What an agent before this one carried and nobody uses now. */
static int sweep_bridge(void *data, const char *name)
{
	struct networks *s = data;

	for (size_t i = 0; i < s->carried.capacity; i++)
		if (s->carried.entries[i].key && str_eq(((struct carried *)s->carried.entries[i].value)->bridge, name))
			return 0;
	return link_remove(name, NULL);
}

/* There were rates: whether there are still is asked. */
static int find_block(void *data, const char *name)
{
	(void)name;
	((struct networks *)data)->shaped = true;
	return 0;
}

static int sweep_before(struct networks *s, struct err *e)
{
	own_str char *prefix = mem_printf("crn%s", s->instance), *blocks = mem_printf("cri%s", s->instance);
	own_dir DIR *list = opendir(s->folder);
	struct dirent *entry;
	bool any = false;
	int r = 0;

	while (list && r == 0 && (entry = readdir(list))) {
		own_str char *path = mem_printf("%s/%s", s->folder, entry->d_name);
		any |= entry->d_name[0] != '.';
		if (entry->d_name[0] != '.' && !map_get(&s->carried, entry->d_name))
			r = names_stop(path, e);
	}
	if (r == 0)
		r = link_list(prefix, sweep_bridge, s, e);
	if (r == 0)
		r = link_list(blocks, find_block, s, e);
	if (r == 0)
		r = network_keep_rates(s, e);
	if (r == 0 && any && !s->locals.count)
		r = filter_remove_all(s->instance, e);
	return r;
}

static void job_run(void *data)
{
	struct networks *s = data;
	struct err e = { 0 };

	(void)pthread_mutex_lock(&s->lock);
	int r = work_all(s, &e);
	if (r == 0 && !s->swept)
		r = sweep_before(s, &e);
	s->swept |= r == 0;
	(void)pthread_mutex_unlock(&s->lock);
	if (r == 0)
		r = network_connect_machines(s, NULL, &e);
	s->failed = r < 0 && strncmp(s->said, e.message, sizeof s->said - 1) != 0; /* the same again is neither news nor urgent: the next look tries it */
	(void)snprintf(s->said, sizeof s->said, "%s", r < 0 ? e.message : "");
	if (s->failed)
		log_error(&e, "networks");
}

static void job_done(void *data);

static void job_start(struct networks *s)
{
	s->due = true;
	if (s->busy || !s->tell)
		return;
	s->due = false;
	s->busy = true;
	workers_run(s->node->workers, job_run, job_done, s, false);
}

static void on_retry(void *data)
{
	struct networks *s = data;
	s->retry = NULL;
	job_start(s);
}

static void job_done(void *data)
{
	struct networks *s = data;

	s->busy = false;
	if (s->failed && !s->retry)
		s->retry = loop_add_timer(s->node->loop, RETRY_MS, on_retry, s);
	if (s->due)
		job_start(s);
}

/* --- the regular look: rules that somebody changed, and what they counted --- */

static void look_run(void *data)
{
	struct networks *s = data;
	char what[160] = "";
	struct err e = { 0 };

	(void)pthread_mutex_lock(&s->lock);
	int changed = s->applied ? filter_check(s->filter, what, &e) : 0;
	if (changed > 0) {
		if (changed == 1)
			log_warn("the rules of networks were changed by somebody else (%s) and are set right", what);
		else
			log_detail("the rules of networks are applied anew: %s", what);
		if (apply(s, NULL, &e) < 0)
			log_error(&e, "networks");
	}
	s->traffic = s->locals.count && s->applied ? network_read_traffic(s) : NULL;
	(void)pthread_mutex_unlock(&s->lock);
}

static void on_timer(void *data);

static void look_done(void *data)
{
	struct networks *s = data;

	s->looking = false;
	network_voices_open(s);
	if (s->traffic)
		s->tell(s->tell_data, json_pack("{s:s, s:o}", "type", "traffic", "items", TAKE(s->traffic)));
	s->timer = loop_add_timer(s->node->loop, LOOK_MS, on_timer, s);
	job_start(s);
}

static void on_timer(void *data)
{
	struct networks *s = data;

	s->timer = NULL;
	if (!s->locals.count && !s->carried.count) {
		s->timer = loop_add_timer(s->node->loop, LOOK_MS, on_timer, s);
		return;
	}
	s->looking = true;
	workers_run(s->node->workers, look_run, look_done, s, true);
}

/* --- metadata --- */

static json_t *identify(void *data, uint32_t number)
{
	struct networks *s = data;
	json_t *identity = NULL;

	(void)pthread_mutex_lock(&s->lock);
	for (size_t i = 0; i < s->locals.capacity && !identity; i++) {
		const struct local *l = s->locals.entries[i].key ? s->locals.entries[i].value : NULL;
		const struct attachment *all = l ? l->wish.attachments.items : NULL;
		for (size_t j = 0; l && j < l->wish.attachments.count && !identity; j++)
			if ((uint32_t)all[j].number == number)
				identity = metadata_identity(&l->wish, j);
	}
	(void)pthread_mutex_unlock(&s->lock);
	return identity;
}

/* --- life --- */

int networks_new(struct node *n, struct networks **ret_networks, struct err *e)
{
	struct networks *s = mem_alloc(sizeof *s);

	s->node = n;
	instance_of(n, s->instance);
	(void)pthread_mutex_init(&s->lock, NULL);
	(void)pthread_cond_init(&s->told, NULL);
	s->file = mem_printf("%s/node/networks.json", n->config.state);
	s->folder = mem_printf("%s/node/networks", n->config.run);
	s->filter = filter_new(s->instance);
	s->shaper = shaper_new();
	*ret_networks = s;
	if (directory_load(&s->directory, s->file, e) < 0) { /* the service tells it again */
		log_error(e, "networks");
		directory_done(&s->directory);
	}
	return fs_mkdirs(s->folder, 0755, e);
}

void networks_stop(struct networks *s)
{
	metadata_server_free(TAKE(s->metadata));
	network_voices_close(s);
	loop_remove(TAKE(s->timer));
	loop_remove(TAKE(s->retry));
	s->tell = NULL;
}

void networks_free(struct networks *s)
{
	if (!s)
		return;
	json_decref(s->traffic);
	filter_free(s->filter);
	shaper_free(s->shaper);
	for (size_t i = 0; i < s->locals.capacity; i++)
		if (s->locals.entries[i].key)
			local_free(s->locals.entries[i].value);
	for (size_t i = 0; i < s->carried.capacity; i++)
		if (s->carried.entries[i].key) {
			free(((struct carried *)s->carried.entries[i].value)->name);
			free(s->carried.entries[i].value);
		}
	map_done(&s->locals);
	map_done(&s->carried);
	directory_done(&s->directory);
	(void)pthread_cond_destroy(&s->told);
	(void)pthread_mutex_destroy(&s->lock);
	free(s->file);
	free(s->folder);
	free(s);
}

/* What runs: the wish may be another engine already. */
static void set_running(struct local *l, const struct report *r)
{
	l->pid = r->pid;
	l->machine = r->engine ? isolate_ran_as_machine(r) : isolate_is_machine(&l->wish);
	l->links_due = true;
}

void networks_adopt(struct networks *s, const struct assignment *a, const struct report *r)
{
	struct err e = { 0 };
	struct local *l = a->attachments.count ? put_local(s, a, &e) : NULL;

	if (l)
		set_running(l, r);
}

void networks_start(struct networks *s, void (*tell)(void *data, json_t *message), void *data)
{
	struct err e = { 0 };

	s->tell = tell;
	s->tell_data = data;
	if (metadata_server_new(s->node->loop, identify, s, &s->metadata, &e) < 0)
		log_error(&e, "the metadata address is not served");
	else
		s->metadata_port = metadata_server_port(s->metadata);
	s->timer = loop_add_timer(s->node->loop, LOOK_MS, on_timer, s);
	job_start(s);
}

void networks_take(struct networks *s, json_t *message)
{
	struct err e = { 0 };

	(void)pthread_mutex_lock(&s->lock);
	int r = directory_take(&s->directory, message, &e);
	if (r == 0)
		r = directory_save(&s->directory, s->file, &e);
	bool used = s->locals.count || s->carried.count;
	(void)pthread_mutex_unlock(&s->lock);
	if (r < 0)
		log_error(&e, "networks from the service");
	if (used)
		job_start(s);
}

void networks_update(struct networks *s, const struct assignment *a, const struct report *report)
{
	struct err e = { 0 };

	(void)pthread_mutex_lock(&s->lock);
	struct local *before = map_get(&s->locals, a->id), *l = NULL;
	int r = before ? remove_links(&before->wish, a, &e) : 0;
	if (r == 0 && (before || a->attachments.count))
		l = put_local(s, a, &e);
	if (l)
		set_running(l, report);
	(void)pthread_mutex_unlock(&s->lock);
	if (r < 0)
		log_error(&e, "workspace %s", a->id);
}

int networks_settle(struct networks *s, const char *id, struct err *e)
{
	(void)pthread_mutex_lock(&s->lock);
	const struct local *l = map_get(&s->locals, id);
	int r = l && l->links_due ? work_all(s, e) : 0;
	if (r < 0 && !l->links_due) /* it was another one's, or that rates do not fit any more */
		r = s->rates_failed < 0 ? network_keep_rates(s, e) : 0;
	(void)pthread_mutex_unlock(&s->lock);
	return r < 0 ? r : network_connect_machines(s, id, e);
}

static int remove_one(void *data, const char *name) { return link_remove(name, data); }

int networks_clean(const struct node *n, struct err *e)
{
	char instance[INSTANCE_LENGTH + 1];
	own_str char *folder = mem_printf("%s/node/networks", n->config.run);
	own_dir DIR *list = opendir(folder);
	struct dirent *entry;
	int r = 0;

	instance_of(n, instance);
	while (list && r == 0 && (entry = readdir(list))) {
		own_str char *path = mem_printf("%s/%s", folder, entry->d_name);
		if (entry->d_name[0] != '.')
			r = names_stop(path, e);
	}
	own_str char *bridges = mem_printf("crn%s", instance), *blocks = mem_printf("cri%s", instance);
	if (r == 0)
		r = link_list(bridges, remove_one, e, e);
	if (r == 0)
		r = link_list(blocks, remove_one, e, e);
	if (r == 0)
		r = filter_remove_all(instance, e);
	return r;
}
