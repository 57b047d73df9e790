/* SPDX-License-Identifier: Apache-2.0 */
/* A machine as the parts of this folder that work on it see it: its attempts to start, what it says, what is asked of it. */
#ifndef RUNNER_MACHINE_PRIVATE_H
#define RUNNER_MACHINE_PRIVATE_H

#include "base/str.h"
#include "engine/qemu/arguments.h"
#include "engine/qemu/qmp.h"
#include "runner/machine.h"
#include "runner/machine_channel.h"
#include "runner/machine_disk.h"
#include "runner/machine_memory.h"
#include "runner/machine_network.h"
#include "runner/runner.h"

struct machine {
	struct runner *runner;
	struct machine_plan plan;
	struct guest_config config;
	int disks[MACHINE_DISKS_MOST];
	size_t disk_count;
	pid_t pid;
	int pidfd;
	struct loop_source *ended;
	struct qmp *qmp;
	struct channel *channel;
	struct machine_disk *disk; /* it boots a disk of its own: the channel is a dead one; NULL: carrel-init is inside */
	struct machine_network *network;
	struct machine_memory *memory;
	int folder, state;   /* of the memory state that it goes on from; -1: it boots, or went on */
	int whole;           /* tells that the memory is whole; -1: it is */
	struct loop_source *whole_source;
	int line, console, errors; /* of the present attempt; the line becomes the channel's */
	struct loop_source *console_source, *errors_source, *timer, *last_timer;
	struct str tail;     /* what console and QEMU said last */
	unsigned attempt;
	bool heard;          /* hello */
	bool unloadable;     /* QEMU does not take the template's state */
	bool refused;        /* the workspace's program cannot be executed: so it would be after a boot */
	bool grown;
	bool runs;           /* the guest says so */
	bool identified;     /* a clone is itself */
	bool went;           /* what arrived was let go: the memory state is no more */
	bool settled;        /* the start has its outcome */
	bool reported;       /* the guest told the exit status */
	bool reset, powered_off, session_over, gone;
	bool quiet;          /* an attempt is taken down: the end of its session is no end */
	int exit_status;
	struct err error;    /* of the start */
};

/* The outcome of the start; nothing follows if it has one. */
void machine_settle(struct machine *m);
void machine_settle_badly(struct machine *m, const struct err *e);

/* It runs, or has become itself: with both the start has its outcome. */
void machine_runs(struct machine *m);

/* The stream of the workspace's program becomes its session. */
int machine_open_program(struct machine *m, struct err *e) must_check;

/* It has boot_ms for its next word. */
void machine_await(struct machine *m);

/* Listens to its console, its errors and QMP, which is taken, and for its end. */
void machine_listen(struct machine *m, int qmp);
/* Its line becomes the channel to carrel-init. */
void machine_open_channel(struct machine *m);

void machine_close_fd(int *fd);

#endif
