/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DB_HOST_H
#define DB_HOST_H

/* What hosts told last, so that it can be shown while they are away. */

#include "db/db.h"

struct db_host {
	const char *name, *facts, *volumes;
	uint64_t seen_ms;
};

void db_host_put(struct db_batch *b, const struct db_host *h);
int db_host_query(struct db *db, struct db_rows **ret_rows, struct err *e) must_check;
void db_host_row(struct db_rows *rows, struct db_host *ret_row);

#endif
