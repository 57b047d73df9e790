/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_PROC_H
#define BASE_PROC_H

/* Child processes, always by pidfd. No shell stands between us and a program. */

#include <stdbool.h>
#include <sys/types.h>

#include "base/err.h"
#include "base/str.h"

struct proc_fd {
	int child_fd, parent_fd; /* parent_fd appears as child_fd in the child; -1: /dev/null */
};

struct proc_spawn {
	const char *path;            /* absolute, or a bare name looked up in PATH; NULL: argv[0] */
	const char *const *argv;     /* NULL-terminated */
	const char *const *env;      /* NULL: the caller's */
	const struct proc_fd *fds;   /* 0, 1, 2 not named here are inherited; all others are closed */
	size_t fd_count;
	bool new_session;
	bool die_with_parent;
};

/* Starts a program; *ret_pidfd is owned by the caller. An exec that fails is an error here, not an exit status. */
int proc_start(const struct proc_spawn *how, int *ret_pidfd, pid_t *ret_pid, struct err *e) must_check;

/* Exit status as a shell counts: 0-255, or 128 + signal. */
int proc_wait(int pidfd, int *ret_status, struct err *e) must_check;
/* The same without waiting: 1 when it has ended, 0 when it runs. */
int proc_try_wait(int pidfd, int *ret_status, struct err *e) must_check;
pid_t proc_pid(int pidfd); /* as this process numbers it; -1: it has ended, or is none of ours to see */
int proc_signal(int pidfd, int signal, struct err *e) must_check; /* a process that has ended is fine */

/* Runs to the end with stdout captured (at most limit_bytes); stderr's last lines become part of the error when it exits
 * non-zero. */
int proc_run(const char *const *argv, size_t limit_bytes, struct str *ret_output, struct err *e) must_check;
/* The same, killed after limit_ms: ERR_TIMEOUT. One that does not even hear SIGKILL is left behind a second later. */
int proc_run_within(unsigned limit_ms, const char *const *argv, size_t limit_bytes, struct str *ret_output,
		    struct err *e) must_check;

#endif
