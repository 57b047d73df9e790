/* SPDX-License-Identifier: Apache-2.0 */
#include "../test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "service/network_pool.h"

/* Against a plain table of who has what: random takes and gives, in any order. */
static void it_agrees_with_a_table(void **state)
{
	enum { ROOM = 256 };
	bool taken[ROOM];
	struct pool p;
	struct texts reserved = { 0 };
	unsigned seed = 7;

	(void)state;
	texts_add(&reserved, "10.0.0.2-10.0.0.9");
	texts_add(&reserved, "10.0.0.64/28");
	texts_add(&reserved, "10.0.0.200");
	texts_add(&reserved, "fd00::1");
	texts_add(&reserved, "9.0.0.0-10.0.0.3");
	pool_init(&p, "10.0.0.0/24", &reserved);
	for (int i = 0; i < ROOM; i++)
		taken[i] = i < 10 || (i >= 64 && i < 80) || i == 200 || i == 255;
	for (int step = 0; step < 20000; step++) {
		uint64_t number = (uint64_t)(rand_r(&seed) % ROOM), lowest = 0, first = 0;
		if (rand_r(&seed) % 2) {
			assert_int_equal(pool_take(&p, number), !taken[number]);
			taken[number] = true;
		} else if (!(number < 10 || (number >= 64 && number < 80) || number == 200 || number == 255)) {
			pool_give(&p, number);
			taken[number] = false;
		}
		uint64_t left = 0;
		for (unsigned i = ROOM; i-- > 0;)
			if (!taken[i]) {
				first = i;
				left++;
			}
		assert_int_equal(pool_lowest(&p, &lowest), left > 0);
		assert_int_equal(lowest, first);
		assert_int_equal(pool_left(&p), left);
	}
	pool_done(&p);
	texts_done(&reserved);
}

static void large_pools_are_one_range(void **state)
{
	static const char *const prefixes[] = { "10.0.0.0/8", "fd00:88::/64", "fd00::/32", "fd00::/120" };
	static const char *const firsts[] = { "10.0.0.2/8", "fd00:88::2/64", "fd00::2/32", "fd00::2/120" };
	char text[POOL_TEXT_SIZE];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(prefixes); i++) {
		struct pool p;
		uint64_t number = 0;
		pool_init(&p, prefixes[i], NULL);
		assert_int_equal(p.count, 1);
		assert_true(pool_lowest(&p, &number));
		pool_text(&p, number, text);
		assert_string_equal(text, firsts[i]);
		uint64_t back = 0;
		assert_true(pool_number(&p, text, &back));
		assert_int_equal(back, number);
		assert_false(pool_number(&p, "11.0.0.1", &back));
		assert_false(pool_number(&p, "fd01::1", &back));
		assert_true(pool_take(&p, p.last - 1));
		assert_false(pool_take(&p, p.last - 1));
		assert_false(pool_take(&p, 0));
		assert_false(pool_take(&p, 1));
		pool_text(&p, p.last - 1, text);
		assert_true(pool_number(&p, text, &back));
		assert_int_equal(back, p.last - 1);
		pool_done(&p);
	}
}

static void everything_reserved_is_exhausted(void **state)
{
	struct texts reserved = { 0 };
	struct pool p;
	uint64_t number;

	(void)state;
	texts_add(&reserved, "10.0.0.0/8");
	pool_init(&p, "10.1.0.0/24", &reserved);
	assert_false(pool_lowest(&p, &number));
	assert_int_equal(p.room, 0);
	pool_done(&p);
	texts_done(&reserved);
}

static void prefixes_overlap(void **state)
{
	static const struct {
		const char *a, *b;
		bool yes;
	} cases[] = { { "10.0.0.0/8", "10.1.2.0/24", true },      { "10.0.0.0/24", "10.0.1.0/24", false },
		      { "10.0.0.0/23", "10.0.1.0/24", true },     { "fd00::/64", "fd00::/48", true },
		      { "fd00::/64", "10.0.0.0/8", false },       { "172.28.0.0/14", "172.31.255.0/24", true },
		      { "172.28.0.0/14", "172.32.0.0/24", false } };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		assert_int_equal(prefix_overlaps(cases[i].a, cases[i].b), cases[i].yes);
		assert_int_equal(prefix_overlaps(cases[i].b, cases[i].a), cases[i].yes);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(it_agrees_with_a_table),
		cmocka_unit_test(large_pools_are_one_range),
		cmocka_unit_test(everything_reserved_is_exhausted),
		cmocka_unit_test(prefixes_overlap),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
