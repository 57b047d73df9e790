/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. Connecting blocks (a unix socket, or TCP later), so it is a job of the workers; all else happens on the
 * loop. After the upgrade the agent says hello with its facts, all reports and the kept volumes; the service answers with all
 * assignments. A service that does not read makes the socket congested: reports are then not queued one by one, but all of them
 * are sent anew when it has drained - levels need no queue.
 */
#include "node/channel.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/err_json.h"
#include "base/http.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"
#include "base/ws.h"
#include "node/facts.h"
#include "node/kept.h"
#include "node/network.h"
#include "node/steps.h"
#include "node/stream.h"
#include "node/template.h"

#define FIRST_DELAY_MS 50
#define LONGEST_DELAY_MS 2000
#define MESSAGE_MOST ((size_t)64 << 20)

struct channel {
	struct node *node;
	struct agent *agent;
	struct ws *ws;
	struct loop_source *timer;
	uint64_t delay_ms;
	bool stale, volumes_due, complained;
	bool looks;        /* at what this host can do */
	json_t *look_ids;  /* who asked for that since it began; NULL: nobody */
	/* of the connecting job */
	int fd;
	struct str early;
	struct err why;
	json_t *facts;
};

static void send_json(struct channel *c, json_t *message) /* takes it */
{
	own_str char *text = json_dumps(message, JSON_COMPACT);

	json_decref(message);
	if (text && c->ws)
		ws_send(c->ws, true, text, strlen(text));
}

/* --- what the agent tells --- */

static void on_report(void *data, json_t *report)
{
	struct channel *c = data;

	if (!c->ws)
		return;
	c->stale |= ws_congested(c->ws);
	if (!c->stale)
		send_json(c, json_pack("{s:s, s:[O]}", "type", "reports", "items", report));
}

static void on_progress(void *data, const char *id, const char *step, uint64_t done, uint64_t total)
{
	struct channel *c = data;

	if (c->ws && !ws_congested(c->ws))
		send_json(c, json_pack("{s:s, s:s, s:s, s:I, s:I}", "type", "progress", "workspace", id, "step", step, "done",
				       (json_int_t)done, "total", (json_int_t)total));
}

static void send_volumes(void *data)
{
	struct channel *c = data;

	c->volumes_due = false;
	if (c->ws && c->agent)
		send_json(c, json_pack("{s:s, s:o}", "type", "volumes", "items", kept_list(c->node)));
}

static void on_volumes(void *data)
{
	struct channel *c = data;

	if (c->volumes_due || !c->ws)
		return;
	c->volumes_due = true;
	(void)loop_add_timer(c->node->loop, 200, send_volumes, c);
}

const struct agent_events channel_agent_events = { .report = on_report, .progress = on_progress, .volumes = on_volumes };

/* --- what the service tells --- */

static void on_assignments(struct channel *c, json_t *message)
{
	bool full = json_is_true(json_object_get(message, "full"));
	json_t *item;
	size_t i;

	if (full)
		agent_mark(c->agent);
	json_array_foreach(json_object_get(message, "items"), i, item) {
		struct assignment wish = { 0 };
		struct err e = { 0 };
		if (decode_json(item, "assignment", &assignment_shape, &wish, &e) < 0)
			log_error(&e, "assignment from the service");
		else
			agent_assign(c->agent, &wish);
	}
	if (full)
		agent_sweep(c->agent, json_is_true(json_object_get(message, "authoritative")));
}

static void on_forget(struct channel *c, json_t *message)
{
	json_t *item;
	size_t i;

	json_array_foreach(json_object_get(message, "ids"), i, item)
		if (json_is_string(item))
			agent_forget(c->agent, json_string_value(item));
}

static void on_plan(struct channel *c, json_t *message)
{
	struct assignment a = { 0 };
	struct err e = { 0 };
	json_int_t id = json_integer_value(json_object_get(message, "id"));

	if (decode_json(json_object_get(message, "assignment"), "assignment", &assignment_shape, &a, &e) < 0)
		send_json(c, json_pack("{s:s, s:I, s:o}", "type", "planned", "id", id, "error", err_to_json(&e)));
	else
		send_json(c, json_pack("{s:s, s:I, s:o}", "type", "planned", "id", id, "plan", steps_plan(c->node, &a)));
	assignment_done(&a);
}

