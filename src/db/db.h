/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DB_DB_H
#define DB_DB_H

/*
 * The site's database. Guarantees:
 * - a batch is applied whole or not at all, and batches are applied in the order in which they were submitted;
 * - when `done` is called without failure, the batch is on stable storage;
 * - readers see only what is committed.
 *
 * SQL text stands in one file per noun (db/workspace.c, ...), is portable between SQLite and PostgreSQL, and is static:
 * statements are prepared once per connection and found again by the address of their text.
 */

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/loop.h"

struct db;
struct db_batch;
struct db_rows;

/* Opens or creates; an older schema is backed up to PATH.backup-N and migrated, a newer one is ERR_UNSUPPORTED. */
int db_open(const char *path, struct db **ret_db, struct err *e) must_check;
void db_close(struct db *db); /* what was submitted is still written; completions that nobody collected are dropped */
static inline void db_close_at(struct db **db)
{
	if (*db)
		db_close(*db);
}
#define own_db __attribute__((cleanup(db_close_at)))
int db_schema_version(void); /* that this program knows */

/* --- writing: one thread, group commit --- */

struct db_batch *db_batch_new(void);
void db_batch_free(struct db_batch *b);
/* `types`: one letter a parameter: 'i' int64_t, 'u' uint64_t, 't' const char * (copied; NULL is SQL's NULL). */
void db_batch_add(struct db_batch *b, const char *sql, const char *types, ...);
/* The statement that was added last must change a row: otherwise the batch fails with this. */
void db_batch_must_change(struct db_batch *b, enum err_kind kind, const char *fmt, ...) format_printf(3, 4);

typedef void db_done_fn(void *data, const struct err *failure); /* `failure` NULL: committed */
/* Takes the batch; `done` (may be NULL) is called on the thread of `l`. */
void db_submit(struct db *db, struct db_batch *b, struct loop *l, db_done_fn *done, void *data);
/* The same, and waits. */
int db_commit(struct db *db, struct db_batch *b, struct err *e) must_check;

struct db_counters {
	uint64_t batches, commits, failures, commit_us;
};
struct db_counters db_count(struct db *db);

/* --- reading: on the caller's thread, with a connection of its own; rows of one text must be done before it is asked again
 * --- */

int db_query(struct db *db, struct db_rows **ret_rows, struct err *e, const char *sql, const char *types, ...) must_check;
int db_next(struct db_rows *r, struct err *e) must_check; /* 1: a row; 0: no more */
int64_t db_int(struct db_rows *r, int column);
const char *db_text(struct db_rows *r, int column); /* NULL for NULL; valid until the next db_next */
void db_rows_free(struct db_rows *r);
static inline void db_rows_free_at(struct db_rows **r)
{
	if (*r)
		db_rows_free(*r);
}
#define own_db_rows __attribute__((cleanup(db_rows_free_at)))

#endif
