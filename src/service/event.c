/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. An event is part of the batch whose change it tells, so it is seen exactly when the change is durable. Followers keep
 * a position and read the database from there when something was committed; nothing is queued for a slow one.
 */
#include "service/event.h"

#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/own.h"
#include "db/journal.h"
#include "service/handlers.h"

#define HEARTBEAT_MS 15000
#define TRIM_EVERY 1000

struct follower {
	struct service *service;
	struct request *request;
	int64_t position;
	uint64_t owner_uid; /* DB_EVERYONE */
	struct str pending; /* text that did not fit yet */
	struct loop_source *heartbeat;
	struct follower *next;
};

struct event_view {
	uint64_t seq;
	char *at, *kind, *subject;
	json_t *body;
};
#define V(member) offsetof(struct event_view, member)
static const struct field fields[] = {
	{ "seq", FIELD_NUMBER, V(seq), "number of the event; grows", .required = true },
	{ "at", FIELD_TEXT, V(at), "time", .required = true },
	{ "kind", FIELD_TEXT, V(kind), "what happened, for example workspace.running", .required = true },
	{ "subject", FIELD_TEXT, V(subject), "id of the workspace or name of the image" },
	{ "body", FIELD_JSON, V(body), "more about it" },
	{ 0 },
};
const struct shape event_shape = { "event", sizeof(struct event_view), fields, "Something that happened.", .open = true };

int events_load(struct service *s, struct err *e)
{
	int r = db_event_last(s->db, &s->events.last_seq, e);
	s->events.trimmed_seq = s->events.last_seq > (int64_t)s->config.events_kept ?
					s->events.last_seq - (int64_t)s->config.events_kept :
					0;
	return r < 0 ? r : 0;
}

void event_add(struct service *s, struct db_batch *b, const char *kind, const char *subject, uint64_t owner_uid, json_t *body)
{
	own_str char *text = json_dumps(body, JSON_COMPACT);
	struct db_event v = { .seq = ++s->events.last_seq, .at_ms = service_now_ms(), .owner_uid = owner_uid, .kind = kind,
			      .subject = subject, .body = text };

	db_event_insert(b, &v);
	json_decref(body);
	int64_t keep_after = s->events.last_seq - (int64_t)s->config.events_kept;
	if (keep_after >= s->events.trimmed_seq + TRIM_EVERY) {
		db_event_trim(b, keep_after);
		s->events.trimmed_seq = keep_after;
	}
}

static json_t *event_to_json(const struct db_event *v)
{
	own_str char *at = service_time_text(v->at_ms);
	json_t *json = json_pack("{s:I, s:s?, s:s, s:o}", "seq", (json_int_t)v->seq, "at", at, "kind", v->kind, "body",
				 json_loads(v->body, 0, NULL));
	if (v->subject)
		(void)json_object_set_new(json, "subject", json_string(v->subject));
	return json;
}

/* Up to `limit` events behind *position into `each`. */
static int read_events(struct service *s, int64_t *position, uint64_t owner, uint64_t limit,
		       void (*each)(void *data, json_t *event), void *data, struct err *e)
{
	own_db_rows struct db_rows *rows = NULL;
	int r = db_event_query(s->db, *position, owner, limit, &rows, e), count = 0;

	while (r >= 0 && (r = db_next(rows, e)) > 0) {
		struct db_event v;
		db_event_row(rows, &v);
		*position = v.seq;
		each(data, event_to_json(&v));
		count++;
	}
	return r < 0 ? r : count;
}

/* --- following --- */

static void add_text(void *data, json_t *event)
{
	struct follower *f = data;
	own_str char *text = json_dumps(event, JSON_COMPACT);

	str_printf(&f->pending, "id: %lld\nevent: %s\ndata: %s\n\n",
		   (long long)json_integer_value(json_object_get(event, "seq")),
		   json_string_value(json_object_get(event, "kind")), text);
	json_decref(event);
}

static long follower_read(void *data, char *buffer, size_t size)
{
	struct follower *f = data;
	struct err e;

	if (f->pending.length == 0 && read_events(f->service, &f->position, f->owner_uid, 100, add_text, f, &e) < 0) {
		log_error(&e, "events");
		return -1;
	}
	size_t length = f->pending.length < size ? f->pending.length : size;
	if (length)
		memcpy(buffer, f->pending.bytes, length);
	str_drop_front(&f->pending, length);
	return (long)length;
}

static void follower_free(void *data)
{
	struct follower *f = data;

	for (struct follower **at = &f->service->events.followers; *at; at = &(*at)->next) {
		if (*at == f) {
			*at = f->next;
			break;
		}
	}
	loop_remove(f->heartbeat);
	str_done(&f->pending);
	free(f);
}

static void heartbeat(void *data)
{
	struct follower *f = data;
	f->heartbeat = loop_add_timer(f->service->loop, HEARTBEAT_MS, heartbeat, f);
	if (f->pending.length == 0)
		str_puts(&f->pending, ": heartbeat\n\n");
	request_wake(f->request);
}

void events_committed(struct service *s)
{
	for (struct follower *f = s->events.followers, *next; f; f = next) {
		next = f->next;
		request_wake(f->request);
	}
}

static void follow(struct request *r, int64_t after, uint64_t owner)
{
	struct follower *f = mem_alloc(sizeof *f);

	*f = (struct follower){ .service = r->service, .request = r, .position = after, .owner_uid = owner,
				.next = r->service->events.followers };
	str_puts(&f->pending, ": carrel events\n\n");
	r->service->events.followers = f;
	f->heartbeat = loop_add_timer(r->service->loop, HEARTBEAT_MS, heartbeat, f);
	request_reply_stream(r, "text/event-stream", follower_read, follower_free, f);
}

static void append(void *data, json_t *event) { (void)json_array_append_new(data, event); }

static int events_list(struct request *r, struct err *e)
{
	uint64_t owner = r->who.admin || r->who.viewer ? DB_EVERYONE : r->who.uid;
	const char *resume = request_header(r, "Last-Event-ID");
	uint64_t after = 0, limit = 0;
	int64_t position;

	int result = request_number(r, "after", (uint64_t)r->service->events.last_seq, INT64_MAX, &after, e);
	if (result == 0)
		result = request_limit(r, &limit, e);
	if (result < 0)
		return result;
	if (request_flag(r, "follow")) {
		if (resume && str_to_u64(resume, INT64_MAX, &after) < 0)
			return err_set(e, ERR_INVALID, "Last-Event-ID must be the number of an event");
		follow(r, (int64_t)after, owner);
		return 0;
	}
	position = request_query(r, "after") ? (int64_t)after : 0;
	json_t *items = json_array();
	int count = read_events(r->service, &position, owner, limit, append, items, e);
	if (count < 0) {
		json_decref(items);
		return count;
	}
	json_t *json = json_pack("{s:o}", "items", items);
	if ((uint64_t)count == limit)
		(void)json_object_set_new(json, "next", json_sprintf("%lld", (long long)position));
	request_reply_json(r, 200, json);
	return 0;
}

int handle_events(struct request *r, struct err *e) { return events_list(r, e); }
