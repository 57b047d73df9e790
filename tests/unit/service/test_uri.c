/* SPDX-License-Identifier: Apache-2.0 */
#include "../test.h"

#include <string.h>

#include "base/mem.h"
#include "service/uri.h"

static void test_parts(void **state)
{
	struct err e;
	struct uri u;

	(void)state;
	assert_ok(uri_parse("/v1/images/a%2Fb%3Ac?limit=10&after=x%20y&&follow", &u, &e), &e);
	assert_int_equal(u.segment_count, 3);
	assert_string_equal(u.segments[2], "a/b:c");
	assert_int_equal(u.query.count, 3);
	assert_string_equal(pairs_get(&u.query, "after"), "x y");
	assert_string_equal(pairs_get(&u.query, "follow"), "");
	uri_done(&u);
}

static void test_refusals(void **state)
{
	static const struct {
		const char *target, *part;
		enum err_kind kind;
	} cases[] = {
		{ "", "start with", ERR_INVALID },	 { "v1", "start with", ERR_INVALID },	  { "/v1//x", "empty part",
		  ERR_NOT_FOUND },
		{ "/v1/", "empty part", ERR_NOT_FOUND }, { "/%00", "control", ERR_INVALID },	  { "/%0a", "control",
		  ERR_INVALID },
		{ "/%", "two hex", ERR_INVALID },	 { "/%4", "two hex", ERR_INVALID },	  { "/%4g", "two hex",
		  ERR_INVALID },
		{ "/a?x=1&x=2", "twice", ERR_INVALID },	 { "/a?=1", "without a name", ERR_INVALID }, { "/a?x=%f", "two hex",
		  ERR_INVALID },
		{ "/1/2/3/4/5/6/7/8/9", "no such", ERR_NOT_FOUND },
	};
	struct err e;
	struct uri u;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		assert_fails(uri_parse(cases[i].target, &u, &e), &e, cases[i].kind, cases[i].part);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_parts), cmocka_unit_test(test_refusals) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
