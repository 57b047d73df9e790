/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NODE_CLONE_H
#define NODE_CLONE_H

/*
 * A clone on this host: its volumes and its memory begin as copies of a snapshot of another workspace (assignment.h, origin).
 * Volumes are copied block by block, or shared where the file system can; the memory is a link of the snapshot's file, which
 * stays as it is: QEMU maps it privately. What has the memory of another is suspended, and then resumed like anything that is.
 */

#include "node/steps.h"

/* It shall have memory of another, and has none of its own yet. */
bool clone_waits(const struct record *r);
/* The copy in the snapshot that volume `name` begins from; NULL: it is no clone, or has it already. The caller frees. */
char *clone_volume(const struct node *n, const struct record *r, const char *path, const char *name);
/* After its volumes: the workspace is suspended with the memory of the other one. */
int clone_take_memory(struct work *w, struct err *e) must_check;
/* What runs in it learns that it is a clone: /run/carrel/clone, and the programs of /etc/carrel/cloned.d. */
void clone_tell(const struct work *w);

#endif
