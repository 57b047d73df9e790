/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RUNNER_MACHINE_H
#define RUNNER_MACHINE_H

/*
 * A workspace that is a virtual machine: QEMU, its control line, and the channel to the first process inside. To the runner it
 * is what `birth` is for namespaces; control socket, status file, log and sessions are the same.
 */

#include "runner/machine_channel.h"
#include "runner/runner.h"

struct machine;

/* Starts QEMU with the plan in `bytes` (they stay). Returns when the program was executed inside, or, paused, when the machine
 * stands before its first instruction; or with an error, and then nothing is left of it. `socket` brings the disks. */
int machine_start(struct runner *r, const void *bytes, size_t length, int socket, struct err *e) must_check;

/* The session of a system's console. A program has its own since the start. */
void machine_begin_session(struct machine *m);
/* r->session is over: the machine goes, and then runner_ended is called. */
void machine_session_over(struct machine *m);

void machine_stop(struct machine *m, uint64_t timeout_ms);
void machine_kill(struct machine *m);
/* `done` gets 0, or a negative errno and the error; once. */
void machine_freeze(struct machine *m, bool frozen, void (*done)(void *data, int result, const struct err *e), void *data);
/* The interfaces it shall have: machine_network_set. */
void machine_connect(struct machine *m, const char *const *interfaces, channel_done_fn *done, void *data);
/* Its disk, by the name that the arguments give it, has so many bytes from now on, and the file system on it, if carrel-init
 * mounted it. */
void machine_grow(struct machine *m, const char *disk, uint64_t bytes, channel_done_fn *done, void *data);
/* The machine stands still and its state is in the file, which is taken; `done` as above. */
void machine_save(struct machine *m, int state, void (*done)(void *data, int result, const struct err *e), void *data);
/* The workspace inside is on the disk of its luggage, and the machine stands still; or, of `stay`, all go on again. */
void machine_depart(struct machine *m, void (*done)(void *data, int result, const struct err *e), void *data);
void machine_stay(struct machine *m, void (*done)(void *data, int result, const struct err *e), void *data);
/* exec, copy in, copy out. */
int machine_open(struct machine *m, const struct runner_request *q, const char *const *texts, size_t count,
		 const struct session_options *how, struct session **ret_session, struct err *e) must_check;

/* A viewer of its screen. */
int machine_display(struct machine *m, const struct session_options *how, struct session **ret_session,
		    struct err *e) must_check;

#endif
