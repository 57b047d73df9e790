/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SERVICE_LIFECYCLE_H
#define SERVICE_LIFECYCLE_H

#include "service/operation.h"
#include "service/workspace.h"

/* The workspace that the request's path names, of the asking user, to be used: neither on its way out nor half imported. */
int lifecycle_find(struct request *r, struct workspace **ret_workspace, struct err *e) must_check;
/* Starts an operation on a workspace in place of the one under way, which is cancelled. */
struct operation *lifecycle_begin(struct change *c, struct workspace *w, const char *kind);
/* Answers with the operation. */
int lifecycle_cancel(struct request *r, struct operation *o, struct err *e) must_check;
/* Removal that nobody asked for by hand: remove-on-exit. */
void lifecycle_remove_ended(struct service *s, struct workspace *w);
/* After a suspend or resume that failed the wish becomes what is true. */
void lifecycle_follow_memory(struct service *s, struct workspace *w);

void operations_trim(struct service *s);

#endif
