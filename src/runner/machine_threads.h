/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RUNNER_MACHINE_THREADS_H
#define RUNNER_MACHINE_THREADS_H

/*
 * QEMU's threads: those that are virtual processors go to a cgroup of their own, whose limit is what the machine was promised.
 * The others - disks, network, the control line - have their own part (enforce/plan.c), so neither takes the other's time.
 */

#include <sys/types.h>

#include "base/err.h"

/* `file` takes thread ids. The guest must not have run yet: threads are known by names that QEMU gives. */
int machine_threads_place(pid_t pid, const char *file, struct err *e) must_check;

#endif
