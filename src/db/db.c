/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. One thread owns the writing connection. It takes everything that waits at that moment, applies it in one transaction
 * - each batch within a savepoint, so that one batch which fails takes no other with it - and commits once: the more load, the
 * more batches share one fsync. Then it posts the completions to the loops of their submitters.
 *
 * The reading connection belongs to the thread that opened the database. With SQLite's write-ahead log neither waits for the
 * other.
 *
 * When the commit itself fails (disk full), nothing of the transaction remains and every batch in it is told so.
 */
#include "db/db.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/fault.h"
#include "base/mem.h"
#include "base/str.h"
#include "db/sqlite.h"

struct statement {
	const char *sql;
	struct sqlite_param *params;
	size_t count;
	enum err_kind refusal; /* when it changed no row; ERR_NONE: that is fine */
	char *refusal_text;
};

struct db_batch {
	struct statement *statements;
	size_t count, capacity;
	struct loop *loop; /* NULL: a thread waits in db_commit */
	db_done_fn *done;
	void *data;
	bool failed, finished;
	struct err failure;
	struct db_batch *next;
};

struct db_rows {
	struct sqlite *connection;
	sqlite3_stmt *stmt;
};

struct db {
	struct sqlite writer, reader;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t work, finished;
	struct db_batch *queue, **queue_end;
	bool closing;
	struct db_counters counters;
};

/* --- batches --- */

struct db_batch *db_batch_new(void) { return mem_alloc(sizeof(struct db_batch)); }

void db_batch_free(struct db_batch *b)
{
	if (!b)
		return;
	for (size_t i = 0; i < b->count; i++) {
		for (size_t j = 0; j < b->statements[i].count; j++)
			free(b->statements[i].params[j].text);
		free(b->statements[i].params);
		free(b->statements[i].refusal_text);
	}
	free(b->statements);
	free(b);
}

/* `copy`: texts are duplicated. */
static struct sqlite_param *take_params(const char *types, va_list args, bool copy, size_t *ret_count)
{
	size_t count = strlen(types);
	struct sqlite_param *params = mem_alloc_array(count ? count : 1, sizeof *params);

	for (size_t i = 0; i < count; i++) {
		params[i].type = types[i] == 't' ? 't' : 'i';
		if (types[i] == 't') {
			const char *text = va_arg(args, const char *);
			params[i].text = copy ? mem_strdup(text) : (char *)(uintptr_t)text;
		} else {
			params[i].number = va_arg(args, int64_t);
		}
	}
	*ret_count = count;
	return params;
}

void db_batch_add(struct db_batch *b, const char *sql, const char *types, ...)
{
	va_list args;

	MEM_PUSH_ROOM(b->statements, b->count, b->capacity);
	struct statement *s = &b->statements[b->count++];
	*s = (struct statement){ .sql = sql };
	va_start(args, types);
	s->params = take_params(types, args, true, &s->count);
	va_end(args);
}

void db_batch_must_change(struct db_batch *b, enum err_kind kind, const char *fmt, ...)
{
	struct statement *s = &b->statements[b->count - 1];
	struct str text = { 0 };
	va_list args;

	va_start(args, fmt);
	str_vprintf(&text, fmt, args);
	va_end(args);
	s->refusal = kind;
	s->refusal_text = str_take(&text);
}

/* --- the writer --- */

static int run_statement(struct sqlite *s, const struct statement *what, struct err *e)
{
	sqlite3_stmt *stmt;
	int r = sqlite_prepare(s, what->sql, &stmt, e);

	if (r == 0)
		r = sqlite_bind(s, stmt, what->params, what->count, e);
	if (r < 0)
		return r;
	int result;
	do
		result = sqlite3_step(stmt);
	while (result == SQLITE_ROW);
	if (result != SQLITE_DONE)
		r = sqlite_error(s, result, e);
	else if (what->refusal && sqlite3_changes(s->handle) == 0)
		r = err_set(e, what->refusal, "%s", what->refusal_text);
	(void)sqlite3_reset(stmt);
	(void)sqlite3_clear_bindings(stmt);
	return r;
}

