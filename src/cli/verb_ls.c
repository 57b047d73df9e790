/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/own.h"
#include "cli/print.h"
#include "model/state.h"

static bool has_label(const json_t *workspace, const char *wanted)
{
	const json_t *labels = json_at(workspace, "spec.labels");
	const char *equals = strchr(wanted, '=');
	own_str char *key = mem_strndup(wanted, strcspn(wanted, "="));
	const char *value = json_string_value(json_object_get(labels, key));

	return value && (!equals || str_eq(value, equals + 1));
}

static bool wanted(const struct args *a, const json_t *workspace)
{
	const char *label, *state = args_text(a, "state"), *image = args_text(a, "image");

	for (size_t at = 0; (label = args_next(a, "label", &at));)
		if (!has_label(workspace, label))
			return false;
	if (state && !str_eq(state, json_text_at(workspace, "state", NULL)))
		return false;
	if (image && !str_eq(image, json_text_at(workspace, "spec.image", NULL)))
		return false;
	const char *name = args_operand(a, 0);
	return !name || strstr(json_text_at(workspace, "name", ""), name);
}

/* "running", "stopped (3)", "failed: stage" */
static char *state_text(const json_t *workspace, const json_t *value)
{
	const char *state = json_string_value(value), *step = json_text_at(workspace, "step", NULL);
	const json_t *status = json_at(workspace, "exit_status");

	if (!state)
		return NULL;
	if (json_is_integer(status) && str_eq(state, "stopped"))
		return mem_printf("%s (%d)", state, (int)json_integer_value(status));
	return step && !str_eq(state, "running") && *step ? mem_printf("%s: %s", state, step) : mem_strdup(state);
}

static int list(struct cli *cli, const struct args *a, struct err *e)
{
	static const struct column columns[] = { { "NAME", "name" },
						 { "ID", "id", text_short },
						 { "STATE", "state", state_text },
						 { "IMAGE", "spec.image" },
						 { "CREATED", "created", text_age },
						 { "LABELS", "spec.labels", text_labels },
						 { 0 } };
	struct client *client;
	own_json json_t *all = NULL;
	own_json json_t *chosen = json_array();
	json_t *workspace;
	size_t i;
	int r = cli_client(cli, &client, e);

	if (r == 0)
		r = client_list(client, "/v1/workspaces" CLIENT_PAGE, &all, e);
	if (r < 0)
		return r;
	json_array_foreach(all, i, workspace) {
		if (!wanted(a, workspace))
			continue;
		(void)json_array_append(chosen, workspace);
		if (cli->quiet) {
			own_strbuf struct str name = { 0 };
			print_escape(&name, json_text_at(workspace, "name", ""));
			(void)puts(str_text(&name));
		}
	}
	if (!cli->quiet)
		print_list(cli, chosen, columns);
	return 0;
}

static const struct operand operands[] = { { "PART", "only workspaces whose name contains this", .optional = true }, { 0 } };
static const struct option options[] = {
	{ "label", 'l', OPTION_MANY, "KEY[=VALUE]", "only with this label; several: all of them" },
	{ "state", 's', OPTION_TEXT, "STATE", "only in this state", state_names },
	{ "image", 0, OPTION_TEXT, "IMAGE", "only of this image", .complete = COMPLETE_IMAGE },
	{ 0 },
};
static const struct example examples[] = {
	{ "carrel ls", "all that you may see" },
	{ "carrel ls --state running --label team=blue", "filtered" },
	{ "carrel rm -f $(carrel ls -q --label job=42)", "names for another command" },
	{ 0 },
};
const struct verb verb_ls = { "ls", "list workspaces", NULL, operands, options, NULL, examples, list };
