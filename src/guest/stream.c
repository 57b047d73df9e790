/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. `credit` is what we may still send, `window` what the host may; both count payload bytes of GUEST_DATA. What came in
 * and is not written yet stands in `unwritten`, at most a window of it. A stream goes through: runs -> its process ended
 * (status) -> its pipes are read empty -> GUEST_CLOSE is sent and it is freed. Reading stops at empty, not at end of file: a
 * child of the program may hold the pipe. A muted stream has no host any more: its process was killed and is only awaited.
 */
#include "guest/stream.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/mem.h"
#include "engine/workspace/message.h"

#define UNHEARD_MS 10000 /* how long the last output of a program waits for a host */

struct output {
	struct stream *stream;
	struct loop_source *source;
	int fd, channel;
};

struct stream {
	struct streams *all;
	struct stream *next;
	uint32_t number;
	bool program, muted, ends_input;
	struct child child;
	struct output outputs[2];
	struct loop_source *ended, *synced, *writer, *unheard;
	int writer_fd;
	uint64_t credit, window, consumed; /* consumed: taken by the program, not given back as credit yet */
	struct str unwritten;
	int status; /* -1: runs */
	struct err error;
};

struct streams {
	struct loop *loop;
	struct port *port;
	struct streams_events events;
	void *data;
	struct stream *first, *program;
	size_t count;
};

static void pump(void *data, uint32_t events);
static void input_writable(void *data, uint32_t events);

static struct stream *find(const struct streams *all, uint32_t number)
{
	struct stream *s = number ? all->first : NULL;

	while (s && s->number != number)
		s = s->next;
	return s;
}

/* --- end --- */

static void close_output(struct output *o)
{
	loop_remove(o->source);
	o->source = NULL;
	o->fd = -1; /* the child's */
}

static void stop_writer(struct stream *s)
{
	if (!s->writer)
		return;
	loop_remove(s->writer);
	(void)close(s->writer_fd);
	s->writer = NULL;
}

static void stream_free(struct stream *s)
{
	struct streams *all = s->all;

	for (struct stream **at = &all->first; *at; at = &(*at)->next)
		if (*at == s) {
			*at = s->next;
			break;
		}
	all->count--;
	if (all->program == s)
		all->program = NULL;
	close_output(&s->outputs[0]);
	close_output(&s->outputs[1]);
	stop_writer(s);
	loop_remove(s->ended);
	loop_remove(s->synced);
	loop_remove(s->unheard);
	child_close(&s->child);
	str_done(&s->unwritten);
	free(s);
}

static void send_close(struct port *p, uint32_t number, int status, const struct err *error)
{
	struct guest_close last = { .exit_status = (uint64_t)status };

	if (error && error->kind)
		guest_error_set(&last.error, error);
	port_send_message(p, GUEST_CLOSE, number, &guest_close_shape, &last);
	guest_done(&guest_close_shape, &last);
}

static void finish(struct stream *s)
{
	struct streams *all = s->all;
	int status = s->status;
	bool program = s->program;

	if (s->number)
		send_close(all->port, s->number, status, &s->error);
	stream_free(s);
	if (program)
		all->events.ended(all->data, status);
}

static void nobody_came(void *data)
{
	struct stream *s = data;

	s->unheard = NULL; /* a timer frees itself */
	if (!s->number)
		finish(s);
}

/* --- output --- */

/* 1: something was sent; 0: nothing there or no credit; -1: the output is over. */
static int pass_on(struct output *o)
{
	struct stream *s = o->stream;
	uint8_t payload[GUEST_DATA_LONGEST];
	size_t most = s->credit < sizeof payload ? (size_t)s->credit : sizeof payload;

	if (most < 2)
		return 0;
	ssize_t n = read(o->fd, payload + 1, most - 1);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (n <= 0)
		return -1;
	payload[0] = (uint8_t)o->channel;
	s->credit -= (uint64_t)n + 1;
	port_send(s->all->port, GUEST_DATA, s->number, payload, (size_t)n + 1);
	return 1;
}

static void watch_outputs(struct stream *s)
{
	for (int i = 0; i < 2; i++) {
		struct output *o = &s->outputs[i];
		bool wanted = o->fd >= 0 && s->credit >= 2 && !s->muted;
		if (wanted && !o->source)
			o->source = loop_add_fd(s->all->loop, o->fd, EPOLLIN, pump, o);
		if (!wanted && o->source) {
			loop_remove(o->source);
			o->source = NULL;
		}
	}
}

