/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RUNNER_NETWORK_H
#define RUNNER_NETWORK_H

/* The interfaces of a plan, made from the host's side while the first process builds its tree. They go with its namespace. */

#include <sys/types.h>

#include "engine/workspace/plan.h"

int network_make(const struct plan *p, pid_t first_process, struct err *e) must_check;

#endif
