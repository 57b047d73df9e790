/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/spec_edit.h"

#include <stdio.h>

#include "base/str.h"
#include "cli/change.h"
#include "cli/print.h"

int spec_edit_list(struct cli *cli, const char *workspace, const char *key, json_t **ret_list, struct err *e)
{
	struct client *client;
	own_json json_t *got = NULL;
	own_str char *path = client_path("/v1/workspaces/%s", workspace);
	int r = cli_client(cli, &client, e);

	if (r == 0)
		r = client_call(client, "GET", path, NULL, &got, e);
	if (r < 0)
		return r;
	json_t *list = json_deep_copy(json_object_get(json_object_get(got, "spec"), key));
	*ret_list = list ? list : json_array();
	return 0;
}

int spec_edit_put(struct cli *cli, const struct args *a, const char *workspace, json_t *body, struct err *e)
{
	return change_run(cli, a, "PATCH", client_path("/v1/workspaces/%s", workspace), body, workspace, e);
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
