/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SERVICE_CARRY_H
#define SERVICE_CARRY_H

/*
 * Workspaces that come in a bundle. Such a one is deployed empty, with a label that says of which bundle, and the label goes
 * when the host has all of it. Until then it cannot be used. What the host finds wrong with the bundle removes the workspace;
 * an import that only broke off - also by the end of this service - goes on when it is asked for again, within a day.
 */

#include "service/views.h"
#include "service/workspace.h"

/* Of a workspace that is being made: its id, when that is free, its snapshots, and the label. */
void carry_take(struct service *s, struct workspace *w, const struct carried *c);
/* The host has it all. */
void carry_filled(struct service *s, struct workspace *w);
/* Whether it may be used: refuses what was not filled yet. */
int carry_check(const struct workspace *w, struct err *e) must_check;
/* Its import was refused, or given up; nothing when it was filled, or never carried. */
void carry_ended(struct service *s, struct workspace *w);
/* At start: removes now and later what nobody went on with. */
void carry_recover(struct service *s);

#endif
