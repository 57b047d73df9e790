/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NODE_SUSPEND_MACHINE_H
#define NODE_SUSPEND_MACHINE_H

/* The memory of virtual machines: a file in the workspace's memory folder from the start on. */

#include "node/isolate.h"

/* Before a launch: makes the file, or takes the one that `parts->memory` names, checks that the devices are those of the state, and
 * sets l->memory. Afterwards `_prepared`, however it ended. */
int suspend_machine_prepare(const struct record *r, const struct isolate_parts *parts, struct launch *l, struct launch_machine *host,
			    struct launch_memory *ret_memory, struct err *e) must_check;
void suspend_machine_prepared(struct launch_memory *m);

#endif
