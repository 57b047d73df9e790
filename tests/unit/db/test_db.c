/* SPDX-License-Identifier: Apache-2.0 */
#include "../test.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"
#include "db/image.h"
#include "db/journal.h"
#include "db/sqlite.h"
#include "db/workspace.h"

static char folder[64];
static char path[128];

static int make_folder(void **state)
{
	(void)state;
	(void)snprintf(folder, sizeof folder, "/tmp/carrel-test-db-XXXXXX");
	if (!mkdtemp(folder))
		return -1;
	(void)snprintf(path, sizeof path, "%s/carrel.db", folder);
	return 0;
}

static int remove_folder(void **state)
{
	struct err e;
	(void)state;
	return fs_remove_tree(AT_FDCWD, folder, &e);
}

static struct db_workspace sample(int64_t seq, const char *id, const char *name)
{
	return (struct db_workspace){ .seq = seq, .id = id, .name = name, .host = "local", .spec = "{}", .image = "{}",
				      .wish = "running", .state = "defined", .owner_uid = 1000, .generation = 3, .run = 2,
				      .held = true, .restore = 4, .restore_from = "abc", .created_ms = 5, .version = 6,
				      .truth = NULL };
}

static void test_a_row_comes_back_as_it_was_put(void **state)
{
	struct err e;
	own_db struct db *db = NULL;
	own_db_rows struct db_rows *rows = NULL;
	struct db_workspace w = sample(1, "0123456789abcdef", "one"), got;
	struct db_batch *b = db_batch_new();

	(void)state;
	assert_ok(db_open(path, &db, &e), &e);
	db_workspace_insert(b, &w);
	db_snapshot_insert(b, &(struct db_snapshot){ "s1", w.id, "before", 7 });
	assert_ok(db_commit(db, b, &e), &e);
	assert_ok(db_workspace_query(db, w.id, &rows, &e), &e);
	assert_int_equal(db_next(rows, &e), 1);
	db_workspace_row(rows, &got);
	assert_string_equal(got.name, "one");
	assert_string_equal(got.restore_from, "abc");
	assert_null(got.truth);
	assert_true(got.held);
	assert_int_equal(got.owner_uid, 1000);
	assert_int_equal(got.generation, 3);
	assert_int_equal(got.run, 2);
	assert_int_equal(got.restore, 4);
	assert_int_equal(got.created_ms, 5);
	assert_int_equal(got.version, 6);
	assert_int_equal(db_next(rows, &e), 0);
	db_rows_free(TAKE(rows));
	w.name = "two";
	w.truth = "{}";
	w.held = false;
	b = db_batch_new();
	db_workspace_update(b, &w);
	assert_ok(db_commit(db, b, &e), &e);
	assert_ok(db_workspace_query(db, NULL, &rows, &e), &e);
	assert_int_equal(db_next(rows, &e), 1);
	db_workspace_row(rows, &got);
	assert_string_equal(got.name, "two");
	assert_string_equal(got.truth, "{}");
	assert_false(got.held);
	db_rows_free(TAKE(rows));
	b = db_batch_new();
	db_workspace_delete(b, w.id);
	assert_ok(db_commit(db, b, &e), &e);
	assert_ok(db_snapshot_query(db, w.id, &rows, &e), &e);
	assert_int_equal(db_next(rows, &e), 0); /* went with its workspace */
}

static void test_a_batch_is_whole_or_nothing(void **state)
{
	struct err e;
	own_db struct db *db = NULL;
	own_db_rows struct db_rows *rows = NULL;
	struct db_workspace one = sample(10, "a000000000000000", "alpha"), same = sample(11, "b000000000000000", "alpha");
	struct db_batch *b = db_batch_new();

	(void)state;
	assert_ok(db_open(path, &db, &e), &e);
	db_workspace_insert(b, &one);
	db_workspace_insert(b, &same); /* the name is taken */
	assert_fails(db_commit(db, b, &e), &e, ERR_EXISTS, "UNIQUE");
	assert_ok(db_workspace_query(db, NULL, &rows, &e), &e);
	assert_int_equal(db_next(rows, &e), 0);
	assert_int_equal(db_count(db).failures, 1);
}

