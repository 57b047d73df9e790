/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <unistd.h>

#include "base/own.h"
#include "cli/session.h"

static int console(struct cli *cli, const struct args *a, struct err *e)
{
	own_json json_t *request = json_pack("{s:b}", "stdin", 1);
	own_str char *path = client_path("/v1/workspaces/%s/console", args_operand(a, 0));
	const char *keys = args_text(a, "detach-keys");
	const struct session session = { .path = path, .request = request, .input = true, .raw = isatty(STDIN_FILENO),
					 .detach_keys = keys ? keys : DETACH_KEYS_DEFAULT };
	int status = 0;

	if (session.raw && !cli->quiet)
		(void)fprintf(stderr, "connected to %s; %s detaches\n", args_operand(a, 0), session.detach_keys);
	int r = session_run(cli, &session, &status, e);
	if (r == SESSION_DETACHED && !cli->quiet)
		(void)fprintf(stderr, "\r\ndetached\n");
	return r < 0 ? r : 0;
}

static const struct operand operands[] = { { "NAME", "workspace", COMPLETE_WORKSPACE }, { 0 } };
static const struct option options[] = {
	{ "detach-keys", 0, OPTION_TEXT, "KEYS", "keys that leave the console (ctrl-p,ctrl-q)" },
	{ 0 },
};
static const struct example examples[] = {
	{ "carrel console web", "the terminal of the workspace's first process" },
	{ "carrel console --detach-keys '~,.' web", "other keys that leave it" },
	{ 0 },
};
const struct verb verb_console = {
	"console", "connect this terminal to a workspace's console",
	"The console is the terminal of the first process: boot messages and a login of a full system, or the program that was "
	"deployed with --terminal. Leaving it ends nothing.",
	operands, options, NULL, examples, console,
};
