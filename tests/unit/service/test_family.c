/* SPDX-License-Identifier: Apache-2.0 */
#include "../test.h"
#include "service/family.h"
#include "service/workspace.h"

static struct assignment_origin of_first = { .workspace = (char[]){ "first" } },
				of_second = { .workspace = (char[]){ "second" } };

static void clones_are_found_by_their_original(void **state)
{
	struct families all = { 0 };
	struct workspace w[5] = { { .wish.origin = &of_first },
				  { .wish.origin = &of_second },
				  { 0 },
				  { .wish.origin = &of_first },
				  { .wish.origin = &of_first } };

	(void)state;
	assert_null(family_first(&all, "first"));
	for (size_t i = 0; i < sizeof w / sizeof *w; i++)
		family_join(&all, &w[i]);
	assert_ptr_equal(family_first(&all, "first"), &w[4]);
	assert_ptr_equal(w[4].next_clone, &w[3]);
	assert_ptr_equal(w[3].next_clone, &w[0]);
	assert_null(w[0].next_clone);
	assert_ptr_equal(family_first(&all, "second"), &w[1]);
	assert_null(w[1].next_clone);
	assert_null(family_first(&all, "third"));
	family_leave(&all, &w[3]); /* in the middle */
	assert_ptr_equal(w[4].next_clone, &w[0]);
	family_leave(&all, &w[4]); /* first */
	assert_ptr_equal(family_first(&all, "first"), &w[0]);
	family_leave(&all, &w[2]); /* is no clone */
	family_join(&all, &w[3]);
	family_leave(&all, &w[0]); /* last */
	assert_ptr_equal(family_first(&all, "first"), &w[3]);
	assert_null(w[3].next_clone);
	family_leave(&all, &w[3]);
	assert_null(family_first(&all, "first"));
	assert_ptr_equal(family_first(&all, "second"), &w[1]);
	family_leave(&all, &w[1]);
	families_done(&all);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(clones_are_found_by_their_original) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
