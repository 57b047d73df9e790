/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. A stream joins two WebSockets: the client's, and one that the host's agent opens when it is told of the stream. The
 * client's first message is the request (what to execute, which path); it goes to the host with the news of the stream. All
 * later messages are relayed unchanged. The client's side is not read before the host's is there, and a side whose peer is slow
 * is not read until the peer has drained, so a stream holds a bounded amount of memory.
 *
 * A stream to a workspace that is still on its way waits for it: `carrel run` attaches before the program starts. Nothing else
 * waits without end: the client's request, the host's side and the closing each have their time, and a workspace that goes
 * takes its streams with it.
 */
#include <string.h>

#include "base/err_json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/own.h"
#include "service/carry.h"
#include "service/handlers.h"
#include "service/host.h"
#include "service/operation.h"
#include "service/routes.h"
#include "service/views.h"

#define MESSAGE_MOST (128 << 10)
#define RAW_PIECE 16384
#define PAIR_WAIT_MS 30000
#define REQUEST_WAIT_MS 10000
#define CLOSE_WAIT_MS 10000

struct side {
	struct stream *stream;
	struct ws *ws;
	void *handle;
};

struct stream {
	struct service *service;
	char id[ID_SIZE], workspace[ID_SIZE];
	char *host;
	const char *kind; /* static */
	struct side client, node;
	json_t *request; /* the client's first message; NULL: it has not come yet */
	bool counted, told; /* told: the host knows */
	/* the client speaks without channels, as viewers in a browser do: bytes of channel 0 there, of channel 1 here */
	bool raw;
	bool filled;        /* an import that ended well */
	bool refused;       /* an import of something that this host does not take */
	struct loop_source *timer;
	struct stream *next;
};

static const char *const kinds[] = {
	"attach", "console", "exec", "logs", "copy-in", "copy-out", "display", "export", "import"
};

static bool is_bundle(const char *kind) { return str_eq(kind, "export") || str_eq(kind, "import"); }

static struct stream *find(struct service *s, const char *id)
{
	struct stream *t = s->streams;
	while (t && !str_eq(t->id, id))
		t = t->next;
	return t;
}

static void side_end(struct side *side)
{
	if (!side->ws)
		return;
	ws_free(side->ws);
	side->ws = NULL;
	request_upgrade_end(side->handle);
}

static void uncount(struct stream *t)
{
	struct workspace *w = workspace_by_id(t->service, t->workspace);

	if (!t->counted || !w)
		return;
	t->counted = false;
	w->attached--;
	w->was_attached = true;
	converge_streams_changed(t->service, w);
}

static void end_import(struct stream *t)
{
	struct workspace *w = workspace_by_id(t->service, t->workspace);

	if (str_eq(t->kind, "import") && t->refused && !t->filled && w)
		carry_ended(t->service, w);
}

static void stream_free(struct stream *t)
{
	for (struct stream **at = &t->service->streams; *at; at = &(*at)->next) {
		if (*at == t) {
			*at = t->next;
			break;
		}
	}
	loop_remove(t->timer);
	side_end(&t->client);
	side_end(&t->node);
	uncount(t);
	end_import(t);
	json_decref(t->request);
	free(t->host);
	free(t);
}

static void take_too_long(void *data)
{
	struct stream *t = data;
	t->timer = NULL;
	stream_free(t);
}

static void set_timer(struct stream *t, uint64_t ms, loop_fn *fn)
{
	loop_remove(t->timer);
	t->timer = loop_add_timer(t->service->loop, ms, fn, t);
}

static struct side *other(struct side *side)
{
	return side == &side->stream->client ? &side->stream->node : &side->stream->client;
}

static void refuse(struct stream *t, json_t *error)
{
	json_t *whole = json_pack("{s:o}", "error", error);
	own_str char *text = json_dumps(whole, JSON_COMPACT);

	json_decref(whole);
	if (!t->client.ws)
		return;
	ws_resume(t->client.ws);
	ws_send(t->client.ws, true, text, strlen(text));
	ws_close(t->client.ws);
	set_timer(t, CLOSE_WAIT_MS, take_too_long);
}

