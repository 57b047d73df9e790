/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A child is a fork without exec: it has its parent's memory (the limits, the names) and gives up everything else before it
 * looks at a byte - descriptors that were not given, then rights by base/sandbox.h. Its error comes back as the bytes of a
 * struct err, which may be forged by whoever took the child over: texts are ended, the kind is checked, nothing else is used.
 *
 * A child that a signal ended died of the bytes it read, unless the signal was KILL, which is ours.
 */
#include "store/child.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <netdb.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/proc.h"
#include "base/sandbox.h"

/* What the child does first: gives up all rights but these. */
static int enter(enum child_rights rights, struct err *e)
{
	/* what getaddrinfo reads, and nothing else */
	static const char *const resolver[] = {
		"/etc/resolv.conf", "/etc/hosts",     "/etc/nsswitch.conf",   "/etc/host.conf",      "/etc/gai.conf",
		"/etc/services",    "/etc/protocols", "/run/systemd/resolve", "/run/NetworkManager", NULL
	};
	struct addrinfo *loaded = NULL;

	if (rights == CHILD_RELAYS)
		return 0;
	if (rights == CHILD_PARSES)
		return sandbox_enter(0, NULL, e);
	/* the resolver's plug-ins are loaded while there are files; resolv.conf may be a link into /run */
	if (getaddrinfo("localhost", NULL, NULL, &loaded) == 0)
		freeaddrinfo(loaded);
	return sandbox_enter(SANDBOX_NETWORK, resolver, e);
}

static bool listed(const int *fds, size_t count, int fd)
{
	for (size_t i = 0; i < count; i++)
		if (fds[i] == fd)
			return true;
	return false;
}

/* Standard input and output become /dev/null unless they were given; standard error stays for logs. */
static void close_others(const int *fds, size_t count)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	for (int standard = 0; standard < 2; standard++)
		if (!listed(fds, count, standard) && null >= 0)
			(void)dup2(null, standard);
	for (unsigned from = 3; from;) {
		unsigned next = ~0U;
		for (size_t i = 0; i < count; i++)
			if (fds[i] >= 0 && (unsigned)fds[i] >= from && (unsigned)fds[i] < next)
				next = (unsigned)fds[i];
		if (next > from)
			(void)syscall(SYS_close_range, from, next == ~0U ? next : next - 1, 0);
		from = next == ~0U ? 0 : next + 1;
	}
}

static void run(enum child_rights rights, child_fn *fn, void *data, const int *fds, size_t count, int report_fd)
{
	own_str int *kept = mem_alloc_array(count + 1, sizeof *kept);
	struct err e = { 0 };

	for (size_t i = 0; i < count; i++)
		kept[i] = fds[i];
	kept[count] = report_fd;
	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	close_others(kept, count + 1);
	(void)signal(SIGPIPE, SIG_IGN);
	int r = enter(rights, &e);
	if (r == 0)
		r = fn(data, &e);
	if (r < 0 && write(report_fd, &e, sizeof e) < 0)
		_exit(2);
	_exit(r < 0);
}

int child_start(const char *what, enum child_rights rights, child_fn *fn, void *data, const int *fds, size_t fd_count,
		struct child *ret_child, struct err *e)
{
	own_fd int report_read = -1, report_write = -1;
	int pair[2], pidfd = -1;

	if (pipe2(pair, O_CLOEXEC) < 0)
		return err_errno(e, errno, "start %s", what);
	report_read = pair[0];
	report_write = pair[1];
	struct clone_args args = { .flags = CLONE_PIDFD, .pidfd = (uintptr_t)&pidfd, .exit_signal = SIGCHLD };
	long pid = syscall(SYS_clone3, &args, sizeof args);
	if (pid < 0)
		return err_errno(e, errno, "start %s", what);
	if (pid == 0)
		run(rights, fn, data, fds, fd_count, report_write);
	*ret_child = (struct child){ .what = what, .pidfd = pidfd, .report_fd = TAKE_FD(report_read) };
	return 0;
}

static void release(struct child *c)
{
	(void)close(TAKE_FD(c->pidfd));
	(void)close(TAKE_FD(c->report_fd));
}

int child_finish(struct child *c, struct err *e)
{
	struct err theirs;
	int status = 0;
	ssize_t n;

	do
		n = read(c->report_fd, &theirs, sizeof theirs);
	while (n < 0 && errno == EINTR);
	int r = proc_wait(c->pidfd, &status, e);
	release(c);
	if (r < 0 || status == 0)
		return r;
	/* the child may be in the hands of who sent the bytes: its texts are ended here */
	theirs.message[sizeof theirs.message - 1] = theirs.hint[sizeof theirs.hint - 1] = '\0';
	if (n == (ssize_t)sizeof theirs && status == 1 && theirs.kind > ERR_NONE && theirs.kind < ERR_KIND_COUNT) {
		(void)err_set(e, theirs.kind, "%s", theirs.message);
		if (e && theirs.number > 0 && theirs.number < 4096)
			e->number = theirs.number;
		return err_hint(e, "%s", theirs.hint);
	}
	if (status > 128) /* whoever kills it is one of us; what it dies of by itself are the bytes it read */
		return err_set(e, status == 128 + SIGKILL ? ERR_INTERNAL : ERR_CORRUPT, "%s was stopped by signal %d", c->what,
			       status - 128);
	return err_set(e, ERR_INTERNAL, "%s ended with status %d", c->what, status);
}

void child_kill(struct child *c)
{
	int status;

	if (c->pidfd < 0)
		return;
	if (proc_signal(c->pidfd, SIGKILL, NULL) == 0 && proc_wait(c->pidfd, &status, NULL) < 0)
		errno = 0;
	release(c);
}

struct answer {
	child_answer_fn *fn;
	void *data;
	int output_fd;
};

static int write_answer(void *data, struct err *e)
{
	struct answer *a = data;
	return a->fn(a->data, a->output_fd, e);
}

int child_answer(const char *what, child_answer_fn *fn, void *data, size_t limit_bytes, struct str *ret_answer, struct err *e)
{
	own_fd int reading = -1, writing = -1;
	own_strbuf struct str text = { 0 };
	struct child c = { .pidfd = -1, .report_fd = -1 };
	int pair[2];

	if (pipe2(pair, O_CLOEXEC) < 0)
		return err_errno(e, errno, "start %s", what);
	reading = pair[0];
	writing = pair[1];
	struct answer a = { fn, data, writing };
	int r = child_start(what, CHILD_PARSES, write_answer, &a, &writing, 1, &c, e);
	if (r < 0)
		return r;
	(void)close(TAKE_FD(writing));
	r = fs_read_fd(reading, limit_bytes, &text, e);
	if (r < 0) {
		child_kill(&c);
		return err_wrap(e, "%s", what);
	}
	r = child_finish(&c, e);
	if (r < 0)
		return r;
	*ret_answer = text;
	text = (struct str){ 0 };
	return 0;
}
