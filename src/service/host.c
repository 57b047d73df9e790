/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. A host keeps one WebSocket open. After its hello it gets all its assignments, afterwards each that changes. Its
 * messages are decoded strictly where we act on them and openly where hosts may know more than we do. One message of reports is
 * one batch.
 */
#include "service/host.h"

#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/own.h"
#include "db/host.h"
#include "service/clone.h"
#include "service/doctor.h"
#include "service/event.h"
#include "service/handlers.h"
#include "service/network.h"
#include "service/operation.h"
#include "service/routes.h"

#define MESSAGE_MOST (64 << 20)
#define PLAN_WAIT_MS 10000

/* A request that waits for the node's answer: its plan for a dry run, or what a suspend would come to. */
struct planned {
	uint64_t id;
	struct request *request;
	struct service *service;
	struct host *host;
	struct loop_source *timer;
	struct planned *next;
};
static struct planned *plans;
static uint64_t last_plan;

struct host *host_find(struct service *s, const char *name)
{
	struct host *h = s->hosts;
	while (h && !str_eq(h->name, name))
		h = h->next;
	return h;
}

bool host_connected(const struct host *h) { return h->ws && h->greeted; }

/* Placement by capacity comes with more than one host: the first that is connected, else the first known. */
struct host *host_choose(struct service *s)
{
	for (struct host *h = s->hosts; h; h = h->next)
		if (host_connected(h))
			return h;
	return NULL;
}

void host_send(struct host *h, json_t *message)
{
	own_str char *text = json_dumps(message, JSON_COMPACT);
	json_decref(message);
	if (h && h->ws)
		ws_send(h->ws, true, text, strlen(text));
}

void host_send_forget(struct host *h, const char *id)
{
	if (h)
		host_send(h, json_pack("{s:s, s:[s]}", "type", "forget", "ids", id));
}

static struct host *host_make(struct service *s, const char *name)
{
	struct host *h = mem_alloc(sizeof *h);
	struct host **end = &s->hosts;

	h->service = s;
	h->name = mem_strdup(name);
	h->facts = json_object();
	h->volumes = json_array();
	while (*end)
		end = &(*end)->next;
	*end = h;
	return h;
}

int hosts_load(struct service *s, struct err *e)
{
	own_db_rows struct db_rows *rows = NULL;
	int r = db_host_query(s->db, &rows, e);

	while (r >= 0 && (r = db_next(rows, e)) > 0) {
		struct db_host row;
		db_host_row(rows, &row);
		struct host *h = host_make(s, row.name);
		json_decref(h->facts);
		json_decref(h->volumes);
		h->facts = json_loads(row.facts, 0, NULL);
		h->volumes = json_loads(row.volumes, 0, NULL);
		h->seen_ms = row.seen_ms;
	}
	return r;
}

static void store(struct host *h)
{
	own_str char *facts = json_dumps(h->facts, JSON_COMPACT);
	own_str char *volumes = json_dumps(h->volumes, JSON_COMPACT);
	struct db_batch *b = db_batch_new();

	h->seen_ms = service_now_ms();
	db_host_put(b, &(struct db_host){ .name = h->name, .facts = facts ? facts : "{}", .volumes = volumes ? volumes : "[]",
					  .seen_ms = h->seen_ms });
	db_submit(h->service->db, b, h->service->loop, NULL, NULL);
}

/* --- messages --- */

static void send_all(struct host *h)
{
	struct service *s = h->service;
	json_t *items = json_array();

	for (size_t i = 0; i < s->workspaces.count; i++) {
		struct workspace *w = s->workspaces.items[i];
		if (!str_eq(w->host, h->name) || w->uncommitted || !clone_may_begin(s, w))
			continue;
		w->sent_generation = w->wish.generation;
		(void)json_array_append_new(items, encode(&assignment_shape, &w->wish));
	}
	/* Never authoritative: a row is deleted only after its host has told that nothing is left, so what we do not know is
	 * not ours. */
	host_send(h, json_pack("{s:s, s:b, s:b, s:o}", "type", "assignments", "full", 1, "authoritative", 0, "items", items));
}

