/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DB_SQLITE_H
#define DB_SQLITE_H

/* Shared by the files of this folder: an SQLite connection with its prepared statements. */

#include <sqlite3.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct sqlite_param {
	char type; /* 'i' or 't' */
	int64_t number;
	char *text;
};

struct sqlite {
	sqlite3 *handle;
	struct {
		const char *sql;
		sqlite3_stmt *stmt;
	} *cache;
	size_t cached, capacity;
};

int sqlite_connect(struct sqlite *s, const char *path, struct err *e) must_check;
void sqlite_disconnect(struct sqlite *s);
/* The kind follows from SQLite's result; the sentence is "database: ...". */
int sqlite_error(struct sqlite *s, int result, struct err *e);
int sqlite_exec(struct sqlite *s, const char *sql, struct err *e) must_check;
int sqlite_prepare(struct sqlite *s, const char *sql, sqlite3_stmt **ret_stmt, struct err *e) must_check;
int sqlite_bind(struct sqlite *s, sqlite3_stmt *stmt, const struct sqlite_param *params, size_t count,
		struct err *e) must_check;
int64_t sqlite_version(struct sqlite *s);

/* migrate.c: brings an open database to this program's schema. */
int sqlite_migrate(struct sqlite *s, const char *path, struct err *e) must_check;

struct migration {
	int version;
	const char *name, *sql;
};
/* Ascending from version 1 without gaps; ends with version 0. Made at build from migrations/NNNN_name.sql. */
extern const struct migration migrations[];

#endif
