/* SPDX-License-Identifier: Apache-2.0 */
#ifndef GUEST_CHILD_H
#define GUEST_CHILD_H

/* A process of the workspace, started from outside its root: the program itself, one of exec, or a copy. */

#include <stdbool.h>
#include <sys/types.h>

#include "base/err.h"
#include "engine/workspace/plan.h"
#include "model/guest_protocol.h"

struct child {
	int pidfd;                  /* -1: ended and reaped */
	int sync;                   /* message.h: end of file when the program was executed or the copy is done, or its error */
	int input, output, errors;  /* pipes, or -1 */
	int terminal;               /* master, or -1 */
};

struct child_how {
	const struct plan *plan;
	int root;              /* folder */
	enum guest_stream kind;
	const char *const *argv, *const *environment; /* environment: on top of the plan's */
	const char *user, *directory, *path;
	bool terminal, input;
	unsigned rows, columns;
	/* Into namespaces, in place of `root`; NULL: there are none. */
	int (*go_inside)(int init_pidfd, struct err *e);
	int init_pidfd;
};

int child_start(const struct child_how *how, struct child *ret_child, struct err *e) must_check;
void child_close(struct child *c);
void child_signal(const struct child *c, int number);
void child_resize(const struct child *c, unsigned rows, unsigned columns);
/* Into the workspace's root for good. */
int child_enter_root(int root, struct err *e) must_check;

#endif
