/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RUNNER_MACHINE_DISK_H
#define RUNNER_MACHINE_DISK_H

/*
 * What is different with a machine that boots a disk as it is: nobody of ours is inside. It is stopped by its power button,
 * programs run in it when the guest has QEMU's agent (qemu-ga), and its screen is shown to viewers. The guest is not believed.
 */

#include "base/loop.h"
#include "engine/qemu/qmp.h"
#include "model/runner_protocol.h"
#include "runner/session.h"

struct machine_disk;

/* Takes the socket of the agent's channel. */
struct machine_disk *machine_disk_new(struct loop *l, int agent_fd);
/* Programs and viewers end, with `why` as their last message. */
void machine_disk_end(struct machine_disk *d, const struct err *why);
void machine_disk_free(struct machine_disk *d);

/* Presses the power button, and again while the machine lives: a guest that still boots does not feel it. After
 * a third of the time its agent, if there is one, is asked to shut down: some guests feel no button. */
void machine_disk_stop(struct machine_disk *d, struct qmp *q, uint64_t timeout_ms);
/* Of a guest that slept: its agent, if there is one, is told to look at the board's clock. */
void machine_disk_set_clock(struct machine_disk *d);
/* The guest's agent, if there is one, writes out and freezes the file systems; done in time in any case, with -ETIMEDOUT or
 * what it said. */
void machine_disk_freeze(struct machine_disk *d, void (*done)(void *data, int result, const struct err *e), void *data);
/* Nothing to do if it was not frozen by this process, but for `anyway`. */
void machine_disk_thaw(struct machine_disk *d, bool anyway);
/* A program by the guest's agent: user, directory, command and environment as in a request of kind RUNNER_EXEC. What cannot be
 * known at once - whether there is an agent - is the session's end. */
int machine_disk_exec(struct machine_disk *d, const struct runner_request *q, const char *const *texts, size_t count,
		      const struct session_options *how, struct session **ret_session, struct err *e) must_check;
/* A tar into the folder `path` of the guest, or one of `path`, by the agent and the guest's tar. */
int machine_disk_copy(struct machine_disk *d, bool in, const char *path, const struct session_options *how,
		      struct session **ret_session, struct err *e) must_check;
/* One viewer: the session's bytes are RFB (RFC 6143) without a password. */
int machine_disk_display(struct machine_disk *d, struct qmp *q, const struct session_options *how, struct session **ret_session,
			 struct err *e) must_check;

#endif
