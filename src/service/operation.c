/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All operations that are remembered are in memory, oldest first, and the database has a row of each for the next start;
 * progress alone is never written down. Whoever waits for an end (GET ?wait=) is in a list at the operation and is answered by
 * its end or by a timer, whichever is first: an operation that is removed must have answered them all.
 *
 * One that has ended is kept for a time that the site sets, and one that runs for as long as it does; the list is bounded, so
 * that clients in a loop do not fill the memory. Rows of the answers to idempotency keys are trimmed here with them, after a
 * day.
 */
#include "service/operation.h"

#include <inttypes.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/own.h"
#include "db/journal.h"
#include "service/event.h"
#include "service/handlers.h"
#include "service/host.h"
#include "service/lifecycle.h"
#include "service/routes.h"
#include "service/workspace.h"

#define WAIT_MOST_SECONDS 600
#define OPERATIONS_MOST 100000

const char *const operation_state_names[] = { "running", "done", "failed", "cancelled", NULL };

/* A request that waits for the end. */
struct waiter {
	struct request *request;
	struct operation *operation;
	struct loop_source *timer;
	struct waiter *next;
};

struct progress_view {
	uint64_t done, total, reused;
	char *unit;
};
#define P(member) offsetof(struct progress_view, member)
static const struct field progress_fields[] = {
	{ "done", FIELD_NUMBER, P(done), "so far", .required = true },
	{ "total", FIELD_NUMBER, P(total), "of how many; 0: not known yet", .required = true },
	{ "reused", FIELD_NUMBER, P(reused), "of what is done: what was there already", .required = true },
	{ "unit", FIELD_TEXT, P(unit), "bytes", .required = true },
	{ 0 },
};
static const struct shape progress_shape = { "progress", sizeof(struct progress_view), progress_fields,
					     "How far an operation is.", .open = true };

struct operation_view {
	char *id, *kind, *workspace, *image, *step, *created, *ended;
	unsigned state;
	void *progress, *error;
	json_t *result;
};
#define O(member) offsetof(struct operation_view, member)
static const struct field operation_fields[] = {
	{ "id", FIELD_TEXT, O(id), "id", .required = true },
	{ "kind", FIELD_TEXT, O(kind), "what it does, for example deploy or image-import", .required = true },
	{ "workspace", FIELD_TEXT, O(workspace), "id of the workspace it works on" },
	{ "image", FIELD_TEXT, O(image), "name of the image it works on" },
	{ "state", FIELD_ENUM, O(state), "where it is", .required = true, .names = operation_state_names },
	{ "step", FIELD_TEXT, O(step), "what it does now" },
	{ "progress", FIELD_OBJECT, O(progress), "how far it is", .required = true, .shape = &progress_shape },
	{ "error", FIELD_OBJECT, O(error), "why it failed or was cancelled", .shape = &error_shape },
	{ "created", FIELD_TEXT, O(created), "start", .required = true },
	{ "ended", FIELD_TEXT, O(ended), "end" },
	{ "result", FIELD_JSON, O(result), "what came of it" },
	{ 0 },
};
const struct shape operation_shape = { "operation", sizeof(struct operation_view), operation_fields, "Long work.",
				       .open = true };

static json_t *error_members(const struct err *failure)
{
	json_t *whole = error_to_json(failure);
	json_t *inner = json_incref(json_object_get(whole, "error"));
	json_decref(whole);
	return inner;
}

json_t *operation_to_json(const struct operation *o)
{
	own_str char *created = service_time_text(o->created_ms);
	own_str char *ended = service_time_text(o->ended_ms);
	json_t *json = json_pack("{s:s, s:s, s:s, s:s, s:{s:I, s:I, s:I, s:s}, s:s}", "id", o->id, "kind", o->kind,
				 o->on_image ? "image" : "workspace", o->subject ? o->subject : "", "state",
				 operation_state_names[o->state], "progress", "done", (json_int_t)o->done, "total",
				 (json_int_t)o->total, "reused", (json_int_t)o->reused, "unit", "bytes", "created", created);
	if (o->step && o->state == OPERATION_RUNNING)
		(void)json_object_set_new(json, "step", json_string(o->step));
	if (o->state == OPERATION_FAILED || o->state == OPERATION_CANCELLED)
		(void)json_object_set_new(json, "error", error_members(&o->error));
	if (ended)
		(void)json_object_set_new(json, "ended", json_string(ended));
	if (o->result)
		(void)json_object_set(json, "result", o->result);
	return json;
}

static bool visible(const struct operation *o, const struct identity *who)
{
	return who->admin || who->viewer || o->owner_uid == who->uid;
}

struct operation *operation_by_id(struct service *s, const char *id) { return *id ? map_get(&s->operations.by_id, id) : NULL; }

