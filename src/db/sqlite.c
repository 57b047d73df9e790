/* SPDX-License-Identifier: Apache-2.0 */
#include "db/sqlite.h"

#include <stdlib.h>

#include "base/mem.h"

int sqlite_error(struct sqlite *s, int result, struct err *e)
{
	const char *text = s->handle ? sqlite3_errmsg(s->handle) : sqlite3_errstr(result);

	switch (result & 0xff) {
	case SQLITE_CONSTRAINT:
		return err_set(e, ERR_EXISTS, "database: %s", text);
	case SQLITE_FULL:
		(void)err_set(e, ERR_NO_CAPACITY, "database: the disk is full");
		return err_hint(e, "free space on the file system of the state folder; what was stored before is intact");
	case SQLITE_CORRUPT:
	case SQLITE_NOTADB:
		(void)err_set(e, ERR_CORRUPT, "database: %s", text);
		return err_hint(e, "put a backup in its place (carrel.db.backup-N, or yours)");
	case SQLITE_READONLY:
	case SQLITE_PERM:
	case SQLITE_CANTOPEN:
		return err_set(e, ERR_DENIED, "database: %s", text);
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
		return err_set(e, ERR_UNAVAILABLE, "database: %s", text);
	default:
		return err_set(e, ERR_INTERNAL, "database: %s (%d)", text, result);
	}
}

int sqlite_exec(struct sqlite *s, const char *sql, struct err *e)
{
	int result = sqlite3_exec(s->handle, sql, NULL, NULL, NULL);
	return result == SQLITE_OK ? 0 : sqlite_error(s, result, e);
}

int sqlite_connect(struct sqlite *s, const char *path, struct err *e)
{
	*s = (struct sqlite){ 0 };
	int result = sqlite3_open_v2(path, &s->handle, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, NULL);
	if (result != SQLITE_OK) {
		(void)sqlite_error(s, result, e);
		sqlite_disconnect(s);
		return err_wrap(e, "%s", path);
	}
	(void)sqlite3_busy_timeout(s->handle, 10000);
	(void)sqlite3_db_config(s->handle, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
	int r = sqlite_exec(
		s,
		"PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON; PRAGMA temp_store=MEMORY;"
		"PRAGMA trusted_schema=OFF; PRAGMA mmap_size=268435456",
		e);
	if (r < 0) {
		sqlite_disconnect(s);
		return err_wrap(e, "%s", path);
	}
	return 0;
}

void sqlite_disconnect(struct sqlite *s)
{
	for (size_t i = 0; i < s->cached; i++)
		(void)sqlite3_finalize(s->cache[i].stmt);
	free(s->cache);
	(void)sqlite3_close_v2(s->handle);
	*s = (struct sqlite){ 0 };
}

int sqlite_prepare(struct sqlite *s, const char *sql, sqlite3_stmt **ret_stmt, struct err *e)
{
	sqlite3_stmt *stmt;

	for (size_t i = 0; i < s->cached; i++) {
		if (s->cache[i].sql == sql) {
			*ret_stmt = s->cache[i].stmt;
			return 0;
		}
	}
	int result = sqlite3_prepare_v3(s->handle, sql, -1, SQLITE_PREPARE_PERSISTENT, &stmt, NULL);
	if (result != SQLITE_OK)
		return sqlite_error(s, result, e);
	MEM_PUSH_ROOM(s->cache, s->cached, s->capacity);
	s->cache[s->cached].sql = sql;
	s->cache[s->cached++].stmt = stmt;
	*ret_stmt = stmt;
	return 0;
}

int sqlite_bind(struct sqlite *s, sqlite3_stmt *stmt, const struct sqlite_param *params, size_t count, struct err *e)
{
	for (size_t i = 0; i < count; i++) {
		const struct sqlite_param *p = &params[i];
		int at = (int)i + 1, result;
		if (p->type == 'i')
			result = sqlite3_bind_int64(stmt, at, p->number);
		else if (p->text)
			result = sqlite3_bind_text(stmt, at, p->text, -1, SQLITE_STATIC);
		else
			result = sqlite3_bind_null(stmt, at);
		if (result != SQLITE_OK)
			return sqlite_error(s, result, e);
	}
	return 0;
}

int64_t sqlite_version(struct sqlite *s)
{
	sqlite3_stmt *stmt = NULL;
	int64_t version = -1;

	if (sqlite3_prepare_v2(s->handle, "PRAGMA user_version", -1, &stmt, NULL) == SQLITE_OK &&
	    sqlite3_step(stmt) == SQLITE_ROW)
		version = sqlite3_column_int64(stmt, 0);
	(void)sqlite3_finalize(stmt);
	return version;
}
