/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/own.h"
#include "cli/print.h"

static void add_members(struct str *line, const json_t *object)
{
	const char *key;
	json_t *value;

	json_object_foreach((json_t *)(uintptr_t)object, key, value) {
		if (str_eq(key, "at") || str_eq(key, "kind") || str_eq(key, "body") || json_is_null(value))
			continue;
		own_str char *text = json_is_string(value) ? mem_strdup(json_string_value(value)) :
							     json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
		str_putc(line, ' ');
		print_escape(line, key);
		str_putc(line, '=');
		print_escape(line, text);
	}
}

/* One line for people: time, kind, what it is about, the rest. */
static void print_line(const json_t *event)
{
	own_strbuf struct str line = { 0 };

	print_escape(&line, json_text_at(event, "at", "-"));
	str_putc(&line, ' ');
	print_escape(&line, json_text_at(event, "kind", "-"));
	add_members(&line, event);
	add_members(&line, json_object_get(event, "body"));
	(void)puts(line.bytes);
}

static int print_event(void *data, const json_t *event)
{
	const struct cli *cli = data;

	if (cli->format == FORMAT_JSON) {
		(void)json_dumpf(event, stdout, JSON_COMPACT);
		(void)putchar('\n');
	} else if (cli->format == FORMAT_YAML) {
		(void)puts("---");
		print_yaml(event);
	} else {
		print_line(event);
	}
	return fflush(stdout) != 0;
}

/* The next page; *after moves on. 1: there are more. */
static int print_page(struct cli *cli, struct client *client, uint64_t *after, struct err *e)
{
	own_str char *path = mem_printf("/v1/events?after=%llu&limit=1000", (unsigned long long)*after);
	own_json json_t *answer = NULL;
	json_t *event;
	size_t i;
	int r = client_call(client, "GET", path, NULL, &answer, e);

	if (r < 0)
		return r;
	uint64_t before = *after;
	json_array_foreach(json_object_get(answer, "items"), i, event) {
		(void)print_event(cli, event);
		json_int_t seq = json_integer_value(json_object_get(event, "seq"));
		*after = seq > 0 ? (uint64_t)seq : *after;
	}
	return json_is_string(json_object_get(answer, "next")) && *after > before;
}

static int events(struct cli *cli, const struct args *a, struct err *e)
{
	struct client *client;
	uint64_t after = 0;
	const char *given = args_text(a, "after");

	if (given && str_to_u64(given, INT64_MAX, &after) < 0)
		return err_set(e, ERR_INVALID, "--after %.40s: a number is expected", given);
	int r = cli_client(cli, &client, e);
	if (r < 0)
		return r;
	if (args_flag(a, "follow"))
		return client_follow_events(client, given ? (long long)after : -1, print_event, cli, e);
	do
		r = print_page(cli, client, &after, e);
	while (r > 0);
	return r;
}

static const struct option options[] = {
	{ "follow", 'f', OPTION_FLAG, NULL, "go on with what happens" },
	{ "after", 0, OPTION_TEXT, "NUMBER", "only events after this one; with --follow without it: only new ones" },
	{ 0 },
};
static const struct example examples[] = {
	{ "carrel events -f", "what happens, as it happens" },
	{ "carrel events --format json", "one JSON object a line" },
	{ 0 },
};
const struct verb verb_events = { "events", "print what happened", NULL, NULL, options, NULL, examples, events };
