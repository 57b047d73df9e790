/* SPDX-License-Identifier: Apache-2.0 */
#include "base/str.h"
#include "cli/change.h"
#include "cli/print.h"
#include "model/memory.h"

/* The facts of a host about memory, out of what `carrel doctor --format json` printed or the service answers. */
static int find_facts(const json_t *doctor, const char *host, const char *where, struct memory_facts *ret_facts, struct err *e)
{
	json_t *entry, *found = NULL;
	size_t i;

	json_array_foreach(json_object_get(doctor, "hosts"), i, entry)
		if (!found && (!host || str_eq(host, json_text_at(entry, "name", ""))))
			found = json_object_get(json_object_get(entry, "facts"), "resume");
	if (!found) {
		(void)err_set(e, ERR_NOT_FOUND, "%s tells nothing of %s%s", where, host ? "host " : "a host", host ? host : "");
		return err_hint(e, "a file is what carrel doctor --format json prints there, by this version or a later one");
	}
	return decode_json(found, where, &memory_facts_shape, ret_facts, e);
}

static int read_target(struct client *client, const struct args *a, struct memory_facts *ret_facts, struct err *e)
{
	const char *file = args_text(a, "target"), *host = args_text(a, "host");
	own_json json_t *doctor = NULL;
	json_error_t why;
	int r = 0;

	if (file && !(doctor = json_load_file(file, 0, &why)))
		return err_set(e, ERR_INVALID, "%s: %s", file, why.text);
	if (!file)
		r = client_call(client, "GET", "/v1/doctor", NULL, &doctor, e);
	return r < 0 ? r : find_facts(doctor, host, file ? file : "the site", ret_facts, e);
}

/* What the workspace's own host would do stands in `answer`; here is what the other one would make of it. */
static int compare(json_t *answer, const struct memory_facts *target, struct err *e)
{
	json_t *json = json_object_get(answer, "needs");
	struct memory_needs needs = { 0 };
	struct err why = { 0 };

	if (!json)
		return 0; /* it says why */
	int r = decode_json(json, "the answer", &memory_needs_shape, &needs, e);
	if (r < 0)
		return r;
	if (memory_check_facts(&needs, target, &why) < 0) {
		(void)json_object_set_new(answer, "level", json_string("volumes"));
		(void)json_object_set_new(answer, "reason", json_string(why.message));
		(void)json_object_set_new(answer, "hint", json_string("it can be suspended here, but not resumed there; carrel "
								      "stop keeps the volumes"));
	}
	shape_done(&memory_needs_shape, &needs);
	return 0;
}

static int check(struct cli *cli, const struct args *a, struct err *e)
{
	bool elsewhere = args_text(a, "target") || args_text(a, "host");
	struct memory_facts target = { 0 };
	struct client *client;
	int r = cli_client(cli, &client, e);

	if (r == 0 && elsewhere)
		r = read_target(client, a, &target, e);
	for (size_t i = 0; i < a->operand_count && r == 0; i++) {
		own_str char *path = client_path("/v1/workspaces/%s/suspend?check=1", args_operand(a, i));
		own_json json_t *answer = NULL;
		r = client_call(client, "POST", path, NULL, &answer, e);
		if (r == 0 && elsewhere)
			r = compare(answer, &target, e);
		if (r == 0 && cli->format == FORMAT_TABLE)
			(void)json_object_del(answer, "needs");
		if (r == 0)
			print_object(cli, answer);
	}
	shape_done(&memory_facts_shape, &target);
	return r;
}

static int suspend_workspaces(struct cli *cli, const struct args *a, struct err *e)
{
	if (args_flag(a, "check"))
		return check(cli, a, e);
	if (args_text(a, "target") || args_text(a, "host")) {
		(void)err_set(e, ERR_INVALID, "--target and --host are asked about with --check");
		return err_hint(e, "carrel suspend --check --target FILE NAME");
	}
	int r = cli_catch_interrupt(cli, e);
	return r < 0 ? r : change_each(cli, a, "POST", "/v1/workspaces/%s/suspend", NULL, e);
}

static const struct operand operands[] = { { "NAME", "workspaces, running or paused", COMPLETE_WORKSPACE,
					     .many = true }, { 0 } };
static const struct option options[] = {
	{ "check", 0, OPTION_FLAG, NULL, "only say what it would come to: memory, or volumes and why not more" },
	{ "target", 0, OPTION_TEXT, "FILE",
	  "with --check: whether it could be resumed where carrel doctor --format json printed this file",
	  .complete = COMPLETE_FILE },
	{ "host", 0, OPTION_TEXT, "NAME", "with --check: whether it could be resumed on this host of the site" },
	{ 0 },
};
static const struct example examples[] = {
	{ "carrel suspend web", "its memory goes to disk; processor, memory and network are given back" },
	{ "carrel suspend --check web", "whether that is possible" },
	{ "carrel suspend --check --target other.json web", "whether it could go on at another site" },
	{ "carrel resume web", "it goes on where it was" },
	{ 0 },
};
const struct verb verb_suspend = {
	"suspend", "put the memory of workspaces on disk", "What runs goes on after carrel resume as if nothing had happened, "
							   "also after a restart of the "
	"host. If it cannot be suspended, it goes on at once and the reason is told.",
	operands, options, change_options, examples, suspend_workspaces,
};
