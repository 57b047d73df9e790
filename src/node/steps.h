/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NODE_STEPS_H
#define NODE_STEPS_H

/*
 * Deploying is one straight line of steps: stage, ids, volumes, network, limits, launch. The table in steps.c names for each
 * what it does, what undoes it, and in which actions it takes part. Each step is safe to repeat and journalled before it runs.
 */

#include "node/isolate.h"
#include "node/node.h"
#include "node/record.h"

/* One workspace being worked on by one thread. */
struct work {
	struct node *node;
	struct record *record;
	struct isolate_parts parts;
	const char *step;      /* under way, for reports */
	uint64_t answered;     /* generation that reports answer until this work is done */
	/* Tells the loop's thread that something changed; progress_total 0: no progress known. */
	void (*tell)(struct work *w);
	void *data;
	uint64_t progress_done, progress_total;
};

/* Does the steps of ACTION_STAGE, ACTION_PREPARE or ACTION_START in order. On failure what this call did is undone backwards,
 * *ret_step names the step, and the error is the step's. */
int steps_do(struct work *w, enum action action, const char **ret_step, struct err *e) must_check;
/* Undoes all steps, last first: for removal. Volumes that are kept stay. */
int steps_undo_all(struct work *w, struct err *e) must_check;
/* Undoes what an interrupted start may have left (limits, launch) when its runner is gone. */
int steps_undo_start(struct work *w, struct err *e) must_check;
/* Mounts and namespaces of a workspace that has volumes, without its program; steps_undo_start ends it. */
int steps_maintain(struct work *w, struct err *e) must_check;
/* Partitions are not needed any more for now. */
void steps_unstage(struct work *w);
/* Grows volumes to the sizes in the wish; `live`: they are mounted. 1: a part waits for the next start. */
int steps_grow(struct work *w, bool live, struct err *e) must_check;

/* What a deployment of `a` would do: {"steps":[{"step","do","undo"}]}; pure. */
json_t *steps_plan(const struct node *n, const struct assignment *a);

#endif