static void put(const struct operation *o, struct db_batch *b)
{
	json_t *error = o->state == OPERATION_FAILED || o->state == OPERATION_CANCELLED ? error_members(&o->error) : NULL;
	own_str char *error_text = error ? json_dumps(error, JSON_COMPACT) : NULL;
	own_str char *result = o->result ? json_dumps(o->result, JSON_COMPACT) : NULL;

	db_operation_put(b, &(struct db_operation){ .seq = o->seq, .id = o->id, .kind = o->kind, .subject = o->subject,
						    .subject_kind = o->on_image ? "image" : "workspace",
						    .state = operation_state_names[o->state], .error = error_text,
						    .result = result, .owner_uid = o->owner_uid, .created_ms = o->created_ms,
						    .ended_ms = o->ended_ms });
	json_decref(error);
}

static void insert(struct service *s, struct operation *o)
{
	MEM_PUSH_ROOM(s->operations.items, s->operations.count, s->operations.capacity);
	s->operations.items[s->operations.count++] = o;
	map_put(&s->operations.by_id, o->id, o);
}

static void operation_free(struct operation *o)
{
	free(o->kind);
	free(o->subject);
	free(o->step);
	json_decref(o->result);
	free(o);
}

struct operation *operation_start(struct service *s, struct db_batch *b, const char *kind, bool on_image, const char *subject,
				  uint64_t owner_uid)
{
	struct operation *o = mem_alloc(sizeof *o);

	o->seq = ++s->operations.last_seq;
	id_new(o->id);
	o->kind = mem_strdup(kind);
	o->subject = mem_strdup(subject);
	o->on_image = on_image;
	o->owner_uid = owner_uid;
	o->created_ms = service_now_ms();
	insert(s, o);
	put(o, b);
	return o;
}

void operation_set_result(struct operation *o, struct db_batch *b, json_t *result)
{
	json_decref(o->result);
	o->result = result;
	put(o, b);
}

void operation_progress(struct operation *o, const char *step, uint64_t done, uint64_t total, uint64_t reused)
{
	if (!str_eq(o->step, step)) {
		free(o->step);
		o->step = mem_strdup(step);
	}
	o->done = done;
	o->total = total;
	o->reused = reused;
}

static void answer_waiter(struct waiter *w)
{
	loop_remove(w->timer);
	request_reply_json(w->request, 200, operation_to_json(w->operation));
	free(w);
}

static void wake_all(struct operation *o)
{
	while (o->waiters) {
		struct waiter *w = o->waiters;
		o->waiters = w->next;
		answer_waiter(w);
	}
}

void operation_end(struct service *s, struct db_batch *b, struct operation *o, const struct err *failure, json_t *result)
{
	if (failure && failure->kind == ERR_CANCELLED)
		o->state = OPERATION_CANCELLED;
	else
		o->state = failure ? OPERATION_FAILED : OPERATION_DONE;
	if (failure)
		o->error = *failure;
	o->result = result;
	o->ended_ms = service_now_ms();
	if (!failure && o->total)
		o->done = o->total;
	put(o, b);
	json_t *body = operation_to_json(o);
	own_str char *kind = mem_printf("operation.%s", operation_state_names[o->state]);
	event_add(s, b, kind, o->subject, o->owner_uid, body);
	wake_all(o);
}

void operation_forget(struct service *s, struct operation *o)
{
	size_t at = 0;

	while (s->operations.items[at] != o)
		at++;
	memmove(&s->operations.items[at], &s->operations.items[at + 1],
		(--s->operations.count - at) * sizeof *s->operations.items);
	(void)map_remove(&s->operations.by_id, o->id);
	struct workspace *w = o->on_image || !o->subject ? NULL : workspace_by_id(s, o->subject);
	if (w && w->operation == o)
		w->operation = NULL;
	wake_all(o);
	operation_free(o);
}

/* --- start of the service, and housekeeping --- */

static void adopt(struct service *s, struct operation *o, struct db_batch *b)
{
	struct workspace *w = o->on_image ? NULL : workspace_by_id(s, o->subject);
	struct err e;

	if (w) {
		w->operation = o;
		return;
	}
	(void)err_set(&e, o->on_image ? ERR_UNAVAILABLE : ERR_NOT_FOUND,
		      o->on_image ? "the service was restarted while this was under way" : "its workspace is gone");
	(void)err_hint(&e, "start it again; what was stored already is reused");
	operation_end(s, b, o, &e, NULL);
}

static void from_row(struct operation *o, const struct db_operation *row)
{
	json_t *error = row->error ? json_loads(row->error, 0, NULL) : NULL;

	o->seq = row->seq;
	(void)snprintf(o->id, sizeof o->id, "%s", row->id);
	o->kind = mem_strdup(row->kind);
	o->subject = mem_strdup(row->subject);
	o->on_image = str_eq(row->subject_kind, "image");
	o->owner_uid = row->owner_uid;
	for (int i = 0; operation_state_names[i]; i++)
		if (str_eq(operation_state_names[i], row->state))
			o->state = (enum operation_state)i;
	if (error) {
		const char *kind = json_string_value(json_object_get(error, "kind"));
		const char *message = json_string_value(json_object_get(error, "message"));
		const char *hint = json_string_value(json_object_get(error, "hint"));
		(void)err_set(&o->error, err_kind_from_name(kind ? kind : ""), "%s", message ? message : "");
		if (hint)
			(void)err_hint(&o->error, "%s", hint);
		json_decref(error);
	}
	o->result = row->result ? json_loads(row->result, 0, NULL) : NULL;
	o->created_ms = row->created_ms;
	o->ended_ms = row->ended_ms;
}

