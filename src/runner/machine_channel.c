/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. The channel is a socket between QEMU and this process. QEMU takes bytes from it only when the guest has opened its
 * port, so what is sent before that waits: in the socket, then in `unsent`, which holds no more than the first messages and the
 * input that guests gave credit for. A session number is drawn when the channel is made; frames of other sessions are passed
 * over.
 *
 * A guest may send for ever what nobody asked for: other sessions' frames, answers to no request, credit that is full, noise.
 * None of it is kept, and more than IDLE_MOST of it in IDLE_MS is read IDLE_MS later, so that it takes no processor time
 * either. What flows in open streams is held by their credit.
 */
#include "runner/machine_channel.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/mem.h"

#define IDLE_MS 100
#define IDLE_MOST 128   /* frames */
#define NOISE_BYTES 1024 /* count as one */

struct request {
	struct channel *channel;
	struct request *next;
	uint32_t number;
	struct loop_source *timer;
	channel_done_fn *done;
	void *data;
};

struct channel {
	struct loop *loop;
	struct channel_events events;
	int fd;
	struct loop_source *source, *pause;
	uint64_t idle_since_ms, noise_bytes;
	unsigned idle; /* frames that nobody asked for, since then */
	struct guest_reader reader;
	struct str unsent;
	uint32_t session, last_number;
	struct request *requests;
	struct stream *streams;
};

struct loop *channel_loop(const struct channel *c) { return c->loop; }
struct stream **channel_streams(struct channel *c) { return &c->streams; }
uint32_t channel_take_number(struct channel *c) { return ++c->last_number; }

static void request_end(struct request *q, int result, const struct err *e)
{
	for (struct request **at = &q->channel->requests; *at; at = &(*at)->next)
		if (*at == q) {
			*at = q->next;
			break;
		}
	loop_remove(q->timer);
	if (q->done)
		q->done(q->data, result, e);
	free(q);
}

static void too_late(void *data)
{
	struct request *q = data;
	struct err e;

	q->timer = NULL;
	int r = err_set(&e, ERR_TIMEOUT, "the machine's carrel-init did not answer in time");
	request_end(q, r, &e);
}

/* --- sending --- */

static void watch(struct channel *c)
{
	if (c->source)
		loop_set_events(c->source, (c->pause ? 0 : EPOLLIN) | (c->unsent.length ? EPOLLOUT : 0));
}

static void flush(struct channel *c)
{
	while (c->unsent.length) {
		ssize_t n = send(c->fd, c->unsent.bytes, c->unsent.length, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n < 0 && errno == EAGAIN)
			break;
		if (n < 0)
			str_clear(&c->unsent); /* QEMU is gone: its process tells */
		else
			str_drop_front(&c->unsent, (size_t)n);
	}
	watch(c);
}

void channel_send(struct channel *c, enum guest_type type, uint32_t number, const void *payload, size_t length)
{
	guest_frame_put(&c->unsent, c->session, type, number, payload, length);
	flush(c);
}

void channel_request(struct channel *c, enum guest_type type, const void *payload, size_t length, uint64_t deadline_ms,
		     channel_done_fn *done, void *data)
{
	struct request *q = mem_alloc(sizeof *q);

	*q = (struct request){ .channel = c, .next = c->requests, .number = channel_take_number(c), .done = done,
			       .data = data };
	q->timer = loop_add_timer(c->loop, deadline_ms, too_late, q);
	c->requests = q;
	channel_send(c, type, q->number, payload, length);
}

void channel_signal(struct channel *c, int number)
{
	uint8_t bytes[4];

	guest_put_u32(bytes, (uint32_t)number);
	channel_send(c, GUEST_SIGNAL, 0, bytes, sizeof bytes);
}

/* --- receiving --- */

static bool take_answer(struct channel *c, const struct guest_frame *f)
{
	struct guest_answer a;
	struct err e = { 0 };

	for (struct request *q = c->requests; q; q = q->next)
		if (q->number == f->number) {
			int r = guest_decode(&guest_answer_shape, f->payload, f->length, &a, &e);
			if (r >= 0) {
				r = guest_error_get(&a.error, &e);
				r = r < 0 ? r : a.told == GUEST_TOLD || a.told == GUEST_HOOKS ? (int)a.told : 0;
				guest_done(&guest_answer_shape, &a);
			}
			request_end(q, r, r < 0 ? &e : NULL);
			return true;
		}
	return false;
}

