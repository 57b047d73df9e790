/* SPDX-License-Identifier: Apache-2.0 */
#include "../test.h"

#include <string.h>

#include "base/doc.h"
#include "base/own.h"
#include "base/str.h"

static struct err e;

static int parse(const char *text, struct doc **ret) { return doc_parse(text, strlen(text), "t.yaml", NULL, ret, &e); }

static void positions_are_kept(void **state)
{
	(void)state;
	own_doc struct doc *d = NULL;
	assert_ok(parse("a: 1\nb:\n  - x\n  - \"y\"\n", &d), &e);
	const struct doc *b = doc_get(d, "b");
	assert_non_null(b);
	assert_int_equal(b->kind, DOC_LIST);
	assert_int_equal(b->first->next->line, 4);
	assert_int_equal(b->first->next->column, 5);
	assert_true(b->first->next->quoted);
	assert_false(b->first->quoted);
	assert_null(doc_get(d, "c"));
	assert_null(doc_get(b, "a"));
}

static void json_is_read_too(void **state)
{
	(void)state;
	own_doc struct doc *d = NULL;
	assert_ok(parse("{\"a\":[1,true,null,\"x\\u00e9\\n\"],\n\t\"b\":{}}", &d), &e);
	const struct doc *x = doc_get(d, "a")->first->next->next->next;
	assert_string_equal(x->text, "x\xc3\xa9\n");
	assert_int_equal(doc_get(d, "b")->kind, DOC_MAP);
}

static void dangerous_parts_are_refused(void **state)
{
	(void)state;
	static const struct {
		const char *text, *part;
	} bad[] = {
		{ "a: &x 1\n", "anchors" },
		{ "a: &x [1]\nb: *x\n", "anchors" },
		{ "a: !!binary aGk=\n", "tags" },
		{ "a: 1\na: 2\n", "t.yaml:2:1: key 'a' stands here a second time" },
		{ "? [a]\n: 1\n", "a key must be a plain word" },
		{ "<<: {a: 1}\n", "merge keys" },
		{ "a: 1\n---\nb: 2\n", "only one document" },
		{ "", "empty" },
		{ "a: \"\\0\"\n", "NUL" },
		{ "\"\\0\": a\n", "NUL" },
		{ "a: [1, 2\n", "t.yaml:" },
		{ "a: \xff\xfe\n", "t.yaml:" },
		{ "{\"a\":", "t.yaml:" },
		{ "\t- a", "t.yaml:" },
	};
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		struct doc *d = NULL;
		assert_fails(parse(bad[i].text, &d), &e, ERR_INVALID, bad[i].part);
		assert_null(d);
	}
}

static void limits_hold(void **state)
{
	(void)state;
	const struct doc_limits tight = { .bytes = 1000, .nodes = 10, .depth = 4 };
	struct doc *d = NULL;
	own_strbuf struct str text = { 0 };
	str_puts(&text, "[[[[[1]]]]]");
	assert_fails(doc_parse(text.bytes, text.length, "t", &tight, &d, &e), &e, ERR_INVALID, "nested too deeply");
	str_clear(&text);
	str_puts(&text, "[1,2,3,4,5,6,7,8,9,10]");
	assert_fails(doc_parse(text.bytes, text.length, "t", &tight, &d, &e), &e, ERR_INVALID, "too many values");
	str_clear(&text);
	for (int i = 0; i < 1001; i++)
		str_putc(&text, ' ');
	assert_fails(doc_parse(text.bytes, text.length, "t", &tight, &d, &e), &e, ERR_TOO_LARGE, "1001 bytes");
	str_clear(&text);
	for (int i = 0; i < 100000; i++)
		str_putc(&text, '[');
	assert_true(doc_parse(text.bytes, text.length, "t", NULL, &d, &e) < 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(positions_are_kept), cmocka_unit_test(json_is_read_too),
					    cmocka_unit_test(dangerous_parts_are_refused), cmocka_unit_test(limits_hold) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
