/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/change.h"

static int rename_workspace(struct cli *cli, const struct args *a, struct err *e)
{
	json_t *body = json_pack("{s:s}", "name", args_operand(a, 1));

	if (!body)
		return err_set(e, ERR_INVALID, "the new name is not UTF-8");
	return change_run(cli, a, "PATCH", client_path("/v1/workspaces/%s", args_operand(a, 0)), body, args_operand(a, 1), e);
}

static const struct operand operands[] = {
	{ "NAME", "workspace", COMPLETE_WORKSPACE },
	{ "NEW-NAME", "its new name" },
	{ 0 },
};
static const struct example examples[] = { { "carrel rename brave-otter-123 web", "its id stays" }, { 0 } };
const struct verb verb_rename = {
	"rename", "give a workspace another name", NULL, operands, change_options, NULL, examples, rename_workspace
};
