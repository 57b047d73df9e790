/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RUNNER_MACHINE_NETWORK_H
#define RUNNER_MACHINE_NETWORK_H

/*
 * The network interfaces of a machine: taps for its start, and interfaces that come and go while it runs. Which there shall be
 * is said as a whole, again and again; what differs is plugged in and out.
 */

#include "base/err.h"
#include "engine/qemu/machine_plan.h"
#include "engine/qemu/qmp.h"
#include "engine/workspace/plan.h"
#include "runner/machine_channel.h"

struct machine_network;

/* `host` and `machine` stay. */
struct machine_network *machine_network_new(const struct plan *host, const struct machine_plan *machine);
void machine_network_free(struct machine_network *n);

#define MACHINE_NETWORK_FDS_MOST (MACHINE_LINKS_MOST * MACHINE_QUEUES_MOST * 2)
/* For QEMU's start: the descriptors that follow its disks; the caller closes them. Interfaces are those of the plan again. */
int machine_network_open(struct machine_network *n, int *ret_fds, size_t *ret_count, struct err *e) must_check;

/* From now on the machine shall have these: INTERFACE_TEXTS texts each, NULL-terminated, copied. `done` is called once, when
 * QEMU has them and, when the guest runs, carrel-init has configured what is new; one that stands still does so later.
 * ERR_CONFLICT: at work, or a place is not free; to be said again. */
void machine_network_set(struct machine_network *n, struct qmp *q, struct channel *c, const char *const *interfaces,
			 bool guest_runs, channel_done_fn *done, void *data);
/* An event of QEMU's. */
void machine_network_event(struct machine_network *n, const char *name, struct qmp_value value);

#endif
