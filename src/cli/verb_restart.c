/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/change.h"

static int restart_workspaces(struct cli *cli, const struct args *a, struct err *e)
{
	int r = cli_catch_interrupt(cli, e);
	return r < 0 ? r : change_each(cli, a, "POST", "/v1/workspaces/%s/restart", NULL, e);
}

static const struct operand operands[] = { { "NAME", "workspaces", COMPLETE_WORKSPACE, .many = true }, { 0 } };
static const struct example examples[] = { { "carrel restart web db", "one after the other" }, { 0 } };
const struct verb verb_restart = { "restart", "stop and start workspaces", NULL, operands, change_options, NULL,
				   examples,  restart_workspaces };
