/* SPDX-License-Identifier: Apache-2.0 */
#include "base/own.h"
#include "cli/change.h"
#include "cli/print.h"
#include "cli/show.h"

static int create(struct cli *cli, const struct args *a, struct err *e)
{
	const char *name = args_operand(a, 1);
	own_json json_t *operation = NULL;
	json_t *body = name ? json_pack("{s:s}", "name", name) : json_object();

	if (!body)
		return err_set(e, ERR_INVALID, "the snapshot's name is not UTF-8");
	if (args_flag(a, "memory"))
		(void)json_object_set_new(body, "memory", json_true());
	int r = change_run_if(cli, a, "POST", client_path("/v1/workspaces/%s/snapshots", args_operand(a, 0)), NULL, body,
			      args_operand(a, 0), &operation, e);
	if (operation && !name && !cli->quiet && cli->format == FORMAT_TABLE) {
		own_strbuf struct str text = { 0 };
		print_escape(&text, json_text_at(operation, "result.name", ""));
		(void)puts(str_text(&text));
	}
	return r;
}

static int restore(struct cli *cli, const struct args *a, struct err *e)
{
	char *path = client_path("/v1/workspaces/%s/snapshots/%s/restore", args_operand(a, 0), args_operand(a, 1));
	return change_run(cli, a, "POST", path, NULL, args_operand(a, 0), e);
}

static int list(struct cli *cli, const struct args *a, struct err *e)
{
	static const struct column columns[] = {
		{ "NAME", "name" }, { "ID", "id" }, { "STATE", "state" }, { "CREATED", "created", text_age }, { 0 }
	};
	own_str char *path = client_path("/v1/workspaces/%s/snapshots", args_operand(a, 0));

	return show_list(cli, path, columns, e);
}

static int remove_snapshot(struct cli *cli, const struct args *a, struct err *e)
{
	char *path = client_path("/v1/workspaces/%s/snapshots/%s", args_operand(a, 0), args_operand(a, 1));
	return change_run(cli, a, "DELETE", path, NULL, args_operand(a, 0), e);
}

static const struct operand create_operands[] = {
	{ "NAME", "workspace, stopped or paused; with --memory running", COMPLETE_WORKSPACE },
	{ "SNAPSHOT", "name of the snapshot; one is made up, and printed", .optional = true },
	{ 0 },
};
static const struct operand one[] = {
	{ "NAME", "workspace", COMPLETE_WORKSPACE },
	{ "SNAPSHOT", "snapshot", COMPLETE_SNAPSHOT },
	{ 0 },
};
static const struct operand workspace[] = { { "NAME", "workspace", COMPLETE_WORKSPACE }, { 0 } };
static const struct option create_options[] = {
	{ "memory", 'm', OPTION_FLAG, NULL, "of a running machine: volumes and memory; a restore lets it go on from there" },
	{ 0 },
};
static const struct example create_examples[] = {
	{ "carrel snapshot create web before-upgrade", "all its volumes, as they are now" },
	{ "carrel snapshot create --memory web", "a machine with all that it does: it goes on, and can go on again from here" },
	{ 0 },
};
static const struct example restore_examples[] = {
	{ "carrel snapshot restore web before-upgrade", "the volumes are as they were; the workspace stays stopped" }, { 0 }
};
static const struct example list_examples[] = { { "carrel snapshot ls web", "newest last" }, { 0 } };
static const struct example rm_examples[] = { { "carrel snapshot rm web before-upgrade", "frees its space" }, { 0 } };
const struct verb verb_snapshot_create = { "snapshot create", "keep the state of a workspace's volumes",
					   "The workspace must be stopped or paused.", create_operands, create_options,
					   change_options, create_examples, create };
const struct verb verb_snapshot_restore = { "snapshot restore", "put a workspace's volumes back to a snapshot",
					    "The workspace must be stopped. What was written since is lost.", one,
					    change_options, NULL, restore_examples, restore };
const struct verb verb_snapshot_ls = {
	"snapshot ls", "list a workspace's snapshots", NULL, workspace, NULL, NULL, list_examples, list
};
const struct verb verb_snapshot_rm = { "snapshot rm", "remove a snapshot", NULL,           one, change_options,
				       NULL,          rm_examples,         remove_snapshot };
