/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DB_WORKSPACE_H
#define DB_WORKSPACE_H

/* Workspaces and their snapshots. A row's texts belong to the caller when it is put, and are valid until the next row when it
 * is read. */

#include "db/db.h"

struct db_workspace {
	int64_t seq;
	const char *id, *name, *host, *spec, *image, *wish, *restore_from, *state, *truth;
	const char *kernel, *origin; /* NULL: none */
	uint64_t owner_uid, generation, run, restore, created_ms, version;
	uint64_t stop_timeout_ms; /* UINT64_MAX: the spec's */
	bool held;
};

struct db_snapshot {
	const char *id, *workspace, *name;
	uint64_t created_ms;
	bool memory;
};

void db_workspace_insert(struct db_batch *b, const struct db_workspace *w);
void db_workspace_update(struct db_batch *b, const struct db_workspace *w); /* all but seq, id, owner, created */
void db_workspace_truth(struct db_batch *b, const char *id, uint64_t version, const char *state, const char *truth);
void db_workspace_delete(struct db_batch *b, const char *id); /* its snapshots too */
/* id NULL: all, by seq */
int db_workspace_query(struct db *db, const char *id, struct db_rows **ret_rows, struct err *e) must_check;
void db_workspace_row(struct db_rows *rows, struct db_workspace *ret_row);

void db_snapshot_insert(struct db_batch *b, const struct db_snapshot *s);
void db_snapshot_delete(struct db_batch *b, const char *id);
/* oldest first */
int db_snapshot_query(struct db *db, const char *workspace, struct db_rows **ret_rows, struct err *e) must_check;
void db_snapshot_row(struct db_rows *rows, struct db_snapshot *ret_row);

#endif
