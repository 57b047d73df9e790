/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/show.h"

static int why(struct cli *cli, const struct args *a, struct err *e)
{
	return show_object(cli, client_path("/v1/workspaces/%s/why", args_operand(a, 0)), e);
}

static const struct operand operands[] = { { "NAME", "workspace", COMPLETE_WORKSPACE }, { 0 } };
static const struct example examples[] = { { "carrel why web", "the step that failed, the reason, and what to do" }, { 0 } };
const struct verb verb_why = { "why", "say what a workspace waits for or why it failed", NULL, operands, NULL, NULL, examples,
			       why };
