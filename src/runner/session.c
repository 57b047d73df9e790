/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. Output flows pipe -> log and clients, input flows client -> pipe, and neither side has a queue of more than one
 * message: what cannot be passed on stops the side it came from. So memory is bounded whatever program and clients do.
 *
 *   output: a source is watched while no client has an unsent frame (patient) - see output_wanted().
 *   input:  a client is watched while its last frame was written whole - see input_wanted().
 *
 * What goes to the log and to nobody who could slow it down has a rate, as fast as it replaces the whole log in a second:
 * processor and disk that this takes are the host's, not the workspace's.
 *
 * The end: the program's pidfd becomes readable; what is left in the pipes is read until they are empty (not until their end: a
 * child of the program may hold them); then the clients get their last frame.
 */
#include "runner/session.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"
#include "model/runner_protocol.h"

#define CHUNK 16384
#define ERROR_TEXT_MOST 900
#define ALONE_BYTES (RUNNER_LOG_FILES * RUNNER_LOG_BYTES / 4) /* in ... */
#define ALONE_MS 250

struct client {
	struct session *session;
	struct client *next;
	int fd;
	struct loop_source *source;
	struct str unsent;  /* one frame that did not fit */
	struct str unwritten; /* input that the program has not taken yet */
	bool input, ends_input;
};

struct output {
	struct session *session;
	int fd, channel;
	struct loop_source *source;
	bool watched;
};

struct session {
	struct loop *loop;
	struct session_options how;
	struct output outputs[2];
	struct loop_source *child;  /* pidfd */
	struct loop_source *hold;   /* timer: the program ended and nobody came yet */
	struct loop_source *writer; /* input or terminal, while something is unwritten */
	struct loop_source *calm;   /* timer: so much was said to nobody that nothing is read until then */
	uint64_t alone_since_ms, alone_bytes;
	int writer_fd;
	struct client *clients;
	struct str error_text;
	int status; /* -1: runs */
	bool over, attached_once;
};

static char chunk[1 + CHUNK];

static void pump(void *data, uint32_t events);

static int input_fd(const struct session *s)
{
	return s->how.streams.terminal >= 0 ? s->how.streams.terminal : s->how.streams.input;
}

/* --- clients --- */

static void client_free(struct client *c)
{
	struct session *s = c->session;

	for (struct client **at = &s->clients; *at; at = &(*at)->next)
		if (*at == c) {
			*at = c->next;
			break;
		}
	loop_remove(c->source);
	(void)close(c->fd);
	str_done(&c->unsent);
	str_done(&c->unwritten);
	free(c);
}

static bool output_wanted(const struct session *s)
{
	if ((s->how.held && !s->attached_once) || (s->calm && s->status < 0))
		return false;
	for (const struct client *c = s->clients; c && s->how.patient; c = c->next)
		if (c->unsent.length)
			return false;
	return true;
}

static void watch_outputs(struct session *s)
{
	bool wanted = output_wanted(s);

	for (int i = 0; i < 2; i++) {
		struct output *o = &s->outputs[i];
		if (o->fd < 0 || o->watched == wanted)
			continue;
		o->watched = wanted;
		if (wanted) {
			o->source = loop_add_fd(s->loop, o->fd, EPOLLIN, pump, o);
		} else {
			loop_remove(o->source);
			o->source = NULL;
		}
	}
}

static void watch_client(struct client *c)
{
	loop_set_events(c->source, (c->unwritten.length ? 0 : EPOLLIN) | (c->unsent.length ? EPOLLOUT : 0));
}

