/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. The request (what to execute, which path) comes with the news of the stream. A worker opens the
 * WebSocket to the service, then one opens the runner's socket (either may block). From there on the loop relays:
 *   runner -> client: read one message, send it; when the WebSocket is congested the runner's socket is not read until it
 *   drained.
 *   client -> runner: send one message; when the socket is full the message is kept, the WebSocket paused, and both go on when
 *   the
 *   socket can be written.
 * A request that fails is answered with the text {"error":{...}} and a close, as the runner itself would.
 *
 * A copy into or out of a workspace that does not run needs namespaces and mounts, but no program: a runner is started in
 * maintenance for it and ends with the stream. It holds the volumes' locks, so no start and no other copy can come between.
 */
#include "node/stream.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/err_json.h"
#include "base/http.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"
#include "base/ws.h"
#include "engine/runner_client.h"
#include "node/bundle.h"
#include "node/logs.h"
#include "node/steps.h"

#define BORROW_AFTER_MS 10
#define BORROW_TRIES 1000

struct stream {
	struct node *node;
	struct agent *agent;
	char *stream, *id, *kind, *folder;
	json_t *request;
	enum state state;
	bool busy;  /* a worker opens the runner's end */
	bool gone;  /* the client went meanwhile */
	/* both ends */
	int ws_fd, runner_fd;
	struct str early;
	struct err why;
	struct ws *ws;
	struct loop_source *source, *retry;
	unsigned tries;
	char *kept; /* a message that the runner's socket did not take */
	size_t kept_length;
	bool ended;
	struct logs *logs;
	struct work work; /* work.record: borrowed for maintenance, or for a bundle */
	struct bundle_job *bundle;
	struct stream *next;
};

static struct stream *streams; /* all that are open: loop thread only */

static void stream_release(struct stream *s)
{
	struct stream **at = &streams;

	while (*at && *at != s)
		at = &(*at)->next;
	if (*at)
		*at = s->next;
	logs_free(s->logs);
	loop_remove(s->source);
	loop_remove(s->retry);
	if (s->ws)
		ws_free(s->ws);
	own_close(&s->ws_fd);
	own_close(&s->runner_fd);
	s->runner_fd = s->ws_fd = -1;
	s->logs = NULL;
	s->source = s->retry = NULL;
	s->ws = NULL;
}

static void stream_drop(struct stream *s)
{
	str_done(&s->early);
	json_decref(s->request);
	free(s->kept);
	free(s->stream);
	free(s->id);
	free(s->kind);
	free(s->folder);
	free(s);
}

static bool is_bundle(const struct stream *s) { return str_eq(s->kind, "export") || str_eq(s->kind, "import"); }

static void end_maintenance(void *data)
{
	struct stream *s = data;
	struct err e = { 0 };

	bundle_job_free(s->bundle);
	if (!is_bundle(s) && steps_undo_start(&s->work, &e) < 0)
		log_error(&e, "end of a copy");
}

static void maintenance_ended(void *data)
{
	struct stream *s = data;

	agent_give_back(s->agent, s->id);
	stream_drop(s);
}

static void stream_free(struct stream *s)
{
	stream_release(s);
	if (s->work.record)
		workers_run(s->node->workers, end_maintenance, maintenance_ended, s, false);
	else
		stream_drop(s);
}

/* At the end of the agent. A runner that was in maintenance is taken away by the next one. */
void stream_close_all(void)
{
	while (streams) {
		struct stream *s = streams;
		stream_release(s);
		stream_drop(s);
	}
}

/* --- opening: on a worker --- */

static unsigned number_of(const json_t *request, const char *key)
{
	return (unsigned)json_integer_value(json_object_get(request, key));
}

static bool bool_of(const json_t *request, const char *key) { return json_is_true(json_object_get(request, key)); }
static const char *text_of(const json_t *request, const char *key) { return json_string_value(json_object_get(request, key)); }

