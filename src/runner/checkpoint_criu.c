/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CRIU as a child that is talked to ("criu swrk"). It gets one socket and, to restore, the other ends of the streams; its
 * standard streams are /dev/null, and what it has to say it writes into a log beside the images.
 */
#include "runner/checkpoint_private.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"
#include "engine/workspace/checkpoint_program.h"
#include "engine/workspace/message.h"
#include "runner/checkpoint.h"

#define LOG_MOST (1 << 20)
#define CRIU_SOCKET 3 /* in CRIU */
#define END_S 10

static void enter_cgroups(const struct plan *p, struct err *e)
{
	for (size_t i = 0; p->cgroups_v1[i]; i++) {
		own_str char *path = mem_printf("%s/tasks", p->cgroups_v1[i]);
		own_fd int fd = open(path, O_WRONLY | O_CLOEXEC);
		if (fd < 0 || write(fd, "0", 1) < 0) {
			(void)err_errno(e, errno, "enter %s", path);
			return;
		}
	}
	own_str char *path = mem_printf("%s/cgroup.procs", p->cgroup_v2);
	own_fd int fd = *p->cgroup_v2 ? open(path, O_WRONLY | O_CLOEXEC) : -1;
	if (*p->cgroup_v2 && (fd < 0 || write(fd, "0", 1) < 0))
		(void)err_errno(e, errno, "enter %s", path);
}

/* CRIU sees cgroups as the workspace does. */
static int take_place(const struct job *j, struct err *e)
{
	own_str char *path = mem_printf("/proc/%d/ns/cgroup", (int)j->first);

	if (j->kind == JOB_TRY)
		return 0;
	if (j->kind == JOB_DUMP) {
		own_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
		return fd < 0 || setns(fd, CLONE_NEWCGROUP) < 0 ? err_errno(e, errno, "enter %s", path) : 0;
	}
	err_clear(e);
	enter_cgroups(&j->plan, e);
	if (e->kind)
		return -e->number;
	return unshare(CLONE_NEWCGROUP) < 0 ? err_errno(e, errno, "make cgroup namespace") : 0;
}

/* Copies first, then the places: a descriptor may stand where another is to go. */
static void arrange(const int *fds, size_t count)
{
	int high[8];

	for (size_t i = 0; i < count; i++)
		high[i] = fds[i] >= 0 ? fcntl(fds[i], F_DUPFD, 64) : -1;
	(void)syscall(SYS_close_range, CRIU_SOCKET, 63, 0);
	for (size_t i = 0; i < count; i++)
		if (high[i] >= 0)
			(void)dup2(high[i], CRIU_SOCKET + (int)i);
	(void)syscall(SYS_close_range, 64, ~0u, 0);
}

static void be_criu(const struct job *j, int socket) __attribute__((noreturn));
static void be_criu(const struct job *j, int socket)
{
	const int fds[] = { socket, j->theirs[0], j->theirs[1], j->theirs[2], j->tree.terminal_peer };
	char number[16];
	struct err e;
	const char *program = checkpoint_program();

	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (j->kind == JOB_DUMP) /* to be ended with all that it forked; of a restore those are the workspace */
		(void)setpgid(0, 0);
	if (!program || take_place(j, &e) < 0)
		_exit(126);
	int null = open("/dev/null", O_RDWR);
	for (int i = 0; i < 3; i++)
		(void)dup2(null, i);
	arrange(fds, ARRAY_SIZE(fds));
	(void)snprintf(number, sizeof number, "%d", CRIU_SOCKET);
	(void)execl(program, "criu", "swrk", number, (char *)NULL);
	_exit(127);
}

