/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_WORKSPACE_ENTER_H
#define ENGINE_WORKSPACE_ENTER_H

/*
 * One more process in a running workspace: a program of it, or carrel-copy, a program of the host that is confined like the
 * workspace's own. Either is in the workspace's cgroups and pid namespace: it is counted there, and dies with the workspace.
 */

#include <stdbool.h>
#include <sys/types.h>

#include "base/err.h"
#include "engine/workspace/plan.h"

struct enter {
	const struct plan *plan;
	pid_t init; /* first process, alive */
	int init_pidfd;
	const char *const *argv, *const *environment; /* environment: on top of the plan's */
	const char *user, *directory;                 /* "" when not given */
	bool terminal, input;
	unsigned short rows, columns; /* of the terminal; 0: not known */
	const char *copy_program; /* carrel-copy, with argv, instead of a program of the workspace; NULL otherwise */
	int plan_fd;              /* for it: the plan's memory file */
	/* results */
	int pidfd; /* a child of the caller */
	int input_fd, output_fd, errors_fd, terminal_fd;
};

/* Returns when the program was executed, or with the reason why not. */
int enter_workspace(struct enter *n, struct err *e) must_check;

/* What carrel-copy finds open, besides its standard streams. */
enum { ENTER_FIRST_PROCESS = 3, ENTER_PLAN, ENTER_SYNC, ENTER_FDS };
/* In carrel-copy (one thread): goes into all namespaces of the workspace as its root, and on in a process of its pid namespace,
 * which carrel-run hears of, with no more capabilities than files need and with the workspace's seccomp filter. The one that
 * called it ends here. Nothing of the host stays open but the standard streams. */
int enter_confined(struct err *e) must_check;

#endif