static void not_paired(void *data)
{
	struct stream *t = data;
	t->timer = NULL;
	refuse(t, json_pack("{s:s, s:s}", "kind", "timeout", "message", "the host did not open its side of the stream"));
}

static void no_request(void *data)
{
	struct stream *t = data;
	t->timer = NULL;
	refuse(t,
	       json_pack("{s:s, s:s}", "kind", "timeout", "message", "the stream's first message, its request, did not come"));
}

/* --- the sides --- */

static void advance(struct stream *t, struct workspace *w);

/* Nothing more is read from the client until the host's side is there. */
static void take_request(struct stream *t, bool text, const char *bytes, size_t length)
{
	struct workspace *w = workspace_by_id(t->service, t->workspace);

	t->request = text ? json_loadb(bytes, length, 0, NULL) : NULL;
	if (!json_is_object(t->request)) {
		refuse(t,
		       json_pack("{s:s, s:s}", "kind", "invalid", "message", "the first message of a stream is a JSON object"));
		return;
	}
	loop_remove(TAKE(t->timer));
	ws_pause(t->client.ws);
	if (w)
		advance(t, w);
	else
		refuse(t, json_pack("{s:s, s:s}", "kind", "not-found", "message", "the workspace is gone"));
}

/* The end is the WebSocket's own; a reason is passed on as it is. */
static void relay_raw(struct stream *t, struct side *from, bool text, const char *bytes, size_t length)
{
	if (from == &t->node) {
		if (text && length > 8 && memcmp(bytes, "{\"error\"", 8) == 0)
			ws_send(t->client.ws, true, bytes, length);
		else if (!text && length > 1)
			ws_send(t->client.ws, false, bytes + 1, length - 1);
		return;
	}
	for (size_t n; length > 0 && !text; bytes += n, length -= n) {
		char frame[1 + RAW_PIECE] = { 0 };
		n = length < RAW_PIECE ? length : RAW_PIECE;
		memcpy(frame + 1, bytes, n);
		ws_send(t->node.ws, false, frame, n + 1);
	}
}

/* What broke off may go on; what the host found to be wrong will be wrong again. */
static bool is_refusal(const char *bytes, size_t length)
{
	static const enum err_kind kinds_of_it[] = { ERR_CORRUPT,     ERR_DENIED,   ERR_INVALID,
						     ERR_UNSUPPORTED, ERR_CONFLICT, ERR_TOO_LARGE };
	json_t *message = json_loadb(bytes, length, 0, NULL);
	const char *kind = json_string_value(json_object_get(json_object_get(message, "error"), "kind"));
	bool refusal = false;

	for (size_t i = 0; kind && i < ARRAY_SIZE(kinds_of_it); i++)
		refusal = refusal || err_kind_from_name(kind) == kinds_of_it[i];
	json_decref(message);
	return refusal;
}

static void watch_import(struct stream *t, struct workspace *w, const char *bytes, size_t length)
{
	if (t->filled)
		return;
	if (length >= 7 && memcmp(bytes, "{\"exit\"", 7) == 0) {
		t->filled = true;
		carry_filled(t->service, w);
	} else {
		t->refused = t->refused || is_refusal(bytes, length);
	}
}

static void side_message(void *data, bool text, const char *bytes, size_t length)
{
	struct side *side = data, *peer = other(side);
	struct stream *t = side->stream;

	if (side == &t->client && !t->request) {
		take_request(t, text, bytes, length);
		return;
	}
	if (!peer->ws)
		return;
	struct workspace *imported = str_eq(t->kind, "import") && text && side == &t->node ?
					     workspace_by_id(t->service, t->workspace) :
					     NULL;
	if (imported)
		watch_import(t, imported, bytes, length);
	if (t->raw)
		relay_raw(t, side, text, bytes, length);
	else
		ws_send(peer->ws, text, bytes, length);
	if (ws_congested(peer->ws))
		ws_pause(side->ws);
}

