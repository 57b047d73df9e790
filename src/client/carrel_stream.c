/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The streaming calls of the public header: each stream has an event loop of its own, which carrel_stream_run runs on the
 * caller's thread, so that a program needs to know nothing of ours; two streams at a time are two threads. Input is asked for
 * when there is room (the timer of 0 ms begins it), never buffered without limit. A stream may end before it is run: `ended`
 * and `why` keep what came of it.
 */
#include "carrel/carrel.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/loop.h"
#include "base/mem.h"
#include "base/own.h"
#include "client/carrel_private.h"
#include "client/stream.h"

struct carrel_stream {
	struct carrel *carrel;
	struct loop *loop;
	struct stream *stream;
	struct carrel_stream_calls calls;
	void *data;
	bool ended;
	int status;
	struct err why; /* kind ERR_NONE: ended with `status` */
};

static void on_output(void *data, int channel, const char *bytes, size_t length)
{
	struct carrel_stream *s = data;
	if (s->calls.output)
		s->calls.output(s->data, channel, bytes, length);
}

static void on_end(void *data, int status, const struct err *why)
{
	struct carrel_stream *s = data;

	s->ended = true;
	s->status = status;
	if (why)
		s->why = *why;
	loop_stop(s->loop);
}

static void ask_for_input(void *data)
{
	struct carrel_stream *s = data;

	if (s->ended)
		return;
	if (s->calls.input)
		s->calls.input(s->data, s);
	else
		stream_end_input(s->stream);
}

static int open_stream(struct carrel *c, char *path, json_t *request, const struct carrel_stream_calls *calls, void *data,
		       struct carrel_stream **ret_stream)
{
	static const struct stream_events events = { on_output, on_end, ask_for_input };
	struct carrel_stream *s = mem_alloc(sizeof *s);

	s->carrel = c;
	s->calls = *calls;
	s->data = data;
	s->loop = loop_new();
	int r = stream_open(s->loop, client_address(c->client), path, request, &events, s, &s->stream, &c->error);
	free(path);
	json_decref(request);
	if (r < 0) {
		carrel_stream_close(s);
		return r;
	}
	(void)loop_add_timer(s->loop, 0, ask_for_input, s);
	*ret_stream = s;
	return 0;
}

int carrel_exec(struct carrel *c, const char *ref, const char *request, const struct carrel_stream_calls *calls, void *data,
		struct carrel_stream **ret_stream)
{
	json_error_t where;
	int r = carrel_begin(c);
	json_t *json = r == 0 ? json_loads(request, 0, &where) : NULL;

	if (r == 0 && !json)
		r = err_set(&c->error, ERR_INVALID, "the request is not JSON: %s", where.text);
	if (r < 0)
		return r;
	if (!json_object_get(json, "stdin"))
		(void)json_object_set_new(json, "stdin", json_boolean(calls->input != NULL));
	return open_stream(c, client_path("/v1/workspaces/%s/exec", ref), json, calls, data, ret_stream);
}

int carrel_attach(struct carrel *c, const char *ref, const struct carrel_stream_calls *calls, void *data,
		  struct carrel_stream **ret_stream)
{
	int r = carrel_begin(c);
	json_t *request = json_pack("{s:b}", "stdin", calls->input != NULL);

	if (r == 0)
		return open_stream(c, client_path("/v1/workspaces/%s/attach", ref), request, calls, data, ret_stream);
	json_decref(request);
	return r;
}

int carrel_logs(struct carrel *c, const char *ref, int follow, const struct carrel_stream_calls *calls, void *data,
		struct carrel_stream **ret_stream)
{
	int r = carrel_begin(c);
	json_t *request = json_pack("{s:b}", "follow", follow != 0);

	if (r == 0)
		return open_stream(c, client_path("/v1/workspaces/%s/logs", ref), request, calls, data, ret_stream);
	json_decref(request);
	return r;
}

