/* SPDX-License-Identifier: Apache-2.0 */
#include "db/host.h"

void db_host_put(struct db_batch *b, const struct db_host *h)
{
	static const char sql[] =
		"INSERT INTO hosts (name, facts, volumes, seen) VALUES (?,?,?,?) ON CONFLICT (name) DO UPDATE SET"
		" facts=excluded.facts, volumes=excluded.volumes, seen=excluded.seen";
	db_batch_add(b, sql, "tttu", h->name, h->facts, h->volumes, h->seen_ms);
}

int db_host_query(struct db *db, struct db_rows **ret_rows, struct err *e)
{
	static const char sql[] = "SELECT name, facts, volumes, seen FROM hosts ORDER BY name";
	return db_query(db, ret_rows, e, sql, "");
}

void db_host_row(struct db_rows *rows, struct db_host *ret_row)
{
	*ret_row = (struct db_host){ .name = db_text(rows, 0), .facts = db_text(rows, 1), .volumes = db_text(rows, 2),
				     .seen_ms = (uint64_t)db_int(rows, 3) };
}
