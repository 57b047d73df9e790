/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/show.h"

static int show(struct cli *cli, const struct args *a, struct err *e)
{
	return show_object(cli, client_path("/v1/workspaces/%s", args_operand(a, 0)), e);
}

static const struct operand operands[] = { { "NAME", "workspace", COMPLETE_WORKSPACE }, { 0 } };
static const struct example examples[] = {
	{ "carrel show web", "its spec, state, process, times, last error" },
	{ "carrel show web --format json | jq .state", "for a script" },
	{ 0 },
};
const struct verb verb_show = { "show", "show all about a workspace", NULL, operands, NULL, NULL, examples, show };