/* After the process has ended: what is left in its pipes. May free the stream. */
static void drain(struct stream *s)
{
	for (int i = 0; i < 2 && !s->muted; i++) {
		struct output *o = &s->outputs[i];
		int r = 1;
		while (o->fd >= 0 && s->credit >= 2 && (r = pass_on(o)) > 0)
			;
		if (o->fd >= 0 && s->credit >= 2)
			close_output(o);
	}
	if (s->muted || (s->outputs[0].fd < 0 && s->outputs[1].fd < 0)) {
		if (s->number || !s->program) {
			finish(s);
			return;
		}
	}
	if (!s->number && s->program && !s->unheard)
		s->unheard = loop_add_timer(s->all->loop, UNHEARD_MS, nobody_came, s);
	watch_outputs(s);
}

static void pump(void *data, uint32_t events)
{
	struct output *o = data;
	struct stream *s = o->stream;

	(void)events;
	if (pass_on(o) < 0)
		close_output(o);
	if (s->status >= 0)
		drain(s);
	else
		watch_outputs(s);
}

static void child_ended(void *data, uint32_t events)
{
	struct stream *s = data;
	siginfo_t info = { 0 };

	(void)events;
	loop_remove(s->ended);
	s->ended = NULL;
	(void)waitid(P_PIDFD, (id_t)s->child.pidfd, &info, WEXITED | __WALL);
	(void)close(s->child.pidfd);
	s->child.pidfd = -1;
	s->status = info.si_code == CLD_EXITED ? info.si_status : 128 + info.si_status;
	if (!s->synced)
		drain(s);
}

static void child_synced(void *data, uint32_t events)
{
	struct stream *s = data;
	int kind, r = message_receive(s->child.sync, &kind, NULL, &s->error);

	(void)events;
	loop_remove(s->synced);
	s->synced = NULL;
	(void)close(s->child.sync);
	s->child.sync = -1;
	if (s->program && r == 0)
		s->all->events.executed(s->all->data);
	else if (s->program)
		s->all->events.failed(s->all->data, &s->error);
	if (s->status >= 0)
		drain(s);
}

/* --- input --- */

static int input_fd(const struct stream *s) { return s->child.terminal >= 0 ? s->child.terminal : s->child.input; }

static void give_credit(struct stream *s, size_t bytes)
{
	uint8_t payload[4];

	s->consumed += bytes;
	if (s->consumed < GUEST_WINDOW / 4 || !s->number || s->muted)
		return;
	guest_put_u32(payload, (uint32_t)s->consumed);
	s->window += s->consumed;
	s->consumed = 0;
	port_send(s->all->port, GUEST_CREDIT, s->number, payload, sizeof payload);
}

static void end_input(struct stream *s)
{
	s->ends_input = false;
	if (s->child.terminal >= 0) {
		(void)!write(s->child.terminal, "\004", 1); /* ^D: what ends a terminal's input */
		return;
	}
	if (s->child.input >= 0)
		(void)close(s->child.input);
	s->child.input = -1;
}

static void write_input(struct stream *s)
{
	int fd = input_fd(s);

	while (s->unwritten.length && fd >= 0) {
		ssize_t n = write(fd, s->unwritten.bytes, s->unwritten.length);
		if (n < 0 && errno == EAGAIN) {
			/* epoll knows a descriptor once */
			if (!s->writer && (s->writer_fd = fcntl(fd, F_DUPFD_CLOEXEC, 0)) >= 0)
				s->writer = loop_add_fd(s->all->loop, s->writer_fd, EPOLLOUT, input_writable, s);
			return;
		}
		size_t done = n < 0 ? s->unwritten.length : (size_t)n; /* nobody reads: it is gone */
		str_drop_front(&s->unwritten, done);
		give_credit(s, done);
	}
	if (fd < 0) {
		give_credit(s, s->unwritten.length);
		str_clear(&s->unwritten);
	}
	if (s->ends_input)
		end_input(s);
}

static void input_writable(void *data, uint32_t events)
{
	struct stream *s = data;

	(void)events;
	stop_writer(s);
	write_input(s);
}

/* --- frames --- */

static void let_go(struct stream *s)
{
	str_clear(&s->unwritten);
	stop_writer(s);
	s->number = 0;
	s->credit = 0;
	if (!s->program) {
		s->muted = true;
		child_signal(&s->child, SIGKILL);
	}
	if (s->status >= 0)
		drain(s);
	else
		watch_outputs(s);
}

