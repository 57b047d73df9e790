/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RUNNER_MACHINE_MEMORY_H
#define RUNNER_MACHINE_MEMORY_H

/*
 * A machine's device state into a file and out of one. The memory itself is a file already and stays where it is
 * (x-ignore-shared), so what is written here has a few hundred KiB.
 */

#include "engine/qemu/qmp.h"

struct machine_memory;

/* 0, or a negative errno and *e; once. */
typedef void machine_memory_done_fn(void *data, int result, const struct err *e);

struct machine_memory *machine_memory_new(struct loop *l);
void machine_memory_free(struct machine_memory *m); /* without any call */
/* The machine stands still and its state is written. After a failure it stands still, too. Takes `fd`. */
void machine_memory_save(struct machine_memory *m, struct qmp *q, int fd, machine_memory_done_fn *done, void *data);
/* The machine, which waits for it, has the state and stands still. Takes `fd`. */
void machine_memory_load(struct machine_memory *m, struct qmp *q, int fd, machine_memory_done_fn *done, void *data);
bool machine_memory_busy(const struct machine_memory *m);
/* An event of QEMU's. */
void machine_memory_event(struct machine_memory *m, const char *name, struct qmp_value value);

#endif
