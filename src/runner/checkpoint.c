/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. Suspending is done by carrel-checkpoint and CRIU, two children; this is their keeper. The workspace is frozen from
 * before the first byte until the end, so what they write is one moment of it:
 *
 *   idle -> writing (frozen) -> written (frozen; the agent writes the manifest) -> committed: manifest in its place, all killed
 *
 * From `writing` and `written` there is a way back at any time: both children are killed and seen dead, for CRIU restores the
 * freezer's state when it ends by itself, and then the workspace thaws. It is taken when a child fails or dies, when time is
 * over, and when the connection of the agent closes.
 */
#include "runner/checkpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/proc.h"
#include "engine/workspace/message.h"
#include "runner/network.h"
#include "runner/runner.h"

#define END_MS 10000
#define LONGEST_MS (20 * 60 * 1000) /* memory of many gigabytes on a slow disk */

struct checkpoint_keeper {
	struct runner *runner;
	int folder, socket, helper, criu; /* pidfds */
	bool was_paused;
	struct loop_source *source, *timer;
	checkpoint_saved *done; /* NULL: was called */
	void *data;
};

/* --- children --- */

static int start_helper(struct runner *r, const char *verb, const char *number, const struct proc_fd *more, size_t count,
			int folder, int *ret_socket, int *ret_pidfd, struct err *e)
{
	own_str char *program = mem_printf("%s/libexec/carrel/carrel-checkpoint", fs_prefix());
	const char *const argv[] = { "carrel-checkpoint", verb, number, NULL };
	struct proc_fd fds[BIRTH_VOLUMES_MOST + 5];
	int pair[2], result = message_pair(pair, e);

	if (result < 0)
		return result;
	own_fd int ours = pair[0], theirs = pair[1];
	memcpy(fds, (struct proc_fd[]){ { 0, -1 }, { 1, -1 }, { CHECKPOINT_SOCKET, theirs }, { CHECKPOINT_PLAN, r->plan_fd },
					{ CHECKPOINT_FOLDER, folder } }, 5 * sizeof *fds);
	memcpy(fds + 5, more, count * sizeof *fds);
	const struct proc_spawn how = { .path = program, .argv = argv, .fds = fds, .fd_count = 5 + count,
					.die_with_parent = true };
	if ((result = proc_start(&how, ret_pidfd, NULL, e)) < 0)
		return result;
	*ret_socket = TAKE_FD(ours);
	return 0;
}

/* Killed, and seen dead. */
static void end_child(int *pidfd)
{
	if (*pidfd < 0)
		return;
	struct pollfd end = { .fd = *pidfd, .events = POLLIN };

	(void)syscall(SYS_pidfd_send_signal, *pidfd, SIGKILL, NULL, 0);
	if (poll(&end, 1, END_MS) > 0)
		(void)waitid(P_PIDFD, (id_t)*pidfd, &(siginfo_t){ 0 }, WEXITED);
	own_close(pidfd);
	*pidfd = -1;
}

/* And what it forked: a child that CRIU looks at by ptrace stops itself, and would stand there for ever. CRIU leads a group
 * of its own, and nobody has waited for it, so the number is still its own. */
static void end_criu(int *pidfd)
{
	pid_t pid = *pidfd >= 0 ? proc_pid(*pidfd) : -1;

	if (pid > 1)
		(void)kill(-pid, SIGKILL);
	end_child(pidfd);
}

/* Ends by itself, at once. */
static void reap_child(int *pidfd)
{
	struct pollfd end = { .fd = *pidfd, .events = POLLIN };

	if (*pidfd >= 0)
		(void)poll(&end, 1, END_MS);
	end_child(pidfd);
}

/* --- suspending --- */

static void keeper_free(struct runner *r)
{
	struct checkpoint_keeper *k = r->keeper;

	loop_remove(k->source);
	loop_remove(k->timer);
	own_close(&k->socket);
	own_close(&k->folder);
	free(k);
	r->keeper = NULL;
}

void checkpoint_abort(struct runner *r)
{
	struct checkpoint_keeper *k = r->keeper;

	if (!k)
		return;
	end_child(&k->helper);
	end_criu(&k->criu);
	network_hold(&r->plan, false);
	if (!k->was_paused)
		(void)!runner_freeze(r, false, NULL);
	keeper_free(r);
}

