/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/change.h"

static int pause_workspaces(struct cli *cli, const struct args *a, struct err *e)
{
	int r = cli_catch_interrupt(cli, e);
	return r < 0 ? r : change_each(cli, a, "POST", "/v1/workspaces/%s/pause", NULL, e);
}

static const struct operand operands[] = { { "NAME", "workspaces", COMPLETE_WORKSPACE, .many = true }, { 0 } };
static const struct example examples[] = { { "carrel pause web", "memory stays, no processor time is used" }, { 0 } };
const struct verb verb_pause = {
	"pause", "freeze all processes of workspaces", NULL, operands, change_options, NULL, examples, pause_workspaces
};
