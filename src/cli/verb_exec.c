/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"
#include "cli/session.h"

#define OWN_FAILURE 125

static int add_environment(const struct args *a, json_t *request, struct err *e)
{
	json_t *environment = json_object();
	const char *given;

	(void)json_object_set_new(request, "environment", environment);
	for (size_t at = 0; (given = args_next(a, "env", &at));) {
		const char *equals = strchr(given, '=');
		own_str char *name = mem_strndup(given, strcspn(given, "="));
		const char *value = equals ? equals + 1 : getenv(name);
		if (!*name || (value && json_object_set_new(environment, name, json_string(value)) < 0))
			return err_set(e, ERR_INVALID, "--env %.80s: KEY=VALUE is expected", given);
	}
	/* A terminal without its kind is of little use. */
	if (args_flag(a, "terminal") && !json_object_get(environment, "TERM") && getenv("TERM"))
		(void)json_object_set_new(environment, "TERM", json_string(getenv("TERM")));
	return 0;
}

static int make_request(const struct args *a, json_t *request, struct err *e)
{
	json_t *command = json_array();

	(void)json_object_set_new(request, "command", command);
	for (size_t i = 0; i < a->command_count; i++)
		if (json_array_append_new(command, json_string(a->command[i])) < 0)
			return err_set(e, ERR_INVALID, "a word of the command is not UTF-8");
	(void)json_object_set_new(request, "terminal", json_boolean(args_flag(a, "terminal")));
	(void)json_object_set_new(request, "stdin", json_boolean(args_flag(a, "interactive")));
	if (args_text(a, "user"))
		(void)json_object_set_new(request, "user", json_string(args_text(a, "user")));
	if (args_text(a, "workdir"))
		(void)json_object_set_new(request, "directory", json_string(args_text(a, "workdir")));
	return add_environment(a, request, e);
}

static int exec_program(struct cli *cli, const struct args *a, struct err *e)
{
	own_json json_t *request = json_object();
	own_str char *path = client_path("/v1/workspaces/%s/exec", args_operand(a, 0));
	const char *keys = args_text(a, "detach-keys");
	const struct session session = { .path = path, .request = request, .input = args_flag(a, "interactive"),
					 .raw = args_flag(a, "terminal") && isatty(STDIN_FILENO), .forward_signals = true,
					 .detach_keys = keys ? keys : DETACH_KEYS_DEFAULT };
	int status = 0;

	cli->failure_status = OWN_FAILURE;
	int r = make_request(a, request, e);
	if (r == 0)
		r = session_run(cli, &session, &status, e);
	return r == SESSION_ENDED ? status : r == SESSION_DETACHED ? 0 : r;
}

static const struct operand operands[] = {
	{ "NAME", "workspace, by name, id or the beginning of its id", COMPLETE_WORKSPACE },
	{ "COMMAND", "program and arguments", .command = true },
	{ 0 },
};
static const struct option options[] = {
	{ "interactive", 'i', OPTION_FLAG, NULL, "send standard input to the program" },
	{ "terminal", 't', OPTION_FLAG, NULL, "give the program a terminal" },
	{ "env", 'e', OPTION_MANY, "KEY=VALUE", "environment variable; KEY alone takes the value from here" },
	{ "user", 'u', OPTION_TEXT, "USER[:GROUP]", "user that runs the program" },
	{ "workdir", 0, OPTION_TEXT, "PATH", "working directory" },
	{ "detach-keys", 0, OPTION_TEXT, "KEYS", "keys that leave the terminal (ctrl-p,ctrl-q)" },
	{ 0 },
};
static const struct example examples[] = {
	{ "carrel exec web -- systemctl status", "one command" },
	{ "carrel exec -it web bash", "a shell" },
	{ "carrel exec -i web -- sh -c 'cat > /tmp/x' < file", "standard input goes to the program" },
	{ 0 },
};
const struct verb verb_exec = {
	"exec", "run a program in a running workspace",
	"The exit status is the program's; 125: it could not be tried; 126: the program cannot be executed; 127: it is not "
	"there.",
	operands, options, NULL, examples, exec_program,
};
