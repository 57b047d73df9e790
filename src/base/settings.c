/* SPDX-License-Identifier: Apache-2.0 */
/*
 * File and command line end in one decoding: the file is decoded for its own errors (with its lines), encoded again, overlaid
 * by the arguments and decoded once more. So every check of the table holds for the result wherever a value came from, and a
 * check of the whole sees both. Help and manual page print `example` as the default; the presets that are no numbers are set
 * by the caller.
 */
#include "base/settings.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"

static const char *placeholder(enum field_type type)
{
	switch (type) {
	case FIELD_BOOL:
		return "";
	case FIELD_NUMBER:
		return " N";
	case FIELD_RATE:
		return " RATE";
	case FIELD_BYTES:
		return " SIZE";
	case FIELD_DURATION:
		return " TIME";
	default:
		return " VALUE";
	}
}

static void help_line(struct str *out, const char *left, const char *doc, const char *example)
{
	str_printf(out, "  %-26s %s", left, doc);
	if (example)
		str_printf(out, " (%s)", example);
	str_putc(out, '\n');
}

void settings_help(const struct settings *s, struct str *out)
{
	str_printf(out, "Usage: %s [--SETTING VALUE]...\n%s\n\nSettings, also keys of the configuration file:\n", s->program,
		   s->what);
	for (const struct field *f = s->shape->fields; f->key; f++) {
		own_str char *left = mem_printf("--%s%s", f->key, placeholder(f->type));
		help_line(out, left, f->doc, f->example);
	}
	own_str char *where = mem_printf("configuration file (YAML; default %s)", s->config_path);
	str_puts(out, "\nOnly on the command line:\n");
	help_line(out, "--config FILE", where, NULL);
	help_line(out, "--help, --version", "print and end", NULL);
}

/* A dash may be taken for a hyphen, a dot at the start of a line for a request. */
static void roff(struct str *out, const char *text)
{
	bool line_start = true;

	for (; *text; text++) {
		if (line_start && (*text == '.' || *text == '\''))
			str_puts(out, "\\&");
		if (*text == '-' || *text == '\\')
			str_putc(out, '\\');
		str_putc(out, *text);
		line_start = *text == '\n';
	}
}

void settings_man(const struct settings *s, struct str *out)
{
	str_printf(out, ".TH %s 8 \"\" \"Carrel " CARREL_VERSION "\" \"Carrel\"\n.SH NAME\n", s->program);
	roff(out, s->program);
	str_puts(out, " \\- ");
	roff(out, s->what);
	str_puts(out, "\n.SH SYNOPSIS\n.B ");
	roff(out, s->program);
	str_puts(out, "\n[\\-\\-SETTING VALUE]...\n.SH DESCRIPTION\n");
	roff(out, s->description ? s->description : s->what);
	str_puts(out, "\n.SH SETTINGS\nEach may stand in the configuration file as \"key: value\" and on the command line, "
		      "which wins.\n");
	for (const struct field *f = s->shape->fields; f->key; f++) {
		str_puts(out, ".TP\n.B \\-\\-");
		roff(out, f->key);
		str_puts(out, placeholder(f->type));
		str_putc(out, '\n');
		roff(out, f->doc);
		if (f->example) {
			str_puts(out, "; default ");
			roff(out, f->example);
		}
		str_putc(out, '\n');
	}
	str_puts(out, ".SH FILES\n.TP\n.I ");
	roff(out, s->config_path);
	str_puts(out, "\nThe configuration file (YAML); another one is named by \\-\\-config.\n");
}

static const struct field *find_field(const struct shape *shape, const char *name, size_t length)
{
	for (const struct field *f = shape->fields; f->key; f++)
		if (strlen(f->key) == length && memcmp(f->key, name, length) == 0)
			return f;
	return NULL;
}

