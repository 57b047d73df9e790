/* SPDX-License-Identifier: Apache-2.0 */
#include "db/workspace.h"

void db_workspace_insert(struct db_batch *b, const struct db_workspace *w)
{
	static const char sql[] =
		"INSERT INTO workspaces (seq, id, name, owner_uid, host, spec, image, wish, generation, run, held,"
		" restore_count, restore_from, created, version, state, truth, stop_timeout, kernel, origin)"
		" VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)";
	db_batch_add(b, sql, "ittuttttuuiutuuttutt", w->seq, w->id, w->name, w->owner_uid, w->host, w->spec, w->image, w->wish,
		     w->generation, w->run, (int64_t)w->held, w->restore, w->restore_from, w->created_ms, w->version, w->state,
		     w->truth, w->stop_timeout_ms, w->kernel, w->origin);
}

void db_workspace_update(struct db_batch *b, const struct db_workspace *w)
{
	static const char sql[] =
		"UPDATE workspaces SET name=?, host=?, spec=?, image=?, wish=?, generation=?, run=?, held=?,"
		" restore_count=?, restore_from=?, version=?, state=?, truth=?, stop_timeout=?, kernel=? WHERE id=?";
	db_batch_add(b, sql, "tttttuuiututtutt", w->name, w->host, w->spec, w->image, w->wish, w->generation, w->run,
		     (int64_t)w->held, w->restore, w->restore_from, w->version, w->state, w->truth, w->stop_timeout_ms,
		     w->kernel, w->id);
}

void db_workspace_truth(struct db_batch *b, const char *id, uint64_t version, const char *state, const char *truth)
{
	static const char sql[] = "UPDATE workspaces SET version=?, state=?, truth=? WHERE id=?";
	db_batch_add(b, sql, "uttt", version, state, truth, id);
}

void db_workspace_delete(struct db_batch *b, const char *id)
{
	static const char sql[] = "DELETE FROM workspaces WHERE id=?";
	db_batch_add(b, sql, "t", id);
}

#define COLUMNS                                                                                                       \
	"SELECT seq, id, name, owner_uid, host, spec, image, wish, generation, run, held, restore_count, restore_from," \
	" created, version, state, truth, stop_timeout, kernel, origin FROM workspaces "

int db_workspace_query(struct db *db, const char *id, struct db_rows **ret_rows, struct err *e)
{
	static const char all[] = COLUMNS "ORDER BY seq", one[] = COLUMNS "WHERE id=?";
	return id ? db_query(db, ret_rows, e, one, "t", id) : db_query(db, ret_rows, e, all, "");
}

void db_workspace_row(struct db_rows *rows, struct db_workspace *ret_row)
{
	*ret_row = (struct db_workspace){
		.seq = db_int(rows, 0),
		.id = db_text(rows, 1),
		.name = db_text(rows, 2),
		.owner_uid = (uint64_t)db_int(rows, 3),
		.host = db_text(rows, 4),
		.spec = db_text(rows, 5),
		.image = db_text(rows, 6),
		.wish = db_text(rows, 7),
		.generation = (uint64_t)db_int(rows, 8),
		.run = (uint64_t)db_int(rows, 9),
		.held = db_int(rows, 10) != 0,
		.restore = (uint64_t)db_int(rows, 11),
		.restore_from = db_text(rows, 12),
		.created_ms = (uint64_t)db_int(rows, 13),
		.version = (uint64_t)db_int(rows, 14),
		.state = db_text(rows, 15),
		.truth = db_text(rows, 16),
		.stop_timeout_ms = (uint64_t)db_int(rows, 17),
		.kernel = db_text(rows, 18),
		.origin = db_text(rows, 19),
	};
}

void db_snapshot_insert(struct db_batch *b, const struct db_snapshot *s)
{
	static const char sql[] = "INSERT INTO snapshots (id, workspace, name, created, memory) VALUES (?,?,?,?,?)";
	db_batch_add(b, sql, "tttuu", s->id, s->workspace, s->name, s->created_ms, (uint64_t)s->memory);
}

void db_snapshot_delete(struct db_batch *b, const char *id)
{
	static const char sql[] = "DELETE FROM snapshots WHERE id=?";
	db_batch_add(b, sql, "t", id);
}

int db_snapshot_query(struct db *db, const char *workspace, struct db_rows **ret_rows, struct err *e)
{
	static const char sql[] =
		"SELECT id, workspace, name, created, memory FROM snapshots WHERE workspace=? ORDER BY created, id";
	return db_query(db, ret_rows, e, sql, "t", workspace);
}

void db_snapshot_row(struct db_rows *rows, struct db_snapshot *ret_row)
{
	*ret_row = (struct db_snapshot){ .id = db_text(rows, 0), .workspace = db_text(rows, 1), .name = db_text(rows, 2),
					 .created_ms = (uint64_t)db_int(rows, 3), .memory = db_int(rows, 4) != 0 };
}