static void on_hello(struct host *h, json_t *m)
{
	json_t *facts = json_object_get(m, "facts");
	const char *version = json_string_value(json_object_get(m, "version"));

	if (json_integer_value(json_object_get(m, "protocol")) != 1) {
		log_warn("host %s speaks another protocol", h->name);
		ws_close(h->ws);
		return;
	}
	for (size_t i = 0; i < h->service->workspaces.count; i++)
		if (str_eq(h->service->workspaces.items[i]->host, h->name))
			h->service->workspaces.items[i]->sent_generation = 0;
	free(h->version);
	h->version = mem_strdup(version ? version : "unknown");
	if (json_is_object(facts)) {
		json_decref(h->facts);
		h->facts = json_incref(facts);
	}
	h->greeted = true;
	log_info("host %s is connected (version %s)", h->name, h->version);
	store(h);
	network_tell_all(h->service, h);
	send_all(h);
}

struct reported {
	struct service *service;
	char host[NAME_LONGEST + 1];
	json_t *forget, *touched; /* ids */
};

/* What was not stored is not believed: the memory goes back to the rows, and the host tells it all again when it reconnects. */
static void reports_lost(struct reported *d, struct host *h)
{
	json_t *id;
	size_t i;

	json_array_foreach(d->touched, i, id) {
		struct workspace *w = workspace_by_id(d->service, json_string_value(id));
		if (w && w->uncommitted)
			w->stale = true;
		else
			workspace_reload(d->service, json_string_value(id));
	}
	if (h && h->ws)
		ws_close(h->ws);
}

static void reports_committed(void *data, const struct err *failure)
{
	struct reported *d = data;
	struct host *h = host_find(d->service, d->host);

	if (failure) {
		log_error(failure, "reports of host %s were not stored; it tells them again when it reconnects", d->host);
		reports_lost(d, h);
	} else {
		json_t *id;
		size_t i;
		json_array_foreach(d->forget, i, id) {
			network_tell_gone(d->service, json_string_value(id));
		}
	}
	for (size_t i = 0; !failure && i < json_array_size(d->touched); i++) { /* a report may have changed what is wished */
		struct workspace *w = workspace_by_id(d->service, json_string_value(json_array_get(d->touched, i)));
		if (w)
			converge_assign(w, d->service);
	}
	if (!failure && h && json_array_size(d->forget)) {
		host_send(h, json_pack("{s:s, s:O}", "type", "forget", "ids", d->forget));
	}
	json_decref(d->forget);
	json_decref(d->touched);
	events_committed(d->service);
	free(d);
}

static void on_reports(struct host *h, json_t *m)
{
	json_t *items = json_object_get(m, "items"), *item;
	struct reported *d = mem_alloc(sizeof *d);
	struct db_batch *b = db_batch_new();
	size_t i;
	struct err e;

	d->service = h->service;
	(void)snprintf(d->host, sizeof d->host, "%s", h->name);
	d->forget = json_array();
	d->touched = json_array();
	json_array_foreach(items, i, item) {
		struct report r = { 0 };
		if (decode_json(item, "report", &report_shape, &r, &e) < 0) {
			log_error(&e, "host %s", h->name);
			continue;
		}
		(void)json_array_append_new(d->touched, json_string(r.id));
		converge_report(h->service, h, &r, b, d->forget);
		report_done(&r);
	}
	db_submit(h->service->db, b, h->service->loop, reports_committed, d);
}

static uint64_t number(json_t *m, const char *key)
{
	json_int_t n = json_integer_value(json_object_get(m, key));
	return n > 0 ? (uint64_t)n : 0;
}

/* {"kind","message","hint"} as a host tells it. */
static void host_error(const json_t *error, const char *otherwise, struct err *ret_error)
{
	const char *kind = json_string_value(json_object_get(error, "kind")),
		   *text = json_string_value(json_object_get(error, "message"));
	const char *hint = json_string_value(json_object_get(error, "hint"));

	(void)err_set(ret_error, err_kind_from_name(kind ? kind : ""), "%s", text ? text : otherwise);
	if (hint && *hint)
		(void)err_hint(ret_error, "%s", hint);
}

