/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. States: greeting (what is sent waits in `waiting`) -> ready -> closed. Each command has an id and a timer; an answer
 * without a command, of one that was given up, is passed over. What QEMU does not read at once stays in `unsent`. A descriptor
 * goes with the first byte of its command, in a message that begins there: QEMU keeps it until the command takes it.
 *
 * A guest's agent gets one command at a time; the next waits for the answer, or for the end of that one's time. For qemu-ga
 * loses an answer while it has read a part of the next command already: its channel is a character device, which GLib takes for
 * a file (giounix.c, is_seekable) and winds back before a write, which fails. Seen with four copies at a time.
 */
#include "engine/qemu/qmp.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/own.h"
#include "base/rights.h"
#include "base/str.h"

struct command {
	struct qmp *qmp;
	struct command *next;
	uint64_t id;
	struct loop_source *timer;
	char *name;
	char *held; /* the line, which has not been sent yet; or NULL */
	qmp_done_fn *done;
	void *data;
};

struct passed {
	struct passed *next;
	size_t at; /* in `unsent`, or in `waiting` before the greeting */
	int fd;
};

struct qmp {
	struct loop *loop;
	struct qmp_events events;
	int fd;
	struct loop_source *source;
	struct str received, unsent, waiting;
	struct command *commands;
	struct passed *passed; /* by `at` */
	uint64_t last_id;
	bool ready;
	bool agent, passing_over; /* the rest of a line that is too long */
};

static struct command *under_way(const struct qmp *q)
{
	struct command *c = q->commands;

	while (c && c->held)
		c = c->next;
	return c;
}

/* Of an agent: the oldest that is held. */
static void send_held(struct qmp *q)
{
	struct command *oldest = NULL;

	if (!q->source || under_way(q))
		return;
	for (struct command *c = q->commands; c; c = c->next)
		if (!oldest || c->id < oldest->id)
			oldest = c;
	if (!oldest)
		return;
	own_str char *line = TAKE(oldest->held);
	str_puts(&q->unsent, line);
	loop_set_events(q->source, EPOLLIN | EPOLLOUT);
}

static void command_end(struct command *c, int result, struct qmp_value value, const struct err *e)
{
	struct qmp *q = c->qmp;

	for (struct command **at = &c->qmp->commands; *at; at = &(*at)->next)
		if (*at == c) {
			*at = c->next;
			break;
		}
	loop_remove(c->timer);
	if (c->done)
		c->done(c->data, result, value, e);
	free(c->name);
	free(c->held);
	free(c);
	if (q->agent)
		send_held(q);
}

static void too_late(void *data)
{
	struct command *c = data;
	struct err e;

	c->timer = NULL;
	const char *who = c->qmp->agent ? "the guest's agent" : "QEMU";
	int r = err_set(&e, ERR_TIMEOUT, "%s did not answer %s in time", who, c->name);
	command_end(c, r, (struct qmp_value){ 0 }, &e);
}

static void close_line(struct qmp *q, const struct err *why)
{
	loop_remove(q->source);
	q->source = NULL;
	while (q->commands)
		command_end(q->commands, -why->number, (struct qmp_value){ 0 }, why);
	if (q->events.closed)
		q->events.closed(q->events.data, why);
}

static void drop_passed(struct qmp *q)
{
	struct passed *p = q->passed;

	q->passed = p->next;
	(void)close(p->fd);
	free(p);
}

/* Up to the next descriptor, or from it on. */
static ssize_t send_some(struct qmp *q)
{
	struct passed *first = q->passed, *next = first && first->at == 0 ? first->next : first;
	bool passes = first && first->at == 0;
	ssize_t n = rights_send(q->fd, q->unsent.bytes, next ? next->at : q->unsent.length, passes ? &first->fd : NULL, passes,
				MSG_DONTWAIT);

	if (n > 0 && passes)
		drop_passed(q);
	return n;
}

static int flush(struct qmp *q, struct err *e)
{
	while (q->unsent.length) {
		ssize_t n = send_some(q);
		if (n < 0 && errno == EAGAIN)
			break;
		if (n < 0)
			return err_errno(e, errno, "write to QEMU");
		str_drop_front(&q->unsent, (size_t)n);
		for (struct passed *p = q->passed; p; p = p->next)
			p->at -= (size_t)n;
	}
	loop_set_events(q->source, EPOLLIN | (q->unsent.length ? EPOLLOUT : 0));
	return 0;
}

static void answered(struct qmp *q, const struct qmp_message *m)
{
	struct err e;

	for (struct command *c = q->commands; c; c = c->next)
		if (c->id == m->id && !c->held) {
			enum err_kind kind = str_eq(m->name, "DeviceNotFound") ? ERR_NOT_FOUND : ERR_INTERNAL;
			const char *who = q->agent ? "the guest's agent" : "QEMU";
			int r = m->kind == QMP_RETURN ? 0 : err_set(&e, kind, "%s refuses %s: %s", who, c->name, m->text);
			command_end(c, r, m->value, r < 0 ? &e : NULL);
			return;
		}
}

