/* SPDX-License-Identifier: Apache-2.0 */
#include "../test.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/own.h"
#include "store/store.h"

static struct err e;

struct place {
	char path[64];
	struct store *store;
};

static int set_up(void **state)
{
	struct place *p = calloc(1, sizeof *p);
	(void)snprintf(p->path, sizeof p->path, "/tmp/carrel-test-store-XXXXXX");
	assert_non_null(mkdtemp(p->path));
	assert_ok(store_open(p->path, &p->store, &e), &e);
	*state = p;
	return 0;
}

static int tear_down(void **state)
{
	struct place *p = *state;
	store_free(p->store);
	assert_ok(fs_remove_tree(AT_FDCWD, p->path, &e), &e);
	free(p);
	return 0;
}

static struct digest put_partition(struct store_session *n, const char *text)
{
	struct digest d = hash_bytes(text, strlen(text));
	own_fd int fd = -1;
	assert_ok(store_session_file(n, "new", &fd, &e), &e);
	assert_ok(fs_write_all(fd, text, strlen(text), &e), &e);
	assert_ok(store_put_file(n, "new", fd, STORE_PARTITION, &d, &e), &e);
	return d;
}

static bool has(struct place *p, enum store_kind kind, const struct digest *d)
{
	own_fd int fd = -1;
	return store_get(p->store, kind, d, &fd, NULL, NULL) == 0;
}

static void test_put_and_get(void **state)
{
	struct place *p = *state;
	own_store_session struct store_session *n = NULL;
	struct digest d;
	own_fd int fd = -1;
	uint64_t bytes;
	struct stat st;

	assert_ok(store_session_start(p->store, &n, &e), &e);
	assert_ok(store_put_bytes(n, STORE_BLOB, "hello", 5, &d, &e), &e);
	assert_ok(store_get(p->store, STORE_BLOB, &d, &fd, &bytes, &e), &e);
	assert_int_equal(bytes, 5);
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0444);
	assert_fails(store_get(p->store, STORE_PARTITION, &d, &fd, NULL, &e), &e, ERR_NOT_FOUND, "partition sha256:2cf24dba");
	own_str char *path = store_path(p->store, STORE_BLOB, &d);
	assert_int_equal(access(path, R_OK), 0);
}

static void test_same_content_twice_is_one_file(void **state)
{
	struct place *p = *state;
	own_store_session struct store_session *one = NULL, *two = NULL;
	own_fd int fd = -1;

	assert_ok(store_session_start(p->store, &one, &e), &e);
	assert_ok(store_session_start(p->store, &two, &e), &e);
	struct digest d = put_partition(one, "same");
	assert_ok(store_session_file(two, "new", &fd, &e), &e);
	assert_ok(fs_write_all(fd, "same", 4, &e), &e);
	assert_int_equal(store_put_file(two, "new", fd, STORE_PARTITION, &d, &e), 1);
	assert_int_equal(store_session_file(two, "new", &fd, &e), 0); /* the loser's file is gone, its name is free */
}

static void test_layers(void **state)
{
	struct place *p = *state;
	own_store_session struct store_session *n = NULL;
	struct digest layer = hash_bytes("layer", 5), found;
	uint64_t bytes;

	assert_ok(store_session_start(p->store, &n, &e), &e);
	assert_int_equal(store_layer_find(n, &layer, &found, &bytes, &e), 0);
	struct digest d = put_partition(n, "partition");
	assert_ok(store_layer_record(n, &layer, &d, &e), &e);
	assert_int_equal(store_layer_find(n, &layer, &found, &bytes, &e), 1);
	assert_true(digest_eq(&d, &found));
	assert_int_equal(bytes, 9);
	own_str char *path = store_path(p->store, STORE_PARTITION, &d);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(store_layer_find(n, &layer, &found, &bytes, &e), 0);
}

