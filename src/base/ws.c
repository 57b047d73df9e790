/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. wslay does the framing; the bytes move here. Outgoing frames are encoded at once into `out`, which is
 * sent with one system call per attempt, at first directly from ws_send (nothing waits for the loop while the socket takes it),
 * then on EPOLLOUT. Incoming bytes are fed to wslay, which calls back with whole messages.
 *
 * wslay reads ahead up to 4 KiB, so a few messages may be decoded after ws_pause: they stand in `held` and are delivered first
 * by ws_resume. A paused socket whose peer is gone would report EPOLLHUP for ever, so it leaves the loop until it is resumed.
 *
 * Callbacks run only from the loop. Any of them may call ws_free: the ws is then released when the outermost callback returns.
 *
 * States: open -> closing (ws_close: our close frame is in `out`) -> over (`closed` was called). A dead connection goes from
 * open straight to over, by a timer of 0 ms when it was noticed inside ws_send.
 */
#include "base/ws.h"

#include <errno.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>
#include <wslay/wslay.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/str.h"

struct held {
	bool text;
	char *bytes;
	size_t length;
	struct held *next;
};

struct ws {
	struct loop *loop;
	uint32_t watched;           /* events of `source` */
	struct loop_source *source; /* NULL: paused on a socket that hung up, or over */
	struct loop_source *soon;   /* a timer of 0 ms: look at the state from the loop */
	struct loop_source *close_timer;
	int fd;
	wslay_event_context_ptr frames;
	struct ws_events events;
	void *data;
	struct str early; /* bytes to be read before those of the socket */
	struct str out;
	size_t out_sent; /* of `out`, already written */
	struct held *held, **held_end;
	struct err failure; /* kind ERR_NONE: none */
	bool mute;          /* the peer takes nothing more, but what it sent before is still to be read */
	bool lost;          /* end of file or an error: nothing can be sent or received */
	bool paused, closing, over, told_congested;
	bool freed;
	int busy; /* callbacks under way */
};

static void look_soon(struct ws *w);

/* --- bytes --- */

static size_t queued(const struct ws *w) { return w->out.length - w->out_sent; }

static void note_failure(struct ws *w, int number, const char *what)
{
	w->lost = true;
	if (w->failure.kind == ERR_NONE)
		(void)err_errno(&w->failure, number, "%s", what);
}

