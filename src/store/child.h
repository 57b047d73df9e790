/* SPDX-License-Identifier: Apache-2.0 */
#ifndef STORE_CHILD_H
#define STORE_CHILD_H

/*
 * A forked child that handles bytes from outside: it has the descriptors it was given, no others, and the rights that its task
 * needs, no more (base/sandbox.h). It dies with its parent. Only for programs of one thread.
 */

#include <stddef.h>

#include "base/err.h"
#include "base/str.h"

enum child_rights {
	CHILD_PARSES,  /* no network, no files */
	CHILD_RELAYS,  /* all of its parent's: it only waits for another child's bytes */
	CHILD_FETCHES, /* network, and what looking up host names needs */
};

struct child {
	const char *what; /* "the manifest reader": for errors; a constant */
	int pidfd, report_fd;
};

/* fn runs in the child; its result and *e are brought back by child_finish. `fds` stay open there under their numbers. */
typedef int child_fn(void *data, struct err *e);

int child_start(const char *what, enum child_rights rights, child_fn *fn, void *data, const int *fds, size_t fd_count,
		struct child *ret_child, struct err *e) must_check;
/* Waits for its end; 0, or the child's error. */
int child_finish(struct child *c, struct err *e) must_check;
void child_kill(struct child *c); /* at once, and waits; fine after child_finish */

/* The whole life of a child that turns bytes in its memory into at most limit_bytes on the descriptor it is given. */
typedef int child_answer_fn(void *data, int output_fd, struct err *e);
int child_answer(const char *what, child_answer_fn *fn, void *data, size_t limit_bytes, struct str *ret_answer,
		 struct err *e) must_check;

#endif
