/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/change.h"

static int remove_workspaces(struct cli *cli, const struct args *a, struct err *e)
{
	int r = cli_catch_interrupt(cli, e);
	const char *path = args_flag(a, "force") ? "/v1/workspaces/%s?force=1" : "/v1/workspaces/%s";

	return r < 0 ? r : change_each(cli, a, "DELETE", path, NULL, e);
}

static const struct operand operands[] = { { "NAME", "workspaces", COMPLETE_WORKSPACE, .many = true }, { 0 } };
static const struct option options[] = {
	{ "force", 'f', OPTION_FLAG, NULL, "also when it runs: it is killed" },
	{ 0 },
};
static const struct example examples[] = {
	{ "carrel rm web", "a stopped workspace and its volumes, but kept ones" },
	{ "carrel rm -f web db", "running ones, too" },
	{ 0 },
};
const struct verb verb_rm = {
	"rm", "remove workspaces", "Their volumes and snapshots go with them; volumes that are marked to be kept stay (carrel "
				   "volume ls).",
	operands, options, change_options, examples, remove_workspaces,
};
