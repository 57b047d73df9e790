/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/change.h"

static int stop_workspaces(struct cli *cli, const struct args *a, struct err *e)
{
	const char *timeout = args_text(a, "timeout");
	own_json json_t *body = timeout ? json_pack("{s:s}", "timeout", timeout) : NULL;
	int r = cli_catch_interrupt(cli, e);

	return r < 0 ? r : change_each(cli, a, "POST", "/v1/workspaces/%s/stop", body, e);
}

static const struct operand operands[] = { { "NAME", "workspaces", COMPLETE_WORKSPACE, .many = true }, { 0 } };
static const struct option options[] = {
	{ "timeout", 't', OPTION_TEXT, "TIME", "time for a clean shutdown before it is forced; 0s: at once" },
	{ 0 },
};
static const struct example examples[] = {
	{ "carrel stop web", "as its spec says" },
	{ "carrel stop -t 0s web", "at once" },
	{ 0 },
};
const struct verb verb_stop = {
	"stop", "stop workspaces", "A full system shuts down, a program gets its stop signal; what is left after the time-out is killed.",
	operands, options, change_options, examples, stop_workspaces,
};
