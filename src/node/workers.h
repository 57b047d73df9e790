/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NODE_WORKERS_H
#define NODE_WORKERS_H

/* A few threads that run blocking jobs for an event loop. Jobs start in the order they were given; idle jobs only when no other
 * waits. When a job is done its `done` runs on the loop's thread. */

#include <stdbool.h>

#include "base/loop.h"

struct workers;

struct workers *workers_new(struct loop *l, unsigned threads);
/* Waits for jobs that run; those that wait are dropped. */
void workers_free(struct workers *w);
/* Loop thread only. Both get `data`. */
void workers_run(struct workers *w, loop_fn *job, loop_fn *done, void *data, bool idle);

#endif