/* Whoever comes second with a name gets it only when the name is his, whatever was looked up before. */
static void test_an_image_of_another_is_not_taken(void **state)
{
	struct err e;
	own_db struct db *db = NULL;
	own_db_rows struct db_rows *rows = NULL;
	struct db_image one = { .name = "box", .digest = "sha256:1", .image = "{}", .owner_uid = 1 }, two = one, got;
	struct db_batch *b = db_batch_new();

	(void)state;
	two.owner_uid = 2;
	two.digest = "sha256:2";
	assert_ok(db_open(path, &db, &e), &e);
	db_image_put(b, &one, false);
	assert_ok(db_commit(db, b, &e), &e);
	b = db_batch_new();
	db_image_delete(b, "other");
	db_image_put(b, &two, false);
	db_image_delete(b, "box"); /* what follows in the batch is not done either */
	assert_fails(db_commit(db, b, &e), &e, ERR_EXISTS, "another user");
	b = db_batch_new();
	one.digest = "sha256:3";
	db_image_put(b, &one, false);
	assert_ok(db_commit(db, b, &e), &e);
	assert_ok(db_image_find(db, "box", &rows, &e), &e);
	assert_int_equal(db_next(rows, &e), 1);
	db_image_row(rows, &got);
	assert_string_equal(got.digest, "sha256:3");
	db_rows_free(TAKE(rows));
	b = db_batch_new();
	db_image_put(b, &two, true);
	assert_ok(db_commit(db, b, &e), &e);
	assert_ok(db_image_find(db, "box", &rows, &e), &e);
	assert_int_equal(db_next(rows, &e), 1);
	db_image_row(rows, &got);
	assert_int_equal(got.owner_uid, 2);
}

struct writer {
	struct db *db;
	int number;
};

static void *write_many(void *data)
{
	struct writer *w = data;
	struct err e;

	for (int i = 0; i < 200; i++) {
		own_str char *name = mem_printf("image-%d-%d", w->number, i);
		struct db_batch *b = db_batch_new();
		db_image_put(b, &(struct db_image){ .name = name, .digest = "sha256:1", .image = "{}" }, false);
		if (db_commit(w->db, b, &e) < 0)
			return w; /* not NULL: failed */
	}
	return NULL;
}

/* Many who wait at the same time share commits. */
static void test_commits_are_shared(void **state)
{
	struct err e;
	own_db struct db *db = NULL;
	own_db_rows struct db_rows *rows = NULL;
	struct writer writers[8];
	pthread_t threads[8];
	int count = 0;

	(void)state;
	assert_ok(db_open(path, &db, &e), &e);
	for (int i = 0; i < 8; i++) {
		writers[i] = (struct writer){ db, i };
		assert_int_equal(pthread_create(&threads[i], NULL, write_many, &writers[i]), 0);
	}
	for (int i = 0; i < 8; i++) {
		void *result;
		assert_int_equal(pthread_join(threads[i], &result), 0);
		assert_null(result);
	}
	struct db_counters c = db_count(db);
	assert_int_equal(c.batches, 1600);
	assert_true(c.commits < 1600);
	print_message("# %llu commits for 1600 batches, %llu us each\n", (unsigned long long)c.commits,
		      (unsigned long long)(c.commit_us / c.commits));
	assert_ok(db_image_query(db, &rows, &e), &e);
	while (db_next(rows, &e) > 0)
		count++;
	assert_int_equal(count, 1600);
}

static void test_newer_schema_is_refused(void **state)
{
	struct err e;
	struct db *db = NULL;
	struct sqlite s;

	(void)state;
	assert_ok(db_open(path, &db, &e), &e);
	db_close(db);
	assert_ok(sqlite_connect(&s, path, &e), &e);
	assert_int_equal(sqlite_version(&s), db_schema_version());
	assert_ok(sqlite_exec(&s, "PRAGMA user_version=1000", &e), &e);
	sqlite_disconnect(&s);
	db = NULL;
	assert_fails(db_open(path, &db, &e), &e, ERR_UNSUPPORTED, "schema 1000");
	assert_non_null(strstr(e.hint, "newer version"));
	assert_null(db);
}