static void flush(struct ws *w)
{
	while (!w->lost && !w->mute && queued(w)) {
		ssize_t n = send(w->fd, w->out.bytes + w->out_sent, queued(w), MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			break;
		if (n < 0)
			w->mute = true;
		else
			w->out_sent += (size_t)n;
	}
	if (w->mute)
		w->out_sent = w->out.length;
	if (w->out_sent && (w->out_sent == w->out.length || w->out_sent > w->out.length / 2)) {
		str_drop_front(&w->out, w->out_sent);
		w->out_sent = 0;
	}
}

static ssize_t take_frame(wslay_event_context_ptr frames, const uint8_t *bytes, size_t length, int flags, void *data)
{
	struct ws *w = data;
	(void)frames;
	(void)flags;
	str_add(&w->out, bytes, length);
	return (ssize_t)length;
}

static ssize_t give_bytes(wslay_event_context_ptr frames, uint8_t *buffer, size_t size, int flags, void *data)
{
	struct ws *w = data;
	(void)flags;

	if (w->freed || w->over || (w->paused && !w->closing)) {
		wslay_event_set_error(frames, WSLAY_ERR_WOULDBLOCK);
		return -1;
	}
	if (w->early.length) {
		size_t n = w->early.length < size ? w->early.length : size;
		memcpy(buffer, w->early.bytes, n);
		str_drop_front(&w->early, n);
		return (ssize_t)n;
	}
	ssize_t n;
	do
		n = recv(w->fd, buffer, size, MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	if (n > 0)
		return n;
	if (n < 0 && errno == EAGAIN) {
		wslay_event_set_error(frames, WSLAY_ERR_WOULDBLOCK);
		return -1;
	}
	if (n == 0) {
		w->lost = true;
		if (w->failure.kind == ERR_NONE && !w->closing)
			(void)err_set(&w->failure, ERR_UNAVAILABLE, "the peer ended the connection");
	} else {
		note_failure(w, errno, "receive from the peer");
	}
	wslay_event_set_error(frames, WSLAY_ERR_CALLBACK_FAILURE);
	return -1;
}

/* Masks must not be predictable (RFC 6455, 10.3). */
static int give_mask(wslay_event_context_ptr frames, uint8_t *buffer, size_t size, void *data)
{
	(void)frames;
	(void)data;
	return getrandom(buffer, size, 0) == (ssize_t)size ? 0 : -1;
}

/* --- messages --- */

static void deliver(struct ws *w, bool text, const char *bytes, size_t length)
{
	w->busy++;
	w->events.message(w->data, text, bytes, length);
	w->busy--;
}

static void hold(struct ws *w, const struct wslay_event_on_msg_recv_arg *m)
{
	struct held *h = mem_alloc(sizeof *h);
	*h = (struct held){ .text = m->opcode == WSLAY_TEXT_FRAME, .bytes = mem_strndup((const char *)m->msg, m->msg_length),
			    .length = m->msg_length };
	*w->held_end = h;
	w->held_end = &h->next;
}

static void take_message(wslay_event_context_ptr frames, const struct wslay_event_on_msg_recv_arg *m, void *data)
{
	struct ws *w = data;
	(void)frames;

	if (w->freed || w->closing || (m->opcode != WSLAY_TEXT_FRAME && m->opcode != WSLAY_BINARY_FRAME))
		return;
	if (w->paused || w->held)
		hold(w, m);
	else
		deliver(w, m->opcode == WSLAY_TEXT_FRAME, (const char *)m->msg, m->msg_length);
}

static void deliver_held(struct ws *w)
{
	while (w->held && !w->paused && !w->freed) {
		struct held *h = w->held;
		w->held = h->next;
		if (!w->held)
			w->held_end = &w->held;
		if (!w->closing)
			deliver(w, h->text, h->bytes, h->length);
		free(h->bytes);
		free(h);
	}
}

/* --- the connection --- */

static void release(struct ws *w)
{
	while (w->held) {
		struct held *next = w->held->next;
		free(w->held->bytes);
		free(w->held);
		w->held = next;
	}
	wslay_event_context_free(w->frames);
	str_done(&w->early);
	str_done(&w->out);
	free(w);
}

static void leave_loop(struct ws *w)
{
	loop_remove(w->source);
	loop_remove(w->soon);
	loop_remove(w->close_timer);
	w->source = w->soon = w->close_timer = NULL;
}

static bool release_if_freed(struct ws *w)
{
	if (w->freed && w->busy == 0) {
		release(w);
		return true;
	}
	return false;
}

static void finish(struct ws *w)
{
	leave_loop(w);
	w->over = true;
	w->busy++;
	w->events.closed(w->data, &w->failure);
	w->busy--;
}

/* What ended the reading: the peer's close frame, or a violation that wslay answered with a close frame of ours. */
static void note_end_of_frames(struct ws *w)
{
	unsigned sent = wslay_event_get_status_code_sent(w->frames);

	if (w->failure.kind != ERR_NONE || wslay_event_get_close_received(w->frames) || w->closing)
		return;
	if (sent == WSLAY_CODE_MESSAGE_TOO_BIG)
		(void)err_set(&w->failure, ERR_TOO_LARGE, "the peer sent a message that is too long");
	else
		(void)err_set(&w->failure, ERR_CORRUPT, "the peer violated the WebSocket protocol (close code %u)", sent);
}

static void encode(struct ws *w)
{
	if (wslay_event_want_write(w->frames) && wslay_event_send(w->frames) < 0)
		note_failure(w, EPROTO, "encode a frame");
}

static uint32_t wanted(const struct ws *w)
{
	bool reads = (!w->paused || w->closing) && wslay_event_get_read_enabled(w->frames);
	return (reads ? (uint32_t)EPOLLIN : 0) | (queued(w) ? (uint32_t)EPOLLOUT : 0);
}

static void on_socket(void *data, uint32_t events);

static void update_source(struct ws *w)
{
	uint32_t events = wanted(w);

	if (!w->source && events)
		w->source = loop_add_fd(w->loop, w->fd, events, on_socket, w);
	else if (w->source && events != w->watched)
		loop_set_events(w->source, events);
	w->watched = events;
}

static void tell_drained(struct ws *w)
{
	if (!w->told_congested || queued(w) > WS_QUEUE_MOST / 2 || w->lost)
		return;
	w->told_congested = false;
	if (!w->events.drained)
		return;
	w->busy++;
	w->events.drained(w->data);
	w->busy--;
}

/* After anything happened: send what there is, say what changed, notice the end. */
static void settle(struct ws *w)
{
	if (!w->freed) {
		encode(w);
		flush(w);
		tell_drained(w);
	}
	bool no_more_frames = !w->freed && !wslay_event_get_read_enabled(w->frames);
	if (no_more_frames)
		note_end_of_frames(w);
	bool ended = w->lost || (no_more_frames && !queued(w));
	if (!w->freed && ended && !(w->held && w->paused && !w->closing))
		finish(w);
	if (release_if_freed(w) || w->over)
		return;
	update_source(w);
}

static void receive(struct ws *w)
{
	w->busy++; /* a message's callback may free w while wslay is at work */
	if (wslay_event_get_read_enabled(w->frames)) {
		int r = wslay_event_recv(w->frames);
		if (r == WSLAY_ERR_NOMEM)
			abort();
		if (r < 0 && !w->lost)
			note_failure(w, EPROTO, "decode a frame");
	}
	w->busy--;
}

static void on_socket(void *data, uint32_t events)
{
	struct ws *w = data;

	if ((events & (EPOLLHUP | EPOLLERR)) && w->paused && !w->closing && !queued(w)) {
		loop_remove(w->source); /* what the peer sent before it went is read after ws_resume */
		w->source = NULL;
		w->busy++;
		if (w->events.gone)
			w->events.gone(w->data);
		w->busy--;
		(void)release_if_freed(w);
		return;
	}
	if (events & (EPOLLIN | EPOLLHUP | EPOLLERR))
		receive(w);
	settle(w);
}

static void on_soon(void *data)
{
	struct ws *w = data;

	w->soon = NULL;
	deliver_held(w);
	if (!w->freed && !w->paused)
		receive(w);
	settle(w);
}

static void look_soon(struct ws *w)
{
	if (!w->soon && !w->over && !w->freed)
		w->soon = loop_add_timer(w->loop, 0, on_soon, w);
}

/* --- the interface --- */

static wslay_event_context_ptr new_frames(struct ws *w, enum ws_side side, size_t longest_message)
{
	const struct wslay_event_callbacks callbacks = { .recv_callback = give_bytes, .send_callback = take_frame,
							 .genmask_callback = give_mask, .on_msg_recv_callback = take_message };
	wslay_event_context_ptr frames;
	int r = side == WS_CLIENT ? wslay_event_context_client_init(&frames, &callbacks, w) :
				    wslay_event_context_server_init(&frames, &callbacks, w);
	if (r != 0)
		abort(); /* out of memory */
	wslay_event_config_set_max_recv_msg_length(frames, longest_message);
	return frames;
}

struct ws *ws_new(struct loop *l, int fd, enum ws_side side, size_t longest_message, const void *early, size_t early_length,
		  const struct ws_events *events, void *data)
{
	struct ws *w = mem_alloc(sizeof *w);

	w->loop = l;
	w->fd = fd;
	w->events = *events;
	w->data = data;
	w->held_end = &w->held;
	w->frames = new_frames(w, side, longest_message);
	if (early_length) {
		str_add(&w->early, early, early_length);
		look_soon(w);
	}
	if (fs_set_blocking(fd, false, &w->failure) < 0) {
		w->lost = true;
		look_soon(w);
	}
	update_source(w);
	return w;
}

void ws_free(struct ws *w)
{
	if (!w || w->freed)
		return;
	leave_loop(w);
	(void)close(w->fd);
	w->freed = true;
	(void)release_if_freed(w);
}

static void after_queueing(struct ws *w)
{
	encode(w);
	flush(w);
	if (w->lost || !wslay_event_get_read_enabled(w->frames))
		look_soon(w);
	else if (queued(w))
		update_source(w);
}

void ws_send(struct ws *w, bool text, const void *bytes, size_t length)
{
	const struct wslay_event_msg m = { .opcode = text ? WSLAY_TEXT_FRAME : WSLAY_BINARY_FRAME, .msg = bytes,
					   .msg_length = length };

	if (w->over || w->freed || w->closing || w->lost)
		return;
	if (wslay_event_queue_msg(w->frames, &m) != 0)
		return; /* the peer's close frame came before: `closed` is on its way */
	after_queueing(w);
	if (ws_congested(w))
		w->told_congested = true;
}

bool ws_congested(const struct ws *w) { return queued(w) > WS_QUEUE_MOST; }

void ws_pause(struct ws *w)
{
	if (w->paused || w->over || w->freed)
		return;
	w->paused = true;
	if (w->source && w->busy == 0)
		update_source(w);
}

void ws_resume(struct ws *w)
{
	if (!w->paused || w->over || w->freed)
		return;
	w->paused = false;
	look_soon(w);
}

static void on_close_timer(void *data)
{
	struct ws *w = data;

	w->close_timer = NULL;
	if (w->failure.kind == ERR_NONE)
		(void)err_set(&w->failure, ERR_TIMEOUT, "the peer did not answer the close frame");
	w->lost = true;
	settle(w);
}

void ws_close(struct ws *w)
{
	if (w->closing || w->over || w->freed)
		return;
	w->closing = true;
	(void)wslay_event_queue_close(w->frames, WSLAY_CODE_NORMAL_CLOSURE, NULL, 0);
	w->close_timer = loop_add_timer(w->loop, WS_CLOSE_WAIT_MS, on_close_timer, w);
	after_queueing(w);
	if (w->source == NULL || w->paused)
		look_soon(w);
}

void ws_accept_key(const char *key, char out[29])
{
	own_strbuf struct str text = { 0 };
	unsigned char sum[EVP_MAX_MD_SIZE];
	unsigned length = 0;

	str_printf(&text, "%s258EAFA5-E914-47DA-95CA-C5AB0DC85B11", key);
	if (EVP_Digest(text.bytes, text.length, sum, &length, EVP_sha1(), NULL) != 1 || length != 20)
		abort(); /* libcrypto without SHA-1 or without memory */
	(void)EVP_EncodeBlock((unsigned char *)out, sum, 20);
}
