/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A child is a copy of the agent (clone3 without exec) that enters the workspace and becomes its program. Until it has, the
 * sync socket is the only way to hear of it: end of file when exec closed it, or the error. Its exit status says the same in a
 * shell's way, 126 and 127. A copy (`carrel cp`) executes nothing and runs our own code with the capabilities that it needs.
 *
 * Terminals are opened in the workspace's own devpts, so that their names are right inside; nothing in there is trusted to be
 * a terminal (program_terminal). Pipes towards the agent do not block, as it is one thread for everybody.
 */
#include "guest/child.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <termios.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/own.h"
#include "engine/workspace/archive.h"
#include "engine/workspace/message.h"
#include "engine/workspace/program.h"

#define SYNC_FD 3 /* of a copy */

static void close_one(int *fd)
{
	if (*fd >= 0)
		(void)close(*fd);
	*fd = -1;
}

void child_close(struct child *c)
{
	close_one(&c->pidfd);
	close_one(&c->sync);
	close_one(&c->input);
	close_one(&c->output);
	close_one(&c->errors);
	close_one(&c->terminal);
}

void child_signal(const struct child *c, int number)
{
	if (c->pidfd >= 0)
		(void)syscall(SYS_pidfd_send_signal, c->pidfd, number, NULL, 0);
}

void child_resize(const struct child *c, unsigned rows, unsigned columns)
{
	struct winsize size = { .ws_row = (unsigned short)rows, .ws_col = (unsigned short)columns };

	if (c->terminal >= 0 && rows && columns && rows < 10000 && columns < 10000)
		(void)ioctl(c->terminal, TIOCSWINSZ, &size);
}

int child_enter_root(int root, struct err *e)
{
	if (fchdir(root) < 0 || chroot(".") < 0 || chdir("/") < 0)
		return err_errno(e, errno, "enter the workspace's root");
	return 0;
}

/* A terminal of the workspace's own, so that it has a name there. */
static int open_terminal(int root, int *ret_master, int *ret_peer, struct err *e)
{
	struct open_how how = { .flags = O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC,
				.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS };
	own_fd int master = (int)syscall(SYS_openat2, root, "dev/pts/ptmx", &how, sizeof how);

	if (master < 0)
		return err_errno(e, errno, "open /dev/pts/ptmx in the workspace");
	int r = program_terminal(master, ret_peer, e);
	if (r == 0)
		*ret_master = TAKE_FD(master);
	return r;
}

static int make_pipe(int *ret_read, int *ret_write, struct err *e)
{
	int ends[2];

	if (pipe2(ends, O_CLOEXEC) < 0)
		return err_errno(e, errno, "make pipe");
	*ret_read = ends[0];
	*ret_write = ends[1];
	return 0;
}

static int make_streams(const struct child_how *how, struct child *c, int standard[3], struct err *e)
{
	int r = 0;

	if (how->terminal) {
		int peer = -1;
		if ((r = open_terminal(how->root, &c->terminal, &peer, e)) < 0)
			return r;
		child_resize(c, how->rows, how->columns);
		standard[0] = peer;
		standard[1] = fcntl(peer, F_DUPFD_CLOEXEC, 0);
		standard[2] = fcntl(peer, F_DUPFD_CLOEXEC, 0);
		return 0;
	}
	if (how->input)
		r = make_pipe(&standard[0], &c->input, e);
	if (r >= 0)
		r = make_pipe(&c->output, &standard[1], e);
	if (r >= 0)
		r = make_pipe(&c->errors, &standard[2], e);
	if (r >= 0 && c->input >= 0)
		r = fs_set_blocking(c->input, false, e);
	if (r >= 0 && (r = fs_set_blocking(c->output, false, e)) >= 0)
		r = fs_set_blocking(c->errors, false, e);
	return r;
}

/* It executes nothing that would close them: with the other end of its own input it would never see that end, nor would other
 * programs see the end of theirs while it copies. */
static int keep_streams(const int standard[3], int *sync, struct err *e)
{
	for (int i = 0; i < 3; i++)
		if (standard[i] >= 0 && dup2(standard[i], i) < 0)
			return err_errno(e, errno, "place descriptors");
	if (*sync != SYNC_FD && dup2(*sync, SYNC_FD) < 0)
		return err_errno(e, errno, "place descriptors");
	*sync = SYNC_FD;
	return syscall(SYS_close_range, SYNC_FD + 1, ~0u, 0) < 0 ? err_errno(e, errno, "close descriptors") : 0;
}

static int run_copy(const struct child_how *how, const int standard[3], int *sync, struct err *e)
{
	sigset_t none;
	int r = program_keep_capabilities(PROGRAM_COPIES, e);

	(void)sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL); /* the agent's are blocked */
	if (r < 0 || (r = keep_streams(standard, sync, e)) < 0)
		return r;
	return how->kind == GUEST_COPY_IN ? archive_unpack(how->path, STDIN_FILENO, e) :
					    archive_pack(how->path, STDOUT_FILENO, e);
}

static int run_program(const struct child_how *how, const int standard[3], struct err *e)
{
	bool system = how->plan->flags & PLAN_SYSTEM, first = how->kind == GUEST_PROGRAM;
	struct program what = { .argv = how->argv,
				.environment = program_environment(how->plan, how->environment, how->terminal),
				.user = *how->user ? how->user : how->plan->user,
				.directory = *how->directory ? how->directory : how->plan->directory,
				.standard = { standard[0], standard[1], standard[2] }, .terminal = how->terminal,
				.no_new_privileges = !system, .make_directory = first };

	if (!how->terminal)
		(void)setsid();
	return program_execute(how->plan, &what, e);
}

static void run(const struct child_how *how, int sync, const int standard[3]) __attribute__((noreturn));
static void run(const struct child_how *how, int sync, const int standard[3])
{
	struct err e = { 0 };
	bool copies = how->kind == GUEST_COPY_IN || how->kind == GUEST_COPY_OUT;
	int r = how->go_inside ? how->go_inside(how->init_pidfd, &e) : child_enter_root(how->root, &e);

	if (r >= 0)
		r = copies ? run_copy(how, standard, &sync, &e) : run_program(how, standard, &e);
	if (r < 0)
		(void)!message_send(sync, MESSAGE_FAILED, &e, NULL, 0, NULL);
	_exit(r >= 0 ? 0 : copies ? 1 : e.number == ENOENT ? 127 : 126);
}

int child_start(const struct child_how *how, struct child *ret_child, struct err *e)
{
	struct child c = { .pidfd = -1, .sync = -1, .input = -1, .output = -1, .errors = -1, .terminal = -1 };
	struct clone_args args = { .flags = CLONE_PIDFD, .pidfd = (uintptr_t)&c.pidfd, .exit_signal = SIGCHLD };
	int standard[3] = { -1, -1, -1 }, pair[2] = { -1, -1 };
	int r = make_streams(how, &c, standard, e);

	if (r >= 0)
		r = message_pair(pair, e);
	if (r >= 0) {
		c.sync = pair[0];
		pid_t pid = (pid_t)syscall(SYS_clone3, &args, sizeof args);
		if (pid == 0)
			run(how, pair[1], standard);
		if (pid < 0)
			r = err_errno(e, errno, "make a process");
		close_one(&pair[1]);
	}
	for (int i = 0; i < 3; i++)
		close_one(&standard[i]);
	if (r < 0)
		child_close(&c);
	else
		*ret_child = c;
	return r;
}
