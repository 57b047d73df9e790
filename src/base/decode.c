/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. One generic walk per task (decode, encode, free, schema) over the field tables. Each field type has one function per
 * task that reads or writes `value + offset`. Errors carry the position of the value in its source; a value that came as JSON
 * from the API is dumped and parsed by the same reader, so that there is one decoder.
 */
#include "base/decode.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/str.h"

struct walk {
	const char *source;
	struct err *e;
};

static void *at(const struct field *f, const void *value) { return (char *)(uintptr_t)value + f->offset; }

static int fail(struct walk *w, const struct doc *d, const char *fmt, ...) format_printf(3, 4);
static int fail(struct walk *w, const struct doc *d, const char *fmt, ...)
{
	own_strbuf struct str text = { 0 };
	va_list args;
	va_start(args, fmt);
	str_vprintf(&text, fmt, args);
	va_end(args);
	return err_set(w->e, ERR_INVALID, "%s:%d:%d: %s", w->source, d->line, d->column, str_text(&text));
}

static const char *label(const struct doc *d) { return d->key ? d->key : "value"; }

/* --- scalars --- */

static int need_scalar(struct walk *w, const struct doc *d, const char *what)
{
	if (d->kind == DOC_SCALAR)
		return 0;
	return fail(w, d, "%s must be %s, not a %s", label(d), what, d->kind == DOC_LIST ? "list" : "map");
}

static int check_text(struct walk *w, const struct doc *d, const struct field *f, const char *text)
{
	size_t longest = f->max ? f->max : 4096;
	struct err inner;

	if (strlen(text) > longest)
		return fail(w, d, "%s has %zu characters, at most %zu are allowed", label(d), strlen(text), longest);
	if (f->check && f->check(text, &inner) < 0) {
		(void)fail(w, d, "%s: %s", label(d), inner.message);
		return inner.hint[0] ? err_hint(w->e, "%s", inner.hint) : -EINVAL;
	}
	return 0;
}

static int decode_text_field(struct walk *w, const struct doc *d, const struct field *f, void *value)
{
	int r = need_scalar(w, d, "a text");
	if (r == 0)
		r = check_text(w, d, f, d->text);
	if (r == 0)
		*(char **)at(f, value) = mem_strdup(d->text);
	return r;
}

static int decode_bool(struct walk *w, const struct doc *d, const struct field *f, void *value)
{
	bool yes = str_eq(d->text, "true");
	if (d->kind != DOC_SCALAR || d->quoted || (!yes && !str_eq(d->text, "false")))
		return fail(w, d, "%s must be true or false", label(d));
	*(bool *)at(f, value) = yes;
	return 0;
}

/* "1.5" as 1500; digits past the third decimal are rounded (JSON writers print 0.1 with 17 digits). */
static int parse_milli(const char *text, uint64_t *ret_milli)
{
	size_t digits = strspn(text, "0123456789"), decimals = 0;

	if (digits == 0 || digits > 15)
		return digits ? -ERANGE : -EINVAL;
	if (text[digits] == '.') {
		decimals = strspn(text + digits + 1, "0123456789");
		if (decimals == 0 || decimals > 20)
			return -EINVAL;
		digits += 1 + decimals;
	}
	if (text[digits])
		return -EINVAL;
	*ret_milli = (uint64_t)(strtod(text, NULL) * 1000 + 0.5);
	return 0;
}

int decode_duration(const char *text, uint64_t *ret_ms)
{
	static const struct {
		const char *suffix;
		uint64_t ms;
	} units[] = { { "ms", 1 }, { "s", 1000 }, { "m", 60000 }, { "h", 3600000 }, { "d", 86400000 }, { "", 1000 } };

	for (size_t i = 0; i < ARRAY_SIZE(units); i++) {
		if (!str_ends(text, units[i].suffix))
			continue;
		own_strbuf struct str number = { 0 };
		str_add(&number, text, strlen(text) - strlen(units[i].suffix));
		uint64_t milli;
		int r = parse_milli(str_text(&number), &milli);
		if (r < 0)
			return r;
		if (__builtin_mul_overflow(milli, units[i].ms, &milli))
			return -ERANGE;
		*ret_ms = milli / 1000;
		return 0;
	}
	return -EINVAL;
}