int operations_load(struct service *s, struct err *e)
{
	own_db_rows struct db_rows *rows = NULL;
	struct db_batch *b = db_batch_new();
	struct db_operation row;
	int r = db_operation_query(s->db, &rows, e);

	while (r >= 0 && (r = db_next(rows, e)) > 0) {
		struct operation *o = mem_alloc(sizeof *o);
		db_operation_row(rows, &row);
		from_row(o, &row);
		s->operations.last_seq = o->seq;
		insert(s, o);
		if (o->state == OPERATION_RUNNING)
			adopt(s, o, b);
	}
	uint64_t now = service_now_ms();
	db_operation_trim(b, now > s->config.operation_kept_ms ? now - s->config.operation_kept_ms : 0);
	db_answer_trim(b, now > 86400000 ? now - 86400000 : 0);
	if (r < 0) {
		db_batch_free(b);
		return r;
	}
	return db_commit(s->db, b, e);
}

void operations_trim(struct service *s)
{
	uint64_t now = service_now_ms(), before = now - s->config.operation_kept_ms;
	size_t kept = 0;
	struct db_batch *b = db_batch_new();

	for (size_t i = 0; i < s->operations.count; i++) {
		struct operation *o = s->operations.items[i];
		bool old = o->ended_ms && (o->ended_ms < before || s->operations.count - i > OPERATIONS_MOST) && !o->waiters;
		if (!old) {
			s->operations.items[kept++] = o;
			continue;
		}
		(void)map_remove(&s->operations.by_id, o->id);
		operation_free(o);
	}
	s->operations.count = kept;
	db_operation_trim(b, before);
	db_answer_trim(b, now - 86400000);
	db_submit(s->db, b, s->loop, NULL, NULL);
}

/* --- routes --- */

static int find(struct request *r, struct operation **ret_operation, struct err *e)
{
	struct operation *o = operation_by_id(r->service, r->params[0]);

	if (!o || !visible(o, &r->who)) {
		(void)err_set(e, ERR_NOT_FOUND, "no operation '%.64s'", r->params[0]);
		return err_hint(e, "operations are kept for %" PRIu64 " minutes after their end (setting operations-kept)",
				r->service->config.operation_kept_ms / 60000);
	}
	*ret_operation = o;
	return 0;
}

int handle_operations_list(struct request *r, struct err *e)
{
	struct page page;
	json_t *items = json_array();
	int64_t last = 0;
	bool more = false;
	int result = page_parse(r, &page, e);

	for (size_t i = 0; result == 0 && i < r->service->operations.count; i++) {
		struct operation *o = r->service->operations.items[i];
		if (o->seq <= page.after || !visible(o, &r->who))
			continue;
		more = json_array_size(items) == page.limit;
		if (more)
			break;
		(void)json_array_append_new(items, operation_to_json(o));
		last = o->seq;
	}
	json_t *json = json_pack("{s:o}", "items", items);
	if (result < 0) {
		json_decref(json);
		return result;
	}
	if (more)
		(void)json_object_set_new(json, "next", json_sprintf("%lld", (long long)last));
	request_reply_json(r, 200, json);
	return 0;
}

static void waited_long_enough(void *data)
{
	struct waiter *w = data;

	for (struct waiter **at = &w->operation->waiters; *at; at = &(*at)->next) {
		if (*at == w) {
			*at = w->next;
			break;
		}
	}
	w->timer = NULL;
	answer_waiter(w);
}

int handle_operation_show(struct request *r, struct err *e)
{
	struct operation *o;
	uint64_t seconds;
	int result = find(r, &o, e);

	if (result == 0)
		result = request_number(r, "wait", 0, WAIT_MOST_SECONDS, &seconds, e);
	if (result < 0)
		return result;
	if (o->state != OPERATION_RUNNING || seconds == 0) {
		request_reply_json(r, 200, operation_to_json(o));
		return 0;
	}
	struct waiter *w = mem_alloc(sizeof *w);
	*w = (struct waiter){ .request = r, .operation = o, .next = o->waiters };
	w->timer = loop_add_timer(r->service->loop, seconds * 1000, waited_long_enough, w);
	o->waiters = w;
	return 0;
}

int handle_operation_cancel(struct request *r, struct err *e)
{
	struct operation *o;
	int result = find(r, &o, e);

	if (result < 0)
		return result;
	if (!r->who.admin && o->owner_uid != r->who.uid)
		return err_set(e, ERR_DENIED, "the operation belongs to another user");
	if (o->state != OPERATION_RUNNING)
		return err_set(e, ERR_CONFLICT, "the operation has ended already (%s)", operation_state_names[o->state]);
	if (!o->on_image)
		return lifecycle_cancel(r, o, e);
	result = images_cancel(r->service, o->id, e);
	if (result < 0)
		return result;
	request_reply_json(r, 202, operation_to_json(o));
	return 0;
}
