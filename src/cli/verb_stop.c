/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/change.h"

static int stop_workspaces(struct cli *cli, const struct args *a, struct err *e)
{
	const char *timeout = args_text(a, "timeout");
	bool discard = args_flag(a, "discard-memory");
	own_json json_t *body = timeout || discard ? json_object() : NULL;
	int r = cli_catch_interrupt(cli, e);

	if (timeout)
		(void)json_object_set_new(body, "timeout", json_string(timeout));
	if (discard)
		(void)json_object_set_new(body, "discard-memory", json_true());
	return r < 0 ? r : change_each(cli, a, "POST", "/v1/workspaces/%s/stop", body, e);
}

static const struct operand operands[] = { { "NAME", "workspaces", COMPLETE_WORKSPACE, .many = true }, { 0 } };
static const struct option options[] = {
	{ "timeout", 't', OPTION_TEXT, "TIME", "time for a clean shutdown before it is forced; 0s: at once" },
	{ "discard-memory", 0, OPTION_FLAG, NULL, "of a suspended workspace: throw its memory away" },
	{ 0 },
};
static const struct example examples[] = {
	{ "carrel stop web", "as its spec says" },
	{ "carrel stop -t 0s web", "at once" },
	{ "carrel stop --discard-memory web", "suspended: what was in memory is lost, its volumes stay" },
	{ 0 },
};
const struct verb verb_stop = {
	"stop", "stop workspaces", "A full system shuts down, a program gets its stop signal; what is left after the time-out "
				   "is killed.",
	operands, options, change_options, examples, stop_workspaces,
};
