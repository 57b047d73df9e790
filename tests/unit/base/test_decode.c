/* SPDX-License-Identifier: Apache-2.0 */
#include "../test.h"

#include <stdlib.h>
#include <string.h>

#include "base/decode.h"
#include "base/own.h"
#include "base/str.h"

struct part {
	char *name;
	uint64_t size;
};
struct thing {
	char *name;
	bool on;
	uint64_t count, bytes, time_ms, milli;
	unsigned colour;
	struct texts list;
	struct pairs map;
	struct part *one;
	struct objects many;
	json_t *any;
};

static const char *const colours[] = { "red", "green", "blue", NULL };
static int check_name(const char *text, struct err *e)
{
	if (strchr(text, '!')) {
		(void)err_set(e, ERR_INVALID, "no exclamation marks");
		return err_hint(e, "calm down");
	}
	return 0;
}

static int check_thing(const void *value, struct err *e)
{
	const struct thing *t = value;
	return t->count == 13 ? err_set(e, ERR_INVALID, "13 brings bad luck") : 0;
}

#define P(m) offsetof(struct part, m)
static const struct field part_fields[] = { { "name", FIELD_TEXT, P(name), "n",
					      .required = true }, { "size", FIELD_BYTES, P(size), "s" }, { 0 } };
static const struct shape part_shape = { "part", sizeof(struct part), part_fields, "A part." };
#define T(m) offsetof(struct thing, m)
static const struct field thing_fields[] = {
	{ "name", FIELD_TEXT, T(name), "n", .max = 8, .check = check_name },
	{ "on", FIELD_BOOL, T(on), "o", .preset = true },
	{ "count", FIELD_NUMBER, T(count), "c", .min = 1, .max = 100, .preset = 5 },
	{ "bytes", FIELD_BYTES, T(bytes), "b" },
	{ "time", FIELD_DURATION, T(time_ms), "t" },
	{ "milli", FIELD_MILLI, T(milli), "m" },
	{ "colour", FIELD_ENUM, T(colour), "c", .names = colours, .preset = 1 },
	{ "list", FIELD_TEXTS, T(list), "l", .max = 3 },
	{ "map", FIELD_PAIRS, T(map), "m", .check = check_name },
	{ "one", FIELD_OBJECT, T(one), "o", .shape = &part_shape },
	{ "many", FIELD_OBJECTS, T(many), "m", .shape = &part_shape },
	{ "any", FIELD_JSON, T(any), "a" },
	{ 0 },
};
static const struct shape thing_shape = { "thing", sizeof(struct thing), thing_fields, "A thing.", check_thing };

static struct err e;
static int read_thing(const char *text, struct thing *t)
{
	*t = (struct thing){ 0 };
	return decode_text(text, strlen(text), "t.yaml", &thing_shape, t, &e);
}

static void every_type_is_read(void **state)
{
	(void)state;
	struct thing t;
	assert_ok(read_thing("name: n\non: false\ncount: 7\nbytes: 1.5K\ntime: 1.5s\nmilli: 0.25\ncolour: blue\nlist: [a, '']\n"
			     "map: {k: v, l: 1}\none: {name: p, size: 2}\nmany: [{name: q}, {name: r}]\nany: {x: [1, \"2\", "
			     "null]}\n",
			     &t),
		  &e);
	assert_string_equal(t.name, "n");
	assert_false(t.on);
	assert_int_equal(t.count, 7);
	assert_int_equal(t.bytes, 1536);
	assert_int_equal(t.time_ms, 1500);
	assert_int_equal(t.milli, 250);
	assert_int_equal(t.colour, 2);
	assert_int_equal(t.list.count, 2);
	assert_string_equal(pairs_get(&t.map, "l"), "1");
	assert_string_equal(t.one->name, "p");
	assert_string_equal(((struct part *)t.many.items)[1].name, "r");
	/* Encoding and decoding again changes nothing. */
	json_t *json = encode(&thing_shape, &t);
	struct thing again = { 0 };
	assert_ok(decode_json(json, "again", &thing_shape, &again, &e), &e);
	json_t *json_again = encode(&thing_shape, &again);
	assert_true(json_equal(json, json_again));
	assert_int_equal(again.milli, 250);
	json_decref(json);
	json_decref(json_again);
	shape_done(&thing_shape, &t);
	shape_done(&thing_shape, &again);
}

