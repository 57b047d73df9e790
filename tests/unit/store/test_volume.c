/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../test.h"
#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/proc.h"
#include "base/str.h"
#include "store/volume.h"

#define MIB (UINT64_C(1) << 20)

static char folder[64];
static struct err e;

static int setup(void **state)
{
	(void)state;
	(void)snprintf(folder, sizeof folder, "/tmp/carrel-test-volume-XXXXXX");
	return mkdtemp(folder) ? 0 : -1;
}

static int teardown(void **state)
{
	(void)state;
	return fs_remove_tree(AT_FDCWD, folder, &e);
}

static char *in(const char *name) { return mem_printf("%s/%s", folder, name); }

static struct volume_pool *open_pool(unsigned per_size)
{
	struct volume_pool *p = NULL;
	own_str char *blanks = in("blanks");
	assert_int_equal(volume_pool_open(blanks, per_size, &p, &e), 0);
	return p;
}

static void check(const char *path)
{
	const char *argv[] = { "e2fsck", "-f", "-n", path, NULL };
	if (proc_run(argv, 65536, NULL, &e) < 0)
		fail_msg("%s", e.message);
}

static void test_made_at_once(void **state)
{
	struct volume_pool *p = open_pool(2);
	own_str char *path = in("root.ext4");
	own_strbuf struct str listing = { 0 };
	uint64_t size, used, inside;

	(void)state;
	assert_int_equal(volume_make(p, VOLUME_ROOT, 64 * MIB, path, &e), 0);
	assert_int_equal(volume_make(p, VOLUME_ROOT, 64 * MIB, path, &e), 0);
	assert_int_equal(volume_measure(path, &size, &used, &e), 0);
	assert_int_equal(size, 64 * MIB);
	assert_true(used < MIB);
	assert_int_equal(volume_file_system_bytes(path, &inside, &e), 0);
	assert_int_equal(inside, 64 * MIB);
	check(path);
	const char *list[] = { "debugfs", "-R", "ls -p", path, NULL };
	assert_int_equal(proc_run(list, 65536, &listing, &e), 0);
	assert_non_null(strstr(str_text(&listing), "/040755/0/0/upper/"));
	assert_non_null(strstr(str_text(&listing), "/040755/0/0/work/"));
	volume_pool_free(p);
}

static void read_uuid(const char *path, uint8_t out[16])
{
	own_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_int_equal(pread(fd, out, 16, 1024 + 104), 16);
}

static void test_taken_from_the_pool(void **state)
{
	struct volume_pool *p = open_pool(2);
	own_str char *one = in("one"), *two = in("two"), *three = in("three");
	uint8_t uuid_one[16], uuid_two[16];

	(void)state;
	volume_pool_want(p, VOLUME_DATA, 32 * MIB);
	assert_int_equal(volume_pool_refill(p, &e), 1);
	assert_int_equal(volume_pool_refill(p, &e), 1);
	assert_int_equal(volume_pool_refill(p, &e), 0);
	assert_int_equal(volume_make(p, VOLUME_DATA, 32 * MIB, one, &e), 1);
	assert_int_equal(volume_make(p, VOLUME_DATA, 32 * MIB, two, &e), 1);
	assert_int_equal(volume_make(p, VOLUME_DATA, 32 * MIB, three, &e), 0);
	read_uuid(one, uuid_one);
	read_uuid(two, uuid_two);
	assert_memory_not_equal(uuid_one, uuid_two, 16);
	check(one);
	volume_pool_free(p);
}

static void test_pool_survives_and_drops_damaged(void **state)
{
	struct volume_pool *p = open_pool(2);
	own_str char *bad = in("blanks/root-33554432-0123456789abcdef.ext4"), *unfinished = in("blanks/x.new");

	(void)state;
	volume_pool_want(p, VOLUME_ROOT, 32 * MIB);
	assert_int_equal(volume_pool_refill(p, &e), 1);
	volume_pool_free(p);
	assert_int_equal(fs_write_file(AT_FDCWD, bad, "x", 1, 0600, false, &e), 0);
	assert_int_equal(fs_write_file(AT_FDCWD, unfinished, "x", 1, 0600, false, &e), 0);
	p = open_pool(2);
	assert_int_equal(volume_pool_refill(p, &e), 1); /* one of the two was there */
	assert_int_equal(volume_pool_refill(p, &e), 0);
	assert_false(fs_exists(AT_FDCWD, bad));
	assert_false(fs_exists(AT_FDCWD, unfinished));
	volume_pool_free(p);
}

