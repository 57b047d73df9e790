/* SPDX-License-Identifier: Apache-2.0 */
#include "../test.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/hash.h"
#include "base/own.h"

/* FIPS 180-4 examples. */
static const char empty_hex[] = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
static const char abc_hex[] = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

static void known_answers(void **state)
{
	(void)state;
	char hex[DIGEST_HEX_SIZE], text[DIGEST_TEXT_SIZE];
	struct digest d = hash_bytes("", 0);
	assert_string_equal(digest_hex(&d, hex), empty_hex);
	own_hash struct hash *h = hash_new();
	hash_add(h, "a", 1);
	hash_add(h, "bc", 2);
	d = hash_end(h);
	assert_string_equal(digest_hex(&d, hex), abc_hex);
	struct digest again = hash_end(h);
	assert_string_equal(digest_hex(&again, hex), empty_hex);
	assert_string_equal(digest_text(&d, text) + 7, abc_hex);
	assert_false(digest_eq(&d, &again));
}

static void a_file_is_hashed_from_its_start(void **state)
{
	(void)state;
	struct err e;
	struct digest d;
	char hex[DIGEST_HEX_SIZE];
	own_fd int fd = memfd_create("hash", MFD_CLOEXEC);
	assert_int_equal(write(fd, "abc", 3), 3);
	assert_ok(hash_fd(fd, &d, &e), &e);
	assert_string_equal(digest_hex(&d, hex), abc_hex);
	assert_int_equal(lseek(fd, 0, SEEK_CUR), 3);
	assert_fails(hash_fd(-1, &d, &e), &e, ERR_INTERNAL, "read to hash");
}

static void digests_are_parsed_strictly(void **state)
{
	(void)state;
	struct err e;
	struct digest d;
	char text[DIGEST_TEXT_SIZE + 8];
	(void)snprintf(text, sizeof text, "sha256:%s", abc_hex);
	assert_ok(digest_parse(text, &d, &e), &e);
	text[7] = 'B';
	assert_fails(digest_parse(text, &d, &e), &e, ERR_INVALID, "lower-case");
	(void)snprintf(text, sizeof text, "sha256:%s0", abc_hex);
	assert_fails(digest_parse(text, &d, &e), &e, ERR_INVALID, "64");
	assert_fails(digest_parse("sha256:", &d, &e), &e, ERR_INVALID, "64");
	assert_fails(digest_parse("sha512:00", &d, &e), &e, ERR_UNSUPPORTED, "sha512");
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(known_answers), cmocka_unit_test(a_file_is_hashed_from_its_start),
					    cmocka_unit_test(digests_are_parsed_strictly) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