static void test_garbage_is_not_a_database(void **state)
{
	struct err e;
	struct db *db = NULL;
	char garbage[8192];

	(void)state;
	memset(garbage, 'x', sizeof garbage);
	assert_ok(fs_write_file(AT_FDCWD, path, garbage, sizeof garbage, 0600, false, &e), &e);
	assert_fails(db_open(path, &db, &e), &e, ERR_CORRUPT, "not a database");
}

/* From each version that ever was: rows of that time are readable by today's program, and a backup was made. */
static void test_migration_from_each_version(void **state)
{
	struct err e;

	(void)state;
	for (int from = 1; from <= db_schema_version(); from++) {
		own_str char *at = mem_printf("%s/from-%d.db", folder, from);
		own_str char *backup = mem_printf("%s.backup-%d", at, from);
		own_str char *stamp = mem_printf("PRAGMA user_version=%d", from);
		struct sqlite s;
		struct db *db = NULL;
		assert_ok(sqlite_connect(&s, at, &e), &e);
		for (const struct migration *m = migrations; m->version && m->version <= from; m++)
			assert_ok(sqlite_exec(&s, m->sql, &e), &e);
		assert_ok(sqlite_exec(&s, stamp, &e), &e);
		assert_ok(sqlite_exec(&s,
				      "INSERT INTO images (name, digest, owner_uid, created, image) VALUES ('old', 'sha256:1', "
				      "7, 8, '{}');INSERT INTO workspaces (seq, id, name, owner_uid, host, spec, image, wish, "
				      "generation, run, held, restore_count, created, version, state) VALUES (1, 'i', 'n', 7, "
				      "'local', '{}', '{}', 'running', 1, 1, 0, 0, 9, 1, 'defined')",
				      &e),
			  &e);
		sqlite_disconnect(&s);
		assert_ok(db_open(at, &db, &e), &e);
		own_db_rows struct db_rows *rows = NULL;
		struct db_workspace w;
		assert_ok(db_workspace_query(db, NULL, &rows, &e), &e);
		assert_int_equal(db_next(rows, &e), 1);
		db_workspace_row(rows, &w);
		assert_string_equal(w.name, "n");
		db_rows_free(TAKE(rows));
		db_close(db);
		assert_int_equal(fs_exists(AT_FDCWD, backup), from < db_schema_version());
	}
}

static void test_idempotency_and_events(void **state)
{
	struct err e;
	own_db struct db *db = NULL;
	own_db_rows struct db_rows *rows = NULL;
	struct db_answer a = { .owner_uid = 1, .created_ms = 100, .key = "k", .request = "r", .subject = "s",
			       .status = 201 }, got;
	struct db_batch *b = db_batch_new();
	int64_t last = -1;

	(void)state;
	assert_ok(db_open(path, &db, &e), &e);
	db_answer_insert(b, &a);
	for (int64_t seq = 1; seq <= 10; seq++)
		db_event_insert(b, &(struct db_event){ .seq = seq, .kind = "k", .owner_uid = (uint64_t)(seq % 2),
						       .body = "{}" });
	db_event_trim(b, 4);
	assert_ok(db_commit(db, b, &e), &e);
	assert_int_equal(db_answer_find(db, 1, "k", &rows, &got, &e), 1);
	assert_string_equal(got.request, "r");
	db_rows_free(TAKE(rows));
	assert_int_equal(db_answer_find(db, 2, "k", &rows, &got, &e), 0);
	assert_int_equal(db_event_last(db, &last, &e), 1);
	assert_int_equal(last, 10);
	assert_ok(db_event_query(db, 0, 1, 100, &rows, &e), &e);
	int count = 0;
	while (db_next(rows, &e) > 0)
		count++;
	assert_int_equal(count, 3); /* 5, 7, 9 */
}

#define EACH(name) cmocka_unit_test_setup_teardown(name, make_folder, remove_folder)

int main(void)
{
	const struct CMUnitTest tests[] = {
		EACH(test_a_row_comes_back_as_it_was_put),
		EACH(test_a_batch_is_whole_or_nothing),
		EACH(test_an_image_of_another_is_not_taken), EACH(test_commits_are_shared),
		EACH(test_newer_schema_is_refused),
		EACH(test_garbage_is_not_a_database),
		EACH(test_migration_from_each_version),
		EACH(test_idempotency_and_events),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