static void side_drained(void *data)
{
	struct side *peer = other(data);
	if (peer->ws)
		ws_resume(peer->ws);
}

static void side_closed(void *data, const struct err *why)
{
	struct side *side = data;
	struct stream *t = side->stream;
	struct side *peer = other(side);

	(void)why;
	side_end(side);
	if (!peer->ws) {
		stream_free(t);
		return;
	}
	ws_close(peer->ws);
	ws_resume(peer->ws);
	set_timer(t, CLOSE_WAIT_MS, take_too_long);
}

/* A client that left while it waited needs nothing any more. What it sent to a host that was told already still goes there. */
static void client_gone(void *data)
{
	struct side *side = data;
	if (!side->stream->told)
		stream_free(side->stream);
}

static const struct ws_events side_events = { .message = side_message, .closed = side_closed, .drained = side_drained };
static const struct ws_events client_events = { .message = side_message, .closed = side_closed, .drained = side_drained,
						.gone = client_gone };

/* --- opening --- */

static int check_wish(const struct workspace *w, const char *kind, struct err *e)
{
	bool ended = w->truth.state == STATE_STOPPED && w->truth.run >= w->wish.run;
	bool alive = (w->wish.wish == WISH_RUNNING || w->wish.wish == WISH_PAUSED) && !ended;

	if (w->wish.wish == WISH_REMOVED)
		return err_set(e, ERR_CONFLICT, "workspace '%s' is being removed", w->name);
	if (is_bundle(kind) && state_is_live((enum state)w->truth.state)) {
		(void)err_set(e, ERR_CONFLICT, "workspace '%s' is %s: a bundle is made of one at rest", w->name,
			      state_names[w->truth.state]);
		return err_hint(e, "carrel stop %s, or carrel suspend %s to carry its memory too", w->name, w->name);
	}
	if (str_eq(kind, "import")) /* what fills it */
		return 0;
	if (is_bundle(kind) || str_starts(kind, "copy"))
		return carry_check(w, e);
	if (str_eq(kind, "attach") || str_eq(kind, "logs"))
		return 0;
	if (!alive || w->wish.wish == WISH_PAUSED) {
		(void)err_set(e, ERR_CONFLICT, "workspace '%s' is not running (%s)", w->name, state_names[w->truth.state]);
		return err_hint(e,
				w->wish.wish == WISH_PAUSED || w->wish.wish == WISH_SUSPENDED ? "carrel resume %s" :
												"carrel start %s",
				w->name);
	}
	return 0;
}

/* Sends the stream to the host when the workspace is far enough; refuses it when that cannot come. */
static void advance(struct stream *t, struct workspace *w)
{
	struct host *h = host_find(t->service, t->host);
	enum state state = (enum state)w->truth.state;
	bool needs_life = !str_eq(t->kind, "logs") && !str_starts(t->kind, "copy") && !is_bundle(t->kind);
	bool alive = state_is_live(state) && w->truth.run >= w->wish.run;
	bool over = state == STATE_STOPPED && w->truth.run >= w->wish.run && w->truth.run > 0;
	struct err why = { 0 };

	if (t->told || !t->client.ws || !t->request)
		return;
	if (state == STATE_REMOVED) {
		refuse(t, json_pack("{s:s, s:s}", "kind", "not-found", "message", "the workspace was removed"));
		t->told = true;
		return;
	}
	if (state == STATE_FAILED && workspace_settled(w) && needs_life) {
		refuse(t, w->truth.error ? error_of_report(w->truth.error) :
					   json_pack("{s:s, s:s}", "kind", "internal", "message", "failed"));
		t->told = true;
		return;
	}
	/* it ended, or was stopped, while the request was on its way; attach hears how it ended */
	if (needs_life && !str_eq(t->kind, "attach") && check_wish(w, t->kind, &why) < 0) {
		refuse(t, err_to_json(&why));
		t->told = true;
		return;
	}
	bool ready = !needs_life ? state >= STATE_PREPARED : alive || (over && str_eq(t->kind, "attach"));
	if (!ready || !h || !host_connected(h))
		return;
	t->told = true;
	host_send(h, json_pack("{s:s, s:s, s:s, s:s, s:O}", "type", "stream", "stream", t->id, "workspace", t->workspace,
			       "kind", t->kind, "request", t->request));
	set_timer(t, PAIR_WAIT_MS, not_paired);
}

