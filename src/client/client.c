/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every call is one HTTP request over the kept connection; no state is held between calls but that and the flag of
 * interruption. An answer of 300 or more becomes the service's own error, so that callers see kinds and hints and never a
 * status.
 *
 * Waiting is asking again: each request waits in the service for a bounded time, so that no connection is silent for long and
 * whoever watches hears of progress. Events have no end, so theirs is a download whose sink cuts lines.
 */
#include "client/client.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/own.h"

struct client {
	struct http *http;
	char *address;
	const volatile sig_atomic_t *interrupt;
};

int client_new(const char *address, struct client **ret_client, struct err *e)
{
	struct http *http = NULL;

	if (!address)
		address = getenv("CARREL_ADDRESS");
	if (!address || !*address)
		address = CLIENT_ADDRESS_DEFAULT;
	int r = http_new(address, &http, e);
	if (r < 0)
		return r;
	struct client *c = mem_alloc(sizeof *c);
	c->http = http;
	c->address = mem_strdup(address);
	*ret_client = c;
	return 0;
}

void client_free(struct client *c)
{
	http_free(c->http);
	free(c->address);
	free(c);
}

const char *client_address(const struct client *c) { return c->address; }
void client_set_interrupt(struct client *c, const volatile sig_atomic_t *flag) { c->interrupt = flag; }

char *client_path(const char *fmt, ...)
{
	struct str out = { 0 };
	va_list args;

	va_start(args, fmt);
	for (const char *p = fmt; *p; p++) {
		if (p[0] == '%' && p[1] == 's') {
			http_quote(&out, va_arg(args, const char *));
			p++;
		} else {
			str_putc(&out, *p);
		}
	}
	va_end(args);
	return str_take(&out);
}

/* --- one request --- */

static int interrupted(const struct client *c, struct err *e)
{
	return c->interrupt && *c->interrupt ? err_set(e, ERR_CANCELLED, "interrupted") : 0;
}

/* A signal that is none of the caller's (a resized window) does not end a call. */
static int exchange(struct client *c, struct http_request *q, struct http_answer *a, struct err *e)
{
	int r = interrupted(c, e);

	if (r < 0)
		return r;
	q->interruptible = c->interrupt != NULL;
	r = http_do(c->http, q, a, e);
	if (r < 0)
		return r;
	if (a->status >= 300) {
		r = http_error(a, e);
		http_answer_done(a);
		return r;
	}
	return 0;
}

static int answer_to_json(struct http_answer *a, json_t **ret_json, struct err *e)
{
	json_error_t where;
	json_t *json = a->body.length ? json_loadb(a->body.bytes, a->body.length, JSON_DECODE_ANY, &where) : json_null();

	http_answer_done(a);
	if (!json)
		return err_set(e, ERR_CORRUPT, "the service's answer is not JSON: %s", where.text);
	if (ret_json)
		*ret_json = json;
	else
		json_decref(json);
	return 0;
}

int client_call(struct client *c, const char *method, const char *path, const json_t *body, json_t **ret_json, struct err *e)
{
	return client_call_if(c, method, path, NULL, body, ret_json, NULL, e);
}

