/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. All workspaces stand in memory, in order of creation, with tables by id and by name: a list or a show touches no
 * disk. The JSON that is shown is kept with each workspace until it changes.
 */
#include "service/workspace.h"

#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/own.h"
#include "db/workspace.h"
#include "service/network.h"
#include "service/operation.h"
#include "service/views.h"

struct workspace *workspace_by_id(struct service *s, const char *id) { return *id ? map_get(&s->workspaces.by_id, id) : NULL; }

bool workspace_visible(const struct workspace *w, const struct identity *who)
{
	return who->admin || who->viewer || w->owner_uid == who->uid;
}

static struct workspace *by_prefix(const struct request *r, const char *prefix, bool *ret_several)
{
	struct workspace *found = NULL;

	for (size_t i = 0; i < r->service->workspaces.count; i++) {
		struct workspace *w = r->service->workspaces.items[i];
		if (!str_starts(w->id, prefix) || !workspace_visible(w, &r->who))
			continue;
		*ret_several = found != NULL;
		if (found)
			return NULL;
		found = w;
	}
	return found;
}

int workspace_find(const struct request *r, const char *reference, struct workspace **ret_workspace, struct err *e)
{
	struct workspace *w = map_get(&r->service->workspaces.by_name, reference);
	bool several = false;

	if (!w || !workspace_visible(w, &r->who))
		w = map_get(&r->service->workspaces.by_id, reference);
	if (!w && strlen(reference) >= 4 && strlen(reference) < ID_LENGTH)
		w = by_prefix(r, reference, &several);
	if (several)
		return err_set(e, ERR_CONFLICT, "several workspaces have an id that starts with '%s'", reference);
	if (!w || !workspace_visible(w, &r->who)) {
		(void)err_set(e, ERR_NOT_FOUND, "no workspace '%.100s'", reference);
		return err_hint(e, "carrel ls shows yours");
	}
	*ret_workspace = w;
	return 0;
}

static void workspace_free(struct workspace *w)
{
	for (size_t i = 0; i < w->snapshots.count; i++)
		free(w->snapshots.items[i].name);
	free(w->snapshots.items);
	assignment_done(&w->wish);
	report_done(&w->truth);
	loop_remove(w->linger);
	free(w->name);
	free(w->host);
	free(w->rendered);
	free(w->told);
	json_decref(w->traffic);
	free(w);
}

void workspace_insert(struct service *s, struct workspace *w)
{
	MEM_PUSH_ROOM(s->workspaces.items, s->workspaces.count, s->workspaces.capacity);
	size_t at = s->workspaces.count++;
	w->service = s;
	for (; at > 0 && s->workspaces.items[at - 1]->seq > w->seq; at--)
		s->workspaces.items[at] = s->workspaces.items[at - 1];
	s->workspaces.items[at] = w;
	map_put(&s->workspaces.by_id, w->id, w);
	map_put(&s->workspaces.by_name, w->name, w);
	family_join(&s->workspaces.families, w);
}

