/* SPDX-License-Identifier: Apache-2.0 */
#include "../test.h"

#include <errno.h>
#include <string.h>

#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"

static void strings_grow(void **state)
{
	(void)state;
	own_strbuf struct str s = { 0 };
	assert_string_equal(str_text(&s), "");
	for (int i = 0; i < 1000; i++)
		str_printf(&s, "%d,", i % 10);
	assert_int_equal(s.length, 2000);
	str_drop_front(&s, 1998);
	assert_string_equal(s.bytes, "9,");
	str_add(&s, "a\0b", 3);
	assert_int_equal(s.length, 5);
	own_str char *taken = str_take(&s);
	assert_string_equal(taken, "9,a");
	own_str char *nothing = str_take(&s);
	assert_string_equal(nothing, "");
}

static void numbers_are_strict(void **state)
{
	(void)state;
	uint64_t n = 7;
	assert_int_equal(str_to_u64("0", 10, &n), 0);
	assert_int_equal(n, 0);
	assert_int_equal(str_to_u64("18446744073709551615", UINT64_MAX, &n), 0);
	assert_true(n == UINT64_MAX);
	n = 7;
	static const char *const bad[] = {
		"", "-1", "+1", " 1", "1 ", "0x1", "1.0", "18446744073709551616", "99999999999999999999999", "11"
	};
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_true(str_to_u64(bad[i], 10, &n) < 0);
	assert_int_equal(n, 7);
}

static void sizes_as_people_write_them(void **state)
{
	(void)state;
	static const struct {
		const char *text;
		uint64_t bytes;
	} good[] = { { "0", 0 },
		     { "4096", 4096 },
		     { "512M", 512ULL << 20 },
		     { "512MiB", 512ULL << 20 },
		     { "1.5G", 3ULL << 29 },
		     { "2k", 2048 },
		     { "3B", 3 },
		     { "16T", 16ULL << 40 } };
	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		uint64_t bytes = 1;
		assert_int_equal(str_parse_bytes(good[i].text, &bytes), 0);
		assert_true(bytes == good[i].bytes);
	}
	static const char *const bad[] = {
		"", "M", "-1M", "1.M", "1X", "1MM", "1.5", "1e3", "1 M", "99999999999999999999", "17179869184G", "1iB"
	};
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		uint64_t bytes = 1;
		if (str_parse_bytes(bad[i], &bytes) == 0)
			fail_msg("'%s' was taken as %llu", bad[i], (unsigned long long)bytes);
	}
	char out[16];
	assert_string_equal(str_bytes(out, sizeof out, 0), "0 B");
	assert_string_equal(str_bytes(out, sizeof out, 1536), "1.5 KiB");
	assert_string_equal(str_bytes(out, sizeof out, UINT64_MAX), "16.0 EiB");
}

static void rates_are_powers_of_1000(void **state)
{
	(void)state;
	static const struct {
		const char *text;
		uint64_t bits;
	} good[] = { { "10M", 10000000 }, { "10Mbit", 10000000 }, { "1.5G", 1500000000 },
		     { "64000", 64000 },  { "64000bit", 64000 },  { "2k", 2000 } };
	static const char *const bad[] = { "", "M", "10MiB", "10Mbits", "1.5", "-1", "10 M", "99999999999P", "10MB" };
	uint64_t bits;

	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		assert_int_equal(str_parse_rate(good[i].text, &bits), 0);
		assert_true(bits == good[i].bits);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		if (str_parse_rate(bad[i], &bits) == 0)
			fail_msg("'%s' was taken as %llu", bad[i], (unsigned long long)bits);
}

static void the_nearest_word_is_found(void **state)
{
	(void)state;
	static const char *const keys[] = { "image", "memory", "command", "labels" };
	assert_string_equal(str_nearest("imgae", keys, 4), "image");
	assert_string_equal(str_nearest("memroy", keys, 4), "memory");
	assert_string_equal(str_nearest("label", keys, 4), "labels");
	assert_null(str_nearest("zzzzzz", keys, 4));
	char huge[500];
	memset(huge, 'a', sizeof huge - 1);
	huge[sizeof huge - 1] = '\0';
	assert_null(str_nearest(huge, keys, 4));
	assert_int_equal(str_distance("kitten", "sitting", 9), 3);
}

static void prefixes_and_suffixes(void **state)
{
	(void)state;
	assert_true(str_eq(NULL, NULL));
	assert_false(str_eq(NULL, ""));
	assert_true(str_starts("sha256:aa", "sha256:"));
	assert_false(str_starts("sh", "sha"));
	assert_true(str_ends("a.tar.gz", ".gz"));
	assert_false(str_ends("z", ".gz"));
}

static void base64_has_padding(void **state)
{
	(void)state;
	/* RFC 4648, section 10; and bytes over 127 */
	static const char *const plain[] = { "", "f", "fo", "foo", "foob", "fooba", "foobar", "\xff\xfe\x80" };
	static const char *const coded[] = { "", "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy", "//6A" };

	for (size_t i = 0; i < sizeof plain / sizeof *plain; i++) {
		struct str text = { 0 };
		str_add_base64(&text, plain[i], strlen(plain[i]));
		assert_string_equal(str_text(&text), coded[i]);
		str_done(&text);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(strings_grow),
					    cmocka_unit_test(numbers_are_strict),
					    cmocka_unit_test(sizes_as_people_write_them),
					    cmocka_unit_test(rates_are_powers_of_1000),
					    cmocka_unit_test(the_nearest_word_is_found),
					    cmocka_unit_test(prefixes_and_suffixes),
					    cmocka_unit_test(base64_has_padding) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
