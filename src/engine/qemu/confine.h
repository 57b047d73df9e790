/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_QEMU_CONFINE_H
#define ENGINE_QEMU_CONFINE_H

/*
 * QEMU in a room of its own: an unprivileged user of the workspace's range, new mount, pid, network, IPC and UTS namespaces, a
 * file system of nothing but its libraries and firmware (read-only), the workspace's cgroups, and no descriptor but those
 * named. It dies with the process that started it.
 */

#include <stddef.h>
#include <sys/types.h>

#include "engine/qemu/machine_plan.h"
#include "engine/workspace/plan.h"

struct confine {
	const struct machine_plan *machine;
	const struct plan *host; /* cgroups, run folder */
	const int *fds;          /* become 3, 4, ... */
	size_t fd_count;
	int errors;              /* standard output and error */
};

/* Returns when QEMU was executed; an error of any step before that is returned here. */
int confine_start(const struct confine *c, int *ret_pidfd, pid_t *ret_pid, struct err *e) must_check;

#endif