static size_t position(const struct service *s, int64_t seq)
{
	size_t low = 0, high = s->workspaces.count;

	while (low < high) {
		size_t middle = (low + high) / 2;
		if (s->workspaces.items[middle]->seq < seq)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static void unlink_workspace(struct service *s, struct workspace *w)
{
	size_t at = position(s, w->seq);

	memmove(&s->workspaces.items[at], &s->workspaces.items[at + 1],
		(--s->workspaces.count - at) * sizeof *s->workspaces.items);
	(void)map_remove(&s->workspaces.by_id, w->id);
	(void)map_remove(&s->workspaces.by_name, w->name);
	family_leave(&s->workspaces.families, w);
}

void workspace_remove(struct service *s, struct workspace *w)
{
	unlink_workspace(s, w);
	workspace_free(w);
}

void workspace_rename(struct service *s, struct workspace *w, const char *name)
{
	char *fresh = mem_strdup(name);

	(void)map_remove(&s->workspaces.by_name, w->name);
	free(w->name);
	w->name = fresh;
	map_put(&s->workspaces.by_name, w->name, w);
	free(w->wish.spec->name);
	w->wish.spec->name = mem_strdup(name);
}

/* --- snapshots --- */

char *workspace_clone_snapshot(const char *id) { return mem_printf("clone-%s", id); }

static struct assignment_snapshot wish_snapshot(const struct snapshot *n)
{
	own_str char *of_clones = workspace_clone_snapshot(n->id);

	return (struct assignment_snapshot){ mem_strdup(n->id), mem_strdup(n->name), n->memory, str_eq(n->name, of_clones) };
}

static void sync_snapshots(struct workspace *w)
{
	struct assignment_snapshot *items = w->wish.snapshots.items;

	for (size_t i = 0; i < w->wish.snapshots.count; i++) {
		free(items[i].id);
		free(items[i].name);
	}
	free(items);
	items = mem_alloc_array(w->snapshots.count ? w->snapshots.count : 1, sizeof *items);
	for (size_t i = 0; i < w->snapshots.count; i++)
		items[i] = wish_snapshot(&w->snapshots.items[i]);
	w->wish.snapshots = (struct objects){ items, w->snapshots.count };
}

struct snapshot *workspace_add_snapshot(struct workspace *w, const char *id, const char *name, uint64_t created_ms, bool memory)
{
	w->snapshots.items = mem_grow_array(w->snapshots.items, w->snapshots.count + 1, sizeof *w->snapshots.items);
	struct snapshot *n = &w->snapshots.items[w->snapshots.count++];
	*n = (struct snapshot){ .name = mem_strdup(name), .created_ms = created_ms, .memory = memory };
	(void)snprintf(n->id, sizeof n->id, "%s", id);
	sync_snapshots(w);
	return n;
}

void workspace_drop_snapshot(struct workspace *w, const char *id)
{
	for (size_t i = 0; i < w->snapshots.count; i++) {
		if (!str_eq(w->snapshots.items[i].id, id))
			continue;
		free(w->snapshots.items[i].name);
		memmove(&w->snapshots.items[i], &w->snapshots.items[i + 1],
			(--w->snapshots.count - i) * sizeof *w->snapshots.items);
	}
	sync_snapshots(w);
}

static bool snapshots_agree(const struct workspace *w)
{
	if (w->truth.snapshots.count != w->snapshots.count)
		return false;
	for (size_t i = 0; i < w->snapshots.count; i++) {
		bool there = false;
		for (size_t j = 0; j < w->truth.snapshots.count; j++)
			there |= str_eq(w->truth.snapshots.items[j], w->snapshots.items[i].id);
		if (!there)
			return false;
	}
	return true;
}

/* Only the operation that asked for a snapshot or a restore waits for it: the host makes them while nothing writes to the
 * volumes, and a workspace that was resumed in between is running all the same. */
static bool on_volumes(const struct operation *o)
{
	return o && (str_starts(o->kind, "snapshot") || str_eq(o->kind, "clone") || str_eq(o->kind, "restore"));
}

bool workspace_is_machine(const struct workspace *w)
{
	return w->truth.engine && (str_eq(w->truth.engine, spec_engine_names[ENGINE_EMULATOR]) ||
				   str_eq(w->truth.engine, spec_engine_names[ENGINE_KVM]));
}

bool workspace_settled(const struct workspace *w)
{
	if (!w->reported || w->truth.generation != w->wish.generation)
		return false;
	if (w->truth.state == STATE_FAILED || (w->truth.error && !w->truth.step))
		return w->wish.wish != WISH_REMOVED || w->truth.state == STATE_FAILED;
	if (on_volumes(w->operation) && (!snapshots_agree(w) || w->truth.restore != w->wish.restore))
		return false;
	return assignment_next_action(&w->wish, &w->truth) == ACTION_NONE;
}

/* --- storing --- */

static void touch(struct workspace *w)
{
	w->version++;
	free(w->rendered);
	w->rendered = NULL;
}

static char *dump(json_t *json)
{
	char *text = json_dumps(json, JSON_COMPACT);
	json_decref(json);
	return text;
}

void workspace_store(struct workspace *w, struct db_batch *b, bool is_new)
{
	own_str char *spec = dump(encode(&spec_shape, w->wish.spec));
	own_str char *image = dump(encode(&image_shape, w->wish.image));
	own_str char *kernel = w->wish.kernel ? dump(encode(&assignment_kernel_shape, w->wish.kernel)) : NULL;
	own_str char *origin = w->wish.origin ? dump(encode(&assignment_origin_shape, w->wish.origin)) : NULL;
	own_str char *truth = w->reported ? dump(encode(&report_shape, &w->truth)) : NULL;

	touch(w);
	struct db_workspace row = { .seq = w->seq, .id = w->id, .name = w->name, .host = w->host, .spec = spec, .image = image,
				    .wish = wish_names[w->wish.wish], .restore_from = w->wish.restore_from,
				    .state = state_names[w->truth.state], .truth = truth, .owner_uid = w->owner_uid,
				    .generation = w->wish.generation, .run = w->wish.run, .restore = w->wish.restore,
				    .created_ms = w->created_ms, .version = w->version, .held = w->wish.held,
				    .stop_timeout_ms = w->wish.stop_timeout_ms, .kernel = kernel, .origin = origin };
	if (is_new)
		db_workspace_insert(b, &row);
	else
		db_workspace_update(b, &row);
}

void workspace_store_truth(struct workspace *w, struct db_batch *b)
{
	own_str char *truth = dump(encode(&report_shape, &w->truth));
	touch(w);
	db_workspace_truth(b, w->id, w->version, state_names[w->truth.state], truth);
}

/* --- loading --- */

static int decode_column(const char *text, const char *id, const char *column, const struct shape *shape, void *value,
			 struct err *e)
{
	int r = decode_text(text, strlen(text), column, shape, value, e);
	return r < 0 ? err_wrap(e, "database: workspace %s", id) : 0;
}

static int name_index(const char *const *names, const char *name)
{
	for (int i = 0; names[i]; i++)
		if (str_eq(names[i], name))
			return i;
	return -1;
}

static int from_row(const struct db_workspace *row, struct workspace *w, struct err *e)
{
	int wish = name_index(wish_names, row->wish);
	int r = wish < 0 ? err_set(e, ERR_CORRUPT, "database: workspace %s has the wish '%s'", row->id, row->wish) : 0;

	w->seq = row->seq;
	(void)snprintf(w->id, sizeof w->id, "%s", row->id);
	w->name = mem_strdup(row->name);
	w->host = mem_strdup(row->host);
	w->owner_uid = w->wish.owner_uid = row->owner_uid;
	w->created_ms = row->created_ms;
	w->version = row->version;
	w->wish.id = mem_strdup(row->id);
	w->wish.generation = row->generation;
	w->wish.wish = (unsigned)wish;
	w->wish.run = row->run;
	w->wish.held = row->held;
	w->wish.stop_timeout_ms = row->stop_timeout_ms;
	w->wish.restore = row->restore;
	w->wish.restore_from = mem_strdup(row->restore_from);
	w->wish.spec = mem_alloc(sizeof *w->wish.spec);
	w->wish.image = mem_alloc(sizeof *w->wish.image);
	w->truth.exit_status = FIELD_NO_PRESET;
	w->was_attached = true; /* before this start of the service, perhaps */
	if (r == 0)
		r = decode_column(row->spec, row->id, "spec", &spec_shape, w->wish.spec, e);
	if (r == 0)
		r = decode_column(row->image, row->id, "image", &image_shape, w->wish.image, e);
	if (r == 0 && row->kernel) {
		w->wish.kernel = mem_alloc(sizeof *w->wish.kernel);
		r = decode_column(row->kernel, row->id, "kernel", &assignment_kernel_shape, w->wish.kernel, e);
	}
	if (r == 0 && row->origin) {
		w->wish.origin = mem_alloc(sizeof *w->wish.origin);
		r = decode_column(row->origin, row->id, "origin", &assignment_origin_shape, w->wish.origin, e);
	}
	if (r == 0 && row->truth) {
		w->reported = true;
		r = decode_column(row->truth, row->id, "truth", &report_shape, &w->truth, e);
	}
	return r;
}

static int load_snapshots(struct service *s, struct workspace *w, struct err *e)
{
	own_db_rows struct db_rows *rows = NULL;
	int r = db_snapshot_query(s->db, w->id, &rows, e);

	while (r >= 0 && (r = db_next(rows, e)) > 0) {
		struct db_snapshot row;
		db_snapshot_row(rows, &row);
		(void)workspace_add_snapshot(w, row.id, row.name, row.created_ms, row.memory);
	}
	return r;
}

static int load(struct service *s, const char *id, struct err *e)
{
	own_db_rows struct db_rows *rows = NULL;
	int r = db_workspace_query(s->db, id, &rows, e);

	while (r >= 0 && (r = db_next(rows, e)) > 0) {
		struct workspace *w = mem_alloc(sizeof *w);
		struct db_workspace row;
		db_workspace_row(rows, &row);
		r = from_row(&row, w, e);
		if (r == 0)
			r = load_snapshots(s, w, e);
		if (r < 0) {
			workspace_free(w);
			return r;
		}
		workspace_insert(s, w);
		network_sync(s, w);
		if (w->seq > s->workspaces.last_seq)
			s->workspaces.last_seq = w->seq;
	}
	return r;
}

int workspaces_load(struct service *s, struct err *e) { return load(s, NULL, e); }

/* What the loop counts for it (streams, an operation) goes on with the new copy. */
void workspace_reload(struct service *s, const char *id)
{
	struct workspace *old = workspace_by_id(s, id);
	own_str char *kept_id = mem_strdup(id); /* `id` may be the old one's */
	struct operation *operation = old ? old->operation : NULL;
	unsigned uncommitted = old ? old->uncommitted : 0, attached = old ? old->attached : 0;
	struct err e;

	own_str char *told = old ? TAKE(old->told) : NULL;
	if (old)
		workspace_remove(s, old);
	network_reload(s, kept_id);
	if (load(s, kept_id, &e) < 0)
		log_error(&e, "after a failed change");
	struct workspace *w = workspace_by_id(s, kept_id);
	if (!w) {
		wait_changed(s, kept_id);
		return;
	}
	w->operation = operation;
	w->uncommitted = uncommitted;
	w->attached = attached;
	w->told = TAKE(told);
}

void workspace_discard(struct workspace *w) { workspace_free(w); }