static const char *number_form(enum field_type type)
{
	switch (type) {
	case FIELD_RATE:
		return "a rate such as 10M or 1.5Gbit (bits a second)";
	case FIELD_BYTES:
		return "a size such as 512M or 2GiB";
	case FIELD_DURATION:
		return "a time such as 500ms, 10s, 5m, 2h or 1d";
	case FIELD_MILLI:
		return "a number such as 2 or 0.5";
	default:
		return "a whole number";
	}
}

static int decode_number(struct walk *w, const struct doc *d, const struct field *f, void *value)
{
	uint64_t number = 0;
	int r = need_scalar(w, d, number_form(f->type));
	if (r < 0)
		return r;
	if (f->type == FIELD_BYTES)
		r = str_parse_bytes(d->text, &number);
	else if (f->type == FIELD_RATE)
		r = str_parse_rate(d->text, &number);
	else if (f->type == FIELD_DURATION)
		r = decode_duration(d->text, &number);
	else if (f->type == FIELD_MILLI)
		r = parse_milli(d->text, &number);
	else
		r = str_to_u64(d->text, UINT64_MAX, &number);
	if (r == -EINVAL)
		return fail(w, d, "%s must be %s, not '%.40s'", label(d), number_form(f->type), d->text);
	bool plain = f->type == FIELD_NUMBER; /* others have units, which a bare limit would lack */
	if (plain && f->max && (r < 0 || number > f->max))
		return fail(w, d, "%s: %.40s is too large: at most %llu", label(d), d->text, (unsigned long long)f->max);
	if (r < 0 || number == UINT64_MAX || (f->max && number > f->max))
		return fail(w, d, "%s: %.40s is too large", label(d), d->text);
	if (plain && number < f->min)
		return fail(w, d, "%s: %.40s is too small: at least %llu", label(d), d->text, (unsigned long long)f->min);
	if (number < f->min)
		return fail(w, d, "%s: %.40s is too small", label(d), d->text);
	*(uint64_t *)at(f, value) = number;
	return 0;
}

static int decode_enum(struct walk *w, const struct doc *d, const struct field *f, void *value)
{
	own_strbuf struct str all = { 0 };
	unsigned count = 0;

	for (; f->names[count]; count++) {
		if (d->kind == DOC_SCALAR && str_eq(d->text, f->names[count])) {
			*(unsigned *)at(f, value) = count;
			return 0;
		}
		str_printf(&all, "%s%s", count ? ", " : "", f->names[count]);
	}
	(void)fail(w, d, "%s must be one of: %s", label(d), str_text(&all));
	const char *nearest = d->kind == DOC_SCALAR ? str_nearest(d->text, f->names, count) : NULL;
	return nearest ? err_hint(w->e, "did you mean '%s'?", nearest) : -EINVAL;
}

/* --- lists and maps --- */

static size_t count_children(const struct doc *d)
{
	size_t count = 0;
	for (const struct doc *c = d->first; c; c = c->next)
		count++;
	return count;
}

static int check_list(struct walk *w, const struct doc *d, const struct field *f, enum doc_kind kind, const char *what)
{
	size_t most = f->max ? f->max : 1024, count = count_children(d);
	if (d->kind != kind)
		return fail(w, d, "%s must be %s", label(d), what);
	if (count > most)
		return fail(w, d, "%s has %zu entries, at most %zu are allowed", label(d), count, most);
	return 0;
}

