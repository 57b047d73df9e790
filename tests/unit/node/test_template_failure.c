/* SPDX-License-Identifier: Apache-2.0 */
/* A template that a machine did not go on from: forgiven once, put away for a while, or for good. */
#include "../test.h"
#include "node/template_failure.h"

#define ONE "aaaa"
#define OTHER "bbbb"

static struct template_failure *list;

static int unmake(void **state)
{
	(void)state;
	template_failures_free(&list);
	return 0;
}

static void test_the_first_failure_is_forgiven(void **state)
{
	(void)state;
	assert_false(template_failures_add(&list, ONE, false, 1000));
	assert_true(template_failures_allow(list, ONE, 1000));
}

static void test_the_second_puts_it_away_for_a_while(void **state)
{
	(void)state;
	assert_false(template_failures_add(&list, ONE, false, 1000));
	assert_false(template_failures_add(&list, OTHER, false, 1000));
	assert_true(template_failures_add(&list, ONE, false, 2000));
	assert_false(template_failures_allow(list, ONE, 2000));
	assert_true(template_failures_allow(list, OTHER, 2000));
	assert_false(template_failures_allow(list, ONE, 2000 + TEMPLATE_REST_MS - 1));
	assert_true(template_failures_allow(list, ONE, 2000 + TEMPLATE_REST_MS));
	assert_false(template_failures_add(&list, ONE, false, 2000 + TEMPLATE_REST_MS)); /* the new one is another */
}

static void test_a_success_in_between(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 5; i++) {
		assert_false(template_failures_add(&list, ONE, false, 1000));
		template_failures_end(list, ONE);
	}
	template_failures_end(list, OTHER);
	assert_true(template_failures_allow(list, ONE, 1000));
}

static void test_a_state_that_does_not_load_is_not_made_again(void **state)
{
	(void)state;
	assert_true(template_failures_add(&list, ONE, true, 1000));
	assert_false(template_failures_allow(list, ONE, UINT64_MAX - 1));
	assert_false(template_failures_add(&list, ONE, false, 1000)); /* of one that began before it went */
	assert_true(template_failures_add(&list, ONE, false, 1000));
	template_failures_end(list, ONE);
	assert_false(template_failures_allow(list, ONE, UINT64_MAX - 1));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(test_the_first_failure_is_forgiven, unmake),
		cmocka_unit_test_teardown(test_the_second_puts_it_away_for_a_while, unmake),
		cmocka_unit_test_teardown(test_a_success_in_between, unmake),
		cmocka_unit_test_teardown(test_a_state_that_does_not_load_is_not_made_again, unmake),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
