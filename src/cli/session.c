/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. One loop over: standard input, the stream, signals. Standard output is written with blocking calls: when
 * its reader is slow, the stream is not read, and the program in the workspace waits. Standard input is read only while the
 * stream takes it. Files and /dev/null cannot be polled: they are read whenever the stream takes more.
 *
 * Signals, when forwarded: SIGINT goes to the program; a second one within the session kills it; a third one ends the session.
 * The others go as they are. In raw mode the terminal makes no signals; its keys are bytes of the input, and the detach keys
 * are held back until it is clear that they are not the whole sequence.
 */
#include "cli/session.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/loop.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"
#include "cli/terminal.h"
#include "client/stream.h"

struct running {
	struct cli *cli;
	const struct session *how;
	struct loop *loop;
	struct stream *stream;
	struct loop_source *input; /* NULL: not polled */
	struct loop_source *signals[8];
	size_t signal_count;
	bool input_is_file, input_ended;
	unsigned char keys[8];
	size_t key_count, keys_matched;
	unsigned interrupts;
	int result, status;
	struct err *e;
};

static void end_with(struct running *s, int result)
{
	s->result = result;
	loop_stop(s->loop);
}

/* --- from the program --- */

static void on_output(void *data, int channel, const char *bytes, size_t length)
{
	struct running *s = data;
	int fd = channel == STREAM_ERRORS ? STDERR_FILENO : STDOUT_FILENO;
	struct err e;

	if (s->result < 0 || fs_write_all(fd, bytes, length, &e) == 0)
		return;
	if (e.number == EPIPE)
		end_with(s, err_set(s->e, ERR_CANCELLED, "the reader of standard output is gone"));
	else
		end_with(s, err_errno(s->e, e.number, "write to standard %s", channel == STREAM_ERRORS ? "error" : "output"));
}

static void on_end(void *data, int status, const struct err *why)
{
	struct running *s = data;

	if (s->result < 0)
		return;
	s->status = status;
	if (!why) {
		end_with(s, SESSION_ENDED);
		return;
	}
	if (s->cli->failure_status && (why->kind == ERR_NOT_FOUND || why->kind == ERR_DENIED))
		s->cli->failure_status = why->kind == ERR_NOT_FOUND ? 127 : 126;
	*s->e = *why;
	end_with(s, -(why->number ? why->number : EIO));
}

/* --- to the program --- */

/* Sends input; true when the detach keys were among it. */
static bool send_input(struct running *s, const unsigned char *bytes, size_t length)
{
	own_strbuf struct str out = { 0 };
	bool detached = false;

	if (!s->key_count) {
		stream_write(s->stream, bytes, length);
		return false;
	}
	for (size_t i = 0; i < length && !detached; i++) {
		if (s->keys_matched && bytes[i] != s->keys[s->keys_matched]) {
			str_add(&out, s->keys, s->keys_matched);
			s->keys_matched = 0;
		}
		if (bytes[i] == s->keys[s->keys_matched])
			detached = ++s->keys_matched == s->key_count;
		else
			str_putc(&out, (char)bytes[i]);
	}
	stream_write(s->stream, out.bytes, out.length);
	return detached;
}

static void end_input(struct running *s)
{
	s->input_ended = true;
	loop_remove(s->input);
	s->input = NULL;
	stream_end_input(s->stream);
}

/* One read; false when there is nothing more for now. */
static bool read_input(struct running *s)
{
	unsigned char buffer[65535];
	ssize_t n = read(STDIN_FILENO, buffer, sizeof buffer);

	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return false;
	if (n <= 0) { /* an error of a terminal that hung up is its end, too */
		end_input(s);
		return false;
	}
	if (send_input(s, buffer, (size_t)n)) {
		end_with(s, SESSION_DETACHED);
		return false;
	}
	return true;
}

static void on_input(void *data, uint32_t events)
{
	struct running *s = data;
	(void)events;

	(void)read_input(s);
	if (s->input && stream_congested(s->stream)) {
		loop_remove(s->input);
		s->input = NULL;
	}
}

static void take_more_input(void *data)
{
	struct running *s = data;

	if (s->input_ended || !s->how->input)
		return;
	if (!s->input_is_file && !s->input)
		s->input = loop_add_fd(s->loop, STDIN_FILENO, EPOLLIN, on_input, s);
	while (s->input_is_file && !stream_congested(s->stream) && read_input(s))
		;
}

/* epoll refuses what is always ready. */
static bool is_file(int fd)
{
	struct stat st;
	int probe = epoll_create1(EPOLL_CLOEXEC);
	struct epoll_event event = { .events = EPOLLIN };
	bool refused = probe >= 0 && epoll_ctl(probe, EPOLL_CTL_ADD, fd, &event) < 0 && errno == EPERM;

	if (probe >= 0)
		(void)close(probe);
	return refused || fstat(fd, &st) < 0 || S_ISREG(st.st_mode);
}

/* --- signals --- */

static void tell_size(struct running *s)
{
	unsigned rows, columns;
	terminal_size(&rows, &columns);
	stream_resize(s->stream, rows, columns);
}

static void on_resize(void *data) { tell_size(data); }

