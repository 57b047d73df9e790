/* SPDX-License-Identifier: Apache-2.0 */
/* Volumes made ready, lent, and used again: real ones, on loop devices. */
#include "../test.h"

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/proc.h"
#include "fixture.h"
#include "node/ready.h"

#define BYTES (UINT64_C(32) << 20)

static struct err e;
static char folder[64];
static struct volume_pool *pool;
static struct ready *ready;

struct taken {
	char *path;
	int fd;
	struct volume_mount mount;
	dev_t device;
};

static int set_up(void **state)
{
	(void)state;
	fixture_use_build();
	(void)snprintf(folder, sizeof folder, "/tmp/carrel-test-ready-XXXXXX");
	if (!mkdtemp(folder))
		return -1;
	own_str char *blanks = mem_printf("%s/blanks", folder);
	assert_ok(volume_pool_open(blanks, 1, &pool, &e), &e);
	ready = ready_new(pool, blanks, 1);
	return 0;
}

static bool loop_left(void)
{
	own_str char *script = mem_printf("losetup -nO BACK-FILE | grep -q %s", folder);
	const char *const argv[] = { "/bin/sh", "-c", script, NULL };
	own_strbuf struct str ignored = { 0 };

	return proc_run(argv, 65536, &ignored, NULL) >= 0;
}

static int tear_down(void **state)
{
	(void)state;
	ready_free(ready);
	volume_pool_free(pool);
	for (int i = 0; loop_left() && i < 9000; i++)
		(void)poll(NULL, 0, 10);
	assert_false(loop_left());
	assert_ok(fs_remove_tree(AT_FDCWD, folder, &e), &e);
	return 0;
}

static void fill(void)
{
	int made;

	do
		made = ready_refill(ready, &e);
	while (made > 0);
	assert_ok(made, &e);
}

static dev_t device_of(int mount)
{
	struct stat st;

	assert_int_equal(fstatat(mount, "upper", &st, 0), 0);
	return st.st_dev;
}

static struct taken take(const char *name, bool throw_away)
{
	struct taken t = { .path = mem_printf("%s/%s.ext4", folder, name) };

	assert_true(ready_volume(ready, BYTES, throw_away, t.path, &t.fd, &t.mount));
	assert_true(fs_exists(AT_FDCWD, t.path));
	t.device = device_of(t.mount.mount_fd);
	return t;
}

/* What carrel-run does at the end of a workspace. */
static void finish(struct taken *t)
{
	volume_mount_close(&t->mount);
	own_close(&t->fd);
	free(TAKE(t->path));
}

static int write_in(const struct taken *t, const char *name)
{
	int fd = openat(t->mount.mount_fd, name, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, "secret", 6), 6);
	return fd;
}

static void used_again_and_empty(void **state)
{
	(void)state;
	ready_want(ready, BYTES, true);
	fill();
	struct taken first = take("first", true);
	assert_int_equal(mkdirat(first.mount.mount_fd, "upper/d", 0700), 0);
	(void)close(write_in(&first, "upper/d/file"));
	(void)close(write_in(&first, "work/file"));
	dev_t device = first.device;
	own_str char *path = mem_strdup(first.path);
	finish(&first);
	assert_true(ready_take_back(ready, path));
	assert_false(fs_exists(AT_FDCWD, path));
	fill();
	struct taken second = take("second", true);
	assert_true(second.device == device);
	assert_false(fs_exists(second.mount.mount_fd, "upper/d"));
	assert_false(fs_exists(second.mount.mount_fd, "work/file"));
	assert_true(fs_exists(second.mount.mount_fd, "work"));
	ready_let_go(ready, second.path);
	finish(&second);
}

/* Whoever still holds a file of the last workspace gets no way to the next, nor takes its space. */
static void not_while_something_is_open(void **state)
{
	(void)state;
	ready_want(ready, BYTES, true);
	fill();
	struct taken first = take("first", true);
	own_fd int held = write_in(&first, "upper/file");
	dev_t device = first.device;
	own_str char *path = mem_strdup(first.path);
	finish(&first);
	assert_true(ready_take_back(ready, path));
	fill();
	struct taken second = take("second", true);
	assert_true(second.device != device);
	ready_let_go(ready, second.path);
	finish(&second);
}

/* Once it is let go it is a file like any other. */
static void let_go(void **state)
{
	(void)state;
	ready_want(ready, BYTES, true);
	fill();
	struct taken first = take("first", true);
	own_str char *path = mem_strdup(first.path);
	int fd = -1;
	assert_fails(volume_open(path, &fd, &e), &e, ERR_CONFLICT, "in use");
	finish(&first);
	ready_let_go(ready, path);
	for (int i = 0; volume_open(path, &fd, &e) < 0 && i < 9000; i++)
		(void)poll(NULL, 0, 10);
	assert_true(fd >= 0);
	(void)close(fd);
	assert_false(ready_take_back(ready, path));
}

static void kept_volumes_are_handed_over(void **state)
{
	(void)state;
	ready_want(ready, BYTES, false);
	fill();
	struct taken first = take("first", false);
	own_str char *path = mem_strdup(first.path);
	finish(&first);
	assert_false(ready_take_back(ready, path));
	int fd = -1;
	for (int i = 0; volume_open(path, &fd, &e) < 0 && i < 9000; i++)
		(void)poll(NULL, 0, 10);
	assert_true(fd >= 0);
	(void)close(fd);
}

static void nothing_ready(void **state)
{
	struct volume_mount mount;
	own_str char *path = mem_printf("%s/none.ext4", folder);
	int fd;

	(void)state;
	assert_false(ready_volume(ready, BYTES, true, path, &fd, &mount));
	assert_false(fs_exists(AT_FDCWD, path));
	fill();
	struct taken now = take("now", true); /* asking was wanting */
	ready_let_go(ready, now.path);
	finish(&now);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = { TEST(used_again_and_empty), TEST(not_while_something_is_open), TEST(let_go),
					    TEST(kept_volumes_are_handed_over), TEST(nothing_ready) };
	if (geteuid() != 0 || access("/dev/loop-control", F_OK) < 0 || access("/sbin/mkfs.ext4", F_OK) < 0) {
		(void)printf("1..0 # SKIP needs root, loop devices and mkfs.ext4\n");
		return 0;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
