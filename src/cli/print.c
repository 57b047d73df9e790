/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two readers are served: programs get JSON or YAML, whole and unshortened, and people get tables. YAML is written here in its
 * plainest form, with everything that any version of YAML might take for something else quoted as JSON.
 *
 * Everything of others that reaches a terminal goes through print_escape, which knows nothing but UTF-8 and what terminals act
 * upon: C0, C1, and the marks that turn the direction of a text.
 */
#include "cli/print.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "base/mem.h"
#include "base/own.h"

/* Length of the valid UTF-8 sequence at p that is no control character (C0, DEL, C1); 0: none. */
static size_t printable(const unsigned char *p)
{
	if (p[0] >= 0x20 && p[0] < 0x7f)
		return 1;
	if (p[0] >= 0xc2 && p[0] <= 0xdf && (p[1] & 0xc0) == 0x80)
		return p[0] == 0xc2 && p[1] < 0xa0 ? 0 : 2;
	if ((p[0] & 0xf0) == 0xe0 && (p[1] & 0xc0) == 0x80 && (p[2] & 0xc0) == 0x80) {
		bool overlong = p[0] == 0xe0 && p[1] < 0xa0, surrogate = p[0] == 0xed && p[1] > 0x9f;
		bool direction = p[0] == 0xe2 && ((p[1] == 0x80 && p[2] >= 0xa8 && p[2] <= 0xae) ||
						  (p[1] == 0x81 && p[2] >= 0xa6 && p[2] <= 0xa9));
		return overlong || surrogate || direction ? 0 : 3;
	}
	if (p[0] >= 0xf0 && p[0] <= 0xf4 && (p[1] & 0xc0) == 0x80 && (p[2] & 0xc0) == 0x80 && (p[3] & 0xc0) == 0x80)
		return (p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f) ? 0 : 4;
	return 0;
}

void print_escape(struct str *out, const char *text)
{
	for (const char *p = text; *p;) {
		size_t n = printable((const unsigned char *)p);
		if (n)
			str_add(out, p, n);
		else
			str_printf(out, "\\x%02x", (unsigned char)*p);
		p += n ? n : 1;
	}
}

size_t print_width(const char *text)
{
	size_t width = 0;
	for (const char *p = text; *p; p++)
		width += (*p & 0xc0) != 0x80;
	return width;
}

/* --- JSON and YAML --- */

static void print_json(const json_t *json)
{
	(void)json_dumpf(json, stdout, JSON_INDENT(2) | JSON_ENCODE_ANY);
	(void)putchar('\n');
}

/* Plain where no reader of YAML 1.1 or 1.2 takes it for anything but this text. */
static bool yaml_plain(const char *text)
{
	static const char *const words[] = { "true", "false", "null", "yes", "no", "on", "off", "y", "n" };

	if (!*text || strlen(text) > 200 || strspn(text, "0123456789+-.~") > 0)
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(words); i++)
		if (strcasecmp(text, words[i]) == 0)
			return false;
	return strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./-+") == strlen(text);
}

static void yaml_scalar(const json_t *json)
{
	if (json_is_string(json) && yaml_plain(json_string_value(json)))
		(void)fputs(json_string_value(json), stdout);
	else
		(void)json_dumpf(json, stdout, JSON_ENCODE_ANY | JSON_REAL_PRECISION(15)); /* JSON is YAML */
}

static void yaml_value(const json_t *json, int depth, bool in_list);

static void yaml_member(const char *key, const json_t *value, int depth)
{
	json_t *name = json_string(key);
	yaml_scalar(name);
	json_decref(name);
	bool nested = (json_is_object(value) && json_object_size(value)) || (json_is_array(value) && json_array_size(value));
	(void)fputs(nested ? ":\n" : ": ", stdout);
	yaml_value(value, depth + (nested && json_is_object(value)), false);
}

static void indent(int depth) { (void)printf("%*s", depth * 2, ""); }

static void yaml_value(const json_t *json, int depth, bool in_list)
{
	const char *key;
	json_t *value;
	size_t i;

	if (json_is_object(json) && json_object_size(json)) {
		bool first = in_list;
		json_object_foreach((json_t *)(uintptr_t)json, key, value) {
			if (!first)
				indent(depth);
			first = false;
			yaml_member(key, value, depth);
		}
	} else if (json_is_array(json) && json_array_size(json)) {
		json_array_foreach(json, i, value) {
			indent(in_list && i == 0 ? 0 : depth);
			(void)fputs("- ", stdout);
			yaml_value(value, depth + 1, true);
		}
	} else {
		yaml_scalar(json);
		(void)putchar('\n');
	}
}

