/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_WORKSPACE_INSIDE_H
#define ENGINE_WORKSPACE_INSIDE_H

/* The first process of a workspace: builds the tree it will live in, leaves the host's, and becomes init or starts the program. */

#include <stddef.h>

#include "engine/workspace/birth.h"
#include "engine/workspace/plan.h"

#define INSIDE_CGROUPS_MOST 12

struct inside {
	const struct plan *plan;
	int *layers; /* private copies of the partitions' mounts, lowest first */
	size_t layer_count, layer_room;
	const struct birth_volume *volumes;
	size_t volume_count;
	int tasks[INSIDE_CGROUPS_MOST]; /* v1 `tasks` files to enter */
	size_t task_count;
	int standard[3]; /* its ends of the pipes; -1: /dev/null or the terminal */
	int sync;
};

void inside_first_process(const struct inside *in) __attribute__((noreturn));

/* --- tree.c --- */
struct tree {
	const struct plan *plan;
	const struct inside *in;
	int root;                    /* folder: the overlay's root */
	int terminal, terminal_peer; /* made by STEP_CONSOLE */
};
/* Stacks the layers and the root volume, then does the plan's steps in it. The working folder must be a scratch tmpfs. */
int tree_build(struct tree *t, struct err *e) must_check;

#endif
