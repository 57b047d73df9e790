/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "../test.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/proc.h"
#include "store/ext4_super.h"

#define FILE_BYTES (UINT64_C(64) << 20)

static uint8_t made[EXT4_SUPER_BYTES];
static struct err e;

/* Of a file system as volumes have it. */
static int setup(void **unused)
{
	char path[] = "/tmp/carrel-test-super-XXXXXX";
	own_fd int fd = mkstemp(path);
	const char *const argv[] = { "mkfs.ext4", "-q", "-F", "-b", "4096", "-m", "0", "-J", "size=4", path, NULL };

	(void)unused;
	int r = fd < 0 || ftruncate(fd, FILE_BYTES) < 0 || proc_run(argv, 65536, NULL, &e) < 0 ||
		pread(fd, made, sizeof made, EXT4_SUPER_AT) != sizeof made;
	(void)unlink(path);
	return r;
}

static void test_ours_is_taken(void **unused)
{
	struct ext4_super super;

	(void)unused;
	assert_int_equal(ext4_super_check(made, FILE_BYTES, &super, &e), 0);
	assert_int_equal(super.bytes, FILE_BYTES);
	assert_false(super.unfinished);
	assert_true(ext4_super_check(made, FILE_BYTES - 1, &super, &e) < 0);
}

static void test_what_was_not_unmounted_is_seen(void **unused)
{
	static const struct {
		size_t at;
		uint8_t set;
	} marks[] = { { 0x60, 0x4 }, { 0x66, 0x1 }, { 0x3a, 0x2 }, { 0xe8, 0x10 } };
	struct ext4_super super;

	(void)unused;
	for (size_t i = 0; i < ARRAY_SIZE(marks); i++) {
		uint8_t block[EXT4_SUPER_BYTES];
		memcpy(block, made, sizeof block);
		block[marks[i].at] |= marks[i].set;
		assert_int_equal(ext4_super_check(block, FILE_BYTES, &super, &e), 0);
		assert_true(super.unfinished);
	}
}

static void test_what_others_make_is_refused(void **unused)
{
	static const struct {
		size_t at;
		uint8_t value;
		enum err_kind kind;
	} changes[] = {
		{ 0x38, 0, ERR_CORRUPT },	{ 0x18, 3, ERR_UNSUPPORTED },  { 0x4c, 0, ERR_UNSUPPORTED },   { 0x59, 2,
		  ERR_UNSUPPORTED },
		{ 0x150, 1, ERR_CORRUPT },	{ 0x5c, 0x28, ERR_UNSUPPORTED }, { 0x61, 0x12, ERR_UNSUPPORTED }, { 0x65, 0x81,
		  ERR_UNSUPPORTED },
		{ 0xe0, 2, ERR_UNSUPPORTED },	{ 0xe4, 1, ERR_UNSUPPORTED },	 { 0x200, 'e', ERR_UNSUPPORTED },  { 0x23f, 'e',
		  ERR_UNSUPPORTED },
	};
	struct ext4_super super;

	(void)unused;
	for (size_t i = 0; i < ARRAY_SIZE(changes); i++) {
		uint8_t block[EXT4_SUPER_BYTES];
		memcpy(block, made, sizeof block);
		block[changes[i].at] = changes[i].value;
		assert_true(ext4_super_check(block, FILE_BYTES, &super, &e) < 0);
		assert_int_equal(e.kind, changes[i].kind);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ours_is_taken),
		cmocka_unit_test(test_what_was_not_unmounted_is_seen),
		cmocka_unit_test(test_what_others_make_is_refused),
	};
	return cmocka_run_group_tests(tests, setup, NULL);
}
