/* SPDX-License-Identifier: Apache-2.0 */
#include "../test.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"

static char folder[] = "/tmp/carrel-test-fs-XXXXXX";
static int folder_fd = -1;

static int setup(void **state)
{
	(void)state;
	if (!mkdtemp(folder))
		return -1;
	folder_fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return folder_fd < 0 ? -1 : 0;
}

static int teardown(void **state)
{
	(void)state;
	struct err e;
	(void)close(folder_fd);
	return fs_remove_tree(AT_FDCWD, folder, &e);
}

static void a_file_is_replaced_whole(void **state)
{
	(void)state;
	struct err e;
	own_strbuf struct str content = { 0 };
	for (int round = 0; round < 2; round++) {
		str_done(&content);
		assert_ok(fs_write_file(folder_fd, "f", round ? "second" : "first", round ? 6 : 5, 0640, round, &e), &e);
		assert_ok(fs_read_file(folder_fd, "f", 100, &content, &e), &e);
		assert_string_equal(content.bytes, round ? "second" : "first");
	}
	struct stat st;
	assert_int_equal(fstatat(folder_fd, "f", &st, 0), 0);
	assert_int_equal(st.st_mode & 0777, 0640);
	assert_fails(fs_write_file(folder_fd, "no/such/folder", "x", 1, 0600, false, &e), &e, ERR_NOT_FOUND, "no/such/folder");
}

static void all_of_it_or_an_error(void **state)
{
	(void)state;
	struct err e;
	char bytes[8] = { 0 };
	own_fd int fd = openat(folder_fd, "placed", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	own_fd int reads_only = openat(folder_fd, "placed", O_RDONLY | O_CLOEXEC);
	assert_ok(fs_pwrite_all(fd, "place", 5, 100, "it", &e), &e);
	assert_ok(fs_pread_all(fd, bytes, 5, 100, "it", &e), &e);
	assert_string_equal(bytes, "place");
	assert_ok(fs_pread_all(fd, bytes, 0, 1000, "it", &e), &e);
	assert_fails(fs_pread_all(fd, bytes, 8, 100, "the file", &e), &e, ERR_CORRUPT, "the file is cut off at byte 105");
	assert_true(fs_pwrite_all(reads_only, "x", 1, 0, "the file", &e) < 0 && strstr(e.message, "write the file"));
	assert_true(fs_pread_all(folder_fd, bytes, 1, 0, "the folder", &e) < 0 && strstr(e.message, "read the folder"));
}

static void limits_hold(void **state)
{
	(void)state;
	struct err e;
	own_strbuf struct str content = { 0 };
	own_str char *big = mem_alloc(20000);
	assert_ok(fs_write_file(folder_fd, "big", big, 20000, 0600, false, &e), &e);
	assert_fails(fs_read_file(folder_fd, "big", 19999, &content, &e), &e, ERR_TOO_LARGE, "19999");
	assert_null(content.bytes);
	assert_ok(fs_read_file(folder_fd, "big", 20000, &content, &e), &e);
	assert_int_equal(content.length, 20000);
}

static void trees_go_and_links_stay_unfollowed(void **state)
{
	(void)state;
	struct err e;
	own_str char *deep = mem_printf("%s/t/a/b/c", folder);
	assert_ok(fs_mkdirs(deep, 0755, &e), &e);
	assert_ok(fs_mkdirs(deep, 0755, &e), &e);
	own_str char *kept = mem_printf("%s/kept", folder);
	assert_ok(fs_mkdirs(kept, 0755, &e), &e);
	assert_ok(fs_write_file(folder_fd, "kept/file", "x", 1, 0600, false, &e), &e);
	assert_int_equal(symlinkat("../../kept", folder_fd, "t/a/link"), 0);
	assert_ok(fs_remove_tree(folder_fd, "t", &e), &e);
	assert_false(fs_exists(folder_fd, "t"));
	assert_true(fs_exists(folder_fd, "kept/file"));
	assert_ok(fs_remove_tree(folder_fd, "t", &e), &e);
	assert_int_equal(symlinkat("kept", folder_fd, "l"), 0);
	int fd = -1;
	assert_true(fs_open_dir(folder_fd, "l", &fd, &e) < 0);
	assert_ok(fs_remove_tree(folder_fd, "l", &e), &e);
	assert_true(fs_exists(folder_fd, "kept/file"));
}

static void the_end_of_a_folder_is_no_error_and_an_error_no_end(void **state)
{
	(void)state;
	struct err e;
	struct dirent *entry = NULL;
	own_str char *path = mem_printf("%s/listed", folder);
	assert_ok(fs_mkdirs(path, 0755, &e), &e);
	assert_ok(fs_write_file(folder_fd, "listed/.one", "x", 1, 0600, false, &e), &e);
	own_dir DIR *dir = opendir(path);
	assert_non_null(dir);
	assert_int_equal(fs_next_entry(dir, &entry, &e), 1);
	assert_string_equal(entry->d_name, ".one"); /* and neither . nor .. */
	errno = EIO;
	assert_int_equal(fs_next_entry(dir, &entry, &e), 0);
	own_dir DIR *broken = opendir(path);
	own_fd int file = openat(folder_fd, "listed/.one", O_RDONLY | O_CLOEXEC);
	assert_return_code(dup3(file, dirfd(broken), O_CLOEXEC), 0);
	assert_fails(fs_next_entry(broken, &entry, &e), &e, ERR_INTERNAL, "read a folder");
}

static void a_file_is_the_same_until_it_is_written_or_replaced(void **state)
{
	(void)state;
	struct err e;
	struct stat before, after;
	assert_ok(fs_write_file(folder_fd, "same", "one", 3, 0600, false, &e), &e);
	assert_return_code(fstatat(folder_fd, "same", &before, 0), 0);
	assert_true(fs_same_file(&before, &before));
	assert_ok(fs_write_file(folder_fd, "same", "two", 3, 0600, false, &e), &e);
	assert_return_code(fstatat(folder_fd, "same", &after, 0), 0);
	assert_false(fs_same_file(&before, &after));
	before = after;
	const struct timespec times[2] = { { .tv_nsec = UTIME_OMIT }, { .tv_sec = 1 } };
	assert_return_code(utimensat(folder_fd, "same", times, 0), 0);
	assert_return_code(fstatat(folder_fd, "same", &after, 0), 0);
	assert_false(fs_same_file(&before, &after));
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(a_file_is_replaced_whole), cmocka_unit_test(limits_hold), cmocka_unit_test(all_of_it_or_an_error),
					    cmocka_unit_test(trees_go_and_links_stay_unfollowed),
					    cmocka_unit_test(a_file_is_the_same_until_it_is_written_or_replaced),
					    cmocka_unit_test(the_end_of_a_folder_is_no_error_and_an_error_no_end) };
	return cmocka_run_group_tests(tests, setup, teardown);
}
