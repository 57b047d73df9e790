/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/change.h"

static int start_workspaces(struct cli *cli, const struct args *a, struct err *e)
{
	int r = cli_catch_interrupt(cli, e);
	return r < 0 ? r : change_each(cli, a, "POST", "/v1/workspaces/%s/start", NULL, e);
}

static const struct operand operands[] = { { "NAME", "workspaces", COMPLETE_WORKSPACE, .many = true }, { 0 } };
static const struct example examples[] = { { "carrel start web", "runs again with the disks as they were left" }, { 0 } };
const struct verb verb_start = { "start",
				 "start stopped workspaces",
				 "A workspace that was deployed up to a lower rung climbs the rest.",
				 operands,
				 change_options,
				 NULL,
				 examples,
				 start_workspaces };
