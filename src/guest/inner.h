/* SPDX-License-Identifier: Apache-2.0 */
#ifndef GUEST_INNER_H
#define GUEST_INNER_H

/*
 * A workspace that may change its engine while it runs lives in namespaces inside its machine, made by the workspace engine's
 * own code, so that the machine holds what a host would hold. carrel-inner has it; to carrel-init these calls are a table that
 * it does not have.
 *
 *	begin -> start -> depart -> stay
 *	      \-> arrive -> go -> ...
 */

#include "guest/child.h"
#include "guest/world.h"

struct agent_inner {
	/* Disks are mounted, the workspace's cgroup is there. All that is pointed to stays. */
	int (*begin)(struct world *w, const struct plan *p, const struct guest_config *c, struct err *e);
	/* Namespaces, tree and program; *ret_child as child_start gives it. */
	int (*start)(struct child *ret_child, struct err *e);
	/* The same from its images, up to before the first step; and that step. */
	int (*arrive)(struct err *e);
	int (*go)(struct child *ret_child, struct err *e);
	/* One more process in it: exec, or a copy. */
	int (*enter)(const struct child_how *how, struct child *ret_child, struct err *e);
	int (*connect)(const struct guest_objects *interfaces, bool afresh, struct err *e);
	/* A system's init is asked to shut down, in its own way. */
	int (*tell_init)(struct err *e);
	int (*signal)(int number, struct err *e);
	/* It stands still; its memory is on the luggage's disk, and its volumes are on theirs; or, if the journey is off, it
	 * goes on. */
	int (*freeze)(size_t visitors, struct err *e);
	int (*depart)(struct err *e);
	int (*stay)(struct err *e);
};

extern const struct agent_inner inner_calls;

#endif
