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
#include "store/overlay_check.h"
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

static void put(int fd, uint64_t at, uint64_t value, size_t width)
{
	uint8_t bytes[8];

	for (size_t i = 0; i < width; i++)
		bytes[i] = (uint8_t)(value >> 8 * (width - 1 - i));
	assert_int_equal(pwrite(fd, bytes, width, (off_t)at), width);
}

static uint64_t get(int fd, uint64_t at, size_t width)
{
	uint8_t bytes[8];
	uint64_t value = 0;

	assert_int_equal(pread(fd, bytes, width, (off_t)at), width);
	for (size_t i = 0; i < width; i++)
		value = value << 8 | bytes[i];
	return value;
}

/* What QEMU wrote is accepted, each lie about it is not. */
static void test_one_from_elsewhere_is_checked(void **state)
{
	enum { BACKING = 8, BACKING_BYTES = 16, BITS = 20, SIZE = 24, CRYPT = 32, L1_COUNT = 36, L1 = 40, COUNTS = 48,
	       COUNTS_CLUSTERS = 56, SNAPSHOTS = 60, FEATURES = 72, EXTENSION = 104 };
	own_str char *path = mem_printf("%s/e.qcow2", folder);
	const char *const write[] = {
		"/usr/bin/qemu-io", "-f", "qcow2", "-c", "write -P 7 100k 1M", "-c", "write -z 8M 1M", "-c",
		"write 5G 3k",      path, NULL
	};
	const uint64_t gib = UINT64_C(1) << 30;

	(void)state;
	if (access(write[0], X_OK) < 0) {
		print_message("qemu-io is not installed\n");
		skip();
	}
	assert_int_equal(overlay_make(path, 10 * gib, &e), 1);
	own_fd int fd = open(path, O_RDWR | O_CLOEXEC);
	assert_ok(overlay_check(fd, 10 * gib, &e), &e);
	assert_int_equal(overlay_check(fd, 10 * gib + 512, &e), -EBADMSG); /* smaller than what lies below */
	assert_ok(proc_run(write, 65536, NULL, &e), &e);
	assert_ok(overlay_check(fd, gib, &e), &e);
	uint64_t l1 = get(fd, L1, 8), l2 = get(fd, l1, 8) & 0xfffffffffffe00, cluster = get(fd, l2 + 8, 8),
		 counts = get(fd, get(fd, COUNTS, 8), 8);
	const struct {
		uint64_t at, value;
		size_t width;
		int result;
	} lies[] = {
		{ 0, 0, 4, -EBADMSG }, { 4, 2, 4, -EBADMSG }, { BACKING, 0x200, 8, -EACCES }, { BACKING_BYTES, 11, 4, -EACCES },
		{ FEATURES, 4, 8, -EACCES }, { FEATURES, 2, 8, -EOPNOTSUPP }, { CRYPT, 2, 4, -EOPNOTSUPP }, { SNAPSHOTS, 1, 4,
		  -EOPNOTSUPP },
		{ EXTENSION, 0x44415441, 4, -EOPNOTSUPP }, { EXTENSION, 0x0537be77, 4, -EOPNOTSUPP }, { BITS, 9, 4,
		  -EOPNOTSUPP },
		{ SIZE, 10 * gib + 1, 8, -EBADMSG }, { SIZE, UINT64_MAX - 511, 8, -EBADMSG }, { SIZE, 4 * gib, 8,
		  -EBADMSG }, { L1_COUNT, 1, 4, -EBADMSG },
		{ L1_COUNT, UINT32_MAX, 4, -EBADMSG }, { L1, 0, 8, -EBADMSG }, { L1, l1 + 8, 8, -EBADMSG }, { L1, UINT64_MAX, 8,
		  -EBADMSG },
		{ COUNTS, l1, 8, -EBADMSG }, { COUNTS_CLUSTERS, 0, 4, -EBADMSG }, { COUNTS_CLUSTERS, 100000, 4, -EBADMSG },
		{ l1, l1, 8, -EBADMSG }, { l1, 1, 8, -EBADMSG }, { l1 + 30 * 8, l2, 8, -EBADMSG }, /* behind the disk's end */
		{ l2 + 8, get(fd, l2 + 16, 8), 8, -EBADMSG }, /* two parts of the disk at one place */
		{ l2 + 8, l2, 8, -EBADMSG }, { l2 + 8, UINT64_C(1) << 50, 8, -EBADMSG }, { l2 + 8, cluster | UINT64_C(1) << 62,
		  8, -EOPNOTSUPP },
		{ l2 + 8, cluster + 512, 8, -EBADMSG }, { counts + (l2 >> 16) * 2, 0, 2, -EBADMSG }, { counts + (l2 >> 16) * 2,
		  2, 2, -EBADMSG },
	};
	for (size_t i = 0; i < sizeof lies / sizeof lies[0]; i++) {
		uint64_t before = get(fd, lies[i].at, lies[i].width);
		put(fd, lies[i].at, lies[i].value, lies[i].width);
		int result = overlay_check(fd, gib, &e);
		if (result != lies[i].result)
			fail_msg("lie %zu: %d, %s", i, result, result < 0 ? e.message : "accepted");
		put(fd, lies[i].at, before, lies[i].width);
	}
	assert_ok(overlay_check(fd, gib, &e), &e);
	assert_int_equal(ftruncate(fd, (off_t)l2), 0);
	assert_int_equal(overlay_check(fd, gib, &e), -EBADMSG);
}

static void test_a_seed_is_read_by_others(void **state)
{
	static const struct seed_file files[] = { { "meta-data", "m", 1 },
						  { "network-config", "n", 1 },
						  { "user-data", "#cloud-config\n", 14 } };
	own_str char *path = mem_printf("%s/seed.iso", folder);
	const char *const list[] = { "/usr/bin/bsdtar", "-tf", path, NULL }, *const read[] = { "/usr/bin/bsdtar", "-xOf", path,
											       "user-data", NULL };
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
		cmocka_unit_test(test_one_from_elsewhere_is_checked),	  cmocka_unit_test(test_a_seed_is_read_by_others),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
