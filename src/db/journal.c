/* SPDX-License-Identifier: Apache-2.0 */
#include "db/journal.h"

#include "base/own.h"

void db_operation_put(struct db_batch *b, const struct db_operation *o)
{
	static const char sql[] =
		"INSERT INTO operations (seq, id, kind, subject, subject_kind, owner_uid, state, error, result, created,"
		" ended) VALUES (?,?,?,?,?,?,?,?,?,?,?) ON CONFLICT (seq) DO UPDATE SET"
		" state=excluded.state, error=excluded.error, result=excluded.result, ended=excluded.ended";
	db_batch_add(b, sql, "ittttutttuu", o->seq, o->id, o->kind, o->subject, o->subject_kind, o->owner_uid, o->state,
		     o->error, o->result, o->created_ms, o->ended_ms);
}

void db_operation_trim(struct db_batch *b, uint64_t ended_before_ms)
{
	static const char sql[] = "DELETE FROM operations WHERE ended > 0 AND ended < ?";
	db_batch_add(b, sql, "u", ended_before_ms);
}

int db_operation_query(struct db *db, struct db_rows **ret_rows, struct err *e)
{
	static const char sql[] = "SELECT seq, id, kind, subject, subject_kind, owner_uid, state, error, result, created, ended"
				  " FROM operations ORDER BY seq";
	return db_query(db, ret_rows, e, sql, "");
}

void db_operation_row(struct db_rows *rows, struct db_operation *ret_row)
{
	*ret_row = (struct db_operation){
		.seq = db_int(rows, 0),
		.id = db_text(rows, 1),
		.kind = db_text(rows, 2),
		.subject = db_text(rows, 3),
		.subject_kind = db_text(rows, 4),
		.owner_uid = (uint64_t)db_int(rows, 5),
		.state = db_text(rows, 6),
		.error = db_text(rows, 7),
		.result = db_text(rows, 8),
		.created_ms = (uint64_t)db_int(rows, 9),
		.ended_ms = (uint64_t)db_int(rows, 10),
	};
}

void db_event_insert(struct db_batch *b, const struct db_event *v)
{
	static const char sql[] = "INSERT INTO events (seq, at, kind, subject, owner_uid, body) VALUES (?,?,?,?,?,?)";
	db_batch_add(b, sql, "iuttut", v->seq, v->at_ms, v->kind, v->subject, v->owner_uid, v->body);
}

void db_event_trim(struct db_batch *b, int64_t keep_after_seq)
{
	static const char sql[] = "DELETE FROM events WHERE seq <= ?";
	db_batch_add(b, sql, "i", keep_after_seq);
}

int db_event_query(struct db *db, int64_t after_seq, uint64_t owner_uid, uint64_t limit, struct db_rows **ret_rows,
		   struct err *e)
{
	static const char all[] =
		"SELECT seq, at, kind, subject, owner_uid, body FROM events WHERE seq > ? ORDER BY seq LIMIT ?";
	static const char own[] = "SELECT seq, at, kind, subject, owner_uid, body FROM events WHERE seq > ? AND owner_uid = ?"
				  " ORDER BY seq LIMIT ?";
	if (owner_uid == DB_EVERYONE)
		return db_query(db, ret_rows, e, all, "iu", after_seq, limit);
	return db_query(db, ret_rows, e, own, "iuu", after_seq, owner_uid, limit);
}

void db_event_row(struct db_rows *rows, struct db_event *ret_row)
{
	*ret_row = (struct db_event){ .seq = db_int(rows, 0), .at_ms = (uint64_t)db_int(rows, 1), .kind = db_text(rows, 2),
				      .subject = db_text(rows, 3), .owner_uid = (uint64_t)db_int(rows, 4),
				      .body = db_text(rows, 5) };
}

int db_event_last(struct db *db, int64_t *ret_seq, struct err *e)
{
	static const char sql[] = "SELECT COALESCE(MAX(seq), 0) FROM events";
	own_db_rows struct db_rows *rows = NULL;
	int r = db_query(db, &rows, e, sql, "");

	if (r == 0)
		r = db_next(rows, e);
	if (r > 0)
		*ret_seq = db_int(rows, 0);
	return r;
}

void db_answer_insert(struct db_batch *b, const struct db_answer *a)
{
	static const char sql[] =
		"INSERT INTO idempotency (owner_uid, key, request, status, subject, created) VALUES (?,?,?,?,?,?)";
	db_batch_add(b, sql, "uttitu", a->owner_uid, a->key, a->request, (int64_t)a->status, a->subject, a->created_ms);
}

void db_answer_trim(struct db_batch *b, uint64_t created_before_ms)
{
	static const char sql[] = "DELETE FROM idempotency WHERE created < ?";
	db_batch_add(b, sql, "u", created_before_ms);
}

int db_answer_find(struct db *db, uint64_t owner_uid, const char *key, struct db_rows **ret_rows, struct db_answer *ret_row,
		   struct err *e)
{
	static const char sql[] = "SELECT request, status, subject, created FROM idempotency WHERE owner_uid = ? AND key = ?";
	own_db_rows struct db_rows *rows = NULL;
	int r = db_query(db, &rows, e, sql, "ut", owner_uid, key);

	if (r == 0)
		r = db_next(rows, e);
	if (r <= 0)
		return r;
	*ret_row = (struct db_answer){ .owner_uid = owner_uid, .key = key, .request = db_text(rows, 0),
				       .status = (int)db_int(rows, 1), .subject = db_text(rows, 2),
				       .created_ms = (uint64_t)db_int(rows, 3) };
	*ret_rows = TAKE(rows);
	return 1;
}