static void on_progress(struct host *h, json_t *m)
{
	const char *id = json_string_value(json_object_get(m, "workspace")),
		   *step = json_string_value(json_object_get(m, "step"));
	struct workspace *w = id ? workspace_by_id(h->service, id) : NULL;

	if (w && w->operation && step)
		operation_progress(w->operation, step, number(m, "done"), number(m, "total"), number(m, "reused"));
}

static void on_facts(struct host *h, json_t *m)
{
	json_t *facts = json_object_get(m, "facts");
	if (!json_is_object(facts))
		return;
	json_decref(h->facts);
	h->facts = json_incref(facts);
	store(h);
	doctor_looked(json_integer_value(json_object_get(m, "id")));
}

static void on_volumes(struct host *h, json_t *m)
{
	json_t *items = json_object_get(m, "items");
	if (!json_is_array(items))
		return;
	json_decref(h->volumes);
	h->volumes = json_incref(items);
	volumes_told(h);
	store(h);
}

static void on_volume_error(struct host *h, json_t *m)
{
	struct err e;

	host_error(json_object_get(m, "error"), "the host told no reason", &e);
	log_error(&e, "host %s", h->name);
	volumes_refused(h, number(m, "owner"), json_string_value(json_object_get(m, "name")), &e);
}

static void plan_answer(struct planned *p, json_t *m)
{
	json_t *plan = json_object_get(m, "plan"), *check = json_object_get(m, "check"), *error = json_object_get(m, "error");

	loop_remove(p->timer);
	if (check) {
		request_reply_json(p->request, 200, json_incref(check));
	} else if (json_object_get(m, "done")) {
		request_reply_nothing(p->request);
	} else if (plan) {
		request_reply_json(p->request, 200, json_pack("{s:O}", "plan", plan));
	} else {
		struct err e;
		host_error(error, "the host could not say", &e);
		request_fail(p->request, &e);
	}
	free(p);
}

static struct planned *plan_take(uint64_t id)
{
	for (struct planned **at = &plans; *at; at = &(*at)->next) {
		struct planned *p = *at;
		if (p->id != id)
			continue;
		*at = p->next;
		return p;
	}
	return NULL;
}

static void on_planned(struct host *h, json_t *m)
{
	struct planned *p = plan_take(number(m, "id"));
	(void)h;
	if (p)
		plan_answer(p, m);
}

static void plan_too_late(void *data)
{
	struct planned *p = plan_take(((struct planned *)data)->id);

	if (!p)
		return;
	p->timer = NULL;
	json_t *m = json_pack("{s:{s:s, s:s}}", "error", "kind", "timeout", "message", "the host did not answer");
	plan_answer(p, m);
	json_decref(m);
}

static uint64_t ask_later(struct host *h, struct request *r)
{
	struct planned *p = mem_alloc(sizeof *p);

	*p = (struct planned){ .id = ++last_plan, .request = r, .service = h->service, .host = h, .next = plans };
	plans = p;
	p->timer = loop_add_timer(h->service->loop, PLAN_WAIT_MS, plan_too_late, p);
	return p->id;
}

int host_plan(struct host *h, const struct assignment *a, struct request *r, struct err *e)
{
	uint64_t id = ask_later(h, r);

	(void)e;
	host_send(h, json_pack("{s:s, s:I, s:o}", "type", "plan", "id", (json_int_t)id, "assignment",
			       encode(&assignment_shape, a)));
	return 0;
}

void host_check_suspend(struct host *h, const char *workspace, const struct assignment *to, struct request *r)
{
	uint64_t id = ask_later(h, r);

	host_send(h, json_pack("{s:s, s:I, s:s, s:o*}", "type", "suspend-check", "id", (json_int_t)id, "workspace", workspace,
			       "to", to ? encode(&assignment_shape, to) : NULL));
}

void host_ask(struct host *h, json_t *message, struct request *r)
{
	(void)json_object_set_new(message, "id", json_integer((json_int_t)ask_later(h, r)));
	host_send(h, message);
}

