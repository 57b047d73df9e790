/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_WORKSPACE_CHECKPOINT_TREE_H
#define ENGINE_WORKSPACE_CHECKPOINT_TREE_H

/*
 * What CRIU finds mounted when it makes a workspace again, and what it does not deal with: cgroups. All for carrel-checkpoint.
 */

#include "engine/workspace/birth.h"
#include "engine/workspace/checkpoint.h"
#include "engine/workspace/inside.h"

struct checkpoint_tree {
	const struct plan *plan;
	const struct checkpoint *record;
	const struct volume_mount *volumes; /* as of struct birth */
	size_t volume_count;
	int folder;       /* the images' */
	const char *scratch; /* a tmpfs of this mount namespace, shared, so that what comes there is seen by CRIU's children */
	int terminal, terminal_peer; /* results, -1: the plan has none */
	struct inside in; /* the partitions, opened before the scratch folder covers what may be on their way */
};

/* Before CRIU starts: the scratch folder in a mount namespace of this process, and what of it no namespace is needed for. */
int checkpoint_tree_prepare(struct checkpoint_tree *t, struct err *e) must_check;
/* The terminal needs a user namespace too, but CRIU must know it when it starts: in one of the same ids. */
int checkpoint_tree_terminal(struct checkpoint_tree *t, struct err *e) must_check;
/* With the new first process standing in its namespaces, before it has looked for its root. */
int checkpoint_tree_complete(struct checkpoint_tree *t, pid_t first_process, struct err *e) must_check;

/* The folders below the workspace's v2 cgroup, and who stands in them. */
int checkpoint_cgroups_read(const struct plan *p, struct checkpoint *c, struct err *e) must_check;
int checkpoint_cgroups_make(const struct plan *p, const struct checkpoint *c, struct err *e) must_check;
/* Everybody stands in the workspace's own and is moved to where it stood. */
int checkpoint_cgroups_fill(const struct plan *p, const struct checkpoint *c, struct err *e) must_check;
/* What was handed down to subfolders is so again; CRIU must be gone, for it stood in the workspace's own. */
void checkpoint_cgroups_hand_down(const struct plan *p, const struct checkpoint *c);

#endif
