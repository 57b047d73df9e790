/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What must not be half: a request makes all clones or none, so they are built in memory and in one batch, and the first that
 * cannot be takes back the ones before it. The snapshot that they begin from is one more wish of the original, under a name of
 * its own.
 *
 * Then nothing is remembered of the request. A clone waits (it is not assigned) until its original reports the snapshot; when
 * the original no longer wishes for the snapshot the clone goes, and when no clone needs it the snapshot goes. Both are asked
 * again with each report of any of them, so an answer that was lost, or came while the original was busy, costs time and
 * nothing else.
 *
 * With memory only machines are cloned; of what runs in namespaces the volumes can be, when it rests.
 */
#include "service/clone.h"

#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "base/own.h"
#include "db/journal.h"
#include "db/workspace.h"
#include "service/clone_check.h"
#include "service/event.h"
#include "service/handlers.h"
#include "service/lifecycle.h"
#include "service/network.h"
#include "service/routes.h"
#include "service/views.h"

static void drop_json(json_t **j) { json_decref(*j); }
#define own_json __attribute__((cleanup(drop_json)))

/* --- what may be cloned --- */

static int check_quota(const struct request *r, uint64_t more, struct err *e)
{
	uint64_t count = 0, most = r->service->config.workspaces_per_user;

	for (size_t i = 0; !r->who.admin && i < r->service->workspaces.count; i++)
		count += r->service->workspaces.items[i]->owner_uid == r->who.uid;
	if (r->who.admin || count + more <= most)
		return 0;
	(void)err_set(e, ERR_NO_CAPACITY, "you have %llu workspaces, and one user may have %llu", (unsigned long long)count,
		      (unsigned long long)most);
	return err_hint(e, "remove some, or ask an administrator to raise workspaces-per-user");
}

static char *clone_name(const char *prefix, uint64_t number)
{
	return mem_printf("%s-%llu", prefix, (unsigned long long)number);
}

static int check_names(const struct request *r, const char *prefix, uint64_t count, struct err *e)
{
	for (uint64_t i = 1; i <= count; i++) {
		own_str char *name = clone_name(prefix, i);
		int result = name_check(name, e);
		if (result < 0)
			return result;
		if (!map_get(&r->service->workspaces.by_name, name))
			continue;
		(void)err_set(e, ERR_EXISTS, "the name '%s' is taken", name);
		return err_hint(e, "choose another prefix: --name-prefix");
	}
	return 0;
}

/* --- the clones --- */

static void *copy_of(const struct shape *shape, size_t size, const void *value)
{
	own_json json_t *json = encode(shape, value);
	void *copy = mem_alloc(size);

	if (decode_json(json, "clone", shape, copy, NULL) == 0)
		return copy;
	free(copy);
	return NULL;
}

struct cloning {
	struct service *service;
	const struct workspace *source;
	const char *snapshot, *prefix;
	bool memory;
};

static int make(const struct cloning *k, uint64_t number, struct workspace **ret_workspace, struct err *e)
{
	const struct workspace *source = k->source;
	own_str char *name = clone_name(k->prefix, number);
	struct spec *spec = NULL;
	int result = clone_spec(source->wish.spec, name, &spec, e);

	if (result < 0)
		return result;
	struct workspace *w = mem_alloc(sizeof *w);
	id_new(w->id);
	w->seq = ++k->service->workspaces.last_seq;
	w->created_ms = service_now_ms();
	w->owner_uid = w->wish.owner_uid = source->owner_uid;
	w->host = mem_strdup(source->host);
	w->name = TAKE(name);
	w->wish.id = mem_strdup(w->id);
	w->wish.spec = spec;
	w->wish.stop_timeout_ms = FIELD_NO_PRESET;
	w->wish.image = copy_of(&image_shape, sizeof *w->wish.image, source->wish.image);
	if (source->wish.kernel)
		w->wish.kernel = copy_of(&assignment_kernel_shape, sizeof *w->wish.kernel, source->wish.kernel);
	w->wish.generation = 1;
	w->wish.wish = !k->memory ? WISH_PREPARED : source->wish.wish;
	w->wish.run = k->memory;
	w->wish.origin = mem_alloc(sizeof *w->wish.origin);
	*w->wish.origin = (struct assignment_origin){ .workspace = mem_strdup(source->id), .snapshot = mem_strdup(k->snapshot),
							 .name = mem_strdup(source->name), .number = number,
							 .memory = k->memory };
	w->truth.id = mem_strdup(w->id);
	w->truth.exit_status = FIELD_NO_PRESET;
	*ret_workspace = w;
	return 0;
}