static void suspend_checked(void *data, json_t *question, json_t *answer)
{
	struct channel *c = data;

	if (c->ws)
		send_json(c, json_pack("{s:s, s:O, s:O}", "type", "suspend-checked", "id", question, "check", answer));
	json_decref(answer);
}

static void on_suspend_check(struct channel *c, json_t *message)
{
	const char *id = json_string_value(json_object_get(message, "workspace"));

	agent_suspend_check(c->agent, id ? id : "", json_object_get(message, "to"), json_object_get(message, "id"),
			    suspend_checked, c);
}

struct look {
	struct channel *channel;
	json_t *ids, *facts; /* of those who asked before it began */
};

static void look_job(void *data)
{
	struct look *l = data;
	l->facts = facts_read(l->channel->node);
}

static void look(struct channel *c);

static void look_done(void *data)
{
	struct look *l = data;
	struct channel *c = l->channel;
	json_t *id;
	size_t i;

	json_array_foreach(l->ids, i, id)
		if (c->ws)
			send_json(c, json_pack("{s:s, s:O, s:O}", "type", "facts", "id", id, "facts", l->facts));
	json_decref(l->ids);
	json_decref(l->facts);
	free(l);
	c->looks = false;
	look(c);
}

/* One at a time, for all who wait: any user may ask, and workspaces wait for the same workers. */
static void look(struct channel *c)
{
	if (c->looks || !c->look_ids)
		return;
	struct look *l = mem_alloc(sizeof *l);
	*l = (struct look){ .channel = c, .ids = TAKE(c->look_ids) };
	c->looks = true;
	workers_run(c->node->workers, look_job, look_done, l, false);
}

static void on_look(struct channel *c, json_t *message)
{
	json_t *id = json_object_get(message, "id");

	if (!c->look_ids)
		c->look_ids = json_array();
	(void)json_array_append(c->look_ids, id);
	look(c);
}

static void on_remove_volume(struct channel *c, json_t *message)
{
	json_int_t owner = json_integer_value(json_object_get(message, "owner"));
	const char *name = json_string_value(json_object_get(message, "name"));
	struct err e = { 0 };

	if (name && kept_remove(c->node, (uint64_t)owner, name, &e) < 0 && e.kind != ERR_NOT_FOUND)
		send_json(c, json_pack("{s:s, s:I, s:s, s:o}", "type", "volume-error", "owner", owner, "name", name, "error",
				       err_to_json(&e)));
	send_volumes(c);
}

struct templates_job {
	struct channel *channel;
	json_t *question, *items;
	char *gone; /* NULL: the list is wanted */
	struct err why;
	int result;
};

static void templates_job(void *data)
{
	struct templates_job *j = data;
	struct templates *t = j->channel->node->templates;

	if (j->gone)
		j->result = templates_drop(t, j->gone, &j->why);
	else
		j->items = templates_list(t);
}

static void templates_done(void *data)
{
	struct templates_job *j = data;
	struct channel *c = j->channel;
	json_t *answer = j->items      ? json_pack("{s:{s:O}}", "check", "items", j->items) :
			 j->result < 0 ? json_pack("{s:o}", "error", err_to_json(&j->why)) :
					 json_pack("{s:b}", "done", 1);

	(void)json_object_set_new(answer, "type", json_string("answered"));
	(void)json_object_set(answer, "id", j->question);
	if (c->ws)
		send_json(c, json_incref(answer));
	json_decref(answer);
	json_decref(j->question);
	json_decref(j->items);
	free(j->gone);
	free(j);
}

/* Files are read, and large ones removed: not on the loop. */
static void on_templates(struct channel *c, json_t *message)
{
	const char *gone = json_string_value(json_object_get(message, "remove"));
	struct templates_job *j = mem_alloc(sizeof *j);

	*j = (struct templates_job){ .channel = c, .question = json_incref(json_object_get(message, "id")),
				     .gone = gone ? mem_strdup(gone) : NULL };
	workers_run(c->node->workers, templates_job, templates_done, j, false);
}

static void on_stream(struct channel *c, json_t *message)
{
	const char *stream = json_string_value(json_object_get(message, "stream"));
	const char *id = json_string_value(json_object_get(message, "workspace"));
	const char *kind = json_string_value(json_object_get(message, "kind"));

	if (stream && id && kind)
		stream_open(c->node, c->agent, stream, id, kind, json_object_get(message, "request"));
}

