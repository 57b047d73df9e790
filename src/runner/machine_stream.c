/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. A stream lies between the channel and a session, which knows pipes and terminals only:
 *
 *   guest -> DATA -> pipe -> session      credit is given back when the pipe has taken all that was sent
 *   session -> pipe -> DATA -> guest      the pipe is read while there is credit
 *
 * So a slow client stops its session, the session its pipe, the pipe the credit, and that the program inside. `waiting` holds
 * at most the credit that was given. The guest's CLOSE ends the session when everything before it has been passed on, and the
 * stream is freed before that: a session that is over has nothing behind it.
 */
#include "runner/machine_channel.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/mem.h"

struct way { /* to the session */
	struct stream *stream;
	int fd; /* -1: none */
	struct loop_source *source;
	struct str waiting;
	uint32_t owed; /* credit for what was passed on, once `waiting` is empty */
};

struct stream {
	struct channel *channel;
	struct stream *next;
	uint32_t number;
	struct session *session;
	struct way ways[2]; /* output, errors */
	uint32_t window;    /* what the guest may send */
	int input;          /* -1: none, or over */
	struct loop_source *input_source;
	uint32_t credit;    /* what the guest takes */
	bool ending;
	struct stream_end end;
};

static void way_close(struct way *w)
{
	loop_remove(w->source);
	w->source = NULL;
	if (w->fd >= 0)
		(void)close(w->fd);
	w->fd = -1;
	str_done(&w->waiting);
}

static void stop_input(struct stream *s)
{
	loop_remove(s->input_source);
	s->input_source = NULL;
}

static void close_input(struct stream *s)
{
	stop_input(s);
	if (s->input >= 0)
		(void)close(s->input);
	s->input = -1;
}

/* The session hears of the end when nothing is left of the stream. */
static void stream_finish(struct stream *s)
{
	struct session *session = s->session;
	struct stream_end end = s->end;

	for (struct stream **at = channel_streams(s->channel); *at; at = &(*at)->next)
		if (*at == s) {
			*at = s->next;
			break;
		}
	way_close(&s->ways[0]);
	way_close(&s->ways[1]);
	close_input(s);
	free(s);
	if (end.error.kind)
		session_fail(session, &end.error);
	else
		session_end(session, end.status);
}

/* --- guest to session --- */

static void way_writable(void *data, uint32_t events);

static void give_credit(struct way *w)
{
	struct stream *s = w->stream;
	uint8_t bytes[4];

	if (!w->owed || s->ending)
		return;
	guest_put_u32(bytes, w->owed);
	s->window += w->owed;
	w->owed = 0;
	channel_send(s->channel, GUEST_CREDIT, s->number, bytes, sizeof bytes);
}

/* True: all of it is passed on. */
static bool way_flush(struct way *w)
{
	while (w->waiting.length && w->fd >= 0) {
		ssize_t n = send(w->fd, w->waiting.bytes, w->waiting.length, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n < 0 && errno == EAGAIN)
			break;
		if (n < 0) { /* nobody reads it any more */
			str_clear(&w->waiting);
			break;
		}
		str_drop_front(&w->waiting, (size_t)n);
	}
	if (w->fd < 0)
		str_clear(&w->waiting);
	bool done = !w->waiting.length;
	if (done) {
		loop_remove(w->source);
		w->source = NULL;
		give_credit(w);
	} else if (!w->source) {
		w->source = loop_add_fd(channel_loop(w->stream->channel), w->fd, EPOLLOUT, way_writable, w);
	}
	return done;
}

static void way_writable(void *data, uint32_t events)
{
	struct way *w = data;
	struct stream *s = w->stream;

	(void)events;
	(void)way_flush(w);
	if (s->ending && !s->ways[0].waiting.length && !s->ways[1].waiting.length)
		stream_finish(s);
}

static void stream_end(struct stream *s, int status, const struct err *error)
{
	s->ending = true;
	s->end = (struct stream_end){ .status = status };
	if (error)
		s->end.error = *error;
	close_input(s);
	if (!s->ways[0].waiting.length && !s->ways[1].waiting.length)
		stream_finish(s);
}

static void take_data(struct stream *s, const struct guest_frame *f)
{
	struct err e;

	if (f->length < 1 || f->length > GUEST_DATA_LONGEST || f->length > s->window || f->payload[0] < 1 ||
	    f->payload[0] > 2) {
		(void)err_set(&e, ERR_CORRUPT, "the machine sent more than it may");
		channel_send(s->channel, GUEST_CLOSE, s->number, NULL, 0);
		stream_end(s, 255, &e);
		return;
	}
	struct way *w = &s->ways[f->payload[0] - 1];
	if (w->fd < 0)
		w = &s->ways[0]; /* a terminal has one */
	s->window -= f->length;
	w->owed += f->length;
	str_add(&w->waiting, f->payload + 1, f->length - 1);
	(void)way_flush(w);
}

static void take_close(struct stream *s, const struct guest_frame *f)
{
	struct guest_close c;
	struct err e = { 0 };

	int r = guest_decode(&guest_close_shape, f->payload, f->length, &c, &e);
	if (r < 0) {
		stream_end(s, 255, &e);
		return;
	}
	r = guest_error_get(&c.error, &e);
	int status = c.exit_status <= 255 ? (int)c.exit_status : 255;
	guest_done(&guest_close_shape, &c);
	stream_end(s, status, r < 0 ? &e : NULL);
}

/* --- session to guest --- */

