/* SPDX-License-Identifier: Apache-2.0 */
/*
 * run.sock. A connection sends one request and gets one answer (model/runner_protocol.h); streams then belong to a session,
 * watches stay in a list. Everything that can block is short: entering a workspace takes a millisecond, freezing at most ten
 * seconds.
 */
#include "runner/runner.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/rights.h"
#include "engine/workspace/enter.h"
#include "runner/machine.h"
#include "runner/request.h"
#include "runner/suspend.h"

#define SWEEP_MS 1000
#define SWEEPS 30 /* a client that has not read its last frames by then does not get them */

struct connection {
	struct runner *runner;
	int fd;
	struct loop_source *source;
};

/* --- watches --- */

static void watcher_free(struct watcher *w)
{
	for (struct watcher **at = &w->runner->watchers; *at; at = &(*at)->next)
		if (*at == w) {
			*at = w->next;
			break;
		}
	loop_remove(w->source);
	(void)close(w->fd);
	free(w);
}

static void watcher_ready(void *data, uint32_t events)
{
	struct watcher *w = data;
	char byte;

	(void)events;
	ssize_t n = recv(w->fd, &byte, 1, MSG_DONTWAIT);
	if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) /* an end says nothing in errno */
		watcher_free(w);
}

void control_tell_watchers(struct runner *r)
{
	for (struct watcher *w = r->watchers; w; w = w->next)
		(void)!send(w->fd, &r->status, sizeof r->status, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void add_watcher(struct runner *r, int fd)
{
	struct watcher *w = mem_alloc(sizeof *w);

	*w = (struct watcher){ .runner = r, .fd = fd, .next = r->watchers };
	w->source = loop_add_fd(r->loop, fd, EPOLLIN, watcher_ready, w);
	r->watchers = w;
	(void)!send(fd, &r->status, sizeof r->status, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* --- answers --- */

static void answer(struct runner *r, int fd, int result, const struct err *e, const int *fds, size_t fd_count)
{
	struct runner_answer a = { .version = RUNNER_VERSION, .size = sizeof a, .result = result, .status = r->status };

	a.status.visitors = r->visitors;
	if (result < 0)
		a.error = *e;
	(void)!rights_send(fd, &a, sizeof a, fds, fd_count, MSG_DONTWAIT);
}

/* --- exec and copies --- */

struct ending {
	struct runner *runner;
	struct session *session;
	unsigned sweeps;
};

static void sweep(void *data)
{
	struct ending *x = data;

	if (session_has_clients(x->session) && x->sweeps++ < SWEEPS) {
		(void)loop_add_timer(x->runner->loop, SWEEP_MS, sweep, x);
		return;
	}
	session_free(x->session);
	free(x);
}

static void extra_ended(void *data, struct session *s, int status)
{
	struct ending *x = mem_alloc(sizeof *x);
	struct runner *r = data;

	(void)status;
	r->visitors--;
	*x = (struct ending){ .runner = data, .session = s };
	(void)loop_add_timer(x->runner->loop, 0, sweep, x);
}

static int check_enter(const struct runner *r, struct err *e)
{
	if (r->status.state == RUNNER_PAUSED) {
		(void)err_set(e, ERR_CONFLICT, "the workspace is paused");
		return err_hint(e, "carrel resume it first");
	}
	if (r->status.state == RUNNER_ENDED || r->status.state == RUNNER_STARTING)
		return err_set(e, ERR_CONFLICT, "the workspace is not running");
	return 0;
}

static int exec(struct runner *r, const struct request *request, struct session **ret_session, struct err *e)
{
	const struct runner_request *q = &request->head;
	const char **list = request->texts;
	int result = check_enter(r, e);

	if (result < 0)
		return result;
	if (r->machine) {
		const struct session_options inside = { .patient = true, .single = true, .done = extra_ended, .data = r };
		return machine_open(r->machine, q, list, request->count, &inside, ret_session, e);
	}
	own_str const char **argv = mem_alloc_array(q->commands + 1, sizeof *argv);
	memcpy(argv, list + 2, q->commands * sizeof *argv);
	struct enter enter = { .plan = &r->plan, .init = r->birth.pid, .init_pidfd = r->birth.pidfd, .argv = argv,
			       .environment = list + 2 + q->commands, .user = list[0], .directory = list[1],
			       .terminal = q->flags & RUNNER_TERMINAL, .input = q->flags & RUNNER_INPUT,
			       .rows = session_extent(q->rows), .columns = session_extent(q->columns) };
	if ((result = enter_workspace(&enter, e)) < 0)
		return result;
	struct session_options how = {
		.streams = { enter.pidfd, enter.input_fd, enter.output_fd, enter.errors_fd, enter.terminal_fd },
		.patient = true, .single = true, .done = extra_ended, .data = r };
	*ret_session = session_new(r->loop, &how);
	return 0;
}

static int copy(struct runner *r, const struct runner_request *q, const char *path, struct session **ret_session, struct err *e)
{
	bool in = q->kind == RUNNER_COPY_IN;
	own_str char *program = mem_printf("%s/libexec/carrel/carrel-copy", fs_prefix());
	const char *const argv[] = { "carrel-copy", in ? "in" : "out", path, NULL };
	struct enter enter = { .plan = &r->plan, .init = r->birth.pid, .init_pidfd = r->birth.pidfd, .argv = argv,
			       .input = true, .copy_program = program, .plan_fd = r->plan_fd };
	int result = check_enter(r, e);

	if (result >= 0 && r->machine) {
		const struct session_options inside = { .patient = true, .single = true, .errors_are_text = true,
							.done = extra_ended, .data = r };
		return machine_open(r->machine, q, &path, 1, &inside, ret_session, e);
	}
	if (result < 0 || (result = enter_workspace(&enter, e)) < 0)
		return result;
	struct session_options how = {
		.streams = { enter.pidfd, enter.input_fd, enter.output_fd, enter.errors_fd, -1 },
		.patient = true, .single = true, .errors_are_text = true, .done = extra_ended, .data = r };
	*ret_session = session_new(r->loop, &how);
	return 0;
}

static int display(struct runner *r, struct session **ret_session, struct err *e)
{
	const struct session_options how = { .patient = true, .single = true, .done = extra_ended, .data = r };

	if (r->status.state == RUNNER_ENDED || r->status.state == RUNNER_STARTING)
		return err_set(e, ERR_CONFLICT, "the workspace is not running");
	return r->machine ? machine_display(r->machine, &how, ret_session, e) :
			    err_set(e, ERR_UNSUPPORTED, "the workspace is no machine");
}

/* --- requests --- */

/* A machine answers when QEMU has. */
struct freezing {
	struct runner *runner;
	int fd;
	bool frozen;
};

static void machine_frozen(void *data, int result, const struct err *e)
{
	struct freezing *f = data;
	struct runner *r = f->runner;

	if (result >= 0 && r->status.state < RUNNER_STOPPING) {
		if (!f->frozen)
			r->released = true;
		runner_set_state(r, f->frozen ? RUNNER_PAUSED : RUNNER_RUNNING);
	}
	answer(r, f->fd, result, e, NULL, 0);
	(void)close(f->fd);
	free(f);
}

static int freeze_machine(struct runner *r, int fd, bool frozen, struct err *e)
{
	if (frozen && r->status.state != RUNNER_RUNNING && r->status.state != RUNNER_PAUSED)
		return err_set(e, ERR_CONFLICT, "the workspace is not running");
	struct freezing *f = mem_alloc(sizeof *f);
	*f = (struct freezing){ r, fd, frozen };
	machine_freeze(r->machine, frozen, machine_frozen, f);
	return 0;
}

/* Interfaces come and go likewise, and disks grow. */
static void machine_connected(void *data, int result, const struct err *e)
{
	struct connection *c = data;

	answer(c->runner, c->fd, result, e, NULL, 0);
	(void)close(c->fd);
	free(c);
}

static int connect_machine(struct runner *r, int fd, const struct request *request, struct err *e)
{
	static const char *const none[] = { NULL };
	bool some = request->head.texts_length > 0;

	if (!r->machine || (some && request->count % INTERFACE_TEXTS))
		return err_set(e, ERR_INVALID, r->machine ? "interfaces are incomplete" : "the workspace is no machine");
	struct connection *c = mem_alloc(sizeof *c);
	*c = (struct connection){ .runner = r, .fd = fd };
	machine_connect(r->machine, some ? (const char *const *)request->texts : none, machine_connected, c);
	return 0;
}

static int grow_machine(struct runner *r, int fd, const char *disk, uint64_t bytes, struct err *e)
{
	if (!r->machine)
		return err_set(e, ERR_INVALID, "the workspace is no machine");
	struct connection *c = mem_alloc(sizeof *c);
	*c = (struct connection){ .runner = r, .fd = fd };
	machine_grow(r->machine, disk, bytes, machine_connected, c);
	return 0;
}

static int resume(struct runner *r, struct err *e)
{
	if (r->status.state != RUNNER_PAUSED)
		return 0;
	int result = runner_freeze(r, false, e);
	if (result < 0)
		return result;
	if (!r->released && (result = runner_release(r, e)) < 0) {
		runner_kill_workspace(r);
		return result;
	}
	runner_set_state(r, RUNNER_RUNNING);
	return 0;
}

static int pause_workspace(struct runner *r, struct err *e)
{
	if (r->status.state == RUNNER_PAUSED)
		return 0;
	if (r->status.state != RUNNER_RUNNING)
		return err_set(e, ERR_CONFLICT, "the workspace is not running");
	int result = runner_freeze(r, true, e);
	if (result < 0) {
		(void)!runner_freeze(r, false, NULL);
		return result;
	}
	runner_set_state(r, RUNNER_PAUSED);
	return 0;
}

static int find_volume(const struct runner *r, const char *name, int fds[2], struct err *e)
{
	size_t i = 0;

	if (!str_eq(name, "root")) {
		for (i = 1; r->plan.volumes[i - 1] && !str_eq(r->plan.volumes[i - 1], name); i++)
			;
		if (!r->plan.volumes[i - 1])
			return err_set(e, ERR_NOT_FOUND, "the workspace has no volume \"%s\"", name);
	}
	if (i >= r->birth.volume_count)
		return err_set(e, ERR_CONFLICT, "volume \"%s\" is not mounted any more", name);
	fds[0] = r->birth.volumes[i].mount_fd;
	fds[1] = r->birth.volumes[i].loop_fd;
	return 0;
}

static int simple(struct runner *r, const struct runner_request *q, struct err *e)
{
	switch (q->kind) {
	case RUNNER_STATUS:
		return 0;
	case RUNNER_STOP:
		return runner_stop_workspace(r, q->number, e);
	case RUNNER_KILL:
		runner_kill_workspace(r);
		return 0;
	case RUNNER_SIGNAL:
		if (q->number < 1 || q->number > 64)
			return err_set(e, ERR_INVALID, "no signal %llu", (unsigned long long)q->number);
		return r->session ? session_signal(r->session, (int)q->number, e) : 0;
	case RUNNER_PAUSE:
		return pause_workspace(r, e);
	case RUNNER_RESUME:
		return resume(r, e);
	default:
		return err_set(e, ERR_UNSUPPORTED, "this runner knows no request %u", q->kind);
	}
}

/* A stream, which the connection becomes. */
static int open_session(struct runner *r, const struct request *request, struct session **ret_session, struct err *e)
{
	const struct runner_request *q = &request->head;

	if (q->kind == RUNNER_DISPLAY)
		return display(r, ret_session, e);
	if (q->kind == RUNNER_ATTACH || q->kind == RUNNER_CONSOLE) {
		*ret_session = r->session;
		return r->session ? 0 : err_set(e, ERR_CONFLICT, "the machine is not running yet");
	}
	r->visitors++;
	int result = q->kind == RUNNER_EXEC ? exec(r, request, ret_session, e) : copy(r, q, request->texts[0], ret_session, e);
	if (result < 0)
		r->visitors--;
	return result;
}

static void plain_answer(struct runner *r, int fd, int result, const struct err *e) { answer(r, fd, result, e, NULL, 0); }

/* Takes `fd` when it is kept, and from `passed` what it uses. */
static bool handle(struct runner *r, int fd, const struct request *request, int passed[2])
{
	const struct runner_request *q = &request->head;
	const char *text = request->texts[0];
	struct err e = { 0 };
	struct session *session = NULL;
	int result = 0, fds[2];

	if (r->machine && (q->kind == RUNNER_PAUSE || (q->kind == RUNNER_RESUME && r->status.state == RUNNER_PAUSED))) {
		result = freeze_machine(r, fd, q->kind == RUNNER_PAUSE, &e);
		if (result < 0)
			answer(r, fd, result, &e, NULL, 0);
		return result >= 0;
	}
	switch (q->kind) {
	case RUNNER_CONNECT:
		result = connect_machine(r, fd, request, &e);
		if (result >= 0)
			return true;
		break;
	case RUNNER_GROW:
		result = grow_machine(r, fd, text, q->number, &e);
		if (result >= 0)
			return true;
		break;
	case RUNNER_SUSPEND:
		if (passed[0] < 0 || passed[1] < 0) {
			result = err_set(&e, ERR_INVALID, "a suspend without files");
			break;
		}
		suspend_begin(r, fd, q->flags & RUNNER_DEPARTS, passed[0], passed[1], plain_answer);
		passed[0] = passed[1] = -1;
		return true;
	case RUNNER_WATCH:
		answer(r, fd, 0, NULL, NULL, 0);
		add_watcher(r, fd);
		return true;
	case RUNNER_ATTACH:
	case RUNNER_CONSOLE:
	case RUNNER_EXEC:
	case RUNNER_COPY_IN:
	case RUNNER_COPY_OUT:
	case RUNNER_DISPLAY:
		result = open_session(r, request, &session, &e);
		break;
	case RUNNER_VOLUME:
		result = find_volume(r, text, fds, &e);
		answer(r, fd, result, &e, fds, result < 0 ? 0 : 2);
		return false;
	default:
		result = simple(r, q, &e);
		break;
	}
	answer(r, fd, result, &e, NULL, 0);
	if (!session)
		return false;
	session_add_client(session, fd, q->flags & RUNNER_INPUT || q->kind == RUNNER_COPY_IN || q->kind == RUNNER_DISPLAY,
			   q->rows, q->columns);
	return true;
}

static void connection_ready(void *data, uint32_t events)
{
	struct connection *c = data;
	own_str char *bytes = malloc(REQUEST_LONGEST + 1);
	int passed[2] = { -1, -1 };
	bool kept = false;
	struct request q;
	struct err e;

	(void)events;
	ssize_t n = bytes ? rights_receive(c->fd, bytes, REQUEST_LONGEST, passed, 2, MSG_DONTWAIT) : -1;
	if (n < 0 && errno == EAGAIN)
		return;
	loop_remove(c->source);
	if (n > 0 && request_decode(bytes, (size_t)n, &q, &e) == 0) {
		kept = handle(c->runner, c->fd, &q, passed);
		request_done(&q);
	} else if (n > 0) {
		answer(c->runner, c->fd, -EINVAL, &e, NULL, 0);
	}
	for (int i = 0; i < 2; i++)
		if (passed[i] >= 0)
			(void)close(passed[i]);
	if (!kept)
		(void)close(c->fd);
	free(c);
}

static void accept_one(void *data, uint32_t events)
{
	struct runner *r = data;
	struct ucred peer = { .uid = (uid_t)-1 };
	socklen_t size = sizeof peer;

	(void)events;
	int fd = accept4(r->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd < 0)
		return;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0 || peer.uid != 0) {
		(void)close(fd);
		return;
	}
	struct connection *c = mem_alloc(sizeof *c);
	*c = (struct connection){ .runner = r, .fd = fd };
	c->source = loop_add_fd(r->loop, fd, EPOLLIN, connection_ready, c);
}

/* The working folder is the run folder, so the address is short. */
int control_listen(struct runner *r, struct err *e)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX, .sun_path = RUNNER_SOCKET };

	(void)unlink(RUNNER_SOCKET);
	r->listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (r->listener < 0 || bind(r->listener, (struct sockaddr *)&address, sizeof address) < 0 ||
	    chmod(RUNNER_SOCKET, 0600) < 0 || listen(r->listener, 64) < 0)
		return err_errno(e, errno, "listen on %s/" RUNNER_SOCKET, r->plan.run_dir);
	(void)loop_add_fd(r->loop, r->listener, EPOLLIN, accept_one, r);
	return 0;
}

void control_close(struct runner *r)
{
	(void)unlink(RUNNER_SOCKET);
	(void)close(r->listener);
	while (r->watchers)
		watcher_free(r->watchers);
}
