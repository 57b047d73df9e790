/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../test.h"
#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/proc.h"
#include "store/mount.h"

static char folder[64], hex[DIGEST_HEX_SIZE];
static char *store, *at;
static struct digest digest;
static struct err e;

static char *in(const char *name) { return mem_printf("%s/%s", folder, name); }

static int teardown(void **state)
{
	(void)state;
	int r = at ? mounts_clean(at, &e) : 0;
	free(TAKE(store));
	free(TAKE(at));
	return r < 0 ? r : fs_remove_tree(AT_FDCWD, folder, &e);
}

static int setup(void **state)
{
	(void)state;
	(void)snprintf(folder, sizeof folder, "/tmp/carrel-test-mount-XXXXXX");
	if (!mkdtemp(folder))
		return -1;
	store = in("store");
	at = in("mounts");
	own_str char *parts = in("store/partitions/sha256"), *tree = in("tree"), *file = in("tree/hello"), *image = in("image");
	const char *argv[] = { "mkfs.erofs", "--quiet", image, tree, NULL };
	if (fs_mkdirs(parts, 0755, &e) < 0 || fs_mkdirs(tree, 0755, &e) < 0 ||
	    fs_write_file(AT_FDCWD, file, "hi\n", 3, 0644, false, &e) < 0 || proc_run(argv, 65536, NULL, &e) < 0)
		return -1;
	own_fd int fd = open(image, O_RDONLY | O_CLOEXEC);
	if (hash_fd(fd, &digest, &e) < 0)
		return -1;
	own_str char *final = mem_printf("%s/%s", parts, digest_hex(&digest, hex));
	return rename(image, final);
}

static void need_root(void)
{
	if (geteuid() != 0) {
		print_message("# skipped: needs root to mount\n");
		skip();
	}
}

static bool is_mounted(void)
{
	own_str char *path = mem_printf("%s/%s/hello", at, hex);
	return fs_exists(AT_FDCWD, path);
}

static void mount_and_let_go(enum mount_how how)
{
	struct mounts *m = NULL;
	own_str char *path = NULL;

	need_root();
	assert_int_equal(mounts_open(store, at, how, &m, &e), 0);
	if (mount_ref(m, &digest, NULL, NULL, &path, &e) < 0) {
		print_message("# skipped: %s\n", e.message);
		mounts_free(m);
		skip();
	}
	assert_int_equal(mount_ref(m, &digest, NULL, NULL, NULL, &e), 0);
	assert_true(is_mounted());
	mount_unref(m, &digest);
	assert_int_equal(mounts_idle(m, 0), 0);
	assert_true(is_mounted());
	mount_unref(m, &digest);
	assert_true(mounts_idle(m, 100000) > 0);
	assert_true(is_mounted());
	assert_int_equal(mounts_idle(m, 0), 0);
	assert_false(is_mounted());
	assert_false(fs_exists(AT_FDCWD, path));
	mounts_free(m);
}

static void test_from_the_file(void **state)
{
	(void)state;
	mount_and_let_go(MOUNT_FILE);
}

static void test_from_a_loop_device(void **state)
{
	(void)state;
	mount_and_let_go(MOUNT_LOOP);
}

static void test_found_again(void **state)
{
	struct mounts *m = NULL;

	(void)state;
	need_root();
	assert_int_equal(mounts_open(store, at, MOUNT_AUTO, &m, &e), 0);
	assert_int_equal(mount_ref(m, &digest, NULL, NULL, NULL, &e), 0);
	mounts_free(m);
	assert_int_equal(mounts_open(store, at, MOUNT_AUTO, &m, &e), 0);
	assert_true(is_mounted());
	assert_int_equal(mount_ref(m, &digest, NULL, NULL, NULL, &e), 0);
	mount_unref(m, &digest);
	assert_int_equal(mounts_idle(m, 0), 0);
	assert_false(is_mounted());
	mounts_free(m);
}

static void test_taken_over_once(void **state)
{
	own_str char *path = mem_printf("%s/partitions/sha256/%s", store, hex);
	own_fd int first = -1, second = -1;
	struct stat st;

	(void)state;
	need_root();
	assert_int_equal(chown(path, 65534, 65534), 0);
	assert_int_equal(mount_take_over(store, &digest, NULL, NULL, &first, &e), 0);
	assert_int_equal(fstat(first, &st), 0);
	assert_int_equal(st.st_uid, 0);
	assert_int_equal(st.st_mode & 07777, 0444);
	int again = mount_take_over(store, &digest, NULL, NULL, &second, &e);
	if (again == 0)
		print_message("# not run: trusted attributes are not kept here\n");
	else
		assert_int_equal(again, 1);
}

static void test_wrong_content_is_refused(void **state)
{
	own_str char *path = mem_printf("%s/partitions/sha256/%s", store, hex);
	struct mounts *m = NULL;
	own_fd int fd = open(path, O_WRONLY | O_CLOEXEC);
	int out = -1;

	(void)state;
	need_root();
	assert_int_equal(mount_take_over(store, &digest, NULL, NULL, &out, &e), -EBUSY); /* a writer is left */
	assert_int_equal(pwrite(fd, "x", 1, 4000), 1);
	own_close(&fd);
	fd = -1;
	assert_int_equal(mounts_open(store, at, MOUNT_AUTO, &m, &e), 0);
	assert_true(mount_ref(m, &digest, NULL, NULL, NULL, &e) < 0);
	assert_int_equal(e.kind, ERR_CORRUPT);
	assert_false(is_mounted());
	struct digest absent = { .bytes = { 1 } };
	assert_int_equal(mount_ref(m, &absent, NULL, NULL, NULL, &e), -ENOENT);
	mounts_free(m);
}

/* A verified partition that was renamed to another digest's name is not taken for that one. */
static void test_renamed_is_refused(void **state)
{
	struct digest other = digest;
	char other_hex[DIGEST_HEX_SIZE];
	own_fd int fd = -1;
	int out = -1;

	(void)state;
	need_root();
	other.bytes[0] ^= 1;
	assert_int_equal(mount_take_over(store, &digest, NULL, NULL, &fd, &e), 0);
	own_str char *from = mem_printf("%s/partitions/sha256/%s", store, hex);
	own_str char *to = mem_printf("%s/partitions/sha256/%s", store, digest_hex(&other, other_hex));
	assert_int_equal(rename(from, to), 0);
	assert_int_equal(mount_take_over(store, &other, NULL, NULL, &out, &e), -EBADMSG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_from_the_file, setup, teardown),
		cmocka_unit_test_setup_teardown(test_from_a_loop_device, setup, teardown),
		cmocka_unit_test_setup_teardown(test_found_again, setup, teardown),
		cmocka_unit_test_setup_teardown(test_taken_over_once, setup, teardown),
		cmocka_unit_test_setup_teardown(test_wrong_content_is_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(test_renamed_is_refused, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