static void take_hello(struct channel *c, const struct guest_frame *f)
{
	struct guest_hello h;

	if (guest_decode(&guest_hello_shape, f->payload, f->length, &h, NULL) < 0)
		return;
	c->events.hello(c->events.data, &h);
	guest_done(&guest_hello_shape, &h);
}

static void take_state(struct channel *c, const struct guest_frame *f)
{
	struct guest_state s;

	if (guest_decode(&guest_state_shape, f->payload, f->length, &s, NULL) < 0)
		return;
	c->events.state(c->events.data, &s);
	guest_done(&guest_state_shape, &s);
}

/* Whether somebody waited for it. */
static bool take_frame(struct channel *c, const struct guest_frame *f)
{
	switch (f->type) {
	case GUEST_HELLO:
		take_hello(c, f);
		return false;
	case GUEST_STATE:
		take_state(c, f);
		return false;
	case GUEST_ANSWER:
		return take_answer(c, f);
	case GUEST_DATA:
	case GUEST_CREDIT:
	case GUEST_CLOSE:
		return stream_frame(c, f);
	default:
		return false; /* nothing that a guest has to say */
	}
}

static void read_on(void *data)
{
	struct channel *c = data;

	c->pause = NULL;
	watch(c);
}

static void count_idle(struct channel *c, unsigned frames)
{
	uint64_t now = loop_now_ms(), noise = (c->reader.noise_bytes - c->noise_bytes) / NOISE_BYTES;

	c->noise_bytes += noise * NOISE_BYTES;
	if (now - c->idle_since_ms >= IDLE_MS) {
		c->idle_since_ms = now;
		c->idle = 0;
	}
	c->idle += frames + (unsigned)noise;
	if (c->idle < IDLE_MOST || c->pause)
		return;
	c->pause = loop_add_timer(c->loop, IDLE_MS, read_on, c);
	watch(c);
}

static void ready(void *data, uint32_t events)
{
	struct channel *c = data;
	struct guest_frame f;
	char bytes[32768];

	if (events & EPOLLOUT)
		flush(c);
	if (!(events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
		return;
	ssize_t n = recv(c->fd, bytes, sizeof bytes, MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		loop_remove(c->source);
		c->source = NULL;
		return;
	}
	guest_reader_add(&c->reader, bytes, (size_t)n);
	unsigned idle = 0;
	while (guest_reader_next(&c->reader, &f))
		idle += f.session != c->session || !take_frame(c, &f);
	count_idle(c, idle);
}

/* --- life --- */

struct channel *channel_new(struct loop *l, int fd, const struct channel_events *events)
{
	struct channel *c = mem_alloc(sizeof *c);
	struct guest_hello hello = { .version = GUEST_VERSION };
	struct str payload = { 0 };

	*c = (struct channel){ .loop = l, .events = *events, .fd = fd };
	(void)!getrandom(&c->session, sizeof c->session, 0);
	c->session |= 1; /* 0 is nobody's */
	guest_reader_init(&c->reader, GUEST_ANSWER_LONGEST);
	c->source = loop_add_fd(l, fd, EPOLLIN, ready, c);
	guest_encode(&guest_hello_shape, &hello, &payload);
	channel_send(c, GUEST_HELLO, 0, payload.bytes, payload.length);
	str_done(&payload);
	return c;
}

void channel_end(struct channel *c, const struct err *why)
{
	streams_end(c, why, false);
	while (c->requests)
		request_end(c->requests, -why->number, why);
}

void channel_free(struct channel *c)
{
	struct err why;

	if (!c)
		return;
	(void)err_set(&why, ERR_UNAVAILABLE, "the machine is gone");
	channel_end(c, &why);
	streams_end(c, &why, true);
	loop_remove(c->source);
	loop_remove(c->pause);
	(void)close(c->fd);
	guest_reader_done(&c->reader);
	str_done(&c->unsent);
	free(c);
}
