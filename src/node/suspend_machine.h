/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NODE_SUSPEND_MACHINE_H
#define NODE_SUSPEND_MACHINE_H

/* The memory of virtual machines: a file in the workspace's memory folder from the start on. */

#include "node/isolate.h"
#include "node/steps.h"

/* Before a launch: makes the file, or takes the one that `parts->memory` names or, with `templates`, a template's, checks that
 * the devices are those of the state, and sets l->memory. Afterwards `_prepared`, however it ended. *ret_notice: what the user
 * should know, or NULL. */
int suspend_machine_prepare(struct node *n, const struct record *r, const struct isolate_parts *parts, struct launch *l,
			    struct launch_machine *host, bool templates, struct launch_memory *ret_memory, char **ret_notice,
			    struct err *e) must_check;
/* What a machine of that memory state has. */
struct launch_size suspend_machine_size(const struct memory_manifest *m);
void suspend_machine_prepared(struct launch_memory *m);

/* For a snapshot of a machine that lives: it stands still, its state is in `folder`, and `m` tells of it, until it is let go on
 * (NULL: nothing). Meanwhile volumes and memory may be copied. */
int suspend_machine_stand(struct work *w, const char *folder, struct memory_manifest *m, void **ret_standing,
			  struct err *e) must_check;
void suspend_machine_go_on(void *standing);
/* The memory, of which most is still right when it is updated with what has changed; while it runs, and when it stands. */
int suspend_machine_copy_ram(struct work *w, const char *folder, struct err *e) must_check;
int suspend_machine_update_ram(struct work *w, const char *folder, struct err *e) must_check;
/* The manifest; with `digests`, of all of the memory, which take their time. */
int suspend_machine_finish_copy(const struct record *of, const char *folder, bool digests, struct memory_manifest *m,
				struct err *e) must_check;
/* A whole state for this workspace, which is new, from a snapshot of another: its memory is a link and stays as it is. */
int suspend_machine_clone_state(struct work *w, const char *from, const char *to, struct err *e) must_check;
/* A whole state for this workspace as it will be after the restore that is wished. */
int suspend_machine_copy_state(struct work *w, const char *from, const char *to, struct err *e) must_check;

#endif