/* May end in checkpoint_abort. */
static void tell(struct runner *r, int result, const struct err *e)
{
	struct checkpoint_keeper *k = r->keeper;
	checkpoint_saved *done = k->done;
	void *data = k->data;

	k->done = NULL;
	if (result < 0)
		checkpoint_abort(r);
	if (done)
		done(data, result, e);
}

static void too_long(void *data)
{
	struct checkpoint_keeper *k = data;
	struct err e = { 0 };

	k->timer = NULL;
	tell(k->runner, err_set(&e, ERR_TIMEOUT, "the workspace was not on disk after %d minutes", LONGEST_MS / 60000), &e);
}

static void helper_says(void *data, uint32_t events)
{
	struct checkpoint_keeper *k = data;
	struct err e = { 0 };
	int fds[MESSAGE_FDS_MOST], kind = 0, result = message_receive(k->socket, &kind, fds, &e);

	(void)events;
	if (result > 0 && kind == MESSAGE_ENTERED) {
		k->criu = fds[0];
		return;
	}
	if (result == 0)
		result = err_set(&e, ERR_INTERNAL, "carrel-checkpoint ended before it was done");
	loop_remove(k->source);
	loop_remove(k->timer);
	k->source = k->timer = NULL;
	if (result > 0) {
		reap_child(&k->helper);
		reap_child(&k->criu);
	}
	tell(k->runner, result < 0 ? result : 0, &e);
}

static int may_save(const struct runner *r, struct err *e)
{
	if (!r->released || (r->status.state != RUNNER_RUNNING && r->status.state != RUNNER_PAUSED))
		return err_set(e, ERR_CONFLICT, "the workspace is not running");
	if (!r->visitors)
		return 0;
	(void)err_set(e, ERR_CONFLICT, "%u command%s started by exec, console or cp run%s in it", r->visitors,
		      r->visitors > 1 ? "s" : "", r->visitors > 1 ? "" : "s");
	return err_hint(e, "end them first: they belong to those who started them, who would not find them again");
}

int checkpoint_save(struct runner *r, int folder, checkpoint_saved *done, void *data, struct err *e)
{
	const struct birth *b = &r->birth;
	const struct proc_fd more[] = { { CHECKPOINT_STREAMS, b->input },
					{ CHECKPOINT_STREAMS + 1, b->output },
					{ CHECKPOINT_STREAMS + 2, b->errors },
					{ CHECKPOINT_TERMINAL, b->terminal_peer } };
	char number[16];
	int result = may_save(r, e);

	if (result < 0) {
		(void)close(folder);
		return result;
	}
	struct checkpoint_keeper *k = r->keeper = mem_alloc(sizeof *k);
	*k = (struct checkpoint_keeper){ .runner = r, .folder = folder, .socket = -1, .helper = -1, .criu = -1,
					 .was_paused = r->status.state == RUNNER_PAUSED };
	(void)snprintf(number, sizeof number, "%d", (int)b->pid);
	network_hold(&r->plan, true); /* what came after it was written would be acknowledged, and lost */
	if ((!k->was_paused && (result = runner_freeze(r, true, e)) < 0) ||
	    (result = start_helper(r, "dump", number, more, ARRAY_SIZE(more), folder, &k->socket, &k->helper, e)) < 0) {
		checkpoint_abort(r);
		return result;
	}
	k->done = done;
	k->data = data;
	k->source = loop_add_fd(r->loop, k->socket, EPOLLIN, helper_says, k);
	k->timer = loop_add_timer(r->loop, LONGEST_MS, too_long, k);
	return 0;
}

/* Before anything thaws each process must have its end waiting for it: not one instruction more. */
static void kill_all(const struct plan *p)
{
	const char *slash = strrchr(p->freeze_path, '/');
	own_str char *folder = mem_strndup(p->freeze_path, slash ? (size_t)(slash - p->freeze_path) : 0);
	own_str char *path = mem_printf("%s/cgroup.procs", folder);
	own_strbuf struct str text = { 0 };
	char *save = NULL;

	if (fs_read_file(AT_FDCWD, path, 1 << 20, &text, NULL) < 0 || !text.length)
		return;
	for (char *word = strtok_r(text.bytes, "\n", &save); word; word = strtok_r(NULL, "\n", &save)) {
		pid_t pid = (pid_t)strtol(word, NULL, 10);
		if (pid > 0)
			(void)kill(pid, SIGKILL);
	}
}

