/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. check_value() walks a value once, by the grammar of RFC 8259, with a bound on depth; only what it accepted is looked
 * into again, so the finders below need no checks of their own. The walk recurses at most QMP_DEPTH_MOST deep.
 */
#include "engine/qemu/qmp_message.h"

#include <stdlib.h>
#include <string.h>

struct cursor {
	const char *at, *end;
};

static void skip_space(struct cursor *c)
{
	while (c->at < c->end && (*c->at == ' ' || *c->at == '\t' || *c->at == '\r' || *c->at == '\n'))
		c->at++;
}

static bool take(struct cursor *c, char wanted)
{
	if (c->at >= c->end || *c->at != wanted)
		return false;
	c->at++;
	return true;
}

static bool is_hex(char ch) { return (ch >= '0' && ch <= '9') || (ch >= 'a' && ch <= 'f') || (ch >= 'A' && ch <= 'F'); }
static bool is_digit(char ch) { return ch >= '0' && ch <= '9'; }

static bool check_escape(struct cursor *c)
{
	if (c->at >= c->end)
		return false;
	char kind = *c->at++;
	if (kind != 'u')
		return strchr("\"\\/bfnrt", kind) && kind;
	for (int i = 0; i < 4; i++, c->at++)
		if (c->at >= c->end || !is_hex(*c->at))
			return false;
	return true;
}

static bool check_string(struct cursor *c)
{
	if (!take(c, '"'))
		return false;
	while (c->at < c->end && *c->at != '"') {
		if ((unsigned char)*c->at < 0x20)
			return false;
		if (*c->at++ == '\\' && !check_escape(c))
			return false;
	}
	return take(c, '"');
}

static bool check_digits(struct cursor *c)
{
	const char *from = c->at;

	while (c->at < c->end && is_digit(*c->at))
		c->at++;
	return c->at > from;
}

static bool check_number(struct cursor *c)
{
	(void)take(c, '-');
	if (!check_digits(c) || (take(c, '.') && !check_digits(c)))
		return false;
	if (!take(c, 'e') && !take(c, 'E'))
		return true;
	if (!take(c, '+'))
		(void)take(c, '-');
	return check_digits(c);
}

static bool check_word(struct cursor *c)
{
	static const char *const words[] = { "true", "false", "null" };

	for (size_t i = 0; i < 3; i++) {
		size_t n = strlen(words[i]);
		if ((size_t)(c->end - c->at) >= n && memcmp(c->at, words[i], n) == 0) {
			c->at += n;
			return true;
		}
	}
	return false;
}

static bool check_value(struct cursor *c, unsigned depth);

static bool check_list(struct cursor *c, bool object, unsigned depth)
{
	char closing = object ? '}' : ']';

	c->at++;
	skip_space(c);
	if (take(c, closing))
		return true;
	do {
		skip_space(c);
		if (object) {
			if (!check_string(c))
				return false;
			skip_space(c);
			if (!take(c, ':'))
				return false;
		}
		if (!check_value(c, depth + 1))
			return false;
		skip_space(c);
	} while (take(c, ','));
	return take(c, closing);
}

static bool check_value(struct cursor *c, unsigned depth)
{
	skip_space(c);
	if (c->at >= c->end || depth > QMP_DEPTH_MOST)
		return false;
	switch (*c->at) {
	case '{':
		return check_list(c, true, depth);
	case '[':
		return check_list(c, false, depth);
	case '"':
		return check_string(c);
	case 't':
	case 'f':
	case 'n':
		return check_word(c);
	default:
		return check_number(c);
	}
}

/* --- finding: the text was accepted --- */

static struct qmp_value take_value(struct cursor *c)
{
	skip_space(c);
	struct qmp_value v = { .at = c->at };
	(void)check_value(c, 0);
	v.length = (size_t)(c->at - v.at);
	return v;
}

bool qmp_member(struct qmp_value object, const char *key, struct qmp_value *ret_value)
{
	size_t n = strlen(key);

	if (!object.length) /* of an answer that has none, there is not even a place */
		return false;
	struct cursor c = { object.at, object.at + object.length };
	if (!take(&c, '{'))
		return false;
	while (c.at < c.end && *c.at != '}') {
		struct qmp_value name = take_value(&c);
		skip_space(&c);
		if (!take(&c, ':'))
			return false;
		struct qmp_value value = take_value(&c);
		if (name.length == n + 2 && memcmp(name.at + 1, key, n) == 0) {
			*ret_value = value;
			return true;
		}
		skip_space(&c);
		if (!take(&c, ','))
			return false;
	}
	return false;
}

bool qmp_text(struct qmp_value object, const char *key, char *out, size_t size)
{
	struct qmp_value v;

	if (!qmp_member(object, key, &v) || *v.at != '"' || v.length - 2 >= size)
		return false;
	size_t length = 0;
	for (const char *at = v.at + 1; at < v.at + v.length - 1; at++) {
		char ch = *at;
		if (ch == '\\') {
			at++;
			ch = strchr("\"\\/", *at) ? *at : '?';
			if (*at == 'u')
				at += 4;
		}
		out[length++] = ch >= 0x20 && ch < 0x7f ? ch : '?';
	}
	out[length] = '\0';
	return true;
}

bool qmp_number(struct qmp_value object, const char *key, uint64_t *ret_number)
{
	struct qmp_value v;
	uint64_t n = 0;

	if (!qmp_member(object, key, &v))
		return false;
	for (size_t i = 0; i < v.length; i++) {
		if (!is_digit(v.at[i]) || n > (UINT64_MAX - 9) / 10)
			return false;
		n = n * 10 + (uint64_t)(v.at[i] - '0');
	}
	*ret_number = n;
	return true;
}

bool qmp_true(struct qmp_value object, const char *key)
{
	struct qmp_value v;

	return qmp_member(object, key, &v) && v.length == 4 && memcmp(v.at, "true", 4) == 0;
}

int qmp_decode(const char *line, size_t length, struct qmp_message *ret_message, struct err *e)
{
	struct cursor c = { line, line + length };
	struct qmp_message m = { 0 };
	struct qmp_value all, error;

	if (length > QMP_LINE_LONGEST)
		return err_set(e, ERR_TOO_LARGE, "QEMU said %zu bytes in one line", length);
	skip_space(&c);
	all.at = c.at;
	bool whole = check_value(&c, 0);
	all.length = (size_t)(c.at - all.at);
	skip_space(&c);
	if (!whole || c.at != c.end || *all.at != '{')
		return err_set(e, ERR_CORRUPT, "QEMU said something that is not a JSON object");
	(void)qmp_number(all, "id", &m.id);
	if (qmp_member(all, "return", &m.value)) {
		m.kind = QMP_RETURN;
	} else if (qmp_member(all, "error", &error)) {
		m.kind = QMP_ERROR;
		(void)qmp_text(error, "class", m.name, sizeof m.name);
		if (!qmp_text(error, "desc", m.text, sizeof m.text))
			(void)memcpy(m.text, "no reason given", sizeof "no reason given");
	} else if (qmp_text(all, "event", m.name, sizeof m.name)) {
		m.kind = QMP_EVENT;
		(void)qmp_member(all, "data", &m.value);
	} else if (qmp_member(all, "QMP", &m.value)) {
		m.kind = QMP_GREETING;
	} else {
		return err_set(e, ERR_CORRUPT, "QEMU said neither answer nor event");
	}
	*ret_message = m;
	return 0;
}