static const char begin_sql[] = "BEGIN IMMEDIATE", commit_sql[] = "COMMIT", rollback_sql[] = "ROLLBACK",
		  savepoint_sql[] = "SAVEPOINT batch", release_sql[] = "RELEASE batch", undo_sql[] = "ROLLBACK TO batch";

static int run_simple(struct sqlite *s, const char *sql, struct err *e)
{
	return run_statement(s, &(struct statement){ .sql = sql }, e);
}

/* Fills b->failure. A transaction that SQLite rolled back by itself (disk full) shows as a failing savepoint of the next
 * batch. */
static void run_batch(struct sqlite *s, struct db_batch *b)
{
	struct err ignored;
	int r = run_simple(s, savepoint_sql, &b->failure);

	for (size_t i = 0; r == 0 && i < b->count; i++)
		r = run_statement(s, &b->statements[i], &b->failure);
	if (r == 0 && fault_point("db:batch"))
		r = err_set(&b->failure, ERR_NO_CAPACITY, "database: the disk is full");
	if (r < 0) {
		b->failed = true;
		(void)run_simple(s, undo_sql, &ignored);
	}
	(void)run_simple(s, release_sql, &ignored);
}

static void fail_all(struct db_batch *list, const struct err *failure)
{
	for (struct db_batch *b = list; b; b = b->next) {
		if (!b->failed)
			b->failure = *failure;
		b->failed = true;
	}
}

static void run_transaction(struct sqlite *s, struct db_batch *list)
{
	struct err e, ignored;

	if (run_simple(s, begin_sql, &e) < 0) {
		fail_all(list, &e);
		return;
	}
	for (struct db_batch *b = list; b; b = b->next)
		run_batch(s, b);
	int r = fault_point("db:before-commit") ? err_set(&e, ERR_NO_CAPACITY, "database: the disk is full") :
						  run_simple(s, commit_sql, &e);
	if (r < 0) {
		fail_all(list, &e);
		(void)run_simple(s, rollback_sql, &ignored);
		return;
	}
	(void)fault_point("db:after-commit");
}

static void complete(void *data)
{
	struct db_batch *b = data;
	if (b->done)
		b->done(b->data, b->failed ? &b->failure : NULL);
	db_batch_free(b);
}

static void hand_back(struct db *db, struct db_batch *list)
{
	for (struct db_batch *b = list, *next; b; b = next) {
		next = b->next;
		if (b->loop) {
			loop_post(b->loop, complete, b);
			continue;
		}
		(void)pthread_mutex_lock(&db->lock);
		b->finished = true;
		(void)pthread_cond_broadcast(&db->finished);
		(void)pthread_mutex_unlock(&db->lock);
	}
}

