/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NODE_IDS_H
#define NODE_IDS_H

/*
 * Ranges of 65536 user and group ids. Each workspace has one of its own while it has volumes or processes, and no range is ever
 * given twice at a time. Who has which is kept in the workspaces' records (truth.json); this table is filled from them at
 * start. The range given back longest ago is given out last, so that ids are reused late. Any thread.
 */

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

#define IDS_PER_RANGE 65536

struct ids;

struct ids *ids_new(uint64_t first_id, uint64_t ranges);
void ids_free(struct ids *i);
/* A range's first id; ERR_NO_CAPACITY when all are given. */
int ids_take(struct ids *i, uint64_t *ret_first_id, struct err *e) must_check;
/* Marks a range as given (from a record); false when it is not ours or is given already. */
bool ids_mark(struct ids *i, uint64_t first_id);
void ids_give_back(struct ids *i, uint64_t first_id); /* 0 is fine */
uint64_t ids_taken(struct ids *i);

#endif
