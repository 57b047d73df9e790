/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. The agent's channel is a line like QEMU's own, without a greeting (engine/qemu/qmp.h). What is written there waits
 * until a guest opens the other end, perhaps for ever; so each program begins with a question that has a short deadline. The
 * agent does not stream: a program's output comes whole when it has ended, which is asked for again and again, ever more
 * slowly.
 *
 *   asked -> started -> ended -> its output is passed on -> the session ends
 *
 * A guest that does not feel its power button is asked by the agent to shut down when a third of its time is over.
 *
 * A viewer is a pair of sockets: one end goes to QEMU, which listens nowhere, the other is the session's.
 */
#include "runner/machine_disk.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"
#include "engine/qemu/agent_answer.h"
#include "runner/machine_disk_copy.h"

#define SYNC_MS        3000
#define AGENT_MS       10000
#define POLL_FIRST_MS  10
#define POLL_MOST_MS   500
#define PRESS_AGAIN_MS 3000

struct way {    /* output that the session has not taken yet */
	int fd; /* -1: none, or all is passed on */
	struct loop_source *source;
	struct str waiting;
	struct exec *exec;
};

struct exec {
	struct machine_disk *disk;
	struct exec *next;
	struct session *session;
	struct str arguments; /* of guest-exec */
	uint64_t pid;
	unsigned wait_ms;
	struct loop_source *timer;
	struct way ways[2];
	int status;
};

struct viewer {
	struct machine_disk *disk;
	struct viewer *next;
	struct session *session;
	void (*done)(void *data, struct session *s, int status);
	void *data;
};

struct machine_disk {
	struct loop *loop;
	struct qmp *agent;
	struct exec *execs;
	struct question *questions;
	struct viewer *viewers;
	struct qmp *power; /* while the button is pressed */
	struct loop_source *press, *plea;
	struct disk_copies copies;
	unsigned viewer_number;
	bool frozen; /* its file systems may be */
};

/* --- programs --- */

static void exec_free(struct exec *x)
{
	for (struct exec **at = &x->disk->execs; *at; at = &(*at)->next)
		if (*at == x) {
			*at = x->next;
			break;
		}
	loop_remove(x->timer);
	for (size_t i = 0; i < ARRAY_SIZE(x->ways); i++) {
		loop_remove(x->ways[i].source);
		own_close(&x->ways[i].fd);
		str_done(&x->ways[i].waiting);
	}
	str_done(&x->arguments);
	free(x);
}

/* The session hears of the end when nothing is left of this. */
static void exec_end(struct exec *x, const struct err *e)
{
	struct session *session = x->session;
	int status = x->status;

	exec_free(x);
	if (e)
		session_fail(session, e);
	else
		session_end(session, status);
}

/* Commands to the agent name a program by its session, not its address: it may be gone when they are answered. */
static struct exec *find_exec(struct machine_disk *d, const struct session *s)
{
	struct exec *x = d->execs;

	while (x && x->session != s)
		x = x->next;
	return x;
}

struct question { /* a command under way for a program */
	struct machine_disk *disk;
	struct question *next;
	struct session *session;
	void (*answered)(struct exec *x, int result, struct qmp_value value, const struct err *e);
};

static void answered(void *data, int result, struct qmp_value value, const struct err *e)
{
	struct question *q = data;
	struct exec *x = find_exec(q->disk, q->session);

	for (struct question **at = &q->disk->questions; *at; at = &(*at)->next)
		if (*at == q) {
			*at = q->next;
			break;
		}
	if (x)
		q->answered(x, result, value, e);
	free(q);
}

static void ask(struct exec *x, const char *command, const char *arguments, uint64_t deadline_ms,
		void (*then)(struct exec *x, int result, struct qmp_value value, const struct err *e))
{
	struct question *q = mem_alloc(sizeof *q);

	*q = (struct question){ x->disk, x->disk->questions, x->session, then };
	x->disk->questions = q;
	qmp_send(x->disk->agent, command, arguments, deadline_ms, answered, q);
}

