/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RUNNER_MACHINE_DISK_COPY_H
#define RUNNER_MACHINE_DISK_COPY_H

/* Files into and out of a machine that boots a disk of its own, by its guest's agent and the guest's tar. */

#include "base/loop.h"
#include "engine/qemu/qmp.h"
#include "runner/session.h"

struct disk_copy;

struct disk_copies {
	struct loop *loop;
	struct qmp *agent;
	struct disk_copy *first;
};

/* A tar from the session's input into the folder `path` of the guest, or of `path` to its output. What cannot be known at once
 * is the session's end. */
int disk_copy_begin(struct disk_copies *all, bool in, const char *path, const struct session_options *how,
		    struct session **ret_session, struct err *e) must_check;
/* Their sessions end, with `why` as the last message. */
void disk_copies_end(struct disk_copies *all, const struct err *why);
/* After the agent's line is gone: nothing is answered any more. */
void disk_copies_free(struct disk_copies *all);

#endif
