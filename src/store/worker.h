/* SPDX-License-Identifier: Apache-2.0 */
#ifndef STORE_WORKER_H
#define STORE_WORKER_H

/* The service's side of carrel-import and carrel-export: starts the program, reads its lines on the event loop, and sees it
 * end. */

#include "base/err.h"
#include "base/loop.h"
#include "store/import_wire.h"

struct worker;

struct worker_start {
	const char *program; /* in libexec/carrel */
	const char *store;   /* cleaned when the program dies */
	int input_fd;        /* its standard input; -1: none */
	int output_fd;       /* its descriptor WIRE_EXPORT_FD; -1: none */
	const struct shape *shape;
	const void *request;
	/* A line that is not the last. */
	void (*answer)(void *data, struct wire_answer *answer);
	/* Once, last; the worker may be freed here. What `answer` holds is freed afterwards, but what the callback took out of
	 * it. */
	void (*end)(void *data, const struct err *failure, struct wire_answer *answer);
	void *data;
};

int worker_start(struct loop *l, const struct worker_start *how, struct worker **ret_worker, struct err *e) must_check;
void worker_cancel(struct worker *w);
/* No callback follows. A program that still runs is told to clean up and end; the loop reaps it. */
void worker_free(struct worker *w);

#endif
