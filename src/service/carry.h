/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SERVICE_CARRY_H
#define SERVICE_CARRY_H

/*
 * Workspaces that come in a bundle. Such a one is deployed empty, with a label that says so, and the label goes when the host has all of it.
 * Whatever ends the import before that - also the end of this service - removes the workspace: it comes whole or not at all.
 */

#include "service/views.h"
#include "service/workspace.h"

/* Of a workspace that is being made: its id, when that is free, its snapshots, and the label. */
void carry_take(struct service *s, struct workspace *w, const struct carried *c);
/* The host has it all. */
void carry_filled(struct service *s, struct workspace *w);
/* Its import has ended; nothing when it was filled, or never carried. */
void carry_ended(struct service *s, struct workspace *w);
/* At start: no import goes on from the service before. */
void carry_recover(struct service *s);

#endif