static int open_exec(struct stream *s, const char *run, struct err *e)
{
	json_t *command = json_object_get(s->request, "command"), *environment = json_object_get(s->request, "environment"),
	       *value;
	size_t count = json_array_size(command), i, filled = 0;
	const char *key;

	if (count == 0)
		return err_set(e, ERR_INVALID, "exec needs a command");
	own_str const char **argv = mem_alloc_array(count + 1, sizeof *argv);
	char **env = mem_alloc_array(json_object_size(environment) + 1, sizeof *env);
	json_array_foreach(command, i, value)
		argv[i] = json_is_string(value) ? json_string_value(value) : "";
	json_object_foreach(environment, key, value)
		env[filled++] = mem_printf("%s=%s", key, json_is_string(value) ? json_string_value(value) : "");
	struct runner_exec what = {
		.command = argv,
		.environment = (const char *const *)env,
		.user = text_of(s->request, "user"),
		.directory = text_of(s->request, "directory"),
		.terminal = bool_of(s->request, "terminal"),
		.input = bool_of(s->request, "stdin"),
		.rows = number_of(s->request, "rows"),
		.columns = number_of(s->request, "columns"),
	};
	int r = runner_exec(run, &what, &s->runner_fd, e);
	for (i = 0; i < filled; i++)
		free(env[i]);
	free(env);
	return r;
}

static int open_runner(struct stream *s, struct err *e)
{
	own_str char *run = mem_printf("%s/%s", s->node->runs, s->id);
	unsigned rows = number_of(s->request, "rows"), columns = number_of(s->request, "columns");
	const char *path = text_of(s->request, "path");

	if (str_eq(s->kind, "attach"))
		return runner_attach(run, rows, columns, bool_of(s->request, "stdin"), &s->runner_fd, e);
	if (str_eq(s->kind, "display"))
		return runner_display(run, &s->runner_fd, e);
	if (str_eq(s->kind, "console"))
		return runner_console(run, rows, columns, bool_of(s->request, "stdin"), &s->runner_fd, e);
	if (str_eq(s->kind, "exec"))
		return open_exec(s, run, e);
	if (!path)
		return err_set(e, ERR_INVALID, "a copy needs a path");
	if (str_eq(s->kind, "copy-in"))
		return runner_copy_in(run, path, &s->runner_fd, e);
	if (str_eq(s->kind, "copy-out"))
		return runner_copy_out(run, path, &s->runner_fd, e);
	return err_set(e, ERR_UNSUPPORTED, "this host knows no stream of kind %s", s->kind);
}

static void open_job(void *data)
{
	struct stream *s = data;
	own_str char *path = mem_printf("/v1/hosts/%s/streams/%s", s->node->config.name, s->stream);
	struct err e = { 0 };

	if (http_upgrade(s->node->config.service, path, &s->ws_fd, &s->early, &e) < 0)
		log_error(&e, "stream %s", s->stream);
}

static void runner_job(void *data)
{
	struct stream *s = data;

	if (is_bundle(s)) {
		(void)!(str_eq(s->kind, "export") ? bundle_export : bundle_import)(&s->work, s->request, &s->runner_fd,
										   &s->bundle, &s->why);
		return;
	}
	if (s->work.record && steps_maintain(&s->work, &s->why) < 0)
		return;
	if (open_runner(s, &s->why) == -EHOSTUNREACH) {
		(void)err_set(&s->why, ERR_UNAVAILABLE, "the workspace does not run");
		(void)err_hint(&s->why, "start it first");
	}
}

/* --- relaying: on the loop --- */

static void finish(struct stream *s)
{
	s->ended = true;
	loop_remove(TAKE(s->source));
	own_close(&s->runner_fd);
	s->runner_fd = -1;
	ws_close(s->ws);
}

static void finish_with(struct stream *s, const struct err *e)
{
	json_t *message = json_pack("{s:o}", "error", err_to_json(e));
	own_str char *text = json_dumps(message, JSON_COMPACT);

	json_decref(message);
	ws_send(s->ws, true, text, strlen(text));
	finish(s);
}

static uint32_t wanted_events(const struct stream *s)
{
	return (ws_congested(s->ws) ? 0 : EPOLLIN) | (s->kept ? EPOLLOUT : 0);
}

