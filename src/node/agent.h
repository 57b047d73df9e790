/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NODE_AGENT_H
#define NODE_AGENT_H

/*
 * The workspaces of this host: their wishes and truths, who works on them, and what happens to their runners. Loop thread only.
 * Invariant: while a workspace is busy its record belongs to a worker; everything that happens meanwhile is noted and looked at
 * when the job is done.
 */

#include <jansson.h>

#include "node/node.h"
#include "node/record.h"

struct agent;

struct agent_events {
	/* A report changed; `report` is borrowed. */
	void (*report)(void *data, json_t *report);
	void (*progress)(void *data, const char *id, const char *step, uint64_t done, uint64_t total);
	void (*volumes)(void *data); /* the list of kept volumes may have changed */
};

/* Loads all records, adopts runners that live, takes away what belongs to nobody, and goes on where it was. */
int agent_new(struct node *n, const struct agent_events *events, void *data, struct agent **ret_agent,
	      struct err *e) must_check;
void agent_free(struct agent *a); /* after workers_free: nothing is under way; workspaces go on running */

/* A wish; takes its content. Older generations than the one known are ignored. */
void agent_assign(struct agent *a, struct assignment *wish);
/* After a full list: what was not assigned since agent_mark is removed when `authoritative`, else it is logged and left
 * alone. */
void agent_mark(struct agent *a);
void agent_sweep(struct agent *a, bool authoritative);
void agent_forget(struct agent *a, const char *id);
/* All reports as a list; a new reference. */
json_t *agent_reports(struct agent *a);

/* What a stream may ask: the folder of its record and its state; false: no such workspace. */
bool agent_look(struct agent *a, const char *id, char **ret_folder, enum state *ret_state);
/* Of the last run that ended; false: not known. */
bool agent_exit_status(struct agent *a, const char *id, uint64_t *ret_status);
/* What a suspend would come to: suspend.h. Answered when nothing else is done with the workspace. */
typedef void agent_check_fn(void *data, json_t *question, json_t *answer); /* takes the answer */
void agent_suspend_check(struct agent *a, const char *id, const json_t *to, json_t *question, agent_check_fn *done, void *data);
/* The record of a workspace that has volumes and no process, for a copy: the agent leaves it alone until it is given back, and
 * then does what was wished meanwhile. ERR_PRECONDITION while it is being worked on, ERR_CONFLICT when it was never
 * prepared. */
int agent_borrow(struct agent *a, const char *id, bool suspended, struct record **ret_record, struct err *e) must_check;
void agent_give_back(struct agent *a, const char *id);

#endif