static void test_one_user(void **state)
{
	struct volume_pool *p = open_pool(0);
	own_str char *path = in("v");
	own_fd int first = -1;
	int second = -1;

	(void)state;
	assert_int_equal(volume_make(p, VOLUME_DATA, 16 * MIB, path, &e), 0);
	assert_int_equal(volume_open(path, &first, &e), 0);
	assert_int_equal(volume_open(path, &second, &e), -EBUSY);
	assert_int_equal(e.kind, ERR_CONFLICT);
	volume_pool_free(p);
}

static void test_grow(void **state)
{
	struct volume_pool *p = open_pool(0);
	own_str char *path = in("v");
	uint64_t inside;

	(void)state;
	assert_int_equal(volume_make(p, VOLUME_ROOT, 16 * MIB, path, &e), 0);
	assert_int_equal(volume_grow(path, 200 * MIB, &e), 0);
	assert_int_equal(volume_grow(path, 200 * MIB, &e), 0);
	assert_int_equal(volume_file_system_bytes(path, &inside, &e), 0);
	assert_int_equal(inside, 200 * MIB);
	check(path);
	assert_int_equal(volume_grow(path, 100 * MIB, &e), -EINVAL);
	volume_pool_free(p);
}

static int stop_it(void *data, uint64_t done, uint64_t total)
{
	(void)data;
	(void)done;
	(void)total;
	return -1;
}

static void test_copy_keeps_holes(void **state)
{
	struct volume_pool *p = open_pool(0);
	own_str char *path = in("v"), *copy = in("copy"), *unfinished = in("copy.new");
	uint64_t size, used, copy_size, copy_used;

	(void)state;
	assert_int_equal(volume_make(p, VOLUME_ROOT, 96 * MIB, path, &e), 0);
	assert_int_equal(volume_copy(path, copy, NULL, NULL, &e), 0);
	assert_int_equal(volume_measure(path, &size, &used, &e), 0);
	assert_int_equal(volume_measure(copy, &copy_size, &copy_used, &e), 0);
	assert_int_equal(size, copy_size);
	assert_true(copy_used <= used + MIB);
	const char *compare[] = { "cmp", path, copy, NULL };
	assert_int_equal(proc_run(compare, 4096, NULL, &e), 0);
	assert_int_equal(unlink(copy), 0);
	if (volume_copy(path, copy, stop_it, NULL, &e) < 0) { /* a clone has nothing to cancel */
		assert_int_equal(e.kind, ERR_CANCELLED);
		assert_false(fs_exists(AT_FDCWD, copy));
		assert_false(fs_exists(AT_FDCWD, unfinished));
	}
	volume_pool_free(p);
}

/* A file system too small for the copy, and too small for a new volume: errors that say so, and nothing left. */
static void test_disk_full(void **state)
{
	own_str char *small = in("small"), *blanks = in("small/blanks"), *path = in("small/v"), *copy = in("small/copy");
	struct volume_pool *p = NULL;

	(void)state;
	assert_int_equal(mkdir(small, 0700), 0);
	if (mount("carrel-test", small, "tmpfs", 0, "size=6m") < 0) {
		print_message("# skipped: needs root to mount a small file system\n");
		skip();
	}
	assert_int_equal(volume_pool_open(blanks, 1, &p, &e), 0);
	assert_int_equal(volume_make(p, VOLUME_ROOT, 64 * MIB, path, &e), 0);
	own_fd int fd = open(path, O_WRONLY | O_CLOEXEC);
	own_str char *block = mem_alloc(3 * MIB);
	memset(block, 1, 3 * MIB);
	assert_int_equal(pwrite(fd, block, 3 * MIB, 40 * MIB), 3 * MIB);
	assert_true(volume_copy(path, copy, NULL, NULL, &e) < 0);
	assert_int_equal(e.kind, ERR_NO_CAPACITY);
	assert_false(fs_exists(AT_FDCWD, copy));
	assert_int_equal(pwrite(fd, block, 2 * MIB, 50 * MIB), 2 * MIB);
	own_str char *more = in("small/more"), *unfinished = in("small/more.new");
	while (pwrite(fd, block, 4096, lseek(fd, 4096, SEEK_CUR)) == 4096)
		;
	assert_true(volume_make(p, VOLUME_ROOT, 64 * MIB, more, &e) < 0);
	assert_false(fs_exists(AT_FDCWD, more));
	assert_false(fs_exists(AT_FDCWD, unfinished));
	volume_pool_free(p);
	own_close(&fd);
	fd = -1;
	assert_int_equal(umount(small), 0);
}

