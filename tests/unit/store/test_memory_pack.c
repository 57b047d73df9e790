/* SPDX-License-Identifier: Apache-2.0 */
/* What is packed is what is unpacked, also when it was ended in between; what was changed is refused. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fill.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/sparse.h"
#include "base/str.h"
#include "store/memory_pack.h"

#define MIB (UINT64_C(1) << 20)
#define LENGTH (9 * MIB + 5000)

static struct err e;
static int plain, packed, out;

static int new_file(void)
{
	int fd = memfd_create("test", MFD_CLOEXEC);
	assert_true(fd >= 0);
	return fd;
}

static int setup(void **unused)
{
	(void)unused;
	plain = new_file();
	packed = new_file();
	out = new_file();
	assert_return_code(ftruncate(plain, LENGTH), 0);
	fill(plain, 0, 3 * MIB, true);
	fill(plain, 4 * MIB + 4096 * 3, 8192, false); /* pages alone in their chunk */
	fill(plain, 5 * MIB - 4096, 4096 + 100, true); /* over a chunk's end */
	fill(plain, 7 * MIB, MIB, false);              /* is not compressed */
	fill(plain, 9 * MIB + 4096, 904, true);        /* the last page is short */
	return 0;
}

static int teardown(void **unused)
{
	(void)unused;
	own_close(&plain);
	own_close(&packed);
	own_close(&out);
	return 0;
}

static struct memory_pack_made pack(unsigned threads)
{
	const struct memory_pack_how how = { .taken_ms = 77, .sparse = true, .threads = threads };
	struct memory_pack_made made = { 0 };

	assert_ok(memory_pack_write(plain, packed, &how, &made, &e), &e);
	return made;
}

static int unpack(int to, unsigned threads)
{
	own_memory_pack struct memory_pack *p = NULL;
	int r = memory_pack_open(packed, &p, &e);

	return r < 0 ? r : memory_pack_read(p, to, threads, &e);
}

static void assert_same(void)
{
	struct digest was, is;
	struct stat st;

	assert_ok(hash_fd(plain, &was, &e), &e);
	assert_ok(hash_fd(out, &is, &e), &e);
	assert_true(digest_eq(&was, &is));
	assert_return_code(fstat(out, &st), 0);
	assert_true(st.st_size == (off_t)LENGTH && st.st_blocks * 512 < (off_t)(5 * MIB));
}

static void test_there_and_back(void **unused)
{
	struct digest sparse;
	struct stat st;

	(void)unused;
	struct memory_pack_made made = pack(3);
	assert_return_code(fstat(packed, &st), 0);
	assert_true(made.bytes == (uint64_t)st.st_size && made.bytes < 2 * MIB);
	assert_int_equal(made.kept, 0);
	assert_ok(sparse_hash_fd(plain, &sparse, &e), &e);
	assert_true(digest_eq(&sparse, &made.sparse));
	assert_ok(unpack(out, 3), &e);
	assert_same();
}

static void test_the_bytes_do_not_depend_on_threads(void **unused)
{
	struct digest one, many;

	(void)unused;
	(void)pack(1);
	assert_ok(hash_fd(packed, &one, &e), &e);
	assert_return_code(ftruncate(packed, 0), 0);
	(void)pack(7);
	assert_ok(hash_fd(packed, &many, &e), &e);
	assert_true(digest_eq(&one, &many));
}

static void test_it_goes_on_wherever_it_was_ended(void **unused)
{
	struct digest whole, again;
	uint64_t most = 0;

	(void)unused;
	struct memory_pack_made first = pack(2);
	assert_ok(hash_fd(packed, &whole, &e), &e);
	for (uint64_t cut = 0; cut <= first.bytes; cut += 60013) {
		assert_return_code(ftruncate(packed, (off_t)cut), 0);
		struct memory_pack_made made = pack(2);
		assert_true(made.kept >= most && made.bytes == first.bytes && digest_eq(&made.digest, &first.digest));
		assert_true(digest_eq(&made.sparse, &first.sparse));
		most = made.kept;
		assert_ok(hash_fd(packed, &again, &e), &e);
		assert_true(digest_eq(&whole, &again));
	}
	assert_int_equal(pack(2).kept, 7);
}

static void test_what_was_begun_for_another_state_is_not_gone_on_with(void **unused)
{
	const struct memory_pack_how how = { .taken_ms = 78, .threads = 2 };
	struct memory_pack_made made = pack(2);

	(void)unused;
	assert_return_code(ftruncate(packed, (off_t)made.bytes / 2), 0);
	fill(plain, 0, MIB, false);
	assert_ok(memory_pack_write(plain, packed, &how, &made, &e), &e);
	assert_int_equal(made.kept, 0);
	assert_ok(unpack(out, 2), &e);
	assert_same();
}

static void test_damage_in_the_unfinished_part_is_done_again(void **unused)
{
	struct memory_pack_made first = pack(2);
	char byte = 'x';

	(void)unused;
	assert_return_code(ftruncate(packed, (off_t)first.bytes - 300), 0);
	assert_int_equal(pwrite(packed, &byte, 1, 600), 1);
	struct memory_pack_made made = pack(2);
	assert_true(made.kept < 3 && digest_eq(&made.digest, &first.digest));
	assert_ok(unpack(out, 2), &e);
	assert_same();
}

