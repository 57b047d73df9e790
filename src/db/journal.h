/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DB_JOURNAL_H
#define DB_JOURNAL_H

/* What happened: operations, events, and the answers that idempotency keys stand for. Kept for a while, then trimmed. */

#include "db/db.h"

struct db_operation {
	int64_t seq;
	const char *id, *kind, *subject, *subject_kind, *state, *error, *result;
	uint64_t owner_uid, created_ms, ended_ms;
};
void db_operation_put(struct db_batch *b, const struct db_operation *o); /* insert or replace by seq */
void db_operation_trim(struct db_batch *b, uint64_t ended_before_ms);
int db_operation_query(struct db *db, struct db_rows **ret_rows, struct err *e) must_check; /* all, by seq */
void db_operation_row(struct db_rows *rows, struct db_operation *ret_row);

struct db_event {
	int64_t seq;
	uint64_t at_ms, owner_uid;
	const char *kind, *subject, *body;
};
#define DB_EVERYONE UINT64_C(0x7fffffffffffffff) /* in queries: events of all owners */
void db_event_insert(struct db_batch *b, const struct db_event *v);
void db_event_trim(struct db_batch *b, int64_t keep_after_seq);
int db_event_query(struct db *db, int64_t after_seq, uint64_t owner_uid, uint64_t limit, struct db_rows **ret_rows,
		   struct err *e) must_check;
void db_event_row(struct db_rows *rows, struct db_event *ret_row);
int db_event_last(struct db *db, int64_t *ret_seq, struct err *e) must_check;

struct db_answer {
	uint64_t owner_uid, created_ms;
	const char *key, *request, *subject;
	int status;
};
void db_answer_insert(struct db_batch *b, const struct db_answer *a);
void db_answer_trim(struct db_batch *b, uint64_t created_before_ms);
/* 1: found; texts are valid until the rows are freed. */
int db_answer_find(struct db *db, uint64_t owner_uid, const char *key, struct db_rows **ret_rows, struct db_answer *ret_row,
		   struct err *e) must_check;

#endif
