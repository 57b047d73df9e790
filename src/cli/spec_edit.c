/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/spec_edit.h"

#include <stdio.h>

#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"
#include "cli/change.h"
#include "cli/print.h"

json_t *spec_edit_list(const json_t *spec, const char *key)
{
	json_t *list = json_deep_copy(json_object_get(spec, key));

	return list ? list : json_array();
}

static int try(struct cli *cli, const struct args *a, struct client *client, const char *workspace, spec_edit_fn *edit,
	       struct err *e)
{
	own_json json_t *got = NULL, *body = json_object();
	own_str char *path = client_path("/v1/workspaces/%s", workspace);
	char etag[CLIENT_ETAG_SIZE];
	int r = client_call_if(client, "GET", path, NULL, NULL, &got, etag, e);

	if (r == 0)
		r = edit(cli, a, workspace, json_object_get(got, "spec"), body, e);
	if (r < 0 || !json_object_size(body))
		return r;
	return change_run_if(cli, a, "PATCH", TAKE(path), etag, json_incref(body), workspace, NULL, e);
}

int spec_edit(struct cli *cli, const struct args *a, const char *workspace, spec_edit_fn *edit, struct err *e)
{
	struct client *client;
	int r = cli_client(cli, &client, e);

	for (int i = 0; r == 0 && i < SPEC_EDIT_TRIES; i++) {
		r = try(cli, a, client, workspace, edit, e);
		if (r == 0 || e->kind != ERR_PRECONDITION)
			return r;
		r = i + 1 < SPEC_EDIT_TRIES ? 0 : r;
	}
	return r;
}

void spec_edit_print(const struct cli *cli, const json_t *list)
{
	size_t i;
	json_t *item;

	if (cli->format != FORMAT_TABLE) {
		print_object(cli, list);
		return;
	}
	json_array_foreach(list, i, item) {
		own_strbuf struct str text = { 0 };
		print_escape(&text, json_is_string(item) ? json_string_value(item) : "?");
		(void)puts(str_text(&text));
	}
}

static size_t find(const json_t *list, const char *text)
{
	size_t i;
	json_t *item;

	json_array_foreach(list, i, item) {
		if (str_eq(json_string_value(item), text))
			return i;
	}
	return json_array_size(list);
}

bool spec_edit_remove(json_t *list, const char *text)
{
	size_t at = find(list, text);
	bool there = at < json_array_size(list);

	if (there)
		(void)json_array_remove(list, at);
	return there;
}

bool spec_edit_add(json_t *list, const char *text)
{
	if (find(list, text) < json_array_size(list))
		return false;
	(void)json_array_append_new(list, json_string(text));
	return true;
}