static int decode_texts(struct walk *w, const struct doc *d, const struct field *f, void *value)
{
	struct texts *list = at(f, value);
	int r = check_list(w, d, f, DOC_LIST, "a list of texts");
	const struct field element = { .max = 32768, .check = f->check };

	for (const struct doc *c = r == 0 ? d->first : NULL; c && r == 0; c = c->next) {
		r = need_scalar(w, c, "a text");
		if (r == 0)
			r = check_text(w, c, &element, c->text);
		if (r == 0)
			texts_add(list, c->text);
	}
	return r;
}

static int decode_pairs(struct walk *w, const struct doc *d, const struct field *f, void *value)
{
	struct pairs *pairs = at(f, value);
	int r = check_list(w, d, f, DOC_MAP, "a map of texts");
	const struct field element = { .max = 32768 };
	const struct field name = { .max = 256, .check = f->check };

	for (const struct doc *c = r == 0 ? d->first : NULL; c && r == 0; c = c->next) {
		r = need_scalar(w, c, "a text");
		if (r == 0)
			r = check_text(w, c, &name, c->key);
		if (r == 0)
			r = check_text(w, c, &element, c->text);
		if (r == 0)
			pairs_set(pairs, c->key, c->text);
	}
	return r;
}

static int decode_shape(struct walk *w, const struct doc *d, const struct shape *shape, void *value);

static int decode_object(struct walk *w, const struct doc *d, const struct field *f, void *value)
{
	void *object = mem_alloc(f->shape->size);
	*(void **)at(f, value) = object; /* freed with the whole value */
	return decode_shape(w, d, f->shape, object);
}

static int decode_objects(struct walk *w, const struct doc *d, const struct field *f, void *value)
{
	struct objects *list = at(f, value);
	int r = check_list(w, d, f, DOC_LIST, "a list");

	if (r < 0)
		return r;
	list->items = mem_alloc_array(count_children(d), f->shape->size);
	for (const struct doc *c = d->first; c && r == 0; c = c->next) {
		void *item = (char *)list->items + list->count++ * f->shape->size;
		r = decode_shape(w, c, f->shape, item);
	}
	return r;
}

static json_t *doc_to_json(const struct doc *d)
{
	if (d->kind == DOC_SCALAR) {
		json_t *plain = d->quoted ? NULL : json_loads(d->text, JSON_DECODE_ANY, NULL);
		if (!d->quoted && !plain && d->text[0] == '\0')
			plain = json_null();
		return plain ? plain : json_string(d->text);
	}
	json_t *json = d->kind == DOC_LIST ? json_array() : json_object();
	for (const struct doc *c = d->first; c; c = c->next)
		(void)(d->kind == DOC_LIST ? json_array_append_new(json, doc_to_json(c)) :
					     json_object_set_new(json, c->key, doc_to_json(c)));
	return json;
}

static int decode_field(struct walk *w, const struct doc *d, const struct field *f, void *value)
{
	switch (f->type) {
	case FIELD_TEXT:
		return decode_text_field(w, d, f, value);
	case FIELD_BOOL:
		return decode_bool(w, d, f, value);
	case FIELD_NUMBER:
	case FIELD_BYTES:
	case FIELD_RATE:
	case FIELD_DURATION:
	case FIELD_MILLI:
		return decode_number(w, d, f, value);
	case FIELD_ENUM:
		return decode_enum(w, d, f, value);
	case FIELD_TEXTS:
		return decode_texts(w, d, f, value);
	case FIELD_PAIRS:
		return decode_pairs(w, d, f, value);
	case FIELD_OBJECT:
		return decode_object(w, d, f, value);
	case FIELD_OBJECTS:
		return decode_objects(w, d, f, value);
	case FIELD_JSON:
		*(json_t **)at(f, value) = doc_to_json(d);
		return 0;
	}
	abort();
}

