/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. One lock guards directory, locals and what is known to be made; whoever holds it may talk to the kernel,
 * which takes a millisecond for one workspace. A start goes through alone (networks_attach: bridge, elements, names);
 * everything else - the service's messages, newer wishes, the regular look at the kernel - only notes that something changed
 * and leaves the work to one job, so that a hundred changes are one application of the rules.
 *
 * Networks whose last workspace left keep bridge and dnsmasq for a while, as the next one costs less then.
 */
#include "node/network_private.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/own.h"
#include "network/fast.h"
#include "network/link.h"
#include "network/names.h"

#define LOOK_MS 5000 /* between looks at the kernel's rules and counters */
#define RETRY_MS 1000
#define SAVE_MS 200

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
		l->held = before->held;
		l->machine_due = before->machine_due;
		l->machine_busy = before->machine_busy;
	}
	local_free(before);
	map_put(&s->locals, l->wish.id, l);
	return l;
}

/* --- rules --- */

/* All of it, or one workspace when the rest is there already. */
int network_apply(struct networks *s, const char *id, struct err *e)
{
	struct intent i;

	intent_make(s, &i);
	int r = s->applied && id ? filter_add(s->filter, &i.intent, id, e) : filter_apply(s->filter, &i.intent, e);
	intent_done(&i);
	network_fast_changed(s);
	s->applied |= r >= 0;
	if (s->tell)
		loop_post(s->node->loop, network_voices_forget, s);
	return r < 0 ? r : 0;
}

/* --- workspaces come and go --- */

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
		r = network_apply(s, a->id, e);
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
	network_fast_changed(s);
	(void)pthread_mutex_unlock(&s->lock);
	/* They would go with the namespace, but a connection whose end nobody acknowledges holds that for minutes. */
	const struct attachment *all = l ? l->wish.attachments.items : NULL;
	for (size_t i = 0; l && i < l->wish.attachments.count && r == 0; i++)
		if (link_index(all[i].port))
			r = link_remove(all[i].port, e);
	local_free(l);
	return r;
}

/* Rules and connections stay for the run that follows at once; cables and taps go as always. */
int networks_leave(struct networks *s, const char *id, struct err *e)
{
	struct texts ports = { 0 };
	int r = 0;

	(void)pthread_mutex_lock(&s->lock);
	struct local *l = map_get(&s->locals, id);
	const struct attachment *all = l ? l->wish.attachments.items : NULL;
	for (size_t i = 0; l && i < l->wish.attachments.count; i++)
		texts_add(&ports, all[i].port);
	if (l)
		l->pid = 0;
	network_fast_changed(s);
	(void)pthread_mutex_unlock(&s->lock);
	for (size_t i = 0; i < ports.count && r == 0; i++)
		if (link_index(ports.items[i]))
			r = link_remove(ports.items[i], e);
	texts_done(&ports);
	return r;
}

void networks_hold(struct networks *s, const char *id, bool held)
{
	(void)pthread_mutex_lock(&s->lock);
	struct local *l = map_get(&s->locals, id);
	if (l)
		l->held = held;
	(void)pthread_mutex_unlock(&s->lock);
}

