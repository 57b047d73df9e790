/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NODE_AGENT_PRIVATE_H
#define NODE_AGENT_PRIVATE_H

/* What agent.c, which works on workspaces, shares with agent_start.c, which finds them again, and agent_ahead.c. Loop thread only. */

#include "base/loop.h"
#include "node/agent.h"
#include "node/steps.h"

#define AGENT_BUCKETS 4096

struct workspace {
	struct agent *agent;
	struct record *record;
	struct assignment next; /* newest wish; next.id NULL: none waits */
	bool busy, again, gone, restart_due, wished, forget, marked;
	int control;
	struct loop_source *watch, *timer;
	struct work work;
	struct err job_error;
	bool job_failed, job_gone, job_restart;
	uint64_t told_ms, retry_ms;
	json_t *report;
	struct workspace *in_bucket;
};

struct agent {
	struct node *node;
	const struct agent_events *events;
	void *data;
	struct workspace *buckets[AGENT_BUCKETS];
	bool refilling, refill_blanks, refill_again;
	uint64_t blanks_due_ms; /* 0: none are missing */
	struct loop_source *idle_timer, *refill_timer;
};

struct workspace *agent_add(struct agent *a, struct record *r);
/* Starts a job when there may be something to do. */
void agent_consider(struct workspace *w);
/* Takes the connection to a runner. */
void agent_watch(struct workspace *w, int control);
/* Once more, after the pause before a restart. */
void agent_restart_later(struct workspace *w);

/* All records of the folder. */
int agent_load(struct agent *a, struct err *e) must_check;
/* The wish is known: goes on where the last agent ended. */
void agent_settle(struct workspace *w);

/* Blanks, and what a start needs, are made when nothing else is to be done; mounts that nobody uses go. */
void agent_refill(struct agent *a);
void agent_look_for_idle(struct agent *a);

#endif