static int unknown(const struct settings *s, const char *argument, struct err *e)
{
	const char *keys[64] = { 0 };
	size_t count = 0;

	for (const struct field *f = s->shape->fields; f->key && count < ARRAY_SIZE(keys); f++)
		keys[count++] = f->key;
	own_str char *name = mem_strndup(argument + (str_starts(argument, "--") ? 2 : 0),
					 strcspn(argument, "=") - (str_starts(argument, "--") ? 2 : 0));
	const char *near = str_nearest(name, keys, count);
	(void)err_set(e, ERR_INVALID, "%s: unknown argument", argument);
	return near ? err_hint(e, "did you mean --%s? See %s --help", near, s->program) :
		      err_hint(e, "see %s --help", s->program);
}

static json_t *value_of(const struct field *f, const char *text)
{
	uint64_t number;

	if (f->type == FIELD_BOOL)
		return json_boolean(!text || str_eq(text, "true") || str_eq(text, "yes"));
	if (f->type == FIELD_NUMBER && str_to_u64(text, INT64_MAX, &number) == 0)
		return json_integer((json_int_t)number);
	return json_string(text);
}

struct arguments {
	json_t *given;
	const char *config;
	bool help, version, man;
};

static int read_one(const struct settings *s, int argc, char **argv, int *at, struct arguments *a, struct err *e)
{
	const char *argument = argv[*at];
	if (str_eq(argument, "--help") || str_eq(argument, "-h"))
		return a->help = true, 0;
	if (str_eq(argument, "--version"))
		return a->version = true, 0;
	if (str_eq(argument, "--man"))
		return a->man = true, 0;
	if (!str_starts(argument, "--"))
		return unknown(s, argument, e);
	size_t length = strcspn(argument + 2, "=");
	const char *value = argument[2 + length] ? argument + 2 + length + 1 : NULL;
	const struct field *f = find_field(s->shape, argument + 2, length);
	bool config = length == 6 && memcmp(argument + 2, "config", 6) == 0;
	if (!f && !config)
		return unknown(s, argument, e);
	if (!value && (config || f->type != FIELD_BOOL)) {
		if (*at + 1 >= argc)
			return err_set(e, ERR_INVALID, "%s needs a value", argument);
		value = argv[++*at];
	}
	if (config)
		a->config = value;
	else if (f->type == FIELD_TEXTS) {
		json_t *list = json_object_get(a->given, f->key);
		if (!list)
			(void)json_object_set_new(a->given, f->key, list = json_array());
		(void)json_array_append_new(list, json_string(value));
	} else {
		(void)json_object_set_new(a->given, f->key, value_of(f, value));
	}
	return 0;
}

static int merge(const struct settings *s, const struct arguments *a, void *ret_value, struct err *e)
{
	const char *path = a->config ? a->config : s->config_path;
	own_strbuf struct str text = { 0 };
	json_t *merged = NULL;
	int r = fs_read_file(AT_FDCWD, path, 1 << 20, &text, e);

	if (r == -ENOENT && !a->config)
		merged = json_object();
	else if (r < 0)
		return r;
	if (!merged) {
		r = decode_text(str_text(&text), text.length, path, s->shape, ret_value, e);
		if (r < 0)
			return r;
		merged = encode(s->shape, ret_value);
		shape_done(s->shape, ret_value);
	}
	(void)json_object_update(merged, a->given);
	r = decode_json(merged, "settings", s->shape, ret_value, e);
	json_decref(merged);
	return r;
}

int settings_read(const struct settings *s, int argc, char **argv, void *ret_value, struct err *e)
{
	struct arguments a = { .given = json_object() };
	int r = 0;

	for (int at = 1; at < argc && r == 0; at++)
		r = read_one(s, argc, argv, &at, &a, e);
	if (r == 0 && (a.help || a.man)) {
		own_strbuf struct str out = { 0 };
		(a.man ? settings_man : settings_help)(s, &out);
		(void)fputs(str_text(&out), stdout);
	} else if (r == 0 && a.version) {
		(void)printf("%s %s\n", s->program, CARREL_VERSION);
	} else if (r == 0) {
		r = merge(s, &a, ret_value, e);
	}
	json_decref(a.given);
	return r == 0 && (a.help || a.version || a.man) ? 1 : r;
}
