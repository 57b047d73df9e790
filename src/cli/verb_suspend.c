/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/change.h"
#include "cli/print.h"

static int check(struct cli *cli, const struct args *a, struct err *e)
{
	struct client *client;
	int r = cli_client(cli, &client, e);

	for (size_t i = 0; i < a->operand_count && r == 0; i++) {
		own_str char *path = client_path("/v1/workspaces/%s/suspend?check=1", args_operand(a, i));
		own_json json_t *answer = NULL;
		r = client_call(client, "POST", path, NULL, &answer, e);
		if (r == 0)
			print_object(cli, answer);
	}
	return r;
}

static int suspend_workspaces(struct cli *cli, const struct args *a, struct err *e)
{
	if (args_flag(a, "check"))
		return check(cli, a, e);
	int r = cli_catch_interrupt(cli, e);
	return r < 0 ? r : change_each(cli, a, "POST", "/v1/workspaces/%s/suspend", NULL, e);
}

static const struct operand operands[] = { { "NAME", "workspaces, running or paused", COMPLETE_WORKSPACE, .many = true }, { 0 } };
static const struct option options[] = {
	{ "check", 0, OPTION_FLAG, NULL, "only say what it would come to: memory, or volumes and why not more" },
	{ 0 },
};
static const struct example examples[] = {
	{ "carrel suspend web", "its memory goes to disk; processor, memory and network are given back" },
	{ "carrel suspend --check web", "whether that is possible" },
	{ "carrel resume web", "it goes on where it was" },
	{ 0 },
};
const struct verb verb_suspend = {
	"suspend", "put the memory of workspaces on disk", "What runs goes on after carrel resume as if nothing had happened, also after a restart of the "
	"host. If it cannot be suspended, it goes on at once and the reason is told.",
	operands, options, change_options, examples, suspend_workspaces,
};
