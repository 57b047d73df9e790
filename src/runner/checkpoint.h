/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RUNNER_CHECKPOINT_H
#define RUNNER_CHECKPOINT_H

/* Putting a workspace away and taking it up again: engine/workspace/checkpoint_helper.h is what the helper is told. */

#include "engine/workspace/checkpoint_helper.h"

/* --- in carrel-run --- */

#include "base/err.h"

struct runner;
typedef void checkpoint_saved(void *data, int result, const struct err *e);

/* Freezes the workspace and writes it into `folder` (taken). `done` is called when all is on disk and the workspace stands
 * still, or with the reason why it goes on; not when this fails. */
int checkpoint_save(struct runner *r, int folder, checkpoint_saved *done, void *data, struct err *e) must_check;
/* After that, with the manifest in its place: the workspace ends without another instruction. */
void checkpoint_end(struct runner *r);
void checkpoint_abort(struct runner *r); /* it goes on; at any time */
/* With the volumes received: the workspace as it was written, running, or frozen when the plan says paused. The manifest is
 * away then. */
int checkpoint_resume(struct runner *r, int folder, struct err *e) must_check;

#endif
