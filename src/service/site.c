/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the service tells about itself: version, API file, health, metrics, and why a workspace is not yet where it shall be.
 * All of it is computed from memory at the moment of the question; nothing is collected for it. `why` answers with the first
 * that holds: it failed, it is settled, its host is away, a step is under way, the host has not begun; the stable word of each
 * is part of the API.
 */
#include <string.h>

#include "base/mem.h"
#include "base/own.h"
#include "service/handlers.h"
#include "service/host.h"
#include "service/network.h"
#include "service/operation.h"
#include "service/routes.h"
#include "service/server.h"
#include "service/views.h"

struct version_view {
	char *version, *started;
	uint64_t schema;
	uint64_t uid;
	struct texts roles;
};
#define V(member) offsetof(struct version_view, member)
static const struct field version_fields[] = {
	{ "version", FIELD_TEXT, V(version), "version of the service", .required = true },
	{ "schema", FIELD_NUMBER, V(schema), "of its database", .required = true },
	{ "started", FIELD_TEXT, V(started), "since when it runs", .required = true },
	{ "uid", FIELD_NUMBER, V(uid), "who you are", .required = true },
	{ "roles", FIELD_TEXTS, V(roles), "what you may: admin, user, viewer", .required = true },
	{ 0 },
};
const struct shape version_shape = { "version", sizeof(struct version_view), version_fields, "Who serves whom.", .open = true };

int handle_version(struct request *r, struct err *e)
{
	own_str char *started = service_time_text(r->service->started_ms);
	json_t *roles = json_array();

	(void)e;
	if (r->who.admin)
		(void)json_array_append_new(roles, json_string("admin"));
	if (r->who.user)
		(void)json_array_append_new(roles, json_string("user"));
	if (r->who.viewer)
		(void)json_array_append_new(roles, json_string("viewer"));
	request_reply_json(r, 200,
			   json_pack("{s:s, s:i, s:s, s:I, s:o}", "version", CARREL_VERSION, "schema", db_schema_version(),
				     "started", started, "uid", (json_int_t)r->who.uid, "roles", roles));
	return 0;
}

int handle_openapi(struct request *r, struct err *e)
{
	(void)e;
	request_reply_json(r, 200, openapi_document());
	return 0;
}

static void metric(struct str *text, const char *name, const char *type, const char *help)
{
	str_printf(text, "# TYPE carrel_%s %s\n# HELP carrel_%s %s\n", name, type, name, help);
}

int handle_metrics(struct request *r, struct err *e)
{
	struct service *s = r->service;
	struct db_counters c = db_count(s->db);
	struct str text = { 0 };
	uint64_t states[STATE_COUNT] = { 0 }, operations[4] = { 0 };

	(void)e;
	for (size_t i = 0; i < s->workspaces.count; i++)
		states[s->workspaces.items[i]->truth.state]++;
	for (size_t i = 0; i < s->operations.count; i++)
		operations[s->operations.items[i]->state]++;
	metric(&text, "workspaces", "gauge", "Workspaces by state.");
	for (int i = 0; i < STATE_COUNT; i++)
		str_printf(&text, "carrel_workspaces{state=\"%s\"} %llu\n", state_names[i], (unsigned long long)states[i]);
	metric(&text, "operations", "gauge", "Operations of the last day by state.");
	for (int i = 0; operation_state_names[i]; i++)
		str_printf(&text, "carrel_operations{state=\"%s\"} %llu\n", operation_state_names[i],
			   (unsigned long long)operations[i]);
	metric(&text, "host_connected", "gauge", "Whether the agent of a host is connected.");
	for (struct host *h = s->hosts; h; h = h->next)
		str_printf(&text, "carrel_host_connected{host=\"%s\"} %d\n", h->name, host_connected(h));
	network_metrics(s, &text);
	metric(&text, "connections", "gauge", "Connections to the API.");
	str_printf(&text, "carrel_connections %zu\n", server_connections(s->server));
	metric(&text, "reports", "counter", "Reports of hosts.");
	str_printf(&text, "carrel_reports_total %llu\n", (unsigned long long)s->reports);
	metric(&text, "db_commits", "counter", "Transactions of the database.");
	str_printf(&text, "carrel_db_commits_total %llu\n", (unsigned long long)c.commits);
	metric(&text, "db_batches", "counter", "Changes within them.");
	str_printf(&text, "carrel_db_batches_total %llu\n", (unsigned long long)c.batches);
	metric(&text, "db_failures", "counter", "Changes that were not stored.");
	str_printf(&text, "carrel_db_failures_total %llu\n", (unsigned long long)c.failures);
	metric(&text, "db_commit_seconds", "counter", "Time within transactions.");
	str_printf(&text, "carrel_db_commit_seconds_total %.6f\n# EOF\n", (double)c.commit_us / 1e6);
	request_reply_text(r, 200, "application/openmetrics-text; version=1.0.0; charset=utf-8", text.bytes, text.length);
	return 0;
}

