/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NODE_TASK_H
#define NODE_TASK_H

/*
 * What the agent does with one workspace: task_next is the whole decision, pure; task_converge does one task after the other
 * until wish and truth agree or something has to be waited for.
 */

#include "node/steps.h"

enum task {
	TASK_NONE,    /* wish and truth agree, or something is waited for */
	TASK_REAP,    /* the runner is gone: keep the exit status, undo what it leaves, decide about a restart */
	TASK_STAGE,
	TASK_PREPARE,
	TASK_START,
	TASK_PAUSE,
	TASK_RESUME,
	TASK_SUSPEND,
	TASK_DISCARD,  /* of the memory state */
	TASK_STOP,
	TASK_REMOVE,
	TASK_SNAPSHOT, /* make one that is missing, remove one that is not wanted */
	TASK_RESTORE,
	TASK_RESIZE,
	TASK_COUNT
};
extern const char *const task_names[];

struct task_view {
	const struct assignment *wish;
	const struct truth *truth;
	bool runner_gone;   /* the connection to it ended */
	bool restart_due;   /* the pause before a restart is over */
};
enum task task_next(const struct task_view *v);

/* Pause before restart number `failed` (from 0) in a row, and the running time that makes the count start anew. */
uint64_t task_restart_delay_ms(uint64_t failed);
#define TASK_STABLE_MS 10000
/* The restart policy: shall a run that ended with this status start again? */
bool task_wants_restart(const struct assignment *a, const struct truth *t, uint64_t exit_status);

/* Works until nothing is to be done; truth, also a failure, is saved. `runner_gone` and `restart_due` as above. An error is the
 * agent's own (its records cannot be written): try again later. What a memory state leaves behind that it is no longer part of
 * goes in a call that has nothing else to do: when suspend_is_untidy. */
int task_converge(struct work *w, bool runner_gone, bool restart_due, struct err *e) must_check;

#endif