/* Into memory, and with its rows into the batch. */
static int add(const struct cloning *k, struct request *r, struct change *c, uint64_t number, json_t *list, struct err *e)
{
	struct workspace *w = NULL;
	int result = make(k, number, &w, e);

	if (result < 0)
		return result;
	if ((result = network_attach(k->service, &r->who, w, c->batch, e)) < 0) {
		network_reload(k->service, w->id);
		workspace_discard(w);
		return result;
	}
	group_join(k->service, w->owner_uid, w->wish.spec, c->batch);
	workspace_insert(k->service, w);
	workspace_store(w, c->batch, true);
	w->operation = operation_start(k->service, c->batch, "deploy", false, w->id, w->owner_uid);
	event_add(k->service, c->batch, "workspace.created", w->id, w->owner_uid,
		  json_pack("{s:s, s:s, s:s}", "name", w->name, "image", w->wish.spec->image, "clone_of", k->source->name));
	change_add(c, w->id);
	(void)json_array_append_new(list,
				    json_pack("{s:s, s:s, s:s}", "id", w->id, "name", w->name, "operation", w->operation->id));
	return 0;
}

/* As if it had never been asked for. */
static void take_back(struct change *c)
{
	struct service *s = c->service;

	for (size_t i = 0; i < c->other_count; i++) {
		struct workspace *w = workspace_by_id(s, c->others[i]);
		operation_forget(s, TAKE(w->operation));
		workspace_remove(s, w);
		network_reload(s, c->others[i]);
	}
	change_drop(c);
}

static int answer_known_key(struct request *r, const char *key, const char *digest, struct err *e)
{
	char subject[ID_SIZE];
	int status, result = workspace_known_key(r, key, digest, subject, &status, e);

	if (result <= 0)
		return result;
	struct operation *o = operation_by_id(r->service, subject);
	if (!o)
		return err_set(e, ERR_NOT_FOUND, "the operation that this idempotency key began is forgotten");
	request_reply_json(r, status, operation_to_json(o));
	return 1;
}

static int clone_all(struct request *r, struct workspace *source, const struct cloning *k, uint64_t count, const char *key,
		     const char *digest, struct err *e)
{
	struct change *c = change_new(r->service, r);
	own_json json_t *list = json_array();
	int result = 0;

	for (uint64_t i = 1; i <= count && result == 0; i++)
		result = add(k, r, c, i, list, e);
	if (result < 0) {
		take_back(c);
		return result;
	}
	own_str char *name = workspace_clone_snapshot(k->snapshot);
	struct snapshot *n = workspace_add_snapshot(source, k->snapshot, name, service_now_ms(), k->memory);
	db_snapshot_insert(c->batch, &(struct db_snapshot){ n->id, source->id, n->name, n->created_ms, n->memory });
	converge_wish(source, (enum wish)source->wish.wish);
	struct operation *o = lifecycle_begin(c, source, "clone");
	operation_set_result(o, c->batch, json_pack("{s:s, s:O}", "snapshot", k->snapshot, "clones", list));
	workspace_store(source, c->batch, false);
	if (key)
		db_answer_insert(c->batch, &(struct db_answer){ .owner_uid = r->who.uid, .created_ms = service_now_ms(),
								.key = key, .request = digest, .subject = o->id,
								.status = 202 });
	c->status = 202;
	change_commit(c);
	return 0;
}

