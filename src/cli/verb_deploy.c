/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>

#include "cli/change.h"
#include "cli/print.h"
#include "cli/spec_options.h"

static int show_plan(struct cli *cli, struct client *client, const json_t *body, struct err *e)
{
	own_json json_t *answer = NULL;
	int r = client_call(client, "POST", "/v1/workspaces?dry-run=1", body, &answer, e);

	if (r == 0)
		print_object(cli, json_object_get(answer, "plan") ? json_object_get(answer, "plan") : answer);
	return r;
}

static int print_workspace(struct cli *cli, struct client *client, const json_t *workspace, struct err *e)
{
	own_json json_t *newest = NULL;
	own_str char *path = client_path("/v1/workspaces/%s", json_text_at(workspace, "id", ""));

	if (cli->format == FORMAT_TABLE) {
		(void)puts(json_text_at(workspace, "name", json_text_at(workspace, "id", "")));
		return 0;
	}
	int r = client_call(client, "GET", path, NULL, &newest, e);
	if (r == 0)
		print_object(cli, newest);
	return r;
}

static int deploy(struct cli *cli, const struct args *a, struct err *e)
{
	own_json json_t *spec = NULL;
	own_json json_t *workspace = NULL;
	struct client *client = NULL;
	int r = spec_from_args(a, args_operand(a, 0), &spec, e);

	if (r == 0)
		r = cli_client(cli, &client, e);
	if (r < 0)
		return r;
	own_json json_t *body = json_pack("{s:O}", "spec", spec);
	if (args_flag(a, "dry-run"))
		return show_plan(cli, client, body, e);
	r = client_call(client, "POST", "/v1/workspaces", body, &workspace, e);
	if (r < 0)
		return r;
	if (!args_flag(a, "detach")) {
		r = cli_catch_interrupt(cli, e);
		if (r == 0)
			r = change_wait(cli, workspace, json_text_at(workspace, "name", ""), NULL, e);
		if (r < 0 && !e->hint[0])
			r = err_hint(e, "carrel why %s says more", json_text_at(workspace, "name", ""));
	}
	return r < 0 ? r : print_workspace(cli, client, workspace, e);
}

static const struct operand operands[] = {
	{ "SPEC|IMAGE", "spec file (.yaml, .json, or - for standard input), or the name of an image", COMPLETE_IMAGE_OR_FILE },
	{ "COMMAND", "program and arguments instead of the image's own", .optional = true, .command = true },
	{ 0 },
};
static const struct option options[] = {
	{ "dry-run", 0, OPTION_FLAG, NULL, "change nothing; print the plan of every step" },
	{ "wait", 'w', OPTION_FLAG, NULL, "wait until the workspace is there (the default)" },
	{ "detach", 'd', OPTION_FLAG, NULL, "do not wait" },
	{ 0 },
};
static const struct example examples[] = {
	{ "carrel deploy debian --name web --memory 2GiB", "a full Debian in the background" },
	{ "carrel deploy web.yaml", "what a spec file describes" },
	{ "carrel deploy web.yaml --dry-run", "what would be done, step by step" },
	{ "carrel deploy debian --until paused -- sleep 60", "ready to run, stopped before the first instruction" },
	{ 0 },
};
const struct verb verb_deploy = {
	"deploy", "deploy a workspace in the background",
	"The workspace is named, made and started, and stays until it is removed. Its name is printed.\n\n"
	"Without a command, an image that has an init is started as a full system.",
	operands, options, spec_options, examples, deploy,
	.more_title = "Options that describe the workspace (they override the spec file)",
};
