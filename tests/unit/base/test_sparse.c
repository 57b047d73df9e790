/* SPDX-License-Identifier: Apache-2.0 */
/* The digest of sparse files: holes are zeros, and everything else counts. */
#include "../test.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/sparse.h"

static struct err e;

static int make(off_t length)
{
	char path[] = "/tmp/carrel-test-sparse-XXXXXX";
	int fd = mkstemp(path);

	assert_true(fd >= 0 && unlink(path) == 0 && ftruncate(fd, length) == 0);
	return fd;
}

static struct digest digest_of(int fd)
{
	struct digest d;

	assert_ok(sparse_hash_fd(fd, &d, &e), &e);
	return d;
}

static void test_holes_are_zeros(void **state)
{
	(void)state;
	static const char zeros[5000];
	int a = make(5 * SPARSE_CHUNK + 77), b = make(5 * SPARSE_CHUNK + 77), shorter = make(5 * SPARSE_CHUNK + 76);
	struct digest of_a = digest_of(a), of_b = digest_of(b), of_shorter = digest_of(shorter);

	assert_true(digest_eq(&of_a, &of_b));
	assert_false(digest_eq(&of_a, &of_shorter));
	assert_int_equal(pwrite(b, zeros, sizeof zeros, 3 * SPARSE_CHUNK - 100), sizeof zeros);
	of_b = digest_of(b);
	assert_true(digest_eq(&of_a, &of_b));
	close(a);
	close(b);
	close(shorter);
}

static void test_every_byte_and_its_place_count(void **state)
{
	(void)state;
	static const off_t places[] = { 0, 1, SPARSE_CHUNK - 1, SPARSE_CHUNK, 3 * SPARSE_CHUNK + 5, 4 * SPARSE_CHUNK + 8 };
	struct digest seen[sizeof places / sizeof *places];
	int fd = make(4 * SPARSE_CHUNK + 9);

	for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
		assert_int_equal(pwrite(fd, "x", 1, places[i]), 1);
		seen[i] = digest_of(fd);
		assert_int_equal(pwrite(fd, "\0", 1, places[i]), 1);
		for (size_t k = 0; k < i; k++)
			assert_false(digest_eq(&seen[i], &seen[k]));
	}
	close(fd);
}

/* By hand: one chunk of "hello" and zeros in a file of one chunk. */
static void test_as_the_format_says(void **state)
{
	(void)state;
	int fd = make(SPARSE_CHUNK);
	uint8_t *chunk = calloc(1, SPARSE_CHUNK), bytes[48] = { 0 };

	assert_int_equal(pwrite(fd, "hello", 5, 0), 5);
	memcpy(chunk, "hello", 5);
	struct digest inner = hash_bytes(chunk, SPARSE_CHUNK);
	memcpy(bytes + 8, inner.bytes, 32);
	bytes[42] = 0x10; /* 1 MiB, little-endian */
	struct digest wanted = hash_bytes(bytes, sizeof bytes), got = digest_of(fd);
	assert_true(digest_eq(&wanted, &got));
	free(chunk);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_holes_are_zeros),
					    cmocka_unit_test(test_every_byte_and_its_place_count),
					    cmocka_unit_test(test_as_the_format_says) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
