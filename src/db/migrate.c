/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/own.h"
#include "db/db.h"
#include "db/sqlite.h"

int db_schema_version(void)
{
	int newest = 0;
	for (const struct migration *m = migrations; m->version; m++)
		newest = m->version;
	return newest;
}

/* A copy that is complete or not there: SQLite refuses to write into an existing file, so a half-made one is removed first. */
static int back_up(struct sqlite *s, const char *path, int64_t version, struct err *e)
{
	own_str char *backup = mem_printf("%s.backup-%lld", path, (long long)version);
	own_str char *half = mem_printf("%s.half", backup);
	char *sql = sqlite3_mprintf("VACUUM INTO %Q", half);

	(void)unlink(half);
	int r = sqlite_exec(s, sql, e);
	sqlite3_free(sql);
	if (r == 0 && rename(half, backup) < 0)
		r = err_errno(e, errno, "%s", backup);
	if (r < 0)
		return err_wrap(e, "backup before the schema changes");
	log_info("database: schema %lld backed up as %s", (long long)version, backup);
	return 0;
}

static int apply(struct sqlite *s, const struct migration *m, struct err *e)
{
	own_str char *stamp = mem_printf("PRAGMA user_version=%d", m->version);
	struct err ignored;

	int r = sqlite_exec(s, "BEGIN IMMEDIATE", e);
	if (r < 0)
		return r;
	r = sqlite_exec(s, m->sql, e);
	if (r == 0)
		r = sqlite_exec(s, stamp, e);
	if (r == 0 && fault_point("db:migrate"))
		r = err_set(e, ERR_NO_CAPACITY, "database: the disk is full");
	if (r == 0)
		r = sqlite_exec(s, "COMMIT", e);
	if (r < 0) {
		if (sqlite_exec(s, "ROLLBACK", &ignored) < 0)
			log_error(&ignored, "rollback"); /* SQLite may have rolled back by itself */
		return err_wrap(e, "schema %d (%s)", m->version, m->name);
	}
	return 0;
}

int sqlite_migrate(struct sqlite *s, const char *path, struct err *e)
{
	int64_t version = sqlite_version(s);
	int known = db_schema_version();

	if (version > known) {
		(void)err_set(e, ERR_UNSUPPORTED, "%s has schema %lld, this program knows schemas up to %d", path,
			      (long long)version, known);
		return err_hint(e, "run the newer version of carreld that wrote it, or put back %s.backup-%d", path, known);
	}
	if (version < 0)
		return err_set(e, ERR_CORRUPT, "%s is not a database of carreld", path);
	if (version > 0 && version < known) {
		int r = back_up(s, path, version, e);
		if (r < 0)
			return r;
	}
	for (const struct migration *m = migrations; m->version; m++) {
		int r = m->version > version ? apply(s, m, e) : 0;
		if (r < 0)
			return r;
	}
	return 0;
}