/* --- why --- */

static json_t *reason(const char *code, const char *message, const char *hint)
{
	json_t *json = json_pack("{s:s, s:s}", "reason", code, "message", message);
	if (hint)
		(void)json_object_set_new(json, "hint", json_string(hint));
	return json;
}

static json_t *reason_of_progress(const struct workspace *w)
{
	own_strbuf struct str text = { 0 };
	char done[16], total[16];
	const struct operation *o = w->operation;
	const char *step = o && o->step ? o->step : w->truth.step;

	if (!step)
		return reason("waiting", "the host has the wish and has not begun with it", NULL);
	str_printf(&text, "step '%s' is under way", step);
	if (o && o->total)
		str_printf(&text, ": %s of %s", str_bytes(done, sizeof done, o->done),
			   str_bytes(total, sizeof total, o->total));
	return reason("step", text.bytes, NULL);
}

static json_t *why(struct service *s, const struct workspace *w)
{
	const struct host *h = host_find(s, w->host);
	own_strbuf struct str text = { 0 };

	if (w->truth.state == STATE_FAILED || (w->truth.error && workspace_settled(w))) {
		json_t *json = reason("failed",
				      w->truth.error && w->truth.error->message ? w->truth.error->message :
										  "the host told no reason",
				      w->truth.error ? w->truth.error->hint : NULL);
		if (w->truth.error)
			(void)json_object_set_new(json, "error", error_of_report(w->truth.error));
		return json;
	}
	if (workspace_settled(w)) {
		str_printf(&text, "nothing is left to do: it is %s, as wished", state_names[w->truth.state]);
		if (w->truth.state == STATE_STOPPED && w->truth.exit_status != FIELD_NO_PRESET)
			str_printf(&text, " (its program ended with status %llu)", (unsigned long long)w->truth.exit_status);
		if (w->truth.notice)
			str_printf(&text, "; %s", w->truth.notice);
		return reason("settled", text.bytes, NULL);
	}
	if (!h || !host_connected(h)) {
		str_printf(&text, "host %s is not connected", w->host);
		return reason("host-away", text.bytes,
			      "start carrel-node there; the wish is kept and done as soon as it connects");
	}
	return reason_of_progress(w);
}

struct why_view {
	char *reason, *message, *hint, *state, *wish, *network;
	json_t *dropped;
	void *error, *operation;
};
#define Y(member) offsetof(struct why_view, member)
static const struct field why_fields[] = {
	{ "reason", FIELD_TEXT, Y(reason), "settled, failed, host-away, step or waiting", .required = true },
	{ "message", FIELD_TEXT, Y(message), "the same for people", .required = true },
	{ "hint", FIELD_TEXT, Y(hint), "what can be done" },
	{ "state", FIELD_TEXT, Y(state), "what is", .required = true },
	{ "wish", FIELD_TEXT, Y(wish), "what shall be", .required = true },
	{ "dropped", FIELD_JSON, Y(dropped), "packets that rules dropped: rule, packets, last" },
	{ "network", FIELD_TEXT, Y(network), "what is wrong with the networks of a workspace that runs" },
	{ "error", FIELD_OBJECT, Y(error), "the whole failure", .shape = &error_shape },
	{ "operation", FIELD_OBJECT, Y(operation), "the operation under way", .shape = &operation_shape },
	{ 0 },
};
const struct shape why_shape = { "why", sizeof(struct why_view), why_fields, "What a workspace waits for, or why it failed.",
				 .open = true };

int handle_workspace_why(struct request *r, struct err *e)
{
	struct workspace *w;
	int result = workspace_find(r, r->params[0], &w, e);

	if (result < 0)
		return result;
	json_t *json = why(r->service, w);
	(void)json_object_set_new(json, "state", json_string(state_names[w->truth.state]));
	(void)json_object_set_new(json, "wish", json_string(wish_names[w->wish.wish]));
	json_t *dropped = json_object_get(w->traffic, "dropped");
	if (json_array_size(dropped))
		(void)json_object_set(json, "dropped", dropped);
	const char *problem = json_string_value(json_object_get(w->traffic, "problem"));
	if (problem && *problem && w->truth.state == STATE_RUNNING)
		(void)json_object_set_new(json, "network", json_string(problem));
	if (w->operation)
		(void)json_object_set_new(json, "operation", operation_to_json(w->operation));
	request_reply_json(r, 200, json);
	return 0;
}
