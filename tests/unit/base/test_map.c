/* SPDX-License-Identifier: Apache-2.0 */
#include "../test.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/map.h"
#include "base/mem.h"

/* Puts and removes at random beside a plain array that says what must be there. */
static void test_against_array(void **state)
{
	enum { KEYS = 500 };
	struct map m = { 0 };
	char *keys[KEYS];
	bool there[KEYS] = { 0 };

	(void)state;
	uint32_t random = 7; /* a linear congruential generator: the same sequence each time */
	for (int i = 0; i < KEYS; i++)
		keys[i] = mem_printf("key-%d", i);
	for (int round = 0; round < 20000; round++) {
		random = random * 1664525 + 1013904223;
		int i = (int)((random >> 8) % KEYS);
		if (random >> 31) {
			map_put(&m, keys[i], keys[i]);
			there[i] = true;
		} else {
			assert_ptr_equal(map_remove(&m, keys[i]), there[i] ? keys[i] : NULL);
			there[i] = false;
		}
	}
	size_t count = 0;
	for (int i = 0; i < KEYS; i++) {
		assert_ptr_equal(map_get(&m, keys[i]), there[i] ? keys[i] : NULL);
		count += there[i];
	}
	assert_int_equal(m.count, count);
	map_done(&m);
	for (int i = 0; i < KEYS; i++)
		free(keys[i]);
}

static void test_empty(void **state)
{
	struct map m = { 0 };
	(void)state;
	assert_null(map_get(&m, "a"));
	assert_null(map_remove(&m, "a"));
	map_done(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_empty), cmocka_unit_test(test_against_array) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
