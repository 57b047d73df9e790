/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "../test.h"
#include "node/ids.h"

static void test_never_twice(void **state)
{
	struct ids *i = ids_new(1000000, 3);
	struct err e = { 0 };
	uint64_t id[4];

	(void)state;
	for (int k = 0; k < 3; k++)
		assert_ok(ids_take(i, &id[k], &e), &e);
	assert_int_equal(id[0], 1000000);
	assert_int_equal(id[1], 1065536);
	assert_fails(ids_take(i, &id[3], &e), &e, ERR_NO_CAPACITY, "all 3 ranges");
	ids_give_back(i, id[1]);
	assert_ok(ids_take(i, &id[3], &e), &e);
	assert_int_equal(id[3], id[1]);
	ids_free(i);
}

static void test_marked_from_records(void **state)
{
	struct ids *i = ids_new(1000000, 3);
	struct err e = { 0 };
	uint64_t id = 0;

	(void)state;
	assert_true(ids_mark(i, 1000000));
	assert_false(ids_mark(i, 1000000));
	assert_false(ids_mark(i, 1000001));
	assert_false(ids_mark(i, 5));
	assert_false(ids_mark(i, 1000000 + 3 * IDS_PER_RANGE));
	assert_ok(ids_take(i, &id, &e), &e);
	assert_int_equal(id, 1065536);
	ids_give_back(i, 77);
	assert_int_equal(ids_taken(i), 2);
	ids_free(i);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_never_twice), cmocka_unit_test(test_marked_from_records) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
