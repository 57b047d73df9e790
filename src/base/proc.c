/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Between clone3 and exec the child makes only calls that are safe in a copy of a process with threads; its errno comes back
 * by a pipe that exec closes, so a start either is one or is an error, and the caller waits for it that long. Signals are as a
 * program expects them: none blocked, all at their defaults. All descriptors but those named are closed by then, whoever
 * opened them without O_CLOEXEC.
 */
#include "base/proc.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <linux/sched.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/loop.h"
#include "base/mem.h"
#include "base/own.h"

static pid_t fork_pidfd(int *ret_pidfd)
{
	struct clone_args args = { .flags = CLONE_PIDFD, .pidfd = (uintptr_t)ret_pidfd, .exit_signal = SIGCHLD };
	return (pid_t)syscall(SYS_clone3, &args, sizeof args);
}

/* First every source is copied above all numbers in use, so that no target overwrites a source that is still to be copied; then
 * everything but 0, 1, 2 and the targets closes at exec. Only async-signal-safe calls: the parent may have threads. */
static int place_fds(const struct proc_spawn *how, int report_fd)
{
	int above = report_fd;

	for (size_t i = 0; i < how->fd_count; i++) {
		const struct proc_fd *f = &how->fds[i];
		above = f->child_fd > above ? f->child_fd : above;
		above = f->parent_fd > above ? f->parent_fd : above;
	}
	report_fd = fcntl(report_fd, F_DUPFD_CLOEXEC, ++above);
	int first = report_fd + 1 + (int)how->fd_count; /* /dev/null takes numbers below */
	for (size_t i = 0; i < how->fd_count; i++) {
		int from = how->fds[i].parent_fd;
		if (from < 0)
			from = open("/dev/null", O_RDWR | O_CLOEXEC);
		/* In a busy process the lowest free number, which open gives, may be the very one that is wanted. */
		if (from != first + (int)i && dup3(from, first + (int)i, O_CLOEXEC) < 0)
			goto fail;
	}
	(void)syscall(SYS_close_range, 3, ~0U, CLOSE_RANGE_CLOEXEC);
	for (size_t i = 0; i < how->fd_count; i++)
		if (dup2(first + (int)i, how->fds[i].child_fd) < 0)
			goto fail;
	return report_fd;
fail:
	(void)!write(report_fd, &errno, sizeof errno);
	_exit(127);
}

static void run_child(const struct proc_spawn *how, int report_fd)
{
	sigset_t none;

	(void)sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
	for (int s = 1; s < 32; s++)
		(void)signal(s, SIG_DFL);
	if (how->new_session)
		(void)setsid();
	if (how->die_with_parent)
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	report_fd = place_fds(how, report_fd);
	const char *path = how->path ? how->path : how->argv[0];
	(void)execvpe(path, (char *const *)(uintptr_t)how->argv, how->env ? (char *const *)(uintptr_t)how->env : environ);
	(void)!write(report_fd, &errno, sizeof errno);
	_exit(127);
}

int proc_start(const struct proc_spawn *how, int *ret_pidfd, pid_t *ret_pid, struct err *e)
{
	const char *path = how->path ? how->path : how->argv[0];
	int report[2], pidfd = -1, failure = 0;

	if (pipe2(report, O_CLOEXEC) < 0)
		return err_errno(e, errno, "start %s", path);
	pid_t pid = fork_pidfd(&pidfd);
	if (pid == 0)
		run_child(how, report[1]);
	int number = errno;
	(void)close(report[1]);
	if (pid < 0) {
		(void)close(report[0]);
		return err_errno(e, number, "start %s", path);
	}
	ssize_t n;
	do
		n = read(report[0], &failure, sizeof failure);
	while (n < 0 && errno == EINTR);
	(void)close(report[0]);
	if (n > 0) {
		(void)waitid(P_PIDFD, (id_t)pidfd, &(siginfo_t){ 0 }, WEXITED);
		(void)close(pidfd);
		return err_errno(e, failure, "start %s", path);
	}
	*ret_pidfd = pidfd;
	if (ret_pid)
		*ret_pid = pid;
	return 0;
}

static int send_signal(int pidfd, int number) { return (int)syscall(SYS_pidfd_send_signal, pidfd, number, NULL, 0); }

static int wait_with(int pidfd, int flags, int *ret_status, struct err *e)
{
	siginfo_t info = { 0 };

	while (waitid(P_PIDFD, (id_t)pidfd, &info, WEXITED | flags) < 0)
		if (errno != EINTR)
			return err_errno(e, errno, "wait for a process");
	if (info.si_pid == 0)
		return 0;
	*ret_status = info.si_code == CLD_EXITED ? info.si_status : 128 + info.si_status;
	return 1;
}

int proc_wait(int pidfd, int *ret_status, struct err *e)
{
	int r = wait_with(pidfd, 0, ret_status, e);
	return r < 0 ? r : 0;
}

int proc_try_wait(int pidfd, int *ret_status, struct err *e) { return wait_with(pidfd, WNOHANG, ret_status, e); }

