/* SPDX-License-Identifier: Apache-2.0 */
#include "../test.h"

#include <errno.h>
#include <string.h>

#include "base/err_json.h"

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

static void any_bytes_can_be_told_as_json(void **state)
{
	(void)state;
	/* a Latin-1 letter, half a character, an overlong slash, a surrogate, past U+10FFFF, and good ones of each length */
	static const struct {
		const char *said, *told;
	} cases[] = {
		{ "plain", "plain" },
		{ "caf\xe9", "caf\xef\xbf\xbd" },
		{ "a\xe2\x82", "a\xef\xbf\xbd\xef\xbf\xbd" },
		{ "\xc0\xaf", "\xef\xbf\xbd\xef\xbf\xbd" },
		{ "\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd" },
		{ "\xf4\x90\x80\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd" },
		{ "\xc3\xa9 \xe2\x82\xac \xf0\x9f\x93\x9a", "\xc3\xa9 \xe2\x82\xac \xf0\x9f\x93\x9a" },
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct err e;
		(void)err_set(&e, ERR_CONFLICT, "%s", cases[i].said);
		json_t *json = err_to_json(&e);
		assert_string_equal(json_string_value(json_object_get(json, "message")), cases[i].told);
		assert_string_equal(json_string_value(json_object_get(json, "kind")), "conflict");
		assert_null(json_object_get(json, "hint"));
		json_decref(json);
	}
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
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(kinds_are_named_once),      cmocka_unit_test(any_bytes_can_be_told_as_json),
		cmocka_unit_test(a_sentence_grows_outwards), cmocka_unit_test(long_texts_are_cut),
		cmocka_unit_test(nobody_needs_to_listen),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