int handle_workspace_clone(struct request *r, struct err *e)
{
	const struct clone_request *body = r->value;
	const char *key = request_header(r, "Idempotency-Key");
	struct workspace *source;
	char digest[DIGEST_HEX_SIZE], snapshot[ID_SIZE];
	bool memory = false;

	workspace_request_digest(r, digest);
	int result = key ? answer_known_key(r, key, digest, e) : 0;
	if (result != 0)
		return result < 0 ? result : 0;
	result = lifecycle_find(r, &source, e);
	if (result == 0)
		result = clone_check(source, &memory, e);
	if (result == 0)
		result = check_quota(r, body->count, e);
	const char *prefix = body->name_prefix ? body->name_prefix : result == 0 ? source->name : "";
	if (result == 0)
		result = check_names(r, prefix, body->count, e);
	if (result < 0)
		return result;
	id_new(snapshot);
	const struct cloning k = { r->service, source, snapshot, prefix, memory };
	return clone_all(r, source, &k, body->count, key, digest, e);
}

/* --- afterwards --- */

static bool has_snapshot(const struct workspace *source, const char *id)
{
	for (size_t i = 0; i < source->truth.snapshots.count; i++)
		if (str_eq(source->truth.snapshots.items[i], id))
			return true;
	return false;
}

static bool wishes_snapshot(const struct workspace *source, const char *id)
{
	for (size_t i = 0; i < source->snapshots.count; i++)
		if (str_eq(source->snapshots.items[i].id, id))
			return true;
	return false;
}

bool clone_may_begin(struct service *s, const struct workspace *w)
{
	const struct assignment_origin *o = w->wish.origin;
	const struct workspace *source = o && !w->reported ? workspace_by_id(s, o->workspace) : NULL;

	return !o || w->reported || (source && has_snapshot(source, o->snapshot));
}

/* It was never on a host, so nothing of it is anywhere. */
static void drop_clone(struct service *s, struct workspace *w)
{
	struct change *c = change_new(s, NULL);
	struct err why;

	(void)err_set(&why, ERR_UNAVAILABLE, "what it was to be a clone of could not be kept; nothing was cloned");
	if (w->operation)
		operation_end(s, c->batch, TAKE(w->operation), &why, NULL);
	network_release(s, w, c->batch);
	db_workspace_delete(c->batch, w->id);
	char id[ID_SIZE];
	memcpy(id, w->id, sizeof id);
	workspace_remove(s, w);
	wait_changed(s, id);
	change_commit(c);
}

/* Has all that it needs of the snapshot, or never will. One with memory is prepared before it takes that, and suspended when it
 * has it. */
static bool is_made(const struct workspace *w)
{
	unsigned least = w->wish.origin->memory ? STATE_PREPARED + 1 : STATE_PREPARED;

	return w->reported && (w->truth.state >= least || w->wish.wish == WISH_REMOVED);
}

static void follow_clone(struct service *s, const struct workspace *clone)
{
	const struct assignment_origin *o = clone->wish.origin;
	struct workspace *source = workspace_by_id(s, o->workspace);

	if (!source || !is_made(clone) || !wishes_snapshot(source, o->snapshot) || source->operation)
		return;
	for (const struct workspace *w = family_first(&s->workspaces.families, source->id); w; w = w->next_clone)
		if (str_eq(w->wish.origin->snapshot, o->snapshot) && !is_made(w))
			return;
	struct change *c = change_new(s, NULL);
	db_snapshot_delete(c->batch, o->snapshot);
	workspace_drop_snapshot(source, o->snapshot);
	converge_wish(source, (enum wish)source->wish.wish);
	(void)snprintf(c->workspace, sizeof c->workspace, "%s", source->id);
	workspace_store(source, c->batch, false);
	change_commit(c);
}

static void follow_original(struct service *s, const struct workspace *source)
{
	struct workspace *next;

	for (struct workspace *w = family_first(&s->workspaces.families, source->id); w; w = next) {
		next = w->next_clone; /* it may go */
		if (w->reported) /* the snapshot may have stayed because the original was busy */
			follow_clone(s, w);
		if (w->reported || w->uncommitted)
			continue;
		if (has_snapshot(source, w->wish.origin->snapshot))
			converge_assign(w, s);
		else if (!wishes_snapshot(source, w->wish.origin->snapshot) || source->wish.wish == WISH_REMOVED)
			drop_clone(s, w);
	}
}

void clone_follow(struct service *s, struct workspace *w)
{
	if (w->wish.origin)
		follow_clone(s, w);
	follow_original(s, w);
}