void print_yaml(const json_t *json) { yaml_value(json, 0, false); }

void print_object(const struct cli *cli, const json_t *json)
{
	if (cli->format == FORMAT_JSON)
		print_json(json);
	else
		print_yaml(json);
}

/* --- tables --- */

const json_t *json_at(const json_t *item, const char *path)
{
	own_str char *copy = mem_strdup(path);

	for (char *part = copy, *dot; item && part; part = dot) {
		dot = strchr(part, '.');
		if (dot)
			*dot++ = '\0';
		item = json_object_get(item, part);
	}
	return json_is_null(item) ? NULL : item;
}

const char *json_text_at(const json_t *item, const char *path, const char *without)
{
	const char *text = json_string_value(json_at(item, path));
	return text ? text : without;
}

static char *value_text(const json_t *value)
{
	if (json_is_string(value))
		return mem_strdup(json_string_value(value));
	return value ? json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT) : NULL;
}

static char *cell(const json_t *item, const struct column *c)
{
	const json_t *value = json_at(item, c->key);
	own_str char *text = c->text ? c->text(item, value) : value_text(value);
	struct str out = { 0 };

	print_escape(&out, text && *text ? text : "-");
	return str_take(&out);
}

static void print_row(char **cells, const size_t *widths, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		(void)fputs(cells[i], stdout);
		if (i + 1 < count)
			(void)printf("%*s", (int)(widths[i] - print_width(cells[i]) + 2), "");
	}
	(void)putchar('\n');
}

void print_list(const struct cli *cli, const json_t *items, const struct column *columns)
{
	size_t count = 0, rows = json_array_size(items) + 1, widths[16] = { 0 };

	if (cli->format != FORMAT_TABLE) {
		print_object(cli, items);
		return;
	}
	while (columns[count].title && count < ARRAY_SIZE(widths))
		count++;
	char **cells = mem_alloc_array(rows * count, sizeof *cells);
	for (size_t row = 0; row < rows; row++)
		for (size_t i = 0; i < count; i++) {
			char *text = row ? cell(json_array_get(items, row - 1), &columns[i]) : mem_strdup(columns[i].title);
			cells[row * count + i] = text;
			widths[i] = print_width(text) > widths[i] ? print_width(text) : widths[i];
		}
	for (size_t row = 0; row < rows; row++)
		print_row(cells + row * count, widths, count);
	for (size_t i = 0; i < rows * count; i++)
		free(cells[i]);
	free(cells);
}

/* --- texts --- */

static char *age_text(long long seconds)
{
	static const struct {
		const char *unit;
		long long seconds;
	} units[] = { { "day", 86400 }, { "hour", 3600 }, { "minute", 60 }, { "second", 1 } };

	if (seconds < 1)
		return mem_strdup("now");
	for (size_t i = 0; i < ARRAY_SIZE(units); i++) {
		long long n = seconds / units[i].seconds;
		if (n)
			return mem_printf("%lld %s%s ago", n, units[i].unit, n == 1 ? "" : "s");
	}
	return mem_strdup("now");
}

char *text_age(const json_t *item, const json_t *value)
{
	struct tm t = { 0 };
	(void)item;
	const char *text = json_string_value(value);

	if (json_is_integer(value)) /* milliseconds of Unix time */
		return age_text((long long)time(NULL) - (long long)json_integer_value(value) / 1000);
	if (!text || !strptime(text, "%Y-%m-%dT%H:%M:%S", &t))
		return NULL;
	return age_text((long long)time(NULL) - (long long)timegm(&t));
}

char *text_bytes(const json_t *item, const json_t *value)
{
	char out[32];
	(void)item;
	return json_is_integer(value) ? mem_strdup(str_bytes(out, sizeof out, (uint64_t)json_integer_value(value))) : NULL;
}

char *text_short(const json_t *item, const json_t *value)
{
	const char *text = json_string_value(value);
	(void)item;
	if (text && str_starts(text, "sha256:"))
		text += strlen("sha256:");
	return text ? mem_strndup(text, strnlen(text, 12)) : NULL;
}

char *text_labels(const json_t *item, const json_t *value)
{
	struct str out = { 0 };
	const char *key;
	json_t *text;
	(void)item;

	json_object_foreach((json_t *)(uintptr_t)value, key, text)
		str_printf(&out, "%s%s=%s", out.length ? "," : "", key, json_is_string(text) ? json_string_value(text) : "");
	return str_take(&out);
}
