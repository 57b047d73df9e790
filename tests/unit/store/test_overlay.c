/* SPDX-License-Identifier: Apache-2.0 */
/* Disks above partitions, and seeds, as our own reader and the reference (qemu-img, bsdtar) see them. */
#include "../test.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/proc.h"
#include "store/disk.h"
#include "store/overlay.h"
#include "store/seed.h"

static struct err e;
static char folder[] = "/tmp/carrel-overlay-XXXXXX";

static int setup(void **state)
{
	(void)state;
	return mkdtemp(folder) ? 0 : -1;
}

static int teardown(void **state)
{
	(void)state;
	return fs_remove_tree(AT_FDCWD, folder, &e);
}

static void test_an_empty_one_shows_what_is_below(void **state)
{
	own_str char *path = mem_printf("%s/a.qcow2", folder), *below = mem_printf("%s/below", folder);
	own_disk struct disk *base = NULL, *top = NULL;
	struct disk_window w;
	char text[16];
	uint64_t size = 0;

	(void)state;
	assert_int_equal(overlay_make(path, UINT64_C(3) << 30, &e), 1);
	assert_int_equal(overlay_make(path, 4096, &e), 0);
	assert_ok(overlay_measure(path, &size, &e), &e);
	assert_int_equal(size, UINT64_C(3) << 30);
	assert_ok(fs_write_file(AT_FDCWD, below, "what is below...", 16, 0600, false, &e), &e);
	own_fd int fd = open(path, O_RDONLY | O_CLOEXEC), below_fd = open(below, O_RDONLY | O_CLOEXEC);
	assert_ok(disk_window_of(below_fd, &w, &e), &e);
	assert_ok(disk_open(&w, DISK_RAW, NULL, &base, &e), &e);
	assert_ok(disk_window_of(fd, &w, &e), &e);
	assert_ok(disk_open(&w, DISK_QCOW2, base, &top, &e), &e);
	assert_int_equal(disk_bytes(top), UINT64_C(3) << 30);
	assert_ok(disk_read_all(top, 0, text, sizeof text, &e), &e);
	assert_memory_equal(text, "what is below...", 16);
	assert_ok(disk_read_all(top, UINT64_C(2) << 30, text, sizeof text, &e), &e);
	assert_memory_equal(text, "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 16);
}

static void test_it_grows_and_does_not_shrink(void **state)
{
	own_str char *path = mem_printf("%s/b.qcow2", folder);
	uint64_t size = 0;

	(void)state;
	assert_int_equal(overlay_make(path, 1 << 20, &e), 1);
	assert_ok(overlay_grow(path, UINT64_C(15) << 40, &e), &e);
	assert_ok(overlay_measure(path, &size, &e), &e);
	assert_int_equal(size, UINT64_C(15) << 40);
	assert_int_equal(overlay_grow(path, 1 << 20, &e), -EINVAL);
	assert_int_equal(overlay_make(path, UINT64_C(17) << 40, &e), -EFBIG);
	struct stat st;
	assert_int_equal(stat(path, &st), 0);
	assert_true(st.st_blocks * 512 < 64 << 10);
}

static void test_qemu_img_finds_no_fault(void **state)
{
	own_str char *path = mem_printf("%s/c.qcow2", folder);
	const char *const check[] = { "/usr/bin/qemu-img", "check", "-q", "-f", "qcow2", path, NULL };

	(void)state;
	if (access(check[0], X_OK) < 0) {
		print_message("qemu-img is not installed\n");
		skip();
	}
	assert_int_equal(overlay_make(path, UINT64_C(10) << 30, &e), 1);
	assert_ok(proc_run(check, 65536, NULL, &e), &e);
}

static void test_a_damaged_one_is_refused(void **state)
{
	own_str char *path = mem_printf("%s/d.qcow2", folder);
	uint64_t size;

	(void)state;
	assert_ok(fs_write_file(AT_FDCWD, path, "QFI", 3, 0600, false, &e), &e);
	assert_int_equal(overlay_measure(path, &size, &e), -EBADMSG);
}

static void test_a_seed_is_read_by_others(void **state)
{
	static const struct seed_file files[] = { { "meta-data", "m", 1 }, { "network-config", "n", 1 }, { "user-data", "#cloud-config\n", 14 } };
	own_str char *path = mem_printf("%s/seed.iso", folder);
	const char *const list[] = { "/usr/bin/bsdtar", "-tf", path, NULL }, *const read[] = { "/usr/bin/bsdtar", "-xOf", path, "user-data", NULL };
	own_strbuf struct str bytes = { 0 }, names = { 0 }, text = { 0 };

	(void)state;
	seed_write("cidata", files, 3, &bytes);
	assert_int_equal(bytes.length % 2048, 0);
	assert_memory_equal(bytes.bytes + 16 * 2048 + 40, "cidata ", 7);
	if (access(list[0], X_OK) < 0) {
		print_message("bsdtar is not installed\n");
		skip();
	}
	assert_ok(fs_write_file(AT_FDCWD, path, bytes.bytes, bytes.length, 0600, false, &e), &e);
	assert_ok(proc_run(list, 65536, &names, &e), &e);
	assert_string_equal(str_text(&names), ".\nmeta-data\nnetwork-config\nuser-data\n");
	assert_ok(proc_run(read, 65536, &text, &e), &e);
	assert_string_equal(str_text(&text), "#cloud-config\n");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_an_empty_one_shows_what_is_below), cmocka_unit_test(test_it_grows_and_does_not_shrink),
		cmocka_unit_test(test_qemu_img_finds_no_fault),		  cmocka_unit_test(test_a_damaged_one_is_refused),
		cmocka_unit_test(test_a_seed_is_read_by_others),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