/* 1: sent; 0: the socket is full. */
static int send_to_runner(struct stream *s, const char *bytes, size_t length)
{
	ssize_t n = send(s->runner_fd, bytes, length, MSG_NOSIGNAL | MSG_DONTWAIT);
	return n >= 0 || (errno != EAGAIN && errno != ENOBUFS); /* a runner that is gone shows when it is read */
}

/* What was imported takes its place before the client hears of it. */
static void import_job(void *data)
{
	struct stream *s = data;
	(void)!bundle_import_finish(&s->work, s->bundle, &s->why);
}

static void import_done(void *data)
{
	static const char done[] = "{\"exit\":0}";
	struct stream *s = data;

	s->busy = false;
	if (s->gone) {
		stream_free(s);
		return;
	}
	if (s->why.kind) {
		finish_with(s, &s->why);
		return;
	}
	ws_send(s->ws, true, done, sizeof done - 1);
	finish(s);
}

static void finish_import(struct stream *s)
{
	s->busy = true;
	loop_remove(TAKE(s->source));
	workers_run(s->node->workers, import_job, import_done, s, false);
}

static void read_runner(struct stream *s)
{
	static char buffer[RUNNER_FRAME_LONGEST + 1]; /* loop thread only */

	for (int messages = 0; messages < 64 && !ws_congested(s->ws); messages++) {
		ssize_t n = recv(s->runner_fd, buffer, sizeof buffer, MSG_DONTWAIT);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		/* it left input unread: told once, before the messages that are still there */
		if (n < 0 && errno == ECONNRESET)
			continue;
		if (n <= 0) {
			finish(s);
			return;
		}
		if (s->bundle && bundle_is_import(s->bundle) && str_starts(buffer, "{\"exit\"")) {
			finish_import(s);
			return;
		}
		ws_send(s->ws, buffer[0] == '{', buffer, (size_t)n);
	}
}

static void on_runner(void *data, uint32_t events)
{
	struct stream *s = data;

	if (s->kept && (events & (EPOLLOUT | EPOLLERR | EPOLLHUP)) && send_to_runner(s, s->kept, s->kept_length)) {
		free(TAKE(s->kept));
		ws_resume(s->ws);
	}
	if (events & (EPOLLIN | EPOLLHUP | EPOLLERR))
		read_runner(s);
	if (s->source)
		loop_set_events(s->source, wanted_events(s));
}

static void relay_to_runner(struct stream *s, const char *bytes, size_t length)
{
	if (length == 0 || length > RUNNER_FRAME_LONGEST || s->kept || send_to_runner(s, bytes, length))
		return;
	s->kept = mem_dup(bytes, length);
	s->kept_length = length;
	ws_pause(s->ws);
	loop_set_events(s->source, wanted_events(s));
}

static void on_frame(void *data, bool text, const char *bytes, size_t length)
{
	struct stream *s = data;

	(void)text;
	if (!s->ended && s->runner_fd >= 0)
		relay_to_runner(s, bytes, length);
}

static void on_closed(void *data, const struct err *why)
{
	struct stream *s = data;

	(void)why;
	s->gone = true;
	if (!s->busy)
		stream_free(s);
}

static void on_drained(void *data)
{
	struct stream *s = data;

	if (s->source)
		loop_set_events(s->source, wanted_events(s));
	if (s->logs)
		logs_go_on(s->logs);
}

static const struct ws_events ws_handlers = { .message = on_frame, .closed = on_closed, .drained = on_drained };

static void on_logs_end(void *data) { finish(data); }

static bool is_live(void *data)
{
	struct stream *s = data;
	enum state state;
	return agent_look(s->agent, s->id, NULL, &state) && state_is_live(state);
}