pid_t proc_pid(int pidfd)
{
	own_str char *path = mem_printf("/proc/self/fdinfo/%d", pidfd);
	own_strbuf struct str text = { 0 };
	const char *line = fs_read_file(AT_FDCWD, path, 4096, &text, NULL) < 0 ? NULL : strstr(str_text(&text), "Pid:");

	return line ? (pid_t)strtol(line + 4, NULL, 10) : -1;
}

int proc_signal(int pidfd, int number, struct err *e)
{
	if (send_signal(pidfd, number) < 0 && errno != ESRCH)
		return err_errno(e, errno, "send signal %d", number);
	return 0;
}

/* For poll(): until `deadline_ms` of the monotonic clock, 0 when it is over; no deadline: -1. */
static int remaining_ms(uint64_t deadline_ms)
{
	uint64_t now = loop_now_ms();

	return deadline_ms == 0 ? -1 : deadline_ms > now ? (int)(deadline_ms - now) : 0;
}

static int too_late(struct err *e) { return err_set(e, ERR_TIMEOUT, "it did not end in time"); }

/* Reads both pipes until both end; stderr keeps its last 2 KiB. */
static int drain(int out, int errors, uint64_t deadline_ms, size_t limit_bytes, struct str *output, struct str *tail,
		 struct err *e)
{
	struct pollfd polled[2] = { { .fd = out, .events = POLLIN }, { .fd = errors, .events = POLLIN } };
	char buffer[8192];

	while (polled[0].fd >= 0 || polled[1].fd >= 0) {
		int ready = poll(polled, 2, remaining_ms(deadline_ms));

		if (ready < 0 && errno != EINTR)
			return err_errno(e, errno, "poll");
		if (ready == 0)
			return too_late(e);
		if (ready < 0)
			continue;
		for (int i = 0; i < 2; i++) {
			if (polled[i].fd < 0 || !polled[i].revents)
				continue;
			ssize_t n = read(polled[i].fd, buffer, sizeof buffer);
			if (n <= 0) {
				polled[i].fd = -1;
				continue;
			}
			str_add(i == 0 ? output : tail, buffer, (size_t)n);
			if (output->length > limit_bytes)
				return err_set(e, ERR_TOO_LARGE, "it printed more than %zu bytes", limit_bytes);
			if (tail->length > 2048)
				str_drop_front(tail, tail->length - 2048);
		}
	}
	return 0;
}

/* Ends it, but waits no longer than a second where there is a deadline: a program that hangs in the kernel hears no signal. */
static int end(int pidfd, bool has_deadline)
{
	struct pollfd ended = { .fd = pidfd, .events = POLLIN };
	int status = 0;

	(void)send_signal(pidfd, SIGKILL);
	return has_deadline && poll(&ended, 1, 1000) <= 0 ? 0 : proc_wait(pidfd, &status, NULL);
}

int proc_run_within(unsigned limit_ms, const char *const *argv, size_t limit_bytes, struct str *ret_output, struct err *e)
{
	uint64_t deadline_ms = limit_ms ? loop_now_ms() + limit_ms : 0;
	own_strbuf struct str output = { 0 }, tail = { 0 };
	own_fd int out_read = -1, out_write = -1, err_read = -1, err_write = -1, pidfd = -1;
	int pair[2], status = 0;

	if (pipe2(pair, O_CLOEXEC) < 0)
		return err_errno(e, errno, "pipe");
	out_read = pair[0];
	out_write = pair[1];
	if (pipe2(pair, O_CLOEXEC) < 0)
		return err_errno(e, errno, "pipe");
	err_read = pair[0];
	err_write = pair[1];
	struct proc_fd fds[] = { { 0, -1 }, { 1, out_write }, { 2, err_write } };
	struct proc_spawn how = { .argv = argv, .fds = fds, .fd_count = ARRAY_SIZE(fds), .die_with_parent = true };
	int r = proc_start(&how, &pidfd, NULL, e);
	if (r < 0)
		return r;
	(void)close(TAKE_FD(out_write));
	(void)close(TAKE_FD(err_write));
	r = drain(out_read, err_read, deadline_ms, limit_bytes, &output, &tail, e);
	if (r >= 0 && poll(&(struct pollfd){ .fd = pidfd, .events = POLLIN }, 1, remaining_ms(deadline_ms)) == 0)
		r = too_late(e);
	if (r < 0) {
		(void)end(pidfd, deadline_ms != 0);
		return err_wrap(e, "%s", argv[0]);
	}
	r = proc_wait(pidfd, &status, e);
	if (r < 0)
		return r;
	if (status != 0) {
		while (tail.length && tail.bytes[tail.length - 1] == '\n')
			tail.bytes[--tail.length] = '\0';
		return err_set(e, ERR_INTERNAL, "%s ended with status %d: %s", argv[0], status, str_text(&tail));
	}
	if (ret_output) {
		*ret_output = output;
		output = (struct str){ 0 };
	}
	return 0;
}

int proc_run(const char *const *argv, size_t limit_bytes, struct str *ret_output, struct err *e)
{
	return proc_run_within(0, argv, limit_bytes, ret_output, e);
}