static void on_networks(struct channel *c, json_t *message) { networks_take(c->node->networks, message); }

static void on_judge(struct channel *c, json_t *message) { send_json(c, networks_judge(c->node->networks, message)); }

static const struct {
	const char *type;
	void (*handle)(struct channel *c, json_t *message);
} handlers[] = {
	{ "assignments", on_assignments }, { "forget", on_forget },		     { "stream", on_stream },
	{ "plan", on_plan },		   { "volume-remove", on_remove_volume },
	{ "networks", on_networks },	   { "judge", on_judge },		     { "suspend-check", on_suspend_check },
	{ "look", on_look },		   { "templates", on_templates },
};

static void on_message(void *data, bool text, const char *bytes, size_t length)
{
	struct channel *c = data;
	json_error_t why;
	json_t *message = text ? json_loadb(bytes, length, 0, &why) : NULL;
	const char *type = json_string_value(json_object_get(message, "type"));

	for (size_t i = 0; type && i < ARRAY_SIZE(handlers); i++)
		if (str_eq(type, handlers[i].type))
			handlers[i].handle(c, message);
	json_decref(message);
}

/* --- the connection --- */

static void connect_later(struct channel *c);

static void on_closed(void *data, const struct err *why)
{
	struct channel *c = data;

	log_info("the connection to the service ended: %s", why ? why->message : "closed");
	ws_free(TAKE(c->ws));
	connect_later(c);
}

static void send_all(struct channel *c)
{
	c->stale = false;
	send_json(c, json_pack("{s:s, s:b, s:o}", "type", "reports", "full", 1, "items", agent_reports(c->agent)));
	send_volumes(c);
}

static void on_drained(void *data)
{
	struct channel *c = data;
	if (c->stale)
		send_all(c);
}

static const struct ws_events ws_handlers = { .message = on_message, .closed = on_closed, .drained = on_drained };

static void connect_job(void *data)
{
	struct channel *c = data;
	own_str char *path = mem_printf("/v1/hosts/%s/channel", c->node->config.name);

	err_clear(&c->why);
	c->fd = -1;
	if (http_upgrade(c->node->config.service, path, &c->fd, &c->early, &c->why) == 0)
		c->facts = facts_read(c->node);
}

static void connect_done(void *data)
{
	struct channel *c = data;

	if (c->fd < 0) {
		if (!c->complained)
			log_warn("no service at %s yet: %s", c->node->config.service, c->why.message);
		c->complained = true;
		connect_later(c);
		return;
	}
	c->complained = false;
	c->delay_ms = FIRST_DELAY_MS;
	c->ws = ws_new(c->node->loop, TAKE_FD(c->fd), WS_CLIENT, MESSAGE_MOST, c->early.bytes, c->early.length, &ws_handlers,
		       c);
	str_done(&c->early);
	log_info("connected to the service at %s", c->node->config.service);
	send_json(c, json_pack("{s:s, s:i, s:s, s:s, s:o}", "type", "hello", "protocol", 1, "version", CARREL_VERSION,
			       "boot-id", boot_id(), "facts", TAKE(c->facts)));
	send_all(c);
}

static void connect_now(void *data)
{
	struct channel *c = data;
	c->timer = NULL;
	workers_run(c->node->workers, connect_job, connect_done, c, false);
}

static void connect_later(struct channel *c)
{
	c->timer = loop_add_timer(c->node->loop, c->delay_ms, connect_now, c);
	c->delay_ms = c->delay_ms * 2 > LONGEST_DELAY_MS ? LONGEST_DELAY_MS : c->delay_ms * 2;
}

struct channel *channel_new(struct node *n)
{
	struct channel *c = mem_alloc(sizeof *c);

	c->node = n;
	c->fd = -1;
	c->delay_ms = FIRST_DELAY_MS;
	return c;
}

static void tell(void *data, json_t *message) { send_json(data, message); }

void channel_start(struct channel *c, struct agent *a)
{
	c->agent = a;
	networks_start(c->node->networks, tell, c);
	connect_now(c);
}

void channel_free(struct channel *c)
{
	networks_stop(c->node->networks);
	if (c->ws)
		ws_free(c->ws);
	loop_remove(c->timer);
	own_close(&c->fd);
	str_done(&c->early);
	json_decref(c->facts);
	json_decref(c->look_ids);
	free(c);
}
