/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RUNNER_RUNNER_H
#define RUNNER_RUNNER_H

/* The state of carrel-run: one workspace. */

#include "base/loop.h"
#include "engine/workspace/birth.h"
#include "model/runner_protocol.h"
#include "runner/logfile.h"
#include "runner/session.h"

struct watcher {
	int fd;
	struct loop_source *source;
	struct runner *runner;
	struct watcher *next;
};

struct runner {
	struct loop *loop;
	struct plan plan;
	int plan_fd; /* its memory file, for carrel-copy */
	struct birth birth;
	struct machine *machine; /* in place of `birth`: machine.h; NULL for namespaces */
	struct logfile log;
	struct session *session; /* the program; NULL before it is born, and of a machine that boots */
	struct runner_status status;
	struct watcher *watchers;
	struct loop_source *stop_timer;
	int listener;
	bool suspending, suspended; /* suspend.h; suspended: the manifest is in its place, what follows is the end */
	bool released; /* the program was allowed to start */
	struct checkpoint_keeper *keeper; /* while it is being suspended: checkpoint.c */
	unsigned visitors; /* programs in the workspace that exec and cp started */
	unsigned patience; /* rounds left to wait for slow clients at the end */
};

/* --- runner.c --- */
void runner_set_state(struct runner *r, enum runner_state state);
int runner_stop_workspace(struct runner *r, uint64_t timeout_ms, struct err *e) must_check;
/* Lets the program start that waits for it; returns when it was executed. */
int runner_release(struct runner *r, struct err *e) must_check;
void runner_kill_workspace(struct runner *r);
int runner_freeze(struct runner *r, bool frozen, struct err *e) must_check;
/* All but the streams. */
void runner_session_options(struct runner *r, struct session_options *ret_how);
/* The workspace has ended and its volumes are free. */
void runner_ended(struct runner *r, int status);
/* With the plan decoded: run folder, log, status. */
int runner_prepare(struct runner *r, struct err *e) must_check;
/* One message of the agent: a version and at most PLAN_FDS_MOST descriptors. */
int runner_receive_fds(int socket, int *ret_fds, size_t *ret_count, struct err *e) must_check;

/* --- control.c --- */
int control_listen(struct runner *r, struct err *e) must_check;
void control_tell_watchers(struct runner *r);
/* Nobody can connect any more, and watchers see the end of file. */
void control_close(struct runner *r);

#endif
