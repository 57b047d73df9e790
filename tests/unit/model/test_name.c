/* SPDX-License-Identifier: Apache-2.0 */
#include "../test.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/own.h"
#include "model/name.h"

static struct err e;

static void check_all(int (*check)(const char *, struct err *), const char *const *texts, bool good)
{
	for (; *texts; texts++)
		if ((check(*texts, &e) == 0) != good)
			fail_msg("'%s' was %s", *texts, good ? e.message : "accepted");
}

static void names(void **state)
{
	(void)state;
	static const char *const good[] = { "a", "0", "web-1", "a2345678901234567890123456789012345678901234567890123456789012",
					    NULL };
	static const char *const bad[] = { "", "-a", "a-", "A", "a.b", "a/b", "../x", "a b", "a\n", "\x1b[31m", "\xc3\xa9",
					   "a23456789012345678901234567890123456789012345678901234567890123456", NULL };
	check_all(name_check, good, true);
	check_all(name_check, bad, false);
}

static void image_names(void **state)
{
	(void)state;
	static const char *const good[] = { "debian", "debian:12", "lab/debian-12_x.y:Tag_1.2-3", "a/b/c", NULL };
	static const char *const bad[] = { "",  ":12",   "debian:", "/a",   "a/",  "a//b", "../a", "a/../b",
					   "A", "a:b:c", "a:-x",    "a..b", "a b", "a\n",  NULL };
	check_all(name_check_image, good, true);
	check_all(name_check_image, bad, false);
}

static void paths(void **state)
{
	(void)state;
	static const char *const good[] = { "/", "/a", "/srv/data", "/a/...", "/a b", NULL };
	static const char *const bad[] = {
		"", "a", "./a", "/a/../b", "/..", "/.", "/a/.", "//a", "/a//b", "/a\nb", "/a/", NULL
	};
	check_all(name_check_path, good, true);
	check_all(name_check_path, bad, false);
}

static void keys(void **state)
{
	(void)state;
	static const char *const good[] = { "A", "lab.example/owner", NULL };
	static const char *const bad[] = { "", "a=b", "a b", "a\t", NULL };
	check_all(name_check_key, good, true);
	check_all(name_check_key, bad, false);
}

static void ids_and_made_up_names(void **state)
{
	(void)state;
	char a[ID_SIZE], b[ID_SIZE];
	id_new(a);
	id_new(b);
	assert_true(id_valid(a));
	assert_string_not_equal(a, b);
	assert_false(id_valid("xyz"));
	assert_false(id_valid("0123456789ABCDEF"));
	for (int i = 0; i < 100; i++) {
		own_str char *name = name_make_up();
		assert_ok(name_check(name, &e), &e);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(names), cmocka_unit_test(image_names), cmocka_unit_test(paths),
					    cmocka_unit_test(keys), cmocka_unit_test(ids_and_made_up_names) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
