/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/change.h"

static int resume_workspaces(struct cli *cli, const struct args *a, struct err *e)
{
	int r = cli_catch_interrupt(cli, e);
	return r < 0 ? r : change_each(cli, a, "POST", "/v1/workspaces/%s/resume", NULL, e);
}

static const struct operand operands[] = { { "NAME", "workspaces", COMPLETE_WORKSPACE, .many = true }, { 0 } };
static const struct example examples[] = { { "carrel resume web", "goes on where it was" }, { 0 } };
const struct verb verb_resume = {
	"resume", "let paused or suspended workspaces go on", NULL, operands, change_options, NULL, examples, resume_workspaces
};