int networks_running(struct networks *s, const char *id, uint64_t pid, struct err *e)
{
	(void)pthread_mutex_lock(&s->lock);
	struct local *l = map_get(&s->locals, id);
	if (l)
		l->pid = pid;
	if (l && network_has_learners(s, l))
		loop_post(s->node->loop, network_leases_begin, s);
	int r = l ? network_keep_rates(s, e) : 0;
	(void)pthread_mutex_unlock(&s->lock);
	if (l)
		loop_post(s->node->loop, network_fast_due, s);
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

/* For `carrel why`. */
static void note_problem(struct local *l, int r, const struct err *e)
{
	(void)snprintf(l->problem, sizeof l->problem, "%s", r < 0 ? e->message : "");
}

static int follow_links(struct networks *s, struct local *l, struct err *e)
{
	int r = 0;

	if (l->machine)
		l->machine_due |= l->links_due && l->pid;
	else if (l->links_due && l->pid)
		r = network_compare_links(s, l, e);
	l->links_due &= r < 0;
	return r;
}

/* What fails for one workspace or network (a bridge of the site that is gone) does not hold up the others; no port is made
 * without rules. */
static int work_all(struct networks *s, struct err *e)
{
	struct err one;
	int first = 0, r;

	for (size_t i = 0; i < s->locals.capacity; i++)
		if (s->locals.entries[i].key) {
			struct local *l = s->locals.entries[i].value;
			r = network_carry_all(s, l, &one);
			note_problem(l, r, &one);
			keep_first(r, &one, &first, e);
		}
	if (!s->applied) /* what was given before is known before rules say what ends */
		keep_first(network_look_at_leases(s, &one), &one, &first, e);
	r = s->locals.count || s->applied ? network_apply(s, NULL, &one) : 0;
	keep_first(r, &one, &first, e);
	network_miss_ports(s);
	for (size_t i = 0; i < s->locals.capacity && r == 0; i++)
		if (s->locals.entries[i].key) {
			int failed = follow_links(s, s->locals.entries[i].value, &one);
			if (failed < 0)
				note_problem(s->locals.entries[i].value, failed, &one);
			keep_first(failed, &one, &first, e);
		}
	keep_first(network_look_after_carried(s, &one), &one, &first, e);
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

	while (list && r == 0 && (r = fs_next_entry(list, &entry, e)) > 0) {
		r = 0;
		own_str char *path = mem_printf("%s/%s", s->folder, entry->d_name);
		any |= entry->d_name[0] != '.';
		if (entry->d_name[0] != '.' && !map_get(&s->carried, entry->d_name))
			r = names_stop(path, e);
	}
	if (r == 0)
		r = link_list(prefix, sweep_bridge, s, e);
	if (r == 0)
		r = network_sweep_vlans(s, e);
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
	/* the same again is neither news nor urgent: the next look tries it */
	s->failed = r < 0 && strncmp(s->said, e.message, sizeof s->said - 1) != 0;
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
	network_fast_due(s);
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
		if (network_apply(s, NULL, &e) < 0)
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
	if (s->learners)
		network_leases_begin(s);
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

/* --- the directory in its file: at once, and then at most five times a second, as its length grows with the site --- */

static void save_now(struct networks *s)
{
	struct err e = { 0 };

	(void)pthread_mutex_lock(&s->lock);
	json_t *all = s->unsaved ? directory_encode(&s->directory) : NULL;
	s->unsaved = false;
	(void)pthread_mutex_unlock(&s->lock);
	if (all && directory_save(all, s->file, &e) < 0)
		log_error(&e, "networks from the service");
	json_decref(all);
}

static void save_run(void *data) { save_now(data); }

static void save_done(void *data);

static void save_start(void *data)
{
	struct networks *s = data;

	s->save_timer = NULL;
	s->saving = true;
	workers_run(s->node->workers, save_run, save_done, s, false);
}

static void save_done(void *data)
{
	struct networks *s = data;

	(void)pthread_mutex_lock(&s->lock);
	bool more = s->unsaved;
	(void)pthread_mutex_unlock(&s->lock);
	s->saving = more;
	if (more)
		s->save_timer = loop_add_timer(s->node->loop, SAVE_MS, save_start, s);
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
	network_fast_stop(s);
	loop_remove(TAKE(s->timer));
	loop_remove(TAKE(s->retry));
	loop_remove(TAKE(s->lease_timer));
	loop_remove(TAKE(s->save_timer));
	save_now(s);
	s->tell = NULL;
}

void networks_free(struct networks *s)
{
	if (!s)
		return;
	json_decref(s->traffic);
	json_decref(s->lease_traffic);
	network_learned_free(s);
	filter_free(s->filter);
	shaper_free(s->shaper);
	fast_free(s->fast);
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
	s->unsaved |= r == 0;
	bool used = s->locals.count || s->carried.count;
	(void)pthread_mutex_unlock(&s->lock);
	if (r < 0)
		log_error(&e, "networks from the service");
	if (r == 0 && !s->saving)
		save_start(s);
	if (used)
		job_start(s);
}

void networks_update(struct networks *s, const struct assignment *a, const struct report *report)
{
	struct err e = { 0 };

	(void)pthread_mutex_lock(&s->lock);
	struct local *before = map_get(&s->locals, a->id), *l = NULL;
	int r = before ? network_remove_links(&before->wish, a, &e) : 0;
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
	while (list && r == 0 && (r = fs_next_entry(list, &entry, e)) > 0) {
		r = 0;
		own_str char *path = mem_printf("%s/%s", folder, entry->d_name);
		if (entry->d_name[0] != '.')
			r = names_stop(path, e);
	}
	own_str char *bridges = mem_printf("crn%s", instance), *blocks = mem_printf("cri%s", instance);
	if (r == 0)
		r = link_list(bridges, remove_one, e, e);
	if (r == 0)
		r = network_clean_vlans(instance, e);
	if (r == 0)
		r = link_list(blocks, remove_one, e, e);
	if (r == 0)
		r = filter_remove_all(instance, e);
	return r;
}