void streams_workspace_changed(struct service *s, struct workspace *w)
{
	for (struct stream *t = s->streams, *next; t; t = next) {
		next = t->next;
		if (str_eq(t->workspace, w->id))
			advance(t, w);
	}
}

void streams_host_gone(struct service *s, struct host *h)
{
	for (struct stream *t = s->streams, *next; t; t = next) {
		next = t->next;
		if (!str_eq(t->host, h->name) || t->node.ws)
			continue; /* the agent's own connections of streams end by themselves */
		t->told = false;
	}
}

static void client_opened(void *data, struct ws *ws, void *handle)
{
	struct side *side = data;

	side->ws = ws;
	side->handle = handle;
	if (side->stream->raw) /* it asks for nothing */
		take_request(side->stream, true, "{}", 2);
	else
		set_timer(side->stream, REQUEST_WAIT_MS, no_request);
}

/* Gone before the upgrade. */
static void client_abandoned(void *data)
{
	struct side *side = data;
	stream_free(side->stream);
}

int handle_workspace_stream(struct request *r, struct err *e)
{
	const char *kind = NULL;
	struct workspace *w;
	int result = workspace_find(r, r->params[0], &w, e);

	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		if (str_eq(kinds[i], r->uri.segments[3]))
			kind = kinds[i];
	if (result == 0 && r->route->need == NEED_CHANGE && !r->who.admin && w->owner_uid != r->who.uid)
		result = err_set(e, ERR_DENIED, "workspace '%s' belongs to another user", w->name);
	if (result == 0)
		result = check_wish(w, kind, e);
	if (result < 0)
		return result;
	struct host *h = host_find(r->service, w->host);
	if (!h || !host_connected(h)) {
		(void)err_set(e, ERR_UNAVAILABLE, "host %s of workspace '%s' is not connected", w->host, w->name);
		return err_hint(e, "is carrel-node running there?");
	}
	struct stream *t = mem_alloc(sizeof *t);
	*t = (struct stream){ .service = r->service, .kind = kind, .host = mem_strdup(w->host), .next = r->service->streams };
	t->raw = str_eq(kind, "display") && request_query(r, "raw");
	id_new(t->id);
	(void)snprintf(t->workspace, sizeof t->workspace, "%s", w->id);
	t->client.stream = t->node.stream = t;
	r->service->streams = t;
	if (str_eq(kind, "attach")) {
		t->counted = true;
		w->attached++;
	}
	request_reply_upgrade(r, MESSAGE_MOST, &client_events, client_opened, client_abandoned, &t->client);
	return 0;
}

static void node_opened(void *data, struct ws *ws, void *handle)
{
	struct side *side = data;
	struct stream *t = side->stream;

	side->ws = ws;
	side->handle = handle;
	loop_remove(t->timer);
	t->timer = NULL;
	if (t->client.ws)
		ws_resume(t->client.ws);
	else
		ws_close(ws);
}

int handle_host_stream(struct request *r, struct err *e)
{
	struct stream *t = find(r->service, r->params[1]);

	if (!t || !str_eq(t->host, r->params[0]) || t->node.ws || !t->client.ws)
		return err_set(e, ERR_NOT_FOUND, "no such stream, or its client is gone");
	request_reply_upgrade(r, MESSAGE_MOST, &side_events, node_opened, NULL, &t->node);
	return 0;
}