static void set_presets(const struct shape *shape, void *value)
{
	for (const struct field *f = shape->fields; f->key; f++) {
		switch (f->type) {
		case FIELD_BOOL:
			*(bool *)at(f, value) = f->preset;
			break;
		case FIELD_NUMBER:
		case FIELD_BYTES:
		case FIELD_RATE:
		case FIELD_DURATION:
		case FIELD_MILLI:
			*(uint64_t *)at(f, value) = f->preset;
			break;
		case FIELD_ENUM:
			*(unsigned *)at(f, value) = (unsigned)f->preset;
			break;
		default:
			break;
		}
	}
}

static int unknown_key(struct walk *w, const struct doc *d, const struct shape *shape)
{
	const char *keys[64];
	size_t count = 0;

	for (const struct field *f = shape->fields; f->key && count < ARRAY_SIZE(keys); f++)
		keys[count++] = f->key;
	(void)err_set(w->e, ERR_INVALID, "%s:%d:%d: unknown key '%.80s'", w->source, d->key_line, d->key_column, d->key);
	const char *nearest = str_nearest(d->key, keys, count);
	if (nearest)
		return err_hint(w->e, "did you mean '%s'?", nearest);
	own_strbuf struct str all = { 0 };
	for (size_t i = 0; i < count; i++)
		str_printf(&all, "%s%s", i ? ", " : "", keys[i]);
	return err_hint(w->e, "known keys: %s", str_text(&all));
}

static const struct field *field_named(const struct shape *shape, const char *key)
{
	for (const struct field *f = shape->fields; f->key; f++)
		if (strcmp(f->key, key) == 0)
			return f;
	return NULL;
}

static bool is_null(const struct doc *d)
{
	return d->kind == DOC_SCALAR && !d->quoted && (!*d->text || str_eq(d->text, "null") || str_eq(d->text, "~"));
}

static int decode_shape(struct walk *w, const struct doc *d, const struct shape *shape, void *value)
{
	int r = d->kind == DOC_MAP ? 0 : fail(w, d, "%s must be a map", label(d));
	struct err inner;

	set_presets(shape, value);
	for (const struct doc *c = r == 0 ? d->first : NULL; c && r == 0; c = c->next) {
		const struct field *f = field_named(shape, c->key);
		if (!f)
			r = shape->open ? 0 : unknown_key(w, c, shape);
		else if (!is_null(c) || f->type == FIELD_JSON)
			r = decode_field(w, c, f, value);
	}
	for (const struct field *f = shape->fields; f->key && r == 0; f++)
		if (f->required && (!doc_get(d, f->key) || is_null(doc_get(d, f->key))))
			r = fail(w, d, "key '%s' is missing", f->key);
	if (r == 0 && shape->check && shape->check(value, &inner) < 0) {
		r = fail(w, d, "%s", inner.message);
		if (inner.hint[0])
			r = err_hint(w->e, "%s", inner.hint);
	}
	return r;
}

int decode(const struct doc *d, const struct shape *shape, const char *source, void *ret_value, struct err *e)
{
	struct err scratch;
	struct walk w = { .source = source, .e = e ? e : &scratch };
	int r = decode_shape(&w, d, shape, ret_value);

	if (r < 0)
		shape_done(shape, ret_value);
	return r;
}

int decode_text(const char *bytes, size_t length, const char *source, const struct shape *shape, void *ret_value, struct err *e)
{
	own_doc struct doc *d = NULL;
	int r = doc_parse(bytes, length, source, NULL, &d, e);
	return r < 0 ? r : decode(d, shape, source, ret_value, e);
}

int decode_json(json_t *json, const char *source, const struct shape *shape, void *ret_value, struct err *e)
{
	char *text = json ? json_dumps(json, JSON_ENCODE_ANY) : NULL;
	if (!text)
		return err_set(e, ERR_INVALID, "%s: not a JSON value", source);
	int r = decode_text(text, strlen(text), source, shape, ret_value, e);
	free(text);
	return r;
}

/* --- the other way --- */

