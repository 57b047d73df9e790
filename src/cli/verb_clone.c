/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>

#include "base/own.h"
#include "base/str.h"
#include "cli/change.h"
#include "cli/print.h"

static int make_body(const struct args *a, json_t **ret_body, struct err *e)
{
	const char *count = args_text(a, "count"), *prefix = args_text(a, "name-prefix");
	uint64_t n = 1;

	if (count && (str_to_u64(count, 256, &n) < 0 || n == 0))
		return err_set(e, ERR_INVALID, "--count is a number from 1 to 256, not '%s'", count);
	*ret_body = json_pack("{s:I, s:s*}", "count", (json_int_t)n, "name-prefix", prefix);
	return *ret_body ? 0 : err_set(e, ERR_INVALID, "the prefix is not UTF-8");
}

/* One name a line, for those that are there. */
static int await_each(struct cli *cli, const json_t *clones, struct err *e)
{
	int result = 0;
	const json_t *clone;
	size_t i;

	json_array_foreach(clones, i, clone) {
		const char *name = json_string_value(json_object_get(clone, "name"));
		struct err failure = { 0 };
		int r = name ? change_wait(cli, clone, name, NULL, &failure) : 0;
		if (r < 0) {
			(void)err_wrap(&failure, "clone %s", name);
			cli_report(cli, &failure);
			*e = failure;
			result = r;
		} else if (name && !cli->quiet && cli->format == FORMAT_TABLE) {
			own_strbuf struct str text = { 0 };
			print_escape(&text, name);
			(void)puts(str_text(&text));
		}
	}
	return result < 0 ? err_set(e, (enum err_kind)e->kind, "not all clones run; those that do are listed above") : 0;
}

static int clone_workspace(struct cli *cli, const struct args *a, struct err *e)
{
	own_str char *path = client_path("/v1/workspaces/%s/clone", args_operand(a, 0));
	own_json json_t *body = NULL, *answer = NULL, *operation = NULL;
	struct client *client;
	int r = make_body(a, &body, e);

	if (r == 0)
		r = cli_catch_interrupt(cli, e);
	if (r == 0)
		r = cli_client(cli, &client, e);
	if (r == 0)
		r = client_call(client, "POST", path, body, &answer, e);
	if (r < 0)
		return r;
	if (args_flag(a, "detach")) {
		change_detach(cli, answer);
		return 0;
	}
	r = change_wait(cli, answer, args_operand(a, 0), &operation, e);
	if (r == 0)
		r = await_each(cli, json_object_get(json_object_get(operation, "result"), "clones"), e);
	if (r == 0)
		change_show(cli, operation);
	return r;
}

static const struct operand operands[] = {
	{ "NAME", "workspace: a machine that runs, or any that is stopped", COMPLETE_WORKSPACE }, { 0 }
};
static const struct option options[] = {
	{ "count", 'n', OPTION_TEXT, "N", "how many, up to 256; one when missing" },
	{ "name-prefix", 0, OPTION_TEXT, "PREFIX",
	  "they are called PREFIX-1, PREFIX-2, ...; the name of the original when missing" },
	{ 0 },
};
static const struct example examples[] = {
	{ "carrel clone build -n 20", "build-1 to build-20 go on from where build is now, and so does build" },
	{ "carrel clone --name-prefix try web", "try-1" },
	{ 0 },
};
const struct verb verb_clone = {
	"clone", "make running copies of a running machine, or copies of a stopped workspace",
	"Clones of a machine that runs have its memory, which they share until they write to it, and copies of its volumes. "
	"Each has its own name, machine id, addresses and random numbers. Programs learn of it by the file /run/carrel/clone, "
	"which has the clone's number, and by the programs in /etc/carrel/cloned.d, which are run with number and name. The "
	"original stands still for a moment.\n\n"
	"Of a stopped workspace the volumes are copied; the clones are prepared and can be started. Published ports and fixed "
	"addresses stay with the original.",
	operands, options, change_options, examples, clone_workspace,
};
