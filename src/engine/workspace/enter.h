/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_WORKSPACE_ENTER_H
#define ENGINE_WORKSPACE_ENTER_H

/* One more program in a running workspace. */

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
	/* results */
	int pidfd; /* a child of the caller */
	int input_fd, output_fd, errors_fd, terminal_fd;
};

/* Returns when the program was executed, or with the reason why not. */
int enter_workspace(struct enter *n, struct err *e) must_check;
/* The calling process (one thread) goes into all namespaces of the workspace and becomes its root. */
int enter_namespaces(int init_pidfd, bool host_network, struct err *e) must_check;

#endif