static void channel_message(void *data, bool text, const char *bytes, size_t length)
{
	static const struct {
		const char *type;
		void (*act)(struct host *h, json_t *message);
	} messages[] = { { "hello", on_hello },	  { "reports", on_reports }, { "progress", on_progress },
			 { "facts", on_facts }, { "volumes", on_volumes }, { "planned", on_planned },
			 { "suspend-checked", on_planned }, { "answered", on_planned }, { "volume-error", on_volume_error },
			 { "traffic", network_on_traffic }, { "judged", network_on_judged } };
	struct host *h = data;
	json_t *m = text ? json_loadb(bytes, length, 0, NULL) : NULL;
	const char *type = json_string_value(json_object_get(m, "type"));
	bool known = false;

	h->seen_ms = service_now_ms();
	for (size_t i = 0; type && i < ARRAY_SIZE(messages); i++) {
		if (!str_eq(messages[i].type, type))
			continue;
		known = true;
		messages[i].act(h, m);
		break;
	}
	if (!known)
		log_warn("host %s: a message that is not understood", h->name);
	json_decref(m);
}

/* --- the connection --- */

static void channel_leave(struct host *h)
{
	ws_free(h->ws);
	request_upgrade_end(h->upgrade);
	h->ws = NULL;
	h->upgrade = NULL;
	h->greeted = false;
	streams_host_gone(h->service, h);
	volumes_host_gone(h);
}

static void channel_closed(void *data, const struct err *why)
{
	struct host *h = data;
	log_warn("host %s is not connected any longer: %s", h->name, why ? why->message : "closed");
	channel_leave(h);
}

static void channel_opened(void *data, struct ws *ws, void *handle)
{
	struct host *h = data;

	if (h->ws) /* the agent started anew: its old connection is dead */
		channel_leave(h);
	h->ws = ws;
	h->upgrade = handle;
}

int handle_host_channel(struct request *r, struct err *e)
{
	static const struct ws_events events = { .message = channel_message, .closed = channel_closed };
	int result = name_check(r->params[0], e);

	if (result < 0)
		return result;
	struct host *h = host_find(r->service, r->params[0]);
	if (!h)
		h = host_make(r->service, r->params[0]);
	request_reply_upgrade(r, MESSAGE_MOST, &events, channel_opened, NULL, h);
	return 0;
}

/* --- routes --- */

struct host_view {
	char *name, *version, *seen;
	bool connected;
	uint64_t workspaces;
	json_t *facts;
};
#define H(member) offsetof(struct host_view, member)
static const struct field host_fields[] = {
	{ "name", FIELD_TEXT, H(name), "name", .required = true },
	{ "connected", FIELD_BOOL, H(connected), "its agent is connected", .required = true },
	{ "version", FIELD_TEXT, H(version), "version of its agent" },
	{ "seen", FIELD_TEXT, H(seen), "when it spoke last" },
	{ "workspaces", FIELD_NUMBER, H(workspaces), "how many workspaces are on it", .required = true },
	{ "facts", FIELD_JSON, H(facts), "what it found out about itself", .required = true },
	{ 0 },
};
const struct shape host_shape = { "host", sizeof(struct host_view), host_fields, "A machine that runs workspaces.",
				  .open = true };

int handle_hosts_list(struct request *r, struct err *e)
{
	json_t *items = json_array();

	(void)e;
	for (struct host *h = r->service->hosts; h; h = h->next) {
		own_str char *seen = service_time_text(h->seen_ms);
		size_t count = 0;
		for (size_t i = 0; i < r->service->workspaces.count; i++)
			count += str_eq(r->service->workspaces.items[i]->host, h->name);
		json_t *json = json_pack("{s:s, s:b, s:I, s:O}", "name", h->name, "connected", host_connected(h), "workspaces",
					 (json_int_t)count, "facts", h->facts);
		if (h->version)
			(void)json_object_set_new(json, "version", json_string(h->version));
		if (seen)
			(void)json_object_set_new(json, "seen", json_string(seen));
		(void)json_array_append_new(items, json);
	}
	request_reply_json(r, 200, json_pack("{s:o}", "items", items));
	return 0;
}
