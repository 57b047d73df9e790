/* SPDX-License-Identifier: Apache-2.0 */
#include "../test.h"

#include <errno.h>
#include <string.h>

static void kinds_are_named_once(void **state)
{
	(void)state;
	for (int k = ERR_NONE; k < ERR_KIND_COUNT; k++) {
		assert_int_equal(err_kind_from_name(err_kind_name((enum err_kind)k)), k);
		if (k == ERR_NONE)
			continue;
		assert_in_range(err_kind_http_status((enum err_kind)k), 400, 599);
		assert_in_range(err_kind_exit_code((enum err_kind)k), 1, 124);
	}
	assert_int_equal(err_kind_from_name("nonsense"), ERR_INTERNAL);
	assert_int_equal(err_kind_http_status((enum err_kind)999), 500);
}

static void a_sentence_grows_outwards(void **state)
{
	(void)state;
	struct err e;
	assert_int_equal(err_errno(&e, ENOENT, "open %s", "/x"), -ENOENT);
	assert_int_equal(e.kind, ERR_NOT_FOUND);
	assert_int_equal(err_wrap(&e, "stage"), -ENOENT);
	assert_int_equal(err_hint(&e, "make it"), -ENOENT);
	assert_string_equal(e.message, "stage: open /x: No such file or directory");
	assert_string_equal(e.hint, "make it");
}

static void long_texts_are_cut(void **state)
{
	(void)state;
	struct err e;
	char text[4096];
	memset(text, 'x', sizeof text - 1);
	text[sizeof text - 1] = '\0';
	(void)err_set(&e, ERR_INVALID, "%s", text);
	assert_int_equal(strlen(e.message), sizeof e.message - 1);
	(void)err_wrap(&e, "%s", text);
	(void)err_errno(&e, EIO, "%s", text);
	assert_int_equal(strlen(e.message), sizeof e.message - 1);
}

static void nobody_needs_to_listen(void **state)
{
	(void)state;
	assert_int_equal(err_set(NULL, ERR_DENIED, "no"), -EACCES);
	assert_int_equal(err_errno(NULL, EPERM, "no"), -EPERM);
	assert_true(err_wrap(NULL, "no") < 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(kinds_are_named_once), cmocka_unit_test(a_sentence_grows_outwards),
					    cmocka_unit_test(long_texts_are_cut), cmocka_unit_test(nobody_needs_to_listen) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