static void give(struct client *c, const void *frame, size_t length)
{
	if (send(c->fd, frame, length, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0 || errno != EAGAIN || !c->session->how.patient)
		return;
	str_clear(&c->unsent);
	str_add(&c->unsent, frame, length);
	watch_client(c);
}

/* --- the end --- */

static void add_quoted(struct str *out, const char *text)
{
	str_putc(out, '"');
	for (; *text; text++) {
		unsigned char ch = (unsigned char)*text;
		if (ch < 0x20 || ch == '"' || ch == '\\')
			str_printf(out, "\\u%04x", ch);
		else
			str_putc(out, *text);
	}
	str_putc(out, '"');
}

/* What a copy says on stderr: "KIND\nSENTENCE". */
static void add_error(struct str *out, const struct str *said)
{
	const char *text = said->length ? said->bytes : "internal\nthe copy failed";
	size_t kind = strcspn(text, "\n");
	own_str char *name = mem_strndup(text, kind);

	str_printf(out, "{\"error\":{\"kind\":\"%s\",\"message\":", err_kind_name(err_kind_from_name(name)));
	add_quoted(out, text[kind] ? text + kind + 1 : "the copy failed");
	str_puts(out, ",\"hint\":\"\"}}");
}

static void last_frame(const struct session *s, struct str *out)
{
	if (s->how.errors_are_text && s->status)
		add_error(out, &s->error_text);
	else
		str_printf(out, "{\"exit\":%d}", s->status);
}

/* The last frame goes out when the socket takes it; a client that never reads is let go with its socket. */
static void say_goodbye(struct client *c)
{
	struct str frame = { 0 };

	last_frame(c->session, &frame);
	if (c->unsent.length || (send(c->fd, frame.bytes, frame.length, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 && errno == EAGAIN)) {
		str_done(&frame);
		if (!c->unsent.length)
			str_putc(&c->unsent, '\0'); /* only the last frame is missing */
		watch_client(c);
		return;
	}
	str_done(&frame);
	client_free(c);
}

static void finish(struct session *s)
{
	if (s->over)
		return;
	s->over = true;
	for (struct client *c = s->clients, *next; c; c = next) {
		next = c->next;
		say_goodbye(c);
	}
	if (s->how.done)
		s->how.done(s->how.data, s, s->status);
}

static void close_output(struct output *o)
{
	loop_remove(o->source);
	o->source = NULL;
	if (o->fd >= 0 && o->fd != o->session->how.streams.terminal)
		(void)close(o->fd);
	o->fd = -1;
}

/* --- output --- */

static void calm_enough(void *data)
{
	struct session *s = data;

	s->calm = NULL; /* a timer frees itself */
	if (!s->over)
		watch_outputs(s);
}

static void count_alone(struct session *s, size_t bytes)
{
	uint64_t now = loop_now_ms();

	if (s->status >= 0 || (s->clients && s->how.patient))
		return;
	if (now - s->alone_since_ms >= ALONE_MS) {
		s->alone_since_ms = now;
		s->alone_bytes = 0;
	}
	s->alone_bytes += bytes;
	if (s->alone_bytes >= ALONE_BYTES && !s->calm)
		s->calm = loop_add_timer(s->loop, ALONE_MS - (now - s->alone_since_ms), calm_enough, s);
}

/* 1: something was passed on; 0: nothing there now; -1: the stream is over. */
static int pass_on(struct output *o)
{
	struct session *s = o->session;
	ssize_t n = read(o->fd, chunk + 1, CHUNK);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (n <= 0)
		return -1;
	if (s->how.errors_are_text && o->channel == 2) {
		if (s->error_text.length + (size_t)n < ERROR_TEXT_MOST)
			str_add(&s->error_text, chunk + 1, (size_t)n);
		return 1;
	}
	chunk[0] = (char)o->channel;
	if (s->how.log) {
		logfile_write(s->how.log, o->channel, chunk + 1, (size_t)n);
		count_alone(s, (size_t)n);
	}
	for (struct client *c = s->clients; c; c = c->next)
		give(c, chunk, (size_t)n + 1);
	return 1;
}

static void drain(struct session *s)
{
	for (int i = 0; i < 2; i++) {
		struct output *o = &s->outputs[i];
		int r = 1;
		while (o->fd >= 0 && output_wanted(s) && (r = pass_on(o)) > 0)
			;
		if (o->fd >= 0 && r <= 0)
			close_output(o);
	}
	if (s->outputs[0].fd < 0 && s->outputs[1].fd < 0)
		finish(s);
	else
		watch_outputs(s);
}

static void pump(void *data, uint32_t events)
{
	struct output *o = data;
	struct session *s = o->session;

	(void)events;
	int r = pass_on(o);
	if (r < 0)
		close_output(o);
	if (s->status >= 0)
		drain(s);
	else if (r < 0 && s->how.ends_with_output)
		session_end(s, 0);
	else
		watch_outputs(s);
}

/* reboot(2) in a pid namespace: its init is killed by one of two signals. 133 is what systemd-nspawn says for a reboot. */
static int status_of(const struct session *s, const siginfo_t *info)
{
	if (info->si_code == CLD_EXITED)
		return info->si_status;
	if (s->how.system && info->si_status == SIGINT)
		return 0;
	return s->how.system && info->si_status == SIGHUP ? 133 : 128 + info->si_status;
}

void session_let_go(struct session *s)
{
	loop_remove(s->hold);
	s->hold = NULL;
	s->attached_once = true;
	if (s->over)
		return;
	if (s->status >= 0)
		drain(s);
	else
		watch_outputs(s);
}

static void held_long_enough(void *data)
{
	struct session *s = data;

	s->hold = NULL; /* a timer frees itself */
	session_let_go(s);
}

void session_end(struct session *s, int status)
{
	if (s->status >= 0)
		return;
	s->status = status;
	if (s->how.held && !s->attached_once) {
		s->hold = loop_add_timer(s->loop, SESSION_HELD_MS, held_long_enough, s);
		return;
	}
	drain(s);
}

void session_fail(struct session *s, const struct err *e)
{
	if (s->status >= 0)
		return;
	str_clear(&s->error_text);
	str_printf(&s->error_text, "%s\n%s", err_kind_name(e->kind), e->message);
	s->how.errors_are_text = true;
	session_end(s, e->number == ENOENT ? 127 : e->number == EACCES ? 126 : 125);
}

static void child_ended(void *data, uint32_t events)
{
	struct session *s = data;
	siginfo_t info = { 0 };

	(void)events;
	loop_remove(s->child);
	s->child = NULL;
	(void)waitid(P_PIDFD, (id_t)s->how.streams.pidfd, &info, WEXITED | __WALL);
	session_end(s, status_of(s, &info));
}

/* --- input --- */

static void write_input(struct client *c);
static void input_writable(void *data, uint32_t events);

/* A terminal is watched for output already, and epoll knows a descriptor once: it gets a copy. */
static void watch_input(struct session *s, int fd)
{
	if (s->writer)
		return;
	s->writer_fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (s->writer_fd >= 0)
		s->writer = loop_add_fd(s->loop, s->writer_fd, EPOLLOUT, input_writable, s);
}

static void unwatch_input(struct session *s)
{
	if (!s->writer)
		return;
	loop_remove(s->writer);
	(void)close(s->writer_fd);
	s->writer = NULL;
}

static void input_writable(void *data, uint32_t events)
{
	struct session *s = data;

	(void)events;
	unwatch_input(s);
	for (struct client *c = s->clients, *next; c; c = next) {
		next = c->next;
		write_input(c);
	}
}

static void end_input(struct session *s)
{
	if (s->how.streams.terminal >= 0 && s->how.ends_with_output) {
		(void)shutdown(s->how.streams.terminal, SHUT_WR);
		return;
	}
	if (s->how.streams.terminal >= 0) {
		(void)!write(s->how.streams.terminal, "\004", 1); /* ^D: what ends a terminal's input */
		return;
	}
	if (s->how.streams.input >= 0)
		(void)close(s->how.streams.input);
	s->how.streams.input = -1;
}

static void write_input(struct client *c)
{
	struct session *s = c->session;
	int fd = input_fd(s);

	while (c->unwritten.length && fd >= 0) {
		ssize_t n = write(fd, c->unwritten.bytes, c->unwritten.length);
		if (n < 0 && errno == EAGAIN) {
			watch_input(s, fd);
			break;
		}
		if (n < 0) {
			str_clear(&c->unwritten);
			break;
		}
		str_drop_front(&c->unwritten, (size_t)n);
	}
	if (fd < 0)
		str_clear(&c->unwritten);
	if (!c->unwritten.length && c->ends_input) {
		c->ends_input = false;
		end_input(s);
	}
	watch_client(c);
}

static unsigned number_after(const char *text, const char *key)
{
	const char *at = strstr(text, key);

	if (!at)
		return 0;
	at += strlen(key);
	at += strspn(at, "\" :\t\n");
	return (unsigned)strtoul(at, NULL, 10);
}

unsigned short session_extent(unsigned given) { return given < 10000 ? (unsigned short)given : 0; }

static void resize(struct session *s, unsigned rows, unsigned columns)
{
	struct winsize size = { .ws_row = session_extent(rows), .ws_col = session_extent(columns) };

	if (s->how.streams.terminal < 0 || !size.ws_row || !size.ws_col)
		return;
	if (s->how.streams.pidfd >= 0)
		(void)ioctl(s->how.streams.terminal, TIOCSWINSZ, &size);
	else if (s->how.resize && s->status < 0)
		s->how.resize(s->how.other, rows, columns);
}

static void control_text(struct session *s, const char *text)
{
	const char *at = strstr(text, "\"signal\"");
	char name[16] = "";

	if (strstr(text, "\"resize\"")) {
		resize(s, number_after(text, "\"rows\""), number_after(text, "\"columns\""));
		return;
	}
	if (!at || sscanf(at + 8, " : \"%15[A-Z0-9]\"", name) != 1)
		return;
	const char *word = strncmp(name, "SIG", 3) == 0 ? name + 3 : name;
	for (int n = 1; n < 32; n++)
		if (sigabbrev_np(n) && strcmp(sigabbrev_np(n), word) == 0)
			(void)!session_signal(s, n, NULL);
}

static void take_frame(struct client *c, char *frame, size_t length)
{
	if (frame[0] == '{') {
		frame[length] = '\0';
		control_text(c->session, frame);
	} else if (frame[0] == 0 && c->input) {
		if (length == 1)
			c->ends_input = true;
		str_add(&c->unwritten, frame + 1, length - 1);
		write_input(c);
	}
}

static void client_gone(struct client *c)
{
	struct session *s = c->session;
	bool single = s->how.single;

	client_free(c);
	if (single && s->status < 0 && s->how.leave)
		s->how.leave(s->how.other);
	else if (single && s->status < 0)
		(void)!session_signal(s, SIGKILL, NULL);
	else
		watch_outputs(s);
}

static void client_ready(void *data, uint32_t events)
{
	struct client *c = data;
	struct session *s = c->session;

	if ((events & EPOLLOUT) && c->unsent.length) {
		bool only_last = s->over && c->unsent.length == 1;
		if (!only_last && send(c->fd, c->unsent.bytes, c->unsent.length, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 &&
		    errno == EAGAIN)
			return;
		str_clear(&c->unsent);
		if (s->over) {
			say_goodbye(c);
			return;
		}
		watch_client(c);
		if (s->status >= 0)
			drain(s);
		else
			watch_outputs(s);
		return;
	}
	if (!(events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
		return;
	char *frame = malloc(RUNNER_FRAME_LONGEST + 1);
	ssize_t n = frame ? recv(c->fd, frame, RUNNER_FRAME_LONGEST, MSG_DONTWAIT) : 0;
	if (n > 0)
		take_frame(c, frame, (size_t)n);
	else if (n == 0 || (errno != EAGAIN && errno != EINTR))
		client_gone(c);
	free(frame);
}

void session_add_client(struct session *s, int socket, bool input, unsigned rows, unsigned columns)
{
	struct client *c = mem_alloc(sizeof *c);

	*c = (struct client){ .session = s, .fd = socket, .input = input, .next = s->clients };
	s->clients = c;
	c->source = loop_add_fd(s->loop, socket, EPOLLIN, client_ready, c);
	s->attached_once = true;
	loop_remove(s->hold);
	loop_remove(s->calm);
	s->hold = s->calm = NULL;
	if (s->over) {
		say_goodbye(c);
		return;
	}
	resize(s, rows, columns);
	if (s->status >= 0)
		drain(s);
	else
		watch_outputs(s);
}

/* --- life --- */

static void open_output(struct session *s, int i, int fd, int channel)
{
	s->outputs[i] = (struct output){ .session = s, .fd = fd, .channel = channel };
	if (fd >= 0)
		(void)!fs_set_blocking(fd, false, NULL);
}

struct session *session_new(struct loop *l, const struct session_options *how)
{
	struct session *s = mem_alloc(sizeof *s);
	const struct session_streams *st = &how->streams;

	*s = (struct session){ .loop = l, .how = *how, .status = -1 };
	open_output(s, 0, st->terminal >= 0 ? st->terminal : st->output, 1);
	open_output(s, 1, st->errors, 2);
	if (st->input >= 0)
		(void)!fs_set_blocking(st->input, false, NULL);
	if (st->pidfd >= 0)
		s->child = loop_add_fd(l, st->pidfd, EPOLLIN, child_ended, s);
	watch_outputs(s);
	return s;
}

void session_free(struct session *s)
{
	while (s->clients)
		client_free(s->clients);
	for (int i = 0; i < 2; i++)
		close_output(&s->outputs[i]);
	loop_remove(s->child);
	loop_remove(s->hold);
	loop_remove(s->calm);
	unwatch_input(s);
	if (s->how.streams.terminal >= 0)
		(void)close(s->how.streams.terminal);
	if (s->how.streams.input >= 0)
		(void)close(s->how.streams.input);
	if (s->how.streams.pidfd >= 0)
		(void)close(s->how.streams.pidfd);
	str_done(&s->error_text);
	free(s);
}

bool session_has_clients(const struct session *s) { return s->clients != NULL; }
int session_signal(struct session *s, int number, struct err *e)
{
	if (s->how.streams.pidfd < 0)
		return s->how.signal && s->status < 0 ? s->how.signal(s->how.other, number, e) : 0;
	if (syscall(SYS_pidfd_send_signal, s->how.streams.pidfd, number, NULL, 0) < 0 && errno != ESRCH)
		return err_errno(e, errno, "send signal %d", number);
	return 0;
}