int carrel_stream_run(struct carrel_stream *s, int *ret_status)
{
	struct carrel *c = s->carrel;

	err_clear(&c->error);
	if (!s->ended) {
		int r = loop_run(s->loop, &c->error);
		if (r < 0)
			return r;
	}
	if (s->why.kind != ERR_NONE) {
		c->error = s->why;
		return -(s->why.number ? s->why.number : EIO);
	}
	*ret_status = s->status;
	return 0;
}

int carrel_stream_write(struct carrel_stream *s, const void *bytes, size_t length)
{
	stream_write(s->stream, bytes, length);
	return !stream_congested(s->stream);
}

void carrel_stream_end_input(struct carrel_stream *s) { stream_end_input(s->stream); }
void carrel_stream_resize(struct carrel_stream *s, unsigned rows, unsigned columns) { stream_resize(s->stream, rows, columns); }
void carrel_stream_signal(struct carrel_stream *s, const char *name) { stream_signal(s->stream, name); }

void carrel_stream_close(struct carrel_stream *s)
{
	if (!s)
		return;
	stream_free(s->stream);
	loop_free(s->loop);
	free(s);
}

/* --- copies: a stream whose ends are the caller's functions --- */

struct copy {
	carrel_read_fn *read;
	carrel_write_fn *write;
	void *data;
	struct carrel_stream *stream;
	struct err failure;
};

static void give_up(struct copy *x, int number, const char *what)
{
	if (number == ECANCELED)
		(void)err_set(&x->failure, ERR_CANCELLED, "cancelled");
	else
		(void)err_errno(&x->failure, number, "%s", what);
	on_end(x->stream, -1, &x->failure);
}

static void copy_output(void *data, int channel, const char *bytes, size_t length)
{
	struct copy *x = data;

	if (channel == STREAM_OUTPUT && x->write && x->failure.kind == ERR_NONE && x->write(x->data, bytes, length) != 0)
		give_up(x, ECANCELED, "write");
}

static void copy_input(void *data, struct carrel_stream *s)
{
	struct copy *x = data;
	own_str char *buffer = mem_alloc(65536);
	long n;

	do {
		n = x->read(x->data, buffer, 65536);
		if (n < 0)
			give_up(x, (int)-n, "read what is to be copied");
		else if (n == 0)
			carrel_stream_end_input(s);
	} while (n > 0 && carrel_stream_write(s, buffer, (size_t)n));
}

/* Takes `path` and `request`. */
static int copy(struct carrel *c, char *path, json_t *request, struct copy *x)
{
	const struct carrel_stream_calls calls = { copy_output, x->read ? copy_input : NULL };
	int status = 0;
	int r = carrel_begin(c);

	if (r == 0)
		r = open_stream(c, path, request, &calls, x, &x->stream);
	else {
		json_decref(request);
		free(path);
	}
	if (r != 0)
		return r;
	r = carrel_stream_run(x->stream, &status);
	if (r == 0 && status != 0)
		r = err_set(&c->error, ERR_INTERNAL, "the copy ended with status %d", status);
	carrel_stream_close(x->stream);
	return r;
}

int carrel_copy_in(struct carrel *c, const char *ref, const char *path, carrel_read_fn *read, void *data)
{
	struct copy x = { .read = read, .data = data };
	return copy(c, client_path("/v1/workspaces/%s/copy-in", ref), json_pack("{s:s}", "path", path), &x);
}

int carrel_copy_out(struct carrel *c, const char *ref, const char *path, carrel_write_fn *write, void *data)
{
	struct copy x = { .write = write, .data = data };
	return copy(c, client_path("/v1/workspaces/%s/copy-out", ref), json_pack("{s:s}", "path", path), &x);
}

int carrel_export_disk(struct carrel *c, const char *ref, const char *format, carrel_write_fn *write, void *data)
{
	struct copy x = { .write = write, .data = data };
	return copy(c, client_path("/v1/workspaces/%s/export", ref), json_pack("{s:s}", "format", format), &x);
}