/* The size is a hard limit, discard gives space back, and a mounted volume grows where the kernel lets root do that. */
static void test_mounted(void **state)
{
	struct volume_pool *p = open_pool(0);
	own_str char *path = in("v"), *at = in("mnt"), *file = in("mnt/file");
	own_fd int fd = -1, control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
	uint64_t size, used, after;
	char loop_path[32];

	(void)state;
	assert_int_equal(volume_make(p, VOLUME_DATA, 64 * MIB, path, &e), 0);
	volume_pool_free(p);
	assert_int_equal(volume_open(path, &fd, &e), 0);
	struct loop_config config = { .fd = (uint32_t)fd, .info.lo_flags = LO_FLAGS_AUTOCLEAR };
	own_fd int loop = -1;
	for (int i = 0; control >= 0 && i < 20 && loop < 0; i++) {
		(void)snprintf(loop_path, sizeof loop_path, "/dev/loop%d", ioctl(control, LOOP_CTL_GET_FREE));
		loop = open(loop_path, O_RDWR | O_CLOEXEC);
		if (loop >= 0 && ioctl(loop, LOOP_CONFIGURE, &config) < 0)
			own_close(&loop), loop = -1;
	}
	if (loop < 0) {
		print_message("# skipped: needs root and loop devices\n");
		skip();
	}
	own_close(&fd);
	fd = -1;
	assert_int_equal(volume_open(path, &fd, &e), -EBUSY); /* the loop device keeps the lock */
	assert_int_equal(mkdir(at, 0700), 0);
	assert_int_equal(mount(loop_path, at, "ext4", 0, "discard,noinit_itable"), 0);
	own_fd int out = open(file, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	own_str char *block = mem_alloc(MIB);
	memset(block, 7, MIB);
	unsigned written = 0;
	while (write(out, block, MIB) == (ssize_t)MIB)
		written++;
	assert_int_equal(errno, ENOSPC);
	assert_true(written > 40 && written < 64);
	assert_int_equal(fsync(out), 0);
	assert_int_equal(volume_measure(path, &size, &used, &e), 0);
	own_fd int mount_fd = open(at, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int r = volume_grow_mounted(path, 128 * MIB, loop, mount_fd, &e);
	if (r == 0)
		assert_int_equal(write(out, block, MIB), MIB);
	else
		print_message("# not run: growing while mounted (%s)\n", e.message);
	own_close(&out);
	out = -1;
	assert_int_equal(unlink(file), 0);
	after = used; /* the kernel discards in the background after the commit, and tells nobody */
	for (int tries = 0; tries < 10000 && after >= used / 2; tries++) {
		assert_int_equal(syncfs(mount_fd), 0);
		assert_int_equal(poll(NULL, 0, 2), 0);
		assert_int_equal(volume_measure(path, &size, &after, &e), 0);
	}
	assert_true(after < used / 2);
	own_close(&mount_fd);
	mount_fd = -1;
	assert_int_equal(umount(at), 0);
	own_close(&loop);
	loop = -1;
	/* Another's new mount namespace can hold a copy of the mount for a moment, and with it the loop device and the lock. */
	for (int tries = 0; (r = volume_grow(path, 128 * MIB, &e)) == -EBUSY && tries < 10000; tries++)
		assert_int_equal(poll(NULL, 0, 10), 0);
	assert_int_equal(r, 0);
	check(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_made_at_once, setup, teardown),
		cmocka_unit_test_setup_teardown(test_taken_from_the_pool, setup, teardown),
		cmocka_unit_test_setup_teardown(test_pool_survives_and_drops_damaged, setup, teardown),
		cmocka_unit_test_setup_teardown(test_one_user, setup, teardown),
		cmocka_unit_test_setup_teardown(test_grow, setup, teardown),
		cmocka_unit_test_setup_teardown(test_copy_keeps_holes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_disk_full, setup, teardown),
		cmocka_unit_test_setup_teardown(test_mounted, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