static void way_writable(void *data, uint32_t events)
{
	struct way *w = data;
	struct exec *x = w->exec;

	(void)events;
	ssize_t n = send(w->fd, w->waiting.bytes, w->waiting.length, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	str_drop_front(&w->waiting, n < 0 ? w->waiting.length : (size_t)n);
	if (w->waiting.length)
		return;
	loop_remove(w->source);
	w->source = NULL;
	own_close(&w->fd);
	w->fd = -1;
	if (x->ways[0].fd < 0 && x->ways[1].fd < 0)
		exec_end(x, NULL);
}

static void pass_output(struct exec *x, struct qmp_value value)
{
	static const char *const keys[] = { "out-data", "err-data" };
	struct qmp_value data;

	for (size_t i = 0; i < ARRAY_SIZE(x->ways); i++) {
		struct way *w = &x->ways[i];
		if (qmp_member(value, keys[i], &data))
			agent_decode_some(&w->waiting, data, SIZE_MAX);
		w->source = loop_add_fd(x->disk->loop, w->fd, EPOLLOUT, way_writable, w);
	}
}

static void poll_again(void *data);

static void status_came(struct exec *x, int result, struct qmp_value value, const struct err *e)
{
	uint64_t number = 0;

	if (result < 0) {
		exec_end(x, e);
		return;
	}
	if (!qmp_true(value, "exited")) {
		x->timer = loop_add_timer(x->disk->loop, x->wait_ms, poll_again, x);
		x->wait_ms = x->wait_ms * 2 < POLL_MOST_MS ? x->wait_ms * 2 : POLL_MOST_MS;
		return;
	}
	if (qmp_number(value, "signal", &number))
		x->status = 128 + (int)(number & 127);
	else if (qmp_number(value, "exitcode", &number))
		x->status = (int)(number & 255);
	pass_output(x, value);
}

static void poll_again(void *data)
{
	struct exec *x = data;
	own_str char *arguments = mem_printf("{\"pid\":%" PRIu64 "}", x->pid);

	x->timer = NULL;
	ask(x, "guest-exec-status", arguments, AGENT_MS, status_came);
}

static void exec_started(struct exec *x, int result, struct qmp_value value, const struct err *e)
{
	struct err mine;

	if (result < 0) {
		bool absent = strstr(e->message, "No such file") != NULL;
		(void)err_set(&mine, absent ? ERR_NOT_FOUND : e->kind, "%s", e->message);
		exec_end(x, &mine);
	} else if (!qmp_number(value, "pid", &x->pid)) {
		(void)err_set(&mine, ERR_CORRUPT, "the guest's agent gave no process id");
		exec_end(x, &mine);
	} else {
		poll_again(x);
	}
}

static void agent_is_there(struct exec *x, int result, struct qmp_value value, const struct err *e)
{
	struct err mine;

	(void)value;
	(void)e;
	if (result >= 0) {
		ask(x, "guest-exec", str_text(&x->arguments), AGENT_MS, exec_started);
		return;
	}
	(void)err_set(&mine, ERR_UNAVAILABLE,
		      "no program can be run in it: the machine boots a disk of its own, and no agent answers there (install "
		      "qemu-guest-agent in it, or use carrel console and carrel display)");
	exec_end(x, &mine);
}

static void add_list(struct str *out, const char *const *texts, size_t count)
{
	str_putc(out, '[');
	for (size_t i = 0; i < count; i++) {
		if (i)
			str_putc(out, ',');
		agent_quote(out, texts[i]);
	}
	str_putc(out, ']');
}

static int check_exec(const struct runner_request *q, const char *const *texts, struct err *e)
{
	const char *what = q->flags & RUNNER_TERMINAL ? "terminal"
			   : q->flags & RUNNER_INPUT  ? "standard input"
			   : *texts[0]                ? "other user"
			   : *texts[1]                ? "working directory"
						      : NULL;

	if (!what)
		return 0;
	(void)err_set(e, ERR_UNSUPPORTED, "the machine boots a disk of its own, whose agent gives programs no %s", what);
	return err_hint(e, "carrel console, carrel display or ssh do");
}

static void leave_exec(void *other)
{
	struct exec *x = other;

	x->status = 137;
	exec_end(x, NULL);
}

static int open_ways(struct exec *x, struct session_streams *ret_streams, struct err *e)
{
	int fds[2][2];

	for (int i = 0; i < 2; i++) {
		if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds[i]) < 0) {
			int r = err_errno(e, errno, "make a socket pair");
			if (i)
				(void)close(fds[0][0]);
			return r;
		}
		x->ways[i].fd = fds[i][1];
		x->ways[i].exec = x;
	}
	*ret_streams = (struct session_streams){
		.pidfd = -1, .input = -1, .output = fds[0][0], .errors = fds[1][0], .terminal = -1
	};
	return 0;
}