static void test_collect_keeps_what_is_referenced_or_pinned(void **state)
{
	struct place *p = *state;
	struct store_session *n = NULL;
	struct digest layer = hash_bytes("layer", 5), found;
	uint64_t freed;

	assert_ok(store_session_start(p->store, &n, &e), &e);
	struct digest kept = put_partition(n, "kept"), pinned = put_partition(n, "pinned");
	assert_ok(store_layer_record(n, &layer, &pinned, &e), &e);
	store_session_free(n);
	assert_ok(store_session_start(p->store, &n, &e), &e);
	assert_int_equal(store_pin(n, STORE_PARTITION, &pinned, &e), 1);
	assert_ok(store_collect(p->store, &kept, 1, &freed, &e), &e);
	assert_int_equal(freed, 0);
	assert_true(has(p, STORE_PARTITION, &kept));
	assert_true(has(p, STORE_PARTITION, &pinned));
	store_session_free(n);
	assert_ok(store_collect(p->store, &kept, 1, &freed, &e), &e);
	assert_int_equal(freed, 6);
	assert_true(has(p, STORE_PARTITION, &kept));
	assert_false(has(p, STORE_PARTITION, &pinned));
	assert_ok(store_session_start(p->store, &n, &e), &e);
	assert_int_equal(store_layer_find(n, &layer, &found, NULL, &e), 0);
	store_session_free(n);
}

static int entries(struct place *p)
{
	char path[128];
	int count = 0;
	(void)snprintf(path, sizeof path, "%s/tmp", p->path);
	own_dir DIR *dir = opendir(path);
	for (struct dirent *d; (d = readdir(dir));)
		count += d->d_name[0] != '.';
	return count;
}

static void test_clean_spares_the_living(void **state)
{
	struct place *p = *state;
	own_store_session struct store_session *alive = NULL;
	int ready[2];
	char c;

	assert_ok(store_session_start(p->store, &alive, &e), &e);
	assert_int_equal(pipe(ready), 0);
	pid_t child = fork();
	if (child == 0) {
		struct store_session *dying;
		own_fd int fd = -1;
		if (store_session_start(p->store, &dying, NULL) < 0 || store_session_file(dying, "half", &fd, NULL) < 0)
			_exit(1);
		(void)!write(ready[1], "x", 1);
		(void)pause();
	}
	assert_int_equal(read(ready[0], &c, 1), 1);
	assert_ok(store_clean(p->store, &e), &e);
	assert_int_equal(entries(p), 2);
	assert_int_equal(kill(child, SIGKILL), 0);
	assert_int_equal(waitpid(child, NULL, 0), child);
	assert_ok(store_clean(p->store, &e), &e);
	assert_int_equal(entries(p), 1);
	(void)close(ready[0]);
	(void)close(ready[1]);
}

static void test_partial(void **state)
{
	struct place *p = *state;
	struct digest d = hash_bytes("x", 1);
	int fd = -1, other = -1;
	struct timespec old[2] = { { .tv_sec = time(NULL) - 2 * 86400 }, { .tv_sec = time(NULL) - 2 * 86400 } };

	assert_int_equal(store_partial_open(p->store, &d, &fd, &e), 1);
	assert_int_equal(store_partial_open(p->store, &d, &other, &e), 0);
	assert_ok(fs_write_all(fd, "half", 4, &e), &e);
	(void)close(fd);
	assert_ok(store_clean(p->store, &e), &e);
	assert_int_equal(store_partial_open(p->store, &d, &fd, &e), 1);
	assert_int_equal(lseek(fd, 0, SEEK_END), 4);
	assert_int_equal(futimens(fd, old), 0);
	(void)close(fd);
	assert_ok(store_clean(p->store, &e), &e);
	assert_int_equal(entries(p), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_put_and_get, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_same_content_twice_is_one_file, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_layers, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_collect_keeps_what_is_referenced_or_pinned, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_clean_spares_the_living, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_partial, set_up, tear_down),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