static void on_continue(void *data)
{
	struct running *s = data;
	if (s->how->raw && terminal_raw(STDIN_FILENO, NULL) == 0)
		tell_size(s);
}

static void on_interrupt(void *data)
{
	struct running *s = data;

	s->interrupts++;
	if (!s->how->forward_signals || s->interrupts > 2)
		end_with(s, err_set(s->e, ERR_CANCELLED, "interrupted"));
	else
		stream_signal(s->stream, s->interrupts == 1 ? "INT" : "KILL");
}

static void pass_on(struct running *s, const char *name)
{
	if (s->how->forward_signals)
		stream_signal(s->stream, name);
	else
		end_with(s, err_set(s->e, ERR_CANCELLED, "ended by SIG%s", name));
}

static void on_term(void *data) { pass_on(data, "TERM"); }
static void on_hangup(void *data) { pass_on(data, "HUP"); }
static void on_quit(void *data) { pass_on(data, "QUIT"); }
static void on_user1(void *data) { pass_on(data, "USR1"); }
static void on_user2(void *data) { pass_on(data, "USR2"); }

static void watch_signal(struct running *s, int number, loop_fn *fn)
{
	s->signals[s->signal_count++] = loop_add_signal(s->loop, number, fn, s);
}

static void watch_signals(struct running *s)
{
	static const struct {
		int number;
		loop_fn *fn;
	} watched[] = { { SIGINT, on_interrupt }, { SIGTERM, on_term },  { SIGHUP, on_hangup },
			{ SIGQUIT, on_quit },     { SIGUSR1, on_user1 }, { SIGUSR2, on_user2 } };

	for (size_t i = 0; i < ARRAY_SIZE(watched); i++)
		watch_signal(s, watched[i].number, watched[i].fn);
	if (s->how->raw) {
		watch_signal(s, SIGWINCH, on_resize);
		watch_signal(s, SIGCONT, on_continue);
	}
	(void)signal(SIGPIPE, SIG_IGN);
}

/* --- the session --- */

static int parse_key(const char *word, size_t length, unsigned char *ret_key)
{
	if (length == 6 && strncmp(word, "ctrl-", 5) == 0 &&
	    ((word[5] >= '@' && word[5] <= '_') || (word[5] >= 'a' && word[5] <= 'z'))) {
		*ret_key = (unsigned char)(word[5] & 0x1f);
		return 0;
	}
	if (length != 1 || (unsigned char)word[0] < 0x21)
		return -EINVAL;
	*ret_key = (unsigned char)word[0];
	return 0;
}

/* "ctrl-p,ctrl-q" or "~,." as bytes. Out: at most 8. */
static int parse_keys(const char *text, unsigned char ret_keys[8], size_t *ret_count, struct err *e)
{
	unsigned char keys[8] = { 0 };
	size_t count = 0;

	for (const char *p = text; *p;) {
		size_t length = strcspn(p, ",");
		if (count == sizeof keys || parse_key(p, length, &keys[count++]) < 0) {
			(void)err_set(e, ERR_INVALID, "'%.40s' are no detach keys", text);
			return err_hint(e, "up to 8 of ctrl-LETTER or a character, joined by commas: ctrl-p,ctrl-q");
		}
		p += length + (p[length] == ',');
	}
	memcpy(ret_keys, keys, count);
	*ret_count = count;
	return 0;
}

static int open_terminal(struct running *s)
{
	unsigned rows, columns;

	if (!s->how->raw)
		return 0;
	terminal_size(&rows, &columns);
	(void)json_object_set_new(s->how->request, "rows", json_integer(rows));
	(void)json_object_set_new(s->how->request, "columns", json_integer(columns));
	return terminal_raw(STDIN_FILENO, s->e);
}

int session_run(struct cli *cli, const struct session *how, int *ret_status, struct err *e)
{
	static const struct stream_events events = { on_output, on_end, take_more_input };
	struct running s = { .cli = cli, .how = how, .e = e, .result = SESSION_ENDED };
	struct client *client;
	sigset_t mask;
	int r = cli_client(cli, &client, e);

	if (r == 0 && how->raw && how->detach_keys)
		r = parse_keys(how->detach_keys, s.keys, &s.key_count, e);
	if (r == 0)
		r = open_terminal(&s);
	if (r < 0)
		return r;
	s.loop = loop_new();
	(void)sigprocmask(SIG_SETMASK, NULL, &mask);
	watch_signals(&s);
	r = stream_open(s.loop, client_address(client), how->path, how->request, &events, &s, &s.stream, e);
	if (r == 0) {
		s.input_is_file = is_file(STDIN_FILENO);
		if (how->input)
			take_more_input(&s);
		r = loop_run(s.loop, e);
	}
	stream_free(s.stream);
	loop_remove(s.input);
	for (size_t i = 0; i < s.signal_count; i++)
		loop_remove(s.signals[i]);
	loop_free(s.loop);
	terminal_restore();
	(void)sigprocmask(SIG_SETMASK, &mask, NULL);
	if (r < 0 || s.result < 0)
		return r < 0 ? r : s.result;
	*ret_status = s.status;
	return s.result;
}