int machine_disk_exec(struct machine_disk *d, const struct runner_request *q, const char *const *texts, size_t count,
		      const struct session_options *how, struct session **ret_session, struct err *e)
{
	struct session_options o = *how;
	struct exec *x;
	int r = check_exec(q, texts, e);

	if (r < 0)
		return r;
	x = mem_alloc(sizeof *x);
	*x = (struct exec){ .disk = d, .wait_ms = POLL_FIRST_MS, .ways = { { .fd = -1 }, { .fd = -1 } } };
	if ((r = open_ways(x, &o.streams, e)) < 0) {
		exec_free(x);
		return r;
	}
	str_puts(&x->arguments, "{\"path\":");
	agent_quote(&x->arguments, texts[2]);
	str_puts(&x->arguments, ",\"arg\":");
	add_list(&x->arguments, texts + 3, q->commands - 1);
	if (count > 2 + (size_t)q->commands) {
		str_puts(&x->arguments, ",\"env\":");
		add_list(&x->arguments, texts + 2 + q->commands, count - 2 - q->commands);
	}
	str_puts(&x->arguments, ",\"capture-output\":true}");
	o.leave = leave_exec;
	o.other = x;
	*ret_session = x->session = session_new(d->loop, &o);
	x->next = d->execs;
	d->execs = x;
	ask(x, "guest-sync", "{\"id\":1}", SYNC_MS, agent_is_there);
	return 0;
}

int machine_disk_copy(struct machine_disk *d, bool in, const char *path, const struct session_options *how,
		      struct session **ret_session, struct err *e)
{
	return disk_copy_begin(&d->copies, in, path, how, ret_session, e);
}

/* --- viewers --- */

static void viewer_done(void *data, struct session *s, int status)
{
	struct viewer *v = data;

	for (struct viewer **at = &v->disk->viewers; *at; at = &(*at)->next)
		if (*at == v) {
			*at = v->next;
			break;
		}
	if (v->done)
		v->done(v->data, s, status);
	free(v);
}

static void viewer_left(void *other)
{
	struct viewer *v = other;
	session_end(v->session, 0);
}

int machine_disk_display(struct machine_disk *d, struct qmp *q, const struct session_options *how, struct session **ret_session,
			 struct err *e)
{
	unsigned number = d->viewer_number++;
	own_str char *name = mem_printf("{\"fdname\":\"viewer%u\"}", number);
	own_str char *add = mem_printf("{\"protocol\":\"vnc\",\"fdname\":\"viewer%u\",\"skipauth\":true}", number);
	struct session_options o = *how;
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
		return err_errno(e, errno, "make a socket pair");
	struct viewer *v = mem_alloc(sizeof *v);
	*v = (struct viewer){ .disk = d, .next = d->viewers, .done = how->done, .data = how->data };
	o.streams = (struct session_streams){ -1, -1, -1, -1, pair[0] };
	o.ends_with_output = true;
	o.done = viewer_done;
	o.data = v;
	o.leave = viewer_left;
	o.other = v;
	d->viewers = v;
	*ret_session = v->session = session_new(d->loop, &o);
	qmp_send_fd(q, "getfd", name, pair[1], QMP_DEADLINE_MS, NULL, NULL);
	qmp_send(q, "add_client", add, QMP_DEADLINE_MS, NULL, NULL);
	return 0;
}

/* --- freezing --- */

#define FREEZE_SYNC_MS 1000
#define FREEZE_MS      10000