static void take_data(struct stream *s, const struct guest_frame *f)
{
	struct err e = { 0 };

	if (!f->length || f->length > s->window || f->length > GUEST_DATA_LONGEST) {
		(void)err_set(&e, ERR_INVALID, "more input than there was credit for");
		send_close(s->all->port, s->number, 255, &e);
		let_go(s);
		return;
	}
	s->window -= f->length;
	if (f->payload[0] != 0)
		return;
	s->consumed++;
	if (f->length == 1)
		s->ends_input = true;
	str_add(&s->unwritten, f->payload + 1, f->length - 1);
	write_input(s);
}

void stream_frame(struct streams *all, const struct guest_frame *f)
{
	struct stream *s = find(all, f->number);

	if (!s)
		return;
	if (f->type == GUEST_DATA) {
		take_data(s, f);
	} else if (f->type == GUEST_CREDIT && f->length == 4) {
		uint64_t credit = s->credit + guest_get_u32(f->payload);
		s->credit = credit < GUEST_WINDOW ? credit : GUEST_WINDOW;
		if (s->status >= 0)
			drain(s);
		else
			watch_outputs(s);
	} else if (f->type == GUEST_RESIZE && f->length == 4) {
		child_resize(&s->child, f->payload[0] | (unsigned)f->payload[1] << 8,
			     f->payload[2] | (unsigned)f->payload[3] << 8);
	} else if (f->type == GUEST_SIGNAL && f->length == 4) {
		child_signal(&s->child, (int)guest_get_u32(f->payload));
	} else if (f->type == GUEST_CLOSE) {
		let_go(s);
	}
}

/* --- life --- */

struct streams *streams_new(struct loop *l, struct port *p, const struct streams_events *events, void *data)
{
	struct streams *all = mem_alloc(sizeof *all);

	*all = (struct streams){ .loop = l, .port = p, .events = *events, .data = data };
	return all;
}

void streams_free(struct streams *all)
{
	while (all->first)
		stream_free(all->first);
	free(all);
}

static void open_credit(struct stream *s, uint32_t number)
{
	s->number = number;
	s->credit = s->window = GUEST_WINDOW;
	s->consumed = 0;
}

void stream_add(struct streams *all, uint32_t number, const struct child *c)
{
	struct stream *s = mem_alloc(sizeof *s);

	*s = (struct stream){ .all = all, .next = all->first, .child = *c, .status = -1, .program = number == 0 };
	all->first = s;
	all->count++;
	if (s->program)
		all->program = s;
	else
		open_credit(s, number);
	s->outputs[0] = (struct output){ .stream = s, .fd = c->terminal >= 0 ? c->terminal : c->output, .channel = 1 };
	s->outputs[1] = (struct output){ .stream = s, .fd = c->errors, .channel = 2 };
	s->ended = loop_add_fd(all->loop, c->pidfd, EPOLLIN, child_ended, s);
	s->synced = loop_add_fd(all->loop, c->sync, EPOLLIN, child_synced, s);
	watch_outputs(s);
}

int stream_attach(struct streams *all, uint32_t number, unsigned rows, unsigned columns, struct err *e)
{
	struct stream *s = all->program;

	if (!s)
		return err_set(e, ERR_NOT_FOUND, "no program runs");
	if (s->number)
		return err_set(e, ERR_CONFLICT, "the program's stream is open already");
	open_credit(s, number);
	loop_remove(s->unheard);
	s->unheard = NULL;
	child_resize(&s->child, rows, columns);
	if (s->status >= 0)
		drain(s);
	else
		watch_outputs(s);
	return 0;
}

bool stream_is_free(const struct streams *all, uint32_t number) { return number && !find(all, number); }
size_t streams_count(const struct streams *all) { return all->count; }
bool streams_program_runs(const struct streams *all) { return all->program && all->program->status < 0; }

void streams_end_session(struct streams *all)
{
	for (struct stream *s = all->first, *next; s; s = next) {
		next = s->next;
		if (!s->muted)
			let_go(s);
	}
}

void streams_signal_program(struct streams *all, int number)
{
	if (all->program)
		child_signal(&all->program->child, number);
}

bool streams_drain_program(struct streams *all)
{
	struct stream *s = all->program;

	for (int i = 0; s && i < 2; i++) {
		struct output *o = &s->outputs[i];
		struct pollfd p = { .fd = o->fd, .events = POLLIN };
		while (o->fd >= 0 && pass_on(o) > 0)
			;
		if (o->fd >= 0 && poll(&p, 1, 0) > 0 && p.revents & POLLIN)
			return false;
	}
	return !s || !s->unwritten.length;
}
