/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A workspace that is attached to this terminal. The service holds the program's output back until the attach, so that nothing
 * is lost between the two requests.
 */
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include "cli/print.h"
#include "cli/session.h"
#include "cli/spec_options.h"

#define OWN_FAILURE 125

static void set_flags(const struct args *a, json_t *spec)
{
	if (args_flag(a, "interactive"))
		(void)json_object_set_new(spec, "interactive", json_true());
	if (args_flag(a, "terminal"))
		(void)json_object_set_new(spec, "terminal", json_true());
	if (args_flag(a, "rm"))
		(void)json_object_set_new(spec, "remove-on-exit", json_true());
}

/* The service removes it by itself; this waits, so that what follows finds the name and the space free. */
static int wait_for_removal(struct client *client, const char *id, struct err *e)
{
	own_str char *path = client_path("/v1/workspaces/%s?wait=60&state=removed", id);

	for (;;) {
		struct err failure = { 0 };
		own_json json_t *workspace = NULL;
		int r = client_call(client, "GET", path, NULL, &workspace, &failure);
		if (r < 0 && failure.kind == ERR_NOT_FOUND)
			return 0;
		if (r < 0) {
			*e = failure;
			return r;
		}
		if (str_eq(json_text_at(workspace, "state", ""), "removed"))
			return 0;
	}
}

/* The program's end is told before its volumes are free. When the command returns the workspace is stopped, and can be removed
 * or started again. One that restarts by itself is not waited for. */
static void wait_for_stop(struct client *client, const json_t *workspace)
{
	own_str char *path = client_path("/v1/workspaces/%s?wait=30&state=stopped,failed,removed",
					 json_text_at(workspace, "id", ""));

	if (str_eq(json_text_at(json_object_get(workspace, "spec"), "restart", "no"), "no"))
		(void)!client_call(client, "GET", path, NULL, NULL, NULL);
}

/* After a failure nothing shall stay that was to be removed anyway. */
static void remove_by_force(struct client *client, const char *id)
{
	own_str char *path = client_path("/v1/workspaces/%s?force=1", id);
	(void)!client_call(client, "DELETE", path, NULL, NULL, NULL);
}

static int attach(struct cli *cli, const struct args *a, struct client *client, const json_t *workspace, struct err *e)
{
	const char *id = json_text_at(workspace, "id", "");
	own_str char *path = client_path("/v1/workspaces/%s/attach", id);
	bool raw = args_flag(a, "terminal") && isatty(STDIN_FILENO);
	own_json json_t *request = json_pack("{s:b}", "stdin", args_flag(a, "interactive"));
	const char *keys = args_text(a, "detach-keys");
	const struct session session = { .path = path, .request = request, .input = args_flag(a, "interactive"), .raw = raw,
					 .forward_signals = true, .detach_keys = keys ? keys : DETACH_KEYS_DEFAULT };
	int status = 0;
	int r = session_run(cli, &session, &status, e);

	if (r == SESSION_DETACHED) {
		(void)fprintf(stderr, "\ndetached; carrel console %s comes back\n", json_text_at(workspace, "name", id));
		return 0;
	}
	if (args_flag(a, "rm") && r < 0 && e->kind != ERR_UNAVAILABLE)
		remove_by_force(client, id);
	if (args_flag(a, "rm") && (r >= 0 || e->kind != ERR_UNAVAILABLE)) {
		struct err late = { 0 };
		int waited = wait_for_removal(client, id, &late);
		if (r >= 0 && waited < 0)
			cli_report(cli, &late);
	} else if (r >= 0) {
		wait_for_stop(client, workspace);
	}
	return r < 0 ? r : status;
}

static int run(struct cli *cli, const struct args *a, struct err *e)
{
	own_json json_t *spec = NULL;
	own_json json_t *workspace = NULL;
	struct client *client = NULL;

	cli->failure_status = OWN_FAILURE;
	int r = spec_from_args(a, args_operand(a, 0), &spec, e);
	if (r == 0)
		r = cli_client(cli, &client, e);
	if (r < 0)
		return r;
	set_flags(a, spec);
	bool detach = args_flag(a, "detach");
	r = detach ? 0 : http_check_upgrade(client_address(client), e); /* before anything is made */
	if (r < 0)
		return r;
	own_json json_t *body = json_pack("{s:O, s:b}", "spec", spec, "held", !detach);
	r = client_call(client, "POST", "/v1/workspaces", body, &workspace, e);
	if (r < 0)
		return r;
	if (detach) {
		(void)puts(json_text_at(workspace, "name", json_text_at(workspace, "id", "")));
		return 0;
	}
	return attach(cli, a, client, workspace, e);
}

static const struct operand operands[] = {
	{ "IMAGE|SPEC", "name of an image, or a spec file (.yaml, .json, or - for standard input)", COMPLETE_IMAGE_OR_FILE },
	{ "COMMAND", "program and arguments instead of the image's own", .optional = true, .command = true },
	{ 0 },
};
static const struct option options[] = {
	{ "interactive", 'i', OPTION_FLAG, NULL, "send standard input to the program" },
	{ "terminal", 't', OPTION_FLAG, NULL, "give the program a terminal" },
	{ "rm", 0, OPTION_FLAG, NULL, "remove the workspace when the program has ended" },
	{ "detach", 'd', OPTION_FLAG, NULL, "do not attach; print the name" },
	{ "detach-keys", 0, OPTION_TEXT, "KEYS", "keys that leave the terminal without ending the program (ctrl-p,ctrl-q)" },
	{ 0 },
};
static const struct example examples[] = {
	{ "carrel run --rm debian -- cat /etc/os-release", "one command in a fresh workspace" },
	{ "carrel run --rm -it debian -- bash", "a shell; the workspace goes away with it" },
	{ "tar c src | carrel run --rm -i debian -- tar x -C /tmp", "standard input goes to the program" },
	{ "carrel run --memory 512M --cpu 0.5 debian -- make", "with limits; the workspace stays" },
	{ 0 },
};
const struct verb verb_run = {
	"run", "run a program in a new workspace, attached",
	"The program's output, its errors and its exit status are those of this command. Ctrl-C goes to the program; a second "
	"one kills it; with --terminal all keys are the program's.\n\n"
	"The exit status is the program's; 125: the workspace could not be made; 126: the program cannot be executed; 127: it "
	"is not there.",
	operands, options, spec_options, examples, run,
	.more_title = "Options that describe the workspace (they override the spec file)",
};