static void set_down(const char *name)
{
	own_fd int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct ifreq q = { 0 };

	(void)snprintf(q.ifr_name, sizeof q.ifr_name, "%s", name);
	if (fd >= 0)
		(void)ioctl(fd, SIOCSIFFLAGS, &q); /* no flags: down */
}

/* The end of a process closes its connections; whoever is at their other ends shall not hear of it, for they go on at the
 * resume. */
static void cut_off(const struct runner *r)
{
	own_str char *path = mem_printf("/proc/%d/ns/net", (int)r->birth.pid);
	own_fd int here = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC), there = open(path, O_RDONLY | O_CLOEXEC);

	if (here < 0 || there < 0 || r->plan.flags & PLAN_HOST_NETWORK || setns(there, CLONE_NEWNET) < 0)
		return;
	struct if_nameindex *all = if_nameindex();
	for (struct if_nameindex *i = all; i && i->if_index; i++)
		set_down(i->if_name);
	if (all)
		if_freenameindex(all);
	(void)!setns(here, CLONE_NEWNET);
}

void checkpoint_end(struct runner *r)
{
	cut_off(r);
	session_let_go(r->session);
	kill_all(&r->plan);
	(void)syscall(SYS_pidfd_send_signal, r->birth.pidfd, SIGKILL, NULL, 0);
	(void)!runner_freeze(r, false, NULL);
	if (r->keeper)
		keeper_free(r);
}

/* --- resuming --- */

static void take_streams(struct runner *r, const int *fds)
{
	struct birth *b = &r->birth;
	size_t at = 0;

	b->pidfd = fds[at++];
	if (r->plan.flags & PLAN_TERMINAL) {
		b->terminal = fds[at++];
		b->terminal_peer = fds[at++];
		return;
	}
	if (r->plan.flags & PLAN_INPUT)
		b->input = fds[at++];
	b->output = fds[at++];
	b->errors = fds[at++];
}

/* The helper gives the whole workspace (PREPARED), removes the manifest, and says that they run (READY); then it may die. */
static int await_restored(struct runner *r, int socket, int *criu, struct err *e)
{
	int fds[MESSAGE_FDS_MOST], kind = 0, result;
	struct timeval patience = { .tv_sec = LONGEST_MS / 1000 };

	(void)setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
	while ((result = message_receive(socket, &kind, fds, e)) > 0 && kind != MESSAGE_READY) {
		if (kind == MESSAGE_ENTERED)
			*criu = fds[0];
		else if (kind == MESSAGE_PREPARED)
			take_streams(r, fds);
	}
	if (result <= 0)
		return result < 0 ? result : err_set(e, ERR_INTERNAL, "carrel-checkpoint ended before it was done");
	r->birth.pid = r->status.pid = proc_pid(r->birth.pidfd);
	return r->birth.pid > 0 ? 0 : err_set(e, ERR_INTERNAL, "the resumed workspace ended at once");
}

int checkpoint_resume(struct runner *r, int folder, struct err *e)
{
	struct proc_fd more[BIRTH_VOLUMES_MOST];
	int socket = -1, helper = -1, criu = -1;
	char number[16];

	for (size_t i = 0; i < r->birth.volume_count; i++)
		more[i] = (struct proc_fd){ CHECKPOINT_VOLUMES + (int)i, r->birth.volumes[i].mount_fd };
	(void)snprintf(number, sizeof number, "%zu", r->birth.volume_count);
	int result = start_helper(r, "restore", number, more, r->birth.volume_count, folder, &socket, &helper, e);
	if (result < 0)
		return result;
	result = await_restored(r, socket, &criu, e);
	(void)close(socket);
	if (result < 0) {
		end_child(&helper);
		end_child(&criu);
		kill_all(&r->plan);
		return result;
	}
	reap_child(&helper);
	reap_child(&criu);
	r->released = true;
	return 0;
}
