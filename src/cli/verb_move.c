/* SPDX-License-Identifier: Apache-2.0 */
#include "base/own.h"
#include "cli/change.h"
#include "cli/print.h"

/* Of each what a live move would come to; nothing changes. */
static int check_moves(struct cli *cli, const struct args *a, const json_t *body, struct err *e)
{
	struct client *client;
	int r = args_flag(a, "live") ? cli_client(cli, &client, e) :
				       err_set(e, ERR_INVALID, "--check is about a move with its memory");

	if (r < 0 && !args_flag(a, "live"))
		return err_hint(e, "carrel move --live --check --engine ENGINE NAME");
	for (size_t i = 0; i < a->operand_count && r == 0; i++) {
		own_str char *path = client_path("/v1/workspaces/%s/move?check=1", args_operand(a, i));
		own_json json_t *answer = NULL;
		r = client_call(client, "POST", path, body, &answer, e);
		if (r == 0)
			print_object(cli, answer);
	}
	return r;
}

static int move_workspaces(struct cli *cli, const struct args *a, struct err *e)
{
	const char *engine = args_text(a, "engine"), *timeout = args_text(a, "timeout");

	if (!engine) {
		(void)err_set(e, ERR_INVALID, "--engine is missing: where shall it move to?");
		return err_hint(e, "--engine workspace, emulator or kvm");
	}
	own_json json_t *body = json_pack("{s:s, s:s*}", "engine", engine, "timeout", timeout);
	if (args_flag(a, "live"))
		(void)json_object_set_new(body, "live", json_true());
	if (args_flag(a, "check"))
		return check_moves(cli, a, body, e);
	int r = cli_catch_interrupt(cli, e);
	return r < 0 ? r : change_each(cli, a, "POST", "/v1/workspaces/%s/move", body, e);
}

static const char *const engines[] = { "workspace", "emulator", "kvm", NULL };
static const struct operand operands[] = { { "NAME", "workspaces", COMPLETE_WORKSPACE, .many = true }, { 0 } };
static const struct option options[] = {
	{ "engine", 0, OPTION_TEXT, "ENGINE", "where to: workspace (namespaces), emulator or kvm (a machine of its own)",
	  engines },
	{ "live", 0, OPTION_FLAG, NULL, "with its memory, instead of a stop and a start" },
	{ "check", 0, OPTION_FLAG, NULL,
	  "with --live: only say what it would come to, which way it takes and what is in the way" },
	{ "timeout", 't', OPTION_TEXT, "TIME", "time for a clean shutdown before it is forced; 0s: at once" },
	{ 0 },
};
static const struct example examples[] = {
	{ "carrel move web --engine emulator", "stopped in its namespaces, started in a machine" },
	{ "carrel move web --engine workspace", "and back" },
	{ "carrel move web --live --check --engine kvm", "whether it could go over while it runs" },
	{ 0 },
};
const struct verb verb_move = {
	"move",
	"change the engine of workspaces: same files, names, addresses",
	"What runs is stopped and started on the other engine; what is stopped starts there next time. Nothing is copied: both "
	"engines use the same "
	"volumes, and host name, machine id, keys, addresses, limits, labels and snapshots stay.\n\n"
	"A volume that a machine wrote is checked by e2fsck in a sandbox before this host's kernel mounts it. One that has "
	"faults is refused and left "
	"as it is; moved back, the workspace runs again.",
	operands,
	options,
	change_options,
	examples,
	move_workspaces,
};
