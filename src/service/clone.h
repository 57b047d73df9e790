/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SERVICE_CLONE_H
#define SERVICE_CLONE_H

/*
 * Clones: workspaces that begin from a snapshot of another, which is made for them. All of them, their addresses and the wish
 * for the snapshot are stored at once; they go to the host when it has the snapshot, and without it they are removed again. The
 * snapshot goes when each clone has taken what it needs. What is to be done follows from the rows and reports alone, whoever
 * was restarted meanwhile.
 */

#include "service/workspace.h"

/* What it begins from is there, or it has begun already. */
bool clone_may_begin(struct service *s, const struct workspace *w);
/* `w`, an original or a clone, was reported of. */
void clone_follow(struct service *s, struct workspace *w);

#endif
