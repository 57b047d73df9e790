/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SERVICE_EVENT_H
#define SERVICE_EVENT_H

/* What happened, numbered; kept in the database, followed as server-sent events. */

#include "service/service.h"

extern const struct shape event_shape;
int events_load(struct service *s, struct err *e) must_check;
/* Takes body. `subject`: id of a workspace or name of an image. */
void event_add(struct service *s, struct db_batch *b, const char *kind, const char *subject, uint64_t owner_uid, json_t *body);
void events_committed(struct service *s); /* there may be new ones to read */

#endif