static uint64_t now_us(void)
{
	struct timespec now;
	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static void count_up(struct db *db, const struct db_batch *list, uint64_t started_us)
{
	(void)pthread_mutex_lock(&db->lock);
	for (; list; list = list->next) {
		db->counters.batches++;
		db->counters.failures += list->failed;
	}
	db->counters.commits++;
	db->counters.commit_us += now_us() - started_us;
	(void)pthread_mutex_unlock(&db->lock);
}

static void *write_forever(void *data)
{
	struct db *db = data;

	for (;;) {
		(void)pthread_mutex_lock(&db->lock);
		while (!db->queue && !db->closing)
			(void)pthread_cond_wait(&db->work, &db->lock);
		struct db_batch *list = db->queue;
		db->queue = NULL;
		db->queue_end = &db->queue;
		(void)pthread_mutex_unlock(&db->lock);
		if (!list)
			return NULL;
		uint64_t started_us = now_us();
		run_transaction(&db->writer, list);
		count_up(db, list, started_us);
		hand_back(db, list);
	}
}

static void enqueue(struct db *db, struct db_batch *b)
{
	(void)pthread_mutex_lock(&db->lock);
	*db->queue_end = b;
	db->queue_end = &b->next;
	(void)pthread_cond_signal(&db->work);
	(void)pthread_mutex_unlock(&db->lock);
}

void db_submit(struct db *db, struct db_batch *b, struct loop *l, db_done_fn *done, void *data)
{
	b->loop = l;
	b->done = done;
	b->data = data;
	enqueue(db, b);
}

int db_commit(struct db *db, struct db_batch *b, struct err *e)
{
	enqueue(db, b);
	(void)pthread_mutex_lock(&db->lock);
	while (!b->finished)
		(void)pthread_cond_wait(&db->finished, &db->lock);
	(void)pthread_mutex_unlock(&db->lock);
	int r = b->failed ? -b->failure.number : 0;
	if (r < 0)
		*e = b->failure;
	db_batch_free(b);
	return r;
}

struct db_counters db_count(struct db *db)
{
	(void)pthread_mutex_lock(&db->lock);
	struct db_counters counters = db->counters;
	(void)pthread_mutex_unlock(&db->lock);
	return counters;
}

/* --- open and close --- */

int db_open(const char *path, struct db **ret_db, struct err *e)
{
	struct db *db = mem_alloc(sizeof *db);
	int r = sqlite_connect(&db->writer, path, e);

	if (r == 0)
		r = sqlite_migrate(&db->writer, path, e);
	if (r == 0)
		r = sqlite_connect(&db->reader, path, e);
	(void)pthread_mutex_init(&db->lock, NULL);
	(void)pthread_cond_init(&db->work, NULL);
	(void)pthread_cond_init(&db->finished, NULL);
	db->queue_end = &db->queue;
	int number = r == 0 ? pthread_create(&db->thread, NULL, write_forever, db) : 0;
	if (number)
		r = err_errno(e, number, "database: writer thread");
	if (r < 0) {
		sqlite_disconnect(&db->writer);
		sqlite_disconnect(&db->reader);
		free(db);
		return r;
	}
	*ret_db = db;
	return 0;
}

void db_close(struct db *db)
{
	(void)pthread_mutex_lock(&db->lock);
	db->closing = true;
	(void)pthread_cond_signal(&db->work);
	(void)pthread_mutex_unlock(&db->lock);
	(void)pthread_join(db->thread, NULL);
	sqlite_disconnect(&db->reader);
	sqlite_disconnect(&db->writer);
	(void)pthread_cond_destroy(&db->work);
	(void)pthread_cond_destroy(&db->finished);
	(void)pthread_mutex_destroy(&db->lock);
	free(db);
}

/* --- reading --- */

int db_query(struct db *db, struct db_rows **ret_rows, struct err *e, const char *sql, const char *types, ...)
{
	sqlite3_stmt *stmt;
	va_list args;
	size_t count;
	int r = sqlite_prepare(&db->reader, sql, &stmt, e);

	if (r < 0)
		return r;
	va_start(args, types);
	struct sqlite_param *params = take_params(types, args, false, &count);
	va_end(args);
	for (size_t i = 0; r == 0 && i < count; i++) { /* texts of the caller end with the call */
		const struct sqlite_param *p = &params[i];
		int at = (int)i + 1;
		int result = p->type == 'i' ? sqlite3_bind_int64(stmt, at, p->number) :
					      sqlite3_bind_text(stmt, at, p->text, -1, SQLITE_TRANSIENT);
		if (result != SQLITE_OK)
			r = sqlite_error(&db->reader, result, e);
	}
	free(params);
	if (r < 0)
		return r;
	struct db_rows *rows = mem_alloc(sizeof *rows);
	rows->connection = &db->reader;
	rows->stmt = stmt;
	*ret_rows = rows;
	return 0;
}

int db_next(struct db_rows *r, struct err *e)
{
	int result = sqlite3_step(r->stmt);
	if (result == SQLITE_ROW)
		return 1;
	return result == SQLITE_DONE ? 0 : sqlite_error(r->connection, result, e);
}

int64_t db_int(struct db_rows *r, int column) { return sqlite3_column_int64(r->stmt, column); }

const char *db_text(struct db_rows *r, int column) { return (const char *)sqlite3_column_text(r->stmt, column); }

void db_rows_free(struct db_rows *r)
{
	if (!r)
		return;
	(void)sqlite3_reset(r->stmt);
	(void)sqlite3_clear_bindings(r->stmt);
	free(r);
}