static void greeted(struct qmp *q)
{
	q->ready = true;
	str_puts(&q->unsent, "{\"execute\":\"qmp_capabilities\"}\n");
	for (struct passed *p = q->passed; p; p = p->next)
		p->at += q->unsent.length;
	str_add(&q->unsent, q->waiting.bytes, q->waiting.length);
	str_clear(&q->waiting);
}

static int take_line(struct qmp *q, const char *line, size_t length, struct err *e)
{
	struct qmp_message m;
	int r = qmp_decode(line, length, &m, e);

	if (r < 0)
		return r;
	if (m.kind == QMP_EVENT) {
		if (q->events.event)
			q->events.event(q->events.data, m.name, m.value);
	} else if (m.kind == QMP_GREETING) {
		if (!q->ready)
			greeted(q);
	} else {
		answered(q, &m);
	}
	return 0;
}

static void pass_over(struct qmp *q)
{
	struct err e;

	str_clear(&q->received);
	if (q->passing_over)
		return;
	q->passing_over = true;
	int r = err_set(&e, ERR_TOO_LARGE, "the guest's agent answered more than %u bytes", QMP_LINE_LONGEST);
	struct command *c = under_way(q);
	if (c)
		command_end(c, r, (struct qmp_value){ 0 }, &e);
}

static int take_lines(struct qmp *q, struct err *e)
{
	int r;

	for (char *end; q->received.length && (end = memchr(q->received.bytes, '\n', q->received.length));) {
		size_t length = (size_t)(end - q->received.bytes);
		own_str char *line = mem_strndup(q->received.bytes, length);
		str_drop_front(&q->received, length + 1);
		bool rest = q->passing_over;
		q->passing_over = false;
		if (rest)
			continue;
		r = take_line(q, line, length, e);
		if (r < 0 && !q->agent) /* what a guest says is no reason to end its line */
			return r;
	}
	if (q->agent && (q->passing_over || q->received.length > QMP_LINE_LONGEST)) {
		pass_over(q);
		return 0;
	}
	return q->received.length > QMP_LINE_LONGEST ? err_set(e, ERR_TOO_LARGE, "QEMU's line has no end") : 0;
}

static void ready(void *data, uint32_t events)
{
	struct qmp *q = data;
	struct err e;
	char bytes[4096];
	int r = 0;

	if (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
		ssize_t n = recv(q->fd, bytes, sizeof bytes, MSG_DONTWAIT);
		if (n > 0) {
			str_add(&q->received, bytes, (size_t)n);
			r = take_lines(q, &e);
		} else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
			r = err_set(&e, ERR_UNAVAILABLE, "QEMU is gone");
		}
	}
	if (r >= 0)
		r = flush(q, &e);
	if (r < 0)
		close_line(q, &e);
}

struct qmp *qmp_new(struct loop *l, int fd, const struct qmp_events *events)
{
	struct qmp *q = mem_alloc(sizeof *q);

	*q = (struct qmp){ .loop = l, .events = *events, .fd = fd };
	q->source = loop_add_fd(l, fd, EPOLLIN, ready, q);
	return q;
}

struct qmp *qmp_new_agent(struct loop *l, int fd, const struct qmp_events *events)
{
	struct qmp *q = qmp_new(l, fd, events);

	q->ready = q->agent = true;
	return q;
}

void qmp_free(struct qmp *q)
{
	if (!q)
		return;
	loop_remove(q->source);
	q->source = NULL;
	while (q->commands) {
		q->commands->done = NULL;
		command_end(q->commands, 0, (struct qmp_value){ 0 }, NULL);
	}
	while (q->passed)
		drop_passed(q);
	(void)close(q->fd);
	str_done(&q->received);
	str_done(&q->unsent);
	str_done(&q->waiting);
	free(q);
}

void qmp_send_fd(struct qmp *q, const char *command, const char *arguments, int fd, uint64_t deadline_ms, qmp_done_fn *done,
		 void *data)
{
	struct passed **last = &q->passed, *p = mem_alloc(sizeof *p);

	while (*last)
		last = &(*last)->next;
	*p = (struct passed){ .at = q->ready ? q->unsent.length : q->waiting.length, .fd = fd };
	*last = p;
	qmp_send(q, command, arguments, deadline_ms, done, data);
	if (!q->source) /* nobody sends it any more */
		while (q->passed)
			drop_passed(q);
}

void qmp_send(struct qmp *q, const char *command, const char *arguments, uint64_t deadline_ms, qmp_done_fn *done, void *data)
{
	struct command *c = mem_alloc(sizeof *c);

	*c = (struct command){
		.qmp = q, .next = q->commands, .id = ++q->last_id, .name = mem_strdup(command), .done = done, .data = data
	};
	q->commands = c;
	c->timer = loop_add_timer(q->loop, q->source ? deadline_ms : 0, too_late, c);
	if (!q->source)
		return;
	own_str char *line = mem_printf("{\"execute\":\"%s\",\"id\":%" PRIu64 "%s%s}\n", command, c->id,
					arguments ? ",\"arguments\":" : "", arguments ? arguments : "");
	if (q->agent) {
		c->held = TAKE(line);
		send_held(q);
		return;
	}
	str_puts(q->ready ? &q->unsent : &q->waiting, line);
	loop_set_events(q->source, EPOLLIN | (q->unsent.length ? EPOLLOUT : 0));
}
