/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RUNNER_CHECKPOINT_H
#define RUNNER_CHECKPOINT_H

/*
 * Between carrel-run and carrel-checkpoint, which writes a workspace to disk and makes it again with CRIU. carrel-run starts it with
 *   carrel-checkpoint dump PID        and descriptors: 3 socket, 4 plan, 5 folder, 6-8 our ends of the pipes, 9 the terminal's slave side
 *   carrel-checkpoint restore COUNT   and descriptors: 3 socket, 4 plan, 5 folder, then COUNT mounts of volumes
 * It sends messages (engine/workspace/message.h): MESSAGE_ENTERED with a pidfd of CRIU, then MESSAGE_PREPARED or MESSAGE_FAILED. The
 * former brings, of a restore, the first process's pidfd and our ends of its streams: the terminal and its other side, or input (when the
 * plan has it), output, errors. The first process is then a child of carrel-run, as one that it made; so is CRIU.
 */

enum { CHECKPOINT_SOCKET = 3, CHECKPOINT_PLAN, CHECKPOINT_FOLDER, CHECKPOINT_STREAMS, CHECKPOINT_TERMINAL = CHECKPOINT_STREAMS + 3 };
#define CHECKPOINT_VOLUMES CHECKPOINT_STREAMS

/* --- in carrel-run --- */

#include "base/err.h"

struct runner;
typedef void checkpoint_saved(void *data, int result, const struct err *e);

/* Freezes the workspace and writes it into `folder` (taken). `done` is called when all is on disk and the workspace stands still, or with
 * the reason why it goes on; not when this fails. */
int checkpoint_save(struct runner *r, int folder, checkpoint_saved *done, void *data, struct err *e) must_check;
/* After that, with the manifest in its place: the workspace ends without another instruction. */
void checkpoint_end(struct runner *r);
void checkpoint_abort(struct runner *r); /* it goes on; at any time */
/* With the volumes received: the workspace as it was written, running, or frozen when the plan says paused. The manifest is away then. */
int checkpoint_resume(struct runner *r, int folder, struct err *e) must_check;

#endif