static void input_ready(void *data, uint32_t events);

static void watch_input(struct stream *s)
{
	if (s->input >= 0 && s->credit > 1 && !s->input_source)
		s->input_source = loop_add_fd(channel_loop(s->channel), s->input, EPOLLIN, input_ready, s);
	else if (s->credit <= 1)
		stop_input(s);
}

static void input_ready(void *data, uint32_t events)
{
	struct stream *s = data;
	uint8_t bytes[GUEST_DATA_LONGEST] = { 0 };
	size_t most = s->credit < sizeof bytes ? s->credit : sizeof bytes;

	(void)events;
	ssize_t n = read(s->input, bytes + 1, most - 1);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n < 0)
		n = 0;
	channel_send(s->channel, GUEST_DATA, s->number, bytes, 1 + (size_t)n);
	s->credit -= 1 + (uint32_t)n;
	if (n == 0)
		close_input(s);
	else
		watch_input(s);
}

/* More than there can be to give back is of no use. */
static bool take_credit(struct stream *s, const struct guest_frame *f)
{
	uint32_t more = f->length == 4 ? guest_get_u32(f->payload) : 0;
	bool useful = more && more <= GUEST_WINDOW - s->credit;

	s->credit = more > GUEST_WINDOW - s->credit ? GUEST_WINDOW : s->credit + more;
	watch_input(s);
	return useful;
}

bool stream_frame(struct channel *c, const struct guest_frame *f)
{
	struct stream *s = *channel_streams(c);

	while (s && (s->number != f->number || s->ending))
		s = s->next;
	if (!s)
		return false;
	if (f->type == GUEST_CREDIT)
		return take_credit(s, f);
	if (f->type == GUEST_DATA)
		take_data(s, f);
	else
		take_close(s, f);
	return true;
}

void streams_end(struct channel *c, const struct err *why, bool at_once)
{
	for (struct stream *s = *channel_streams(c), *next; s; s = next) {
		next = s->next;
		if (s->ending && !at_once)
			continue;
		str_clear(&s->ways[0].waiting);
		str_clear(&s->ways[1].waiting);
		if (s->ending)
			stream_finish(s);
		else
			stream_end(s, 255, why);
	}
}

/* --- what the session asks --- */

static int signal_inside(void *data, int number, struct err *e)
{
	struct stream *s = data;
	uint8_t bytes[4];

	(void)e;
	guest_put_u32(bytes, (uint32_t)number);
	channel_send(s->channel, GUEST_SIGNAL, s->number, bytes, sizeof bytes);
	return 0;
}

static void resize_inside(void *data, unsigned rows, unsigned columns)
{
	struct stream *s = data;
	uint8_t bytes[4] = { (uint8_t)rows, (uint8_t)(rows >> 8), (uint8_t)columns, (uint8_t)(columns >> 8) };

	channel_send(s->channel, GUEST_RESIZE, s->number, bytes, sizeof bytes);
}

static void leave_inside(void *data)
{
	struct stream *s = data;

	channel_send(s->channel, GUEST_CLOSE, s->number, NULL, 0);
	str_clear(&s->ways[0].waiting);
	str_clear(&s->ways[1].waiting);
	stream_end(s, 128 + SIGKILL, NULL);
}

/* --- opening --- */

static int make_pair(int *ret_ours, int *ret_sessions, struct err *e)
{
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
		return err_errno(e, errno, "make a socket pair");
	*ret_ours = pair[0];
	*ret_sessions = pair[1];
	return 0;
}

static int make_ends(struct stream *s, const struct guest_open *o, struct session_streams *ends, struct err *e)
{
	int r;

	if (o->terminal) {
		r = make_pair(&s->ways[0].fd, &ends->terminal, e);
		if (r >= 0 && (s->input = fcntl(s->ways[0].fd, F_DUPFD_CLOEXEC, 0)) < 0)
			r = err_errno(e, errno, "copy a descriptor");
		return r;
	}
	r = make_pair(&s->ways[0].fd, &ends->output, e);
	if (r >= 0)
		r = make_pair(&s->ways[1].fd, &ends->errors, e);
	if (r >= 0 && o->input)
		r = make_pair(&s->input, &ends->input, e);
	return r;
}

struct session *channel_open(struct channel *c, const struct guest_open *o, const struct session_options *how, struct err *e)
{
	struct stream *s = mem_alloc(sizeof *s);
	struct session_options options = *how;
	struct str payload = { 0 };

	*s = (struct stream){ .channel = c, .next = *channel_streams(c), .number = channel_take_number(c),
			      .window = GUEST_WINDOW, .credit = GUEST_WINDOW, .input = -1,
			      .ways = { { .stream = s, .fd = -1 }, { .stream = s, .fd = -1 } } };
	options.streams = (struct session_streams){ -1, -1, -1, -1, -1 };
	if (make_ends(s, o, &options.streams, e) < 0) {
		way_close(&s->ways[0]);
		way_close(&s->ways[1]);
		close_input(s);
		free(s);
		return NULL;
	}
	*channel_streams(c) = s;
	options.signal = signal_inside;
	options.resize = resize_inside;
	options.leave = leave_inside;
	options.other = s;
	guest_encode(&guest_open_shape, o, &payload);
	channel_send(c, GUEST_OPEN, s->number, payload.bytes, payload.length);
	str_done(&payload);
	s->session = session_new(channel_loop(c), &options);
	watch_input(s);
	return s->session;
}