/* A restored first process becomes CRIU's sibling, so CRIU is a child of carrel-run, not of us. */
int criu_start(struct job *j, struct err *e)
{
	int pair[2];

	if (!checkpoint_program()) {
		(void)err_set(e, ERR_UNSUPPORTED, "this host has no CRIU");
		return err_hint(e, CHECKPOINT_PROGRAM_HINT);
	}
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return err_errno(e, errno, "make socket pair");
	own_fd int theirs = pair[1];
	j->criu = pair[0];
	j->criu_pid = (pid_t)syscall(SYS_clone, (j->kind == JOB_TRY ? 0 : CLONE_PARENT) | SIGCHLD, 0, 0, 0, 0);
	if (j->criu_pid == 0)
		be_criu(j, theirs);
	if (j->criu_pid < 0)
		return err_errno(e, errno, "make CRIU's process");
	j->criu_pidfd = (int)syscall(SYS_pidfd_open, j->criu_pid, 0);
	if (j->criu_pidfd < 0)
		return err_errno(e, errno, "open CRIU's process");
	return j->kind == JOB_TRY ? 0 : message_send(CHECKPOINT_SOCKET, MESSAGE_ENTERED, NULL, &j->criu_pidfd, 1, e);
}

static int say(const struct job *j, const struct str *request, struct err *e)
{
	if (send(j->criu, request->bytes, request->length, MSG_NOSIGNAL) < 0)
		return err_errno(e, errno, "talk to CRIU");
	return 0;
}

/* The end of CRIU counts, not that of its socket: a child of it may hold that for long. */
int criu_hear(const struct job *j, struct checkpoint_answer *ret_answer, struct err *e)
{
	static char bytes[CHECKPOINT_ANSWER_MOST];
	struct pollfd either[] = { { .fd = j->criu, .events = POLLIN }, { .fd = j->criu_pidfd, .events = POLLIN } };
	int ready;

	while ((ready = poll(either, 2, CHECKPOINT_PATIENCE_S * 1000)) < 0 && errno == EINTR)
		;
	if (ready == 0)
		return err_set(e, ERR_TIMEOUT, "CRIU said nothing for %d s", CHECKPOINT_PATIENCE_S);
	ssize_t n = recv(j->criu, bytes, sizeof bytes, MSG_DONTWAIT);
	if (n <= 0)
		return err_set(e, ERR_INTERNAL, "CRIU ended without an answer");
	return checkpoint_decode_answer(bytes, (size_t)n, ret_answer, e);
}

int criu_ask(const struct job *j, enum checkpoint_request what, struct checkpoint_options *o, struct err *e)
{
	own_strbuf struct str request = { 0 };
	int r = checkpoint_encode_request(what, o, &request, e);

	checkpoint_options_done(o);
	return r < 0 ? r : say(j, &request, e);
}

/* What CRIU wrote about its failure becomes the sentence. */
int criu_failed(const struct job *j, const struct checkpoint_answer *a, const char *what, struct err *e)
{
	own_strbuf struct str log = { 0 };
	char line[400];

	if (fs_read_file(j->logs, CHECKPOINT_LOG, LOG_MOST, &log, NULL) >= 0 &&
	    checkpoint_log_error(str_text(&log), line, sizeof line))
		return checkpoint_explain(line, what, e);
	return err_set(e, ERR_UNSUPPORTED, "CRIU cannot %s the workspace: %s", what,
		       *a->message ? a->message : strerrordesc_np(a->number));
}

int criu_go_on(const struct job *j, struct err *e)
{
	own_strbuf struct str go_on = { 0 };

	checkpoint_encode_notified(&go_on);
	return say(j, &go_on, e);
}

void criu_end(struct job *j)
{
	struct pollfd end = { .fd = j->criu_pidfd, .events = POLLIN };

	if (j->criu < 0)
		return;
	(void)close(j->criu);
	j->criu = -1;
	if (j->criu_pidfd >= 0 && poll(&end, 1, END_S * 1000) == 0)
		(void)syscall(SYS_pidfd_send_signal, j->criu_pidfd, SIGKILL, NULL, 0);
	own_close(&j->criu_pidfd);
	j->criu_pidfd = -1;
}