static json_t *milli_to_json(uint64_t milli)
{
	return milli % 1000 ? json_real((double)milli / 1000) : json_integer((json_int_t)(milli / 1000));
}

static json_t *number_to_json(const struct field *f, uint64_t number)
{
	if (number == f->preset && !f->required)
		return NULL;
	if (f->type == FIELD_MILLI || f->type == FIELD_DURATION)
		return milli_to_json(number);
	return json_integer((json_int_t)number);
}

static json_t *list_to_json(const struct field *f, const void *value)
{
	json_t *list = NULL;

	if (f->type == FIELD_TEXTS) {
		const struct texts *texts = at(f, value);
		list = json_array();
		for (size_t i = 0; i < texts->count; i++)
			(void)json_array_append_new(list, json_string(texts->items[i]));
	} else if (f->type == FIELD_PAIRS) {
		const struct pairs *pairs = at(f, value);
		list = json_object();
		for (size_t i = 0; i < pairs->count; i++)
			(void)json_object_set_new(list, pairs->items[i].key, json_string(pairs->items[i].value));
	} else {
		const struct objects *objects = at(f, value);
		list = json_array();
		for (size_t i = 0; i < objects->count; i++)
			(void)json_array_append_new(list, encode(f->shape, (char *)objects->items + i * f->shape->size));
	}
	bool empty = json_is_array(list) ? json_array_size(list) == 0 : json_object_size(list) == 0;
	if (empty && !f->required) {
		json_decref(list);
		return NULL;
	}
	return list;
}

static json_t *field_to_json(const struct field *f, const void *value)
{
	switch (f->type) {
	case FIELD_TEXT: {
		const char *text = *(char **)at(f, value);
		return text ? json_string(text) : NULL;
	}
	case FIELD_BOOL: {
		bool yes = *(bool *)at(f, value);
		return yes != (bool)f->preset || f->required ? json_boolean(yes) : NULL;
	}
	case FIELD_NUMBER:
	case FIELD_BYTES:
	case FIELD_RATE:
	case FIELD_DURATION:
	case FIELD_MILLI:
		return number_to_json(f, *(uint64_t *)at(f, value));
	case FIELD_ENUM: {
		unsigned chosen = *(unsigned *)at(f, value);
		return chosen != f->preset || f->required ? json_string(f->names[chosen]) : NULL;
	}
	case FIELD_TEXTS:
	case FIELD_PAIRS:
	case FIELD_OBJECTS:
		return list_to_json(f, value);
	case FIELD_OBJECT: {
		const void *object = *(void **)at(f, value);
		return object ? encode(f->shape, object) : NULL;
	}
	case FIELD_JSON:
		return json_incref(*(json_t **)at(f, value));
	}
	abort();
}

json_t *encode(const struct shape *shape, const void *value)
{
	json_t *json = json_object();

	for (const struct field *f = shape->fields; f->key; f++) {
		json_t *member = field_to_json(f, value);
		if (member)
			(void)json_object_set_new(json, f->key, member);
	}
	return json;
}

void shape_done(const struct shape *shape, void *value)
{
	for (const struct field *f = shape->fields; f->key; f++) {
		void *member = at(f, value);
		if (f->type == FIELD_TEXT) {
			free(*(char **)member);
		} else if (f->type == FIELD_TEXTS) {
			texts_done(member);
		} else if (f->type == FIELD_PAIRS) {
			pairs_done(member);
		} else if (f->type == FIELD_JSON) {
			json_decref(*(json_t **)member);
		} else if (f->type == FIELD_OBJECT && *(void **)member) {
			shape_done(f->shape, *(void **)member);
			free(*(void **)member);
		} else if (f->type == FIELD_OBJECTS) {
			struct objects *list = member;
			for (size_t i = 0; i < list->count; i++)
				shape_done(f->shape, (char *)list->items + i * f->shape->size);
			free(list->items);
		}
	}
	memset(value, 0, shape->size);
}