/* Each byte of the parts that the format is made of, and every so many of what is stored. */
static void test_every_changed_bit_is_found(void **unused)
{
	uint64_t bytes = pack(2).bytes;

	(void)unused;
	for (uint64_t at = 0; at < bytes; at += at < 300 || at + 700 > bytes ? 1 : 4999) {
		uint8_t was, is;
		assert_int_equal(pread(packed, &was, 1, (off_t)at), 1);
		is = was ^ (uint8_t)(1 << (at % 8));
		assert_int_equal(pwrite(packed, &is, 1, (off_t)at), 1);
		int r = unpack(-1, 1);
		if (r >= 0 || (e.kind != ERR_CORRUPT && e.kind != ERR_UNSUPPORTED))
			fail_msg("byte %llu: %d %s", (unsigned long long)at, r, e.message);
		assert_int_equal(pwrite(packed, &was, 1, (off_t)at), 1);
	}
	assert_ok(unpack(-1, 1), &e);
}

static void test_every_other_length_is_refused(void **unused)
{
	uint64_t bytes = pack(2).bytes;

	(void)unused;
	assert_return_code(ftruncate(packed, (off_t)bytes + 1), 0);
	assert_fails(unpack(-1, 2), &e, ERR_CORRUPT, "packed memory");
	for (uint64_t cut = bytes - 1; cut > 0; cut -= cut > bytes - 800 || cut < 200 ? 1 : cut < 5200 ? cut - 199 : 5000) {
		assert_return_code(ftruncate(packed, (off_t)cut), 0);
		assert_fails(unpack(-1, 2), &e, ERR_CORRUPT, "packed memory");
	}
}

static void test_of_nothing(void **unused)
{
	(void)unused;
	assert_return_code(ftruncate(plain, 0), 0);
	assert_int_equal(pack(2).bytes, MEMORY_PACK_START_BYTES + MEMORY_PACK_FOOTER_BYTES);
	assert_ok(unpack(out, 2), &e);
	assert_return_code(ftruncate(packed, 0), 0);
	assert_return_code(ftruncate(plain, 3 * MIB), 0); /* zeros only */
	assert_int_equal(pack(2).bytes, MEMORY_PACK_START_BYTES + MEMORY_PACK_FOOTER_BYTES);
	assert_ok(unpack(out, 2), &e);
	assert_int_equal(lseek(out, 0, SEEK_END), 3 * MIB);
}

static void test_a_full_disk_is_told(void **unused)
{
	const struct memory_pack_how how = { .threads = 3 };
	struct memory_pack_made made;

	(void)unused;
	own_fd int full = open("/dev/full", O_RDWR | O_CLOEXEC);
	assert_true(full >= 0);
	assert_true(memory_pack_write(plain, full, &how, &made, &e) < 0);
	own_fd int reading = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	(void)pack(2);
	assert_true(unpack(reading, 3) < 0);
}

/* A chunk that could not be read is no hole in what the next call goes on with. */
static void test_a_chunk_that_failed_is_done_again(void **unused)
{
#ifdef CARREL_FAULTS
	const struct memory_pack_how how = { .taken_ms = 77, .threads = 7 };
	char plan[] = "/tmp/carrel-pack-XXXXXX";
	static const char fault[] = "memory.chunk EIO\n";

	(void)unused;
	own_fd int fd = mkstemp(plan);
	assert_true(fd >= 0);
	assert_int_equal(setenv("CARREL_FAULTS", plan, 1), 0);
	for (int i = 0; i < 20; i++) { /* which threads are where is up to them */
		struct memory_pack_made made;
		assert_return_code(ftruncate(packed, 0), 0);
		assert_return_code(ftruncate(out, 0), 0);
		assert_int_equal(pwrite(fd, fault, strlen(fault), 0), strlen(fault));
		assert_true(memory_pack_write(plain, packed, &how, &made, &e) < 0);
		(void)pack(2);
		assert_ok(unpack(out, 2), &e);
		assert_same();
	}
	assert_int_equal(unsetenv("CARREL_FAULTS"), 0);
	(void)unlink(plan);
#else
	(void)unused;
	print_message("built without fault points (-Dfaults=true)\n");
	skip();
#endif
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_there_and_back, setup, teardown),
		cmocka_unit_test_setup_teardown(test_the_bytes_do_not_depend_on_threads, setup, teardown),
		cmocka_unit_test_setup_teardown(test_it_goes_on_wherever_it_was_ended, setup, teardown),
		cmocka_unit_test_setup_teardown(test_what_was_begun_for_another_state_is_not_gone_on_with, setup, teardown),
		cmocka_unit_test_setup_teardown(test_damage_in_the_unfinished_part_is_done_again, setup, teardown),
		cmocka_unit_test_setup_teardown(test_every_changed_bit_is_found, setup, teardown),
		cmocka_unit_test_setup_teardown(test_every_other_length_is_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(test_of_nothing, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_full_disk_is_told, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_chunk_that_failed_is_done_again, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