static void open_logs(struct stream *s)
{
	struct logs_request request = {
		.follow = bool_of(s->request, "follow"),
		.tail = json_is_integer(json_object_get(s->request, "tail")) ?
				json_integer_value(json_object_get(s->request, "tail")) :
				-1,
		.since_ms = (uint64_t)json_integer_value(json_object_get(s->request, "since_ms")),
	};
	own_str char *path = mem_printf("%s/log/output", s->folder);
	s->logs = logs_new(s->node->loop, path, &request, s->ws, is_live, on_logs_end, s);
}

/* Attached to too late: the exit status is still known. */
static bool tell_exit(struct stream *s)
{
	struct isolate_status status;
	uint64_t exit_status;

	if (!str_eq(s->kind, "attach") || s->why.kind != ERR_UNAVAILABLE)
		return false;
	if (isolate_status(s->node, s->id, &status, NULL) == 0 && status.ended)
		exit_status = (uint64_t)status.exit_status;
	else if (!agent_exit_status(s->agent, s->id, &exit_status))
		return false;
	own_str char *text = mem_printf("{\"exit\":%u}", (unsigned)exit_status);
	ws_send(s->ws, true, text, strlen(text));
	finish(s);
	return true;
}

static void runner_done(void *data)
{
	struct stream *s = data;

	s->busy = false;
	if (s->gone) {
		stream_free(s);
		return;
	}
	if (s->why.kind) {
		if (!tell_exit(s))
			finish_with(s, &s->why);
		return;
	}
	s->source = loop_add_fd(s->node->loop, s->runner_fd, EPOLLIN, on_runner, s);
	ws_resume(s->ws);
}

static void begin(struct stream *s);

static void begin_again(void *data)
{
	struct stream *s = data;
	s->retry = NULL;
	begin(s);
}

/* False: it is being worked on - the copy before this one may still be ending - and looked at again in a moment. */
static bool borrow(struct stream *s)
{
	if (!agent_look(s->agent, s->id, NULL, &s->state) || (state_is_live(s->state) && !is_bundle(s)))
		return true;
	(void)!agent_borrow(s->agent, s->id, str_eq(s->kind, "export"), &s->work.record, &s->why);
	if (s->why.kind != ERR_PRECONDITION || ++s->tries > BORROW_TRIES)
		return true;
	err_clear(&s->why);
	s->retry = loop_add_timer(s->node->loop, BORROW_AFTER_MS, begin_again, s);
	return false;
}

/* The client's messages wait until there is somebody to read them. */
static void begin(struct stream *s)
{
	ws_pause(s->ws);
	if (!s->why.kind && (str_starts(s->kind, "copy-") || is_bundle(s)) && !borrow(s))
		return;
	if (s->why.kind) {
		finish_with(s, &s->why);
		return;
	}
	if (str_eq(s->kind, "logs")) {
		ws_resume(s->ws);
		open_logs(s);
		return;
	}
	s->busy = true;
	workers_run(s->node->workers, runner_job, runner_done, s, false);
}

static void open_done(void *data)
{
	struct stream *s = data;

	if (s->ws_fd < 0) {
		stream_drop(s);
		return;
	}
	s->next = streams;
	streams = s;
	s->ws = ws_new(s->node->loop, TAKE_FD(s->ws_fd), WS_CLIENT, RUNNER_TEXTS_LONGEST, s->early.bytes, s->early.length,
		       &ws_handlers, s);
	str_done(&s->early);
	begin(s);
}

static void say_nothing(struct work *w) { (void)w; }

void stream_open(struct node *n, struct agent *a, const char *stream, const char *id, const char *kind, const json_t *request)
{
	struct stream *s = mem_alloc(sizeof *s);

	s->node = n;
	s->agent = a;
	s->stream = mem_strdup(stream);
	s->id = mem_strdup(id);
	s->kind = mem_strdup(kind);
	s->request = json_deep_copy(request);
	s->ws_fd = s->runner_fd = -1;
	if (strchr(stream, '/') || !id_valid(id) || !agent_look(a, id, &s->folder, &s->state))
		(void)err_set(&s->why, ERR_NOT_FOUND, "this host has no workspace %s", id);
	s->work.node = n;
	s->work.tell = say_nothing;
	workers_run(n->workers, open_job, open_done, s, false);
}