static void absence_leaves_presets(void **state)
{
	(void)state;
	struct thing t;
	assert_ok(read_thing("name: null\ncount: ~\n", &t), &e);
	assert_null(t.name);
	assert_true(t.on);
	assert_int_equal(t.count, 5);
	assert_int_equal(t.colour, 1);
	json_t *json = encode(&thing_shape, &t);
	assert_int_equal(json_object_size(json), 0);
	json_decref(json);
	shape_done(&thing_shape, &t);
}

static void what_is_wrong_is_said_with_its_place(void **state)
{
	(void)state;
	static const struct {
		const char *text, *part, *hint;
	} bad[] = {
		{ "nmae: x\n", "t.yaml:1:1: unknown key 'nmae'", "did you mean 'name'?" },
		{ "zzzzzzz: x\n", "unknown key 'zzzzzzz'", "known keys: name" },
		{ "name: 123456789\n", "at most 8", "" },
		{ "name: no!\n", "name: no exclamation marks", "calm down" },
		{ "name: [x]\n", "name must be a text, not a list", "" },
		{ "on: yes\n", "on must be true or false", "" },
		{ "on: 'true'\n", "on must be true or false", "" },
		{ "count: 0\n", "count: 0 is too small", "" },
		{ "count: 101\n", "count: 101 is too large", "" },
		{ "count: -1\n", "count must be a whole number, not '-1'", "" },
		{ "count: 13\n", "t.yaml:1:1: 13 brings bad luck", "" },
		{ "bytes: 5 apples\n", "bytes must be a size such as", "" },
		{ "bytes: 99999999999T\n", "too large", "" },
		{ "time: soon\n", "time must be a time such as", "" },
		{ "time: 99999999999999999d\n", "too large", "" },
		{ "milli: 1.\n", "milli must be a number such as", "" },
		{ "milli: .5\n", "milli must be a number such as", "" },
		{ "milli: 1e9\n", "milli must be a number such as", "" },
		{ "colour: bleu\n", "colour must be one of: red, green, blue", "did you mean 'blue'?" },
		{ "colour: [red]\n", "colour must be one of", "" },
		{ "list: x\n", "list must be a list of texts", "" },
		{ "list: [a, b, c, d]\n", "at most 3 are allowed", "" },
		{ "list: [[a]]\n", "must be a text, not a list", "" },
		{ "map: [a]\n", "map must be a map of texts", "" },
		{ "map: {a!: b}\n", "no exclamation marks", "" },
		{ "one: {size: 1}\n", "t.yaml:1:6: key 'name' is missing", "" },
		{ "one: x\n", "one must be a map", "" },
		{ "many: [{name: a}, {nam: b}]\n", "t.yaml:1:20: unknown key 'nam'", "" },
		{ "many: {name: a}\n", "many must be a list", "" },
		{ "- a\n", "value must be a map", "" },
	};
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		struct thing t, zero = { 0 };
		assert_fails(read_thing(bad[i].text, &t), &e, ERR_INVALID, bad[i].part);
		assert_memory_equal(&t, &zero, sizeof t);
		if (bad[i].hint[0] && !strstr(e.hint, bad[i].hint))
			fail_msg("hint \"%s\" for %s", e.hint, bad[i].text);
	}
}

static void fractions_survive_json(void **state)
{
	(void)state;
	for (uint64_t milli = 1; milli <= 5000; milli += 7) {
		struct thing t = { .milli = milli, .on = true, .count = 5, .colour = 1, .time_ms = milli }, back = { 0 };
		json_t *json = encode(&thing_shape, &t);
		assert_ok(decode_json(json, "x", &thing_shape, &back, &e), &e);
		assert_int_equal(back.milli, milli);
		assert_int_equal(back.time_ms, milli);
		json_decref(json);
		shape_done(&thing_shape, &back);
	}
}

static void the_schema_names_every_key(void **state)
{
	(void)state;
	json_t *schema = shape_schema(&thing_shape), *properties = json_object_get(schema, "properties");
	for (const struct field *f = thing_fields; f->key; f++)
		assert_non_null(json_object_get(properties, f->key));
	assert_true(json_is_false(json_object_get(schema, "additionalProperties")));
	assert_string_equal(json_string_value(json_object_get(json_object_get(properties, "one"), "$ref")),
			    "#/components/schemas/part");
	json_decref(schema);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(every_type_is_read), cmocka_unit_test(absence_leaves_presets),
					    cmocka_unit_test(what_is_wrong_is_said_with_its_place),
					    cmocka_unit_test(fractions_survive_json),
					    cmocka_unit_test(the_schema_names_every_key) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
