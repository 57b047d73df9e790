/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NODE_AGENT_PRIVATE_H
#define NODE_AGENT_PRIVATE_H

/* What agent.c, which works on workspaces, shares with agent_start.c, which finds them again, and agent_ahead.c. Loop thread
 * only. */

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
	struct check *checks; /* that wait; agent_check.c */
	bool placing, pack_failed; /* agent_pack.c: the packed memory takes its place */
	struct err pack_error;
	struct workspace *in_bucket;
};

struct agent {
	struct node *node;
	const struct agent_events *events;
	void *data;
	struct workspace *buckets[AGENT_BUCKETS];
	bool refilling, refill_blanks, refill_again;
	uint64_t blanks_due_ms; /* 0: none are missing */
	struct loop_source *idle_timer, *refill_timer, *template_timer;
	struct workspace *packed; /* whose memory is being packed; NULL: nobody's */
	struct suspend_packing *packing;
	struct loop_source *pack_watch, *pack_timer;
	bool making_template;
};

struct workspace *agent_add(struct agent *a, struct record *r);
struct workspace *agent_find(struct agent *a, const char *id); /* NULL: not known */
/* Nothing is done with it any more: what waited for that. It may be gone afterwards. */
void agent_idle(struct workspace *w);
/* The first question that waits is answered, when nothing is being done with it. */
bool agent_check_next(struct workspace *w);
void agent_check_drop(struct workspace *w);
/* Takes the connection to a runner. */
void agent_watch(struct workspace *w, int control);
/* Once more, after the pause before a restart. */
void agent_restart_later(struct workspace *w);

/* All records of the folder. */
int agent_load(struct agent *a, struct err *e) must_check;
/* The wish is known: goes on where the last agent ended. */
void agent_settle(struct workspace *w);

/* What the service knows of it is what is true now. */
void agent_publish(struct workspace *w);

/* Memory that has rested long enough is packed, one workspace's at a time. */
void agent_pack(struct agent *a);
/* Something else is to be done with this workspace, or it goes: its packing ends, and is gone on with later. */
void agent_pack_leave(struct workspace *w);

/* Blanks, and what a start needs, are made when nothing else is to be done; mounts that nobody uses go. */
void agent_refill(struct agent *a);
void agent_make_templates(struct agent *a);
void agent_look_for_idle(struct agent *a);

#endif
