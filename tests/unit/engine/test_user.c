/* SPDX-License-Identifier: Apache-2.0 */
#include "../test.h"

#include <string.h>

#include "engine/workspace/user.h"

static const char passwd[] = "root:x:0:0:root:/root:/bin/sh\n"
			     "ann:x:1000:100::/home/ann:/bin/sh\n"
			     "broken\n"
			     "far:x:70000:1::/:/bin/sh\n"
			     "7:x:1007:1007::/seven:/bin/sh\n";
static const char group[] = "root:x:0:\nstaff:x:50:ann,bob\naudio:x:29:ann\nlast:x:77:bob\n";

static struct err e;
static struct user u;

static void test_by_name(void **state)
{
	(void)state;
	assert_ok(user_resolve("ann", passwd, group, &u, &e), &e);
	assert_int_equal(u.uid, 1000);
	assert_int_equal(u.gid, 100);
	assert_int_equal(u.group_count, 2);
	assert_int_equal(u.groups[0], 50);
	assert_int_equal(u.groups[1], 29);
	assert_string_equal(u.home, "/home/ann");
}

static void test_by_number(void **state)
{
	(void)state;
	assert_ok(user_resolve("1000", passwd, group, &u, &e), &e);
	assert_int_equal(u.gid, 100);
	assert_string_equal(u.home, "/home/ann");
	assert_ok(user_resolve("4711:29", passwd, group, &u, &e), &e);
	assert_int_equal(u.uid, 4711);
	assert_int_equal(u.gid, 29);
	assert_int_equal(u.group_count, 0);
	assert_string_equal(u.home, "/");
}

static void test_with_group(void **state)
{
	(void)state;
	assert_ok(user_resolve("ann:staff", passwd, group, &u, &e), &e);
	assert_int_equal(u.uid, 1000);
	assert_int_equal(u.gid, 50);
	assert_int_equal(u.group_count, 0);
}

static void test_root_without_files(void **state)
{
	(void)state;
	assert_ok(user_resolve("", "", "", &u, &e), &e);
	assert_int_equal(u.uid, 0);
	assert_string_equal(u.home, "/root");
}

static void test_unknown(void **state)
{
	(void)state;
	assert_fails(user_resolve("eve", passwd, group, &u, &e), &e, ERR_NOT_FOUND, "no user \"eve\"");
	assert_fails(user_resolve("ann:none", passwd, group, &u, &e), &e, ERR_NOT_FOUND, "no group \"none\"");
	assert_fails(user_resolve("far", passwd, group, &u, &e), &e, ERR_NOT_FOUND, "far");
	assert_fails(user_resolve("70000", passwd, group, &u, &e), &e, ERR_NOT_FOUND, "70000");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_by_name),		    cmocka_unit_test(test_by_number), cmocka_unit_test(test_with_group),
		cmocka_unit_test(test_root_without_files), cmocka_unit_test(test_unknown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
