/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. A stream is a WebSocket: binary messages are bytes of a channel, texts are control. Its last message is the outcome,
 * which is told once, by `ended`; a line that closes without one is an error of its own. A request that the service would
 * refuse for its length is not sent.
 */
#include "client/stream.h"

#include <stdlib.h>
#include <string.h>

#include "base/http.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/ws.h"
#include "client/client.h"

#define PIECE_MOST 65535
#define MESSAGE_MOST (1 << 20)
#define REQUEST_MOST (128 << 10) /* of the service */

struct stream {
	struct ws *ws;
	struct stream_events events;
	void *data;
	bool input_ended, ended;
};

static void finish(struct stream *s, int status, const struct err *why)
{
	if (s->ended)
		return;
	s->ended = true;
	s->events.end(s->data, status, why);
}

static void on_control(struct stream *s, const char *bytes, size_t length)
{
	own_json json_t *json = json_loadb(bytes, length, 0, NULL);
	const json_t *status = json_object_get(json, "exit"), *error = json_object_get(json, "error");
	struct err why = { 0 };

	if (json_is_integer(status)) {
		finish(s, (int)json_integer_value(status), NULL);
	} else if (json_is_object(error)) {
		(void)client_error_of(error, &why);
		finish(s, -1, &why);
	}
}

static void on_message(void *data, bool text, const char *bytes, size_t length)
{
	struct stream *s = data;

	if (s->ended)
		return;
	if (text)
		on_control(s, bytes, length);
	else if (length > 1)
		s->events.output(s->data, (unsigned char)bytes[0], bytes + 1, length - 1);
}

static void on_closed(void *data, const struct err *why)
{
	struct stream *s = data;
	struct err e = *why;

	if (e.kind == ERR_NONE)
		(void)err_set(&e, ERR_UNAVAILABLE, "the stream ended without a result");
	finish(s, -1, &e);
}

static void on_drained(void *data)
{
	struct stream *s = data;
	if (s->events.drained && !s->ended)
		s->events.drained(s->data);
}

static void send_json(struct stream *s, const json_t *json)
{
	own_str char *text = json_dumps(json, JSON_COMPACT);
	if (text)
		ws_send(s->ws, true, text, strlen(text));
}

int stream_open(struct loop *l, const char *address, const char *path, const json_t *request,
		const struct stream_events *events, void *data, struct stream **ret_stream, struct err *e)
{
	static const struct ws_events ws_events = { on_message, on_closed, on_drained };
	own_strbuf struct str early = { 0 };
	own_str char *text = request ? json_dumps(request, JSON_COMPACT) : NULL;
	int fd = -1;

	if (text && strlen(text) > REQUEST_MOST) {
		(void)err_set(e, ERR_TOO_LARGE, "the command and its environment are too long: %zu bytes, at most %d",
			      strlen(text), REQUEST_MOST);
		return err_hint(e, "give the data on standard input, or as a file (carrel cp)");
	}
	int r = http_upgrade(address, path, &fd, &early, e);
	if (r < 0)
		return r;
	struct stream *s = mem_alloc(sizeof *s);
	s->events = *events;
	s->data = data;
	s->ws = ws_new(l, fd, WS_CLIENT, MESSAGE_MOST, early.bytes, early.length, &ws_events, s);
	if (text)
		ws_send(s->ws, true, text, strlen(text));
	*ret_stream = s;
	return 0;
}

void stream_free(struct stream *s)
{
	if (!s)
		return;
	ws_free(s->ws);
	free(s);
}

void stream_write(struct stream *s, const void *bytes, size_t length)
{
	char frame[1 + PIECE_MOST];

	if (s->input_ended || s->ended)
		return;
	frame[0] = STREAM_INPUT;
	for (const char *p = bytes; length;) {
		size_t n = length < PIECE_MOST ? length : PIECE_MOST;
		memcpy(frame + 1, p, n);
		ws_send(s->ws, false, frame, n + 1);
		p += n;
		length -= n;
	}
}

void stream_end_input(struct stream *s)
{
	if (s->input_ended || s->ended)
		return;
	s->input_ended = true;
	ws_send(s->ws, false, "\0", 1);
}

void stream_resize(struct stream *s, unsigned rows, unsigned columns)
{
	own_json json_t *json = json_pack("{s:{s:i, s:i}}", "resize", "rows", (int)rows, "columns", (int)columns);
	send_json(s, json);
}

void stream_signal(struct stream *s, const char *name)
{
	own_json json_t *json = json_pack("{s:s}", "signal", name);
	send_json(s, json);
}

bool stream_congested(const struct stream *s) { return ws_congested(s->ws); }
void stream_pause(struct stream *s) { ws_pause(s->ws); }
void stream_resume(struct stream *s) { ws_resume(s->ws); }