int client_call_if(struct client *c, const char *method, const char *path, const char *etag, const json_t *body,
		   json_t **ret_json, char *ret_etag, struct err *e)
{
	own_str char *text = body ? json_dumps(body, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;
	own_str char *match = etag && *etag ? mem_printf("If-Match: %s", etag) : NULL;
	const char *const headers[] = { text ? "Content-Type: application/json" : match, text ? match : NULL, NULL };
	struct http_request q = { .method = method, .path = path, .body = text, .body_length = text ? strlen(text) : 0,
				  .headers = headers };
	struct http_answer a = { 0 };

	if (body && !text)
		return err_set(e, ERR_INVALID, "a text of the request is not UTF-8");
	int r = exchange(c, &q, &a, e);
	if (r < 0)
		return r;
	if (ret_etag)
		(void)snprintf(ret_etag, CLIENT_ETAG_SIZE, "%s", a.etag);
	return answer_to_json(&a, ret_json, e);
}

int client_upload(struct client *c, const char *path, long (*read)(void *data, char *buffer, size_t size), void *data,
		  json_t **ret_json, struct err *e)
{
	const char *const headers[] = { "Content-Type: application/octet-stream", NULL };
	struct http_request q = { .method = "POST", .path = path, .headers = headers, .read = read, .data = data };
	struct http_answer a = { 0 };
	int r = exchange(c, &q, &a, e);

	return r < 0 ? r : answer_to_json(&a, ret_json, e);
}

static int sink_write(void *data, const char *bytes, size_t length)
{
	const struct client_sink *sink = data;
	return sink->write(sink->data, bytes, length);
}

static void sink_head(void *data, const struct http_answer *a)
{
	const struct client_sink *sink = data;
	if (sink->operation && a->operation[0])
		sink->operation(sink->data, a->operation);
}

static void sink_tick(void *data)
{
	const struct client_sink *sink = data;
	sink->tick(sink->data);
}

int client_download(struct client *c, const char *path, const struct client_sink *sink, struct err *e)
{
	struct http_request q = { .method = "GET", .path = path, .write = sink_write, .head = sink_head,
				  .tick = sink->tick ? sink_tick : NULL, .data = (void *)(uintptr_t)sink };
	struct http_answer a = { 0 };
	int r = exchange(c, &q, &a, e);

	if (r == 0)
		http_answer_done(&a);
	return r;
}

/* --- lists --- */

static char *cursor_text(const json_t *next)
{
	if (json_is_string(next))
		return mem_strdup(json_string_value(next));
	return json_is_integer(next) ? mem_printf("%lld", (long long)json_integer_value(next)) : NULL;
}

int client_list(struct client *c, const char *path, json_t **ret_items, struct err *e)
{
	own_json json_t *all = json_array();
	own_str char *cursor = NULL;

	do {
		own_str char *after = cursor ? client_path(strchr(path, '?') ? "&after=%s" : "?after=%s", cursor) : NULL;
		own_str char *page = mem_printf("%s%s", path, after ? after : "");
		own_json json_t *answer = NULL;
		int r = client_call(c, "GET", page, NULL, &answer, e);
		if (r < 0)
			return r;
		json_t *items = json_object_get(answer, "items");
		if (!json_is_array(items))
			return err_set(e, ERR_CORRUPT, "the service's answer has no list of items");
		(void)json_array_extend(all, items);
		free(cursor);
		cursor = json_array_size(items) ? cursor_text(json_object_get(answer, "next")) : NULL;
	} while (cursor);
	*ret_items = json_incref(all);
	return 0;
}

/* --- operations --- */

int client_error_of(const json_t *error, struct err *e)
{
	const char *kind = json_string_value(json_object_get(error, "kind"));
	const char *message = json_string_value(json_object_get(error, "message"));
	const char *hint = json_string_value(json_object_get(error, "hint"));
	enum err_kind k = kind ? err_kind_from_name(kind) : ERR_INTERNAL;
	int r = err_set(e, k == ERR_NONE ? ERR_INTERNAL : k, "%s", message ? message : "the service gave no reason");

	return hint ? err_hint(e, "%s", hint) : r;
}

const char *client_operation_id(const json_t *answer)
{
	const json_t *operation = json_object_get(answer, "operation");

	if (json_is_string(operation))
		return json_string_value(operation);
	if (json_is_object(operation))
		return json_string_value(json_object_get(operation, "id"));
	return json_object_get(answer, "kind") ? json_string_value(json_object_get(answer, "id")) : NULL;
}

static int operation_result(const json_t *operation, struct err *e)
{
	const char *state = json_string_value(json_object_get(operation, "state"));

	if (state && strcmp(state, "done") == 0)
		return 0;
	if (json_is_object(json_object_get(operation, "error")))
		return client_error_of(json_object_get(operation, "error"), e);
	if (state && strcmp(state, "cancelled") == 0)
		return err_set(e, ERR_CANCELLED, "the operation was cancelled");
	return err_set(e, ERR_INTERNAL, "the operation failed");
}

int client_wait(struct client *c, const char *id, void (*progress)(void *data, const json_t *operation), void *data,
		json_t **ret_operation, struct err *e)
{
	bool first = progress != NULL;

	for (;;) {
		/* With somebody who watches, the first look does not wait and the next ones are short. */
		own_str char *path = client_path(first    ? "/v1/operations/%s" :
						 progress ? "/v1/operations/%s?wait=1" :
							    "/v1/operations/%s?wait=30",
						 id);
		own_json json_t *operation = NULL;
		int r = client_call(c, "GET", path, NULL, &operation, e);
		if (r < 0)
			return r;
		const char *state = json_string_value(json_object_get(operation, "state"));
		if (!state)
			return err_set(e, ERR_CORRUPT, "the service's answer has no operation");
		if (progress)
			progress(data, operation);
		if (strcmp(state, "running") != 0) {
			r = operation_result(operation, e);
			if (r == 0 && ret_operation)
				*ret_operation = json_incref(operation);
			return r;
		}
		first = false;
	}
}

/* --- events --- */

struct feed {
	struct str line;
	int (*event)(void *data, const json_t *event);
	void *data;
	bool ended;
};

static int take_line(struct feed *f, const char *line)
{
	if (!str_starts(line, "data:"))
		return 0;
	own_json json_t *event = json_loads(line + 5 + (line[5] == ' '), JSON_DECODE_ANY, NULL);
	if (!event)
		return 0;
	f->ended = f->event(f->data, event) != 0;
	return f->ended;
}

static int take_bytes(void *data, const char *bytes, size_t length)
{
	struct feed *f = data;

	str_add(&f->line, bytes, length);
	for (char *end; (end = f->line.length ? memchr(f->line.bytes, '\n', f->line.length) : NULL);) {
		*end = '\0';
		if (take_line(f, f->line.bytes))
			return 1;
		str_drop_front(&f->line, (size_t)(end - f->line.bytes) + 1);
	}
	return f->line.length > 1 << 20;
}

int client_follow_events(struct client *c, long long after, int (*event)(void *data, const json_t *event), void *data,
			 struct err *e)
{
	struct feed f = { .event = event, .data = data };
	own_str char *path = after < 0 ? mem_strdup("/v1/events?follow=1") :
					 mem_printf("/v1/events?follow=1&after=%lld", after);
	int r = client_download(c, path, &(struct client_sink){ .write = take_bytes, .data = &f }, e);

	str_done(&f.line);
	return f.ended ? 0 : r;
}
