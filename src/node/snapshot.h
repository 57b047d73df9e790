/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NODE_SNAPSHOT_H
#define NODE_SNAPSHOT_H

/*
 * Snapshots of a workspace's volumes, and restores from them. Each is whole or not there, for all volumes together, whatever
 * process or machine dies meanwhile.
 */

#include "node/steps.h"

/* Removes the snapshots that are not wished and makes the one called `missing`, NULL: none. Nobody writes to the volumes. */
int snapshots_do(struct work *w, const struct assignment_snapshot *missing, struct err *e) must_check;

/* A restore has two halves. The first copies everything beside the volumes and changes none of them; when it fails nothing has
 * happened. The second lets the copies take the volumes' places; it is begun in the journal (record->restoring is then set),
 * and whatever ends it early, restore_finish is called until it is done. */
int restore_do(struct work *w, struct err *e) must_check;
int restore_finish(const struct node *n, struct record *r, struct err *e) must_check;
/* At the start of the agent: finishes the second half, forgets the first. */
int restore_recover(const struct node *n, struct record *r, struct err *e) must_check;

#endif
