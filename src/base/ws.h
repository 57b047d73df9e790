/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_WS_H
#define BASE_WS_H

/*
 * One WebSocket connection (RFC 6455; frames by wslay) on a connected descriptor, driven by an event loop, either side.
 *
 * Messages are whole: text (JSON) or binary. Flow control: a peer that does not read makes `ws_send` queue; past WS_QUEUE_MOST
 * the sender is told to pause (ws_congested) and `drained` is called when it may go on. Limits on message size are the
 * caller's.
 */

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "base/loop.h"

#define WS_QUEUE_MOST (1 << 20)
#define WS_CLOSE_WAIT_MS 5000

struct ws;

struct ws_events {
	/* One whole message. Not called again for this ws after ws_pause until ws_resume. */
	void (*message)(void *data, bool text, const char *bytes, size_t length);
	/* The connection is over: `why->kind` is ERR_NONE after an orderly close, else says what went wrong (error, protocol
	 * violation). Called once, from the loop, never from inside a call of this header; the ws may be freed here. */
	void (*closed)(void *data, const struct err *why);
	void (*drained)(void *data); /* may be NULL */
	/* The peer hung up while the ws was paused: what it sent before is read, and `closed` follows, after ws_resume. May be
	 * NULL. */
	void (*gone)(void *data);
};

enum ws_side { WS_CLIENT, WS_SERVER };

/* Takes `fd` (non-blocking is set). `early` are bytes that were read past the HTTP header. */
struct ws *ws_new(struct loop *l, int fd, enum ws_side side, size_t longest_message, const void *early, size_t early_length,
		  const struct ws_events *events, void *data);
void ws_free(struct ws *w); /* closes at once; no callback; allowed inside callbacks; NULL is fine */
void ws_send(struct ws *w, bool text, const void *bytes, size_t length);
bool ws_congested(const struct ws *w);
void ws_pause(struct ws *w);  /* stop reading: the peer will feel it */
void ws_resume(struct ws *w);
/* Sends what is queued, then a close frame; `closed` follows at the peer's answer, or after WS_CLOSE_WAIT_MS without one. No
 * message is delivered any more. */
void ws_close(struct ws *w);

/* Server: the Sec-WebSocket-Accept value of a Sec-WebSocket-Key. Out: 29 bytes. */
void ws_accept_key(const char *key, char out[29]);

#endif