/* --- schema --- */

static json_t *reference(const struct shape *shape)
{
	own_strbuf struct str path = { 0 };
	str_printf(&path, "#/components/schemas/%s", shape->name);
	return json_pack("{s:s}", "$ref", str_text(&path));
}

static json_t *field_schema(const struct field *f)
{
	switch (f->type) {
	case FIELD_TEXT:
		return json_pack("{s:s, s:I}", "type", "string", "maxLength", (json_int_t)(f->max ? f->max : 4096));
	case FIELD_BOOL:
		return json_pack("{s:s}", "type", "boolean");
	case FIELD_NUMBER:
		return json_pack("{s:s, s:I}", "type", "integer", "minimum", (json_int_t)f->min);
	case FIELD_BYTES:
	case FIELD_RATE:
	case FIELD_DURATION:
	case FIELD_MILLI:
		return json_pack("{s:[s,s]}", "type", "number", "string");
	case FIELD_ENUM: {
		json_t *names = json_array();
		for (size_t i = 0; f->names[i]; i++)
			(void)json_array_append_new(names, json_string(f->names[i]));
		return json_pack("{s:s, s:o}", "type", "string", "enum", names);
	}
	case FIELD_TEXTS:
		return json_pack("{s:s, s:{s:s}}", "type", "array", "items", "type", "string");
	case FIELD_PAIRS:
		return json_pack("{s:s, s:{s:s}}", "type", "object", "additionalProperties", "type", "string");
	case FIELD_OBJECT:
		return reference(f->shape);
	case FIELD_OBJECTS:
		return json_pack("{s:s, s:o}", "type", "array", "items", reference(f->shape));
	case FIELD_JSON:
		return json_object();
	}
	abort();
}

json_t *shape_schema(const struct shape *shape)
{
	json_t *properties = json_object(), *required = json_array();

	for (const struct field *f = shape->fields; f->key; f++) {
		json_t *schema = field_schema(f);
		if (f->doc)
			(void)json_object_set_new(schema, "description", json_string(f->doc));
		(void)json_object_set_new(properties, f->key, schema);
		if (f->required)
			(void)json_array_append_new(required, json_string(f->key));
	}
	json_t *schema = json_pack("{s:s, s:o, s:b}", "type", "object", "properties", properties, "additionalProperties",
				   shape->open);
	if (shape->doc)
		(void)json_object_set_new(schema, "description", json_string(shape->doc));
	if (json_array_size(required))
		(void)json_object_set(schema, "required", required);
	json_decref(required);
	return schema;
}

/* --- the small containers --- */

void texts_add(struct texts *list, const char *text)
{
	list->items = mem_grow_array(list->items, list->count + 1, sizeof *list->items);
	list->items[list->count++] = mem_strdup(text);
}

void texts_done(struct texts *list)
{
	for (size_t i = 0; i < list->count; i++)
		free(list->items[i]);
	free(list->items);
	*list = (struct texts){ 0 };
}

const char *pairs_get(const struct pairs *p, const char *key)
{
	for (size_t i = 0; i < p->count; i++)
		if (strcmp(p->items[i].key, key) == 0)
			return p->items[i].value;
	return NULL;
}

void pairs_set(struct pairs *p, const char *key, const char *value)
{
	for (size_t i = 0; i < p->count; i++) {
		if (strcmp(p->items[i].key, key) != 0)
			continue;
		free(p->items[i].value);
		p->items[i].value = mem_strdup(value);
		return;
	}
	p->items = mem_grow_array(p->items, p->count + 1, sizeof *p->items);
	p->items[p->count++] = (struct pair){ .key = mem_strdup(key), .value = mem_strdup(value) };
}

void pairs_done(struct pairs *p)
{
	for (size_t i = 0; i < p->count; i++) {
		free(p->items[i].key);
		free(p->items[i].value);
	}
	free(p->items);
	*p = (struct pairs){ 0 };
}
