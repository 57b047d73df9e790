/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RUNNER_NETWORK_H
#define RUNNER_NETWORK_H

/* The interfaces of a plan, made from the host's side while the first process builds its tree. They go with its namespace, or,
 * of a machine, with their descriptors. */

#include <stddef.h>
#include <sys/types.h>

#include "engine/workspace/plan.h"

/* The host's ends are down, so that no frame comes or goes and nobody hears of the end of a connection; or up again. What
 * cannot be set is left as it is: then connections may be lost. */
void network_hold(const struct plan *p, bool hold);
int network_make(const struct plan *p, pid_t first_process, struct err *e) must_check;

/* One interface's texts (engine/workspace/plan.h) as a tap: `queues` descriptors, and, with vhost, as many of /dev/vhost-net
 * after them. */
int network_tap_make(const char *const *interface, const char *owner, unsigned queues, bool vhost, int *ret_fds,
		     struct err *e) must_check;

#endif