struct freeze {
	struct machine_disk *disk;
	void (*done)(void *data, int result, const struct err *e);
	void *data;
};

static void freeze_answered(void *data, int result, struct qmp_value value, const struct err *e)
{
	struct freeze *f = data;

	(void)value;
	f->done(f->data, result, e);
	free(f);
}

static void freeze_agent_is_there(void *data, int result, struct qmp_value value, const struct err *e)
{
	struct freeze *f = data;

	if (result < 0) {
		freeze_answered(f, result, value, e);
		return;
	}
	f->disk->frozen = true;
	qmp_send(f->disk->agent, "guest-fsfreeze-freeze", NULL, FREEZE_MS, freeze_answered, f);
}

void machine_disk_freeze(struct machine_disk *d, void (*done)(void *data, int result, const struct err *e), void *data)
{
	struct freeze *f = mem_alloc(sizeof *f);

	*f = (struct freeze){ d, done, data };
	qmp_send(d->agent, "guest-sync", "{\"id\":2}", FREEZE_SYNC_MS, freeze_agent_is_there, f);
}

void machine_disk_thaw(struct machine_disk *d, bool anyway)
{
	if (d->frozen || anyway)
		qmp_send(d->agent, "guest-fsfreeze-thaw", NULL, AGENT_MS, NULL, NULL);
	d->frozen = false;
}

/* --- clock --- */

/* From the board's clock, which is the host's: so it does no harm when a guest reads this late, or never. */
void machine_disk_set_clock(struct machine_disk *d) { qmp_send(d->agent, "guest-set-time", NULL, AGENT_MS, NULL, NULL); }

/* --- power --- */

static void press(void *data)
{
	struct machine_disk *d = data;

	qmp_send(d->power, "system_powerdown", NULL, QMP_DEADLINE_MS, NULL, NULL);
	d->press = loop_add_timer(d->loop, PRESS_AGAIN_MS, press, d);
}

static void plead_heard(void *data, int result, struct qmp_value value, const struct err *e)
{
	struct machine_disk *d = data;

	(void)value;
	(void)e;
	if (result >= 0 && d->press) /* it says nothing to that when it obeys */
		qmp_send(d->agent, "guest-shutdown", "{\"mode\":\"powerdown\"}", AGENT_MS, NULL, NULL);
}

static void plead(void *data)
{
	struct machine_disk *d = data;

	d->plea = NULL;
	qmp_send(d->agent, "guest-sync", "{\"id\":4}", AGENT_MS, plead_heard, d);
}

void machine_disk_stop(struct machine_disk *d, struct qmp *q, uint64_t timeout_ms)
{
	d->power = q;
	loop_remove(TAKE(d->press));
	loop_remove(TAKE(d->plea));
	if (timeout_ms)
		d->plea = loop_add_timer(d->loop, timeout_ms / 3, plead, d);
	press(d);
}

/* --- life --- */

struct machine_disk *machine_disk_new(struct loop *l, int agent_fd)
{
	static const struct qmp_events none;
	struct machine_disk *d = mem_alloc(sizeof *d);

	*d = (struct machine_disk){ .loop = l, .agent = qmp_new_agent(l, agent_fd, &none) };
	d->copies = (struct disk_copies){ .loop = l, .agent = d->agent };
	return d;
}

void machine_disk_end(struct machine_disk *d, const struct err *why)
{
	loop_remove(TAKE(d->press));
	loop_remove(TAKE(d->plea));
	while (d->execs)
		exec_end(d->execs, why);
	disk_copies_end(&d->copies, why);
	for (struct viewer *v = d->viewers, *next; v; v = next) {
		next = v->next;
		session_end(v->session, 0);
	}
}

void machine_disk_free(struct machine_disk *d)
{
	struct err e;

	if (!d)
		return;
	(void)err_set(&e, ERR_UNAVAILABLE, "the machine has ended");
	machine_disk_end(d, &e);
	qmp_free(d->agent);
	disk_copies_free(&d->copies);
	for (struct question *q = d->questions, *next; q; q = next) {
		next = q->next;
		free(q);
	}
	free(d);
}
