/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>

#include "base/mem.h"
#include "base/own.h"
#include "cli/change.h"
#include "cli/show.h"

/* "2.0 GiB of 5.0 GiB" */
static char *progress_text(const json_t *operation, const json_t *value)
{
	char done[32], total[32];
	json_int_t most = json_integer_value(json_object_get(value, "total"));
	(void)operation;

	if (!most)
		return NULL;
	(void)str_bytes(done, sizeof done, (uint64_t)json_integer_value(json_object_get(value, "done")));
	return mem_printf("%s of %s", done, str_bytes(total, sizeof total, (uint64_t)most));
}

static char *about_text(const json_t *operation, const json_t *value)
{
	(void)value;
	return mem_strdup(json_text_at(operation, "workspace", json_text_at(operation, "image", "-")));
}

static int list(struct cli *cli, const struct args *a, struct err *e)
{
	static const struct column columns[] = { { "ID", "id" }, { "KIND", "kind" }, { "ABOUT", "id", about_text },
						 { "STATE", "state" }, { "STEP", "step" },
						 { "PROGRESS", "progress", progress_text }, { "CREATED", "created", text_age },
						 { 0 } };
	own_json json_t *all = NULL;
	own_json json_t *chosen = json_array();
	struct client *client;
	size_t i;
	json_t *operation;
	int r = cli_client(cli, &client, e);

	if (r == 0)
		r = client_list(client, "/v1/operations" CLIENT_PAGE, &all, e);
	if (r < 0)
		return r;
	json_array_foreach(all, i, operation)
		if (args_flag(a, "all") || str_eq(json_text_at(operation, "state", ""), "running"))
			(void)json_array_append(chosen, operation);
	print_list(cli, chosen, columns);
	return 0;
}

static int wait_for(struct cli *cli, const struct args *a, struct err *e)
{
	int r = cli_client(cli, &(struct client *){ NULL }, e);

	for (size_t i = 0; i < a->operand_count && r == 0; i++) {
		own_json json_t *answer = json_pack("{s:s}", "operation", args_operand(a, i)), *operation = NULL;
		r = answer ? change_wait(cli, answer, args_operand(a, i), &operation, e) :
			     err_set(e, ERR_INVALID, "an id is not UTF-8");
		change_show(cli, operation);
	}
	return r;
}

static int cancel(struct cli *cli, const struct args *a, struct err *e)
{
	own_str char *path = client_path("/v1/operations/%s/cancel", args_operand(a, 0));
	struct client *client;
	int r = cli_client(cli, &client, e);

	return r < 0 ? r : client_call(client, "POST", path, NULL, NULL, e);
}

static int show(struct cli *cli, const struct args *a, struct err *e)
{
	return show_object(cli, client_path("/v1/operations/%s", args_operand(a, 0)), e);
}

static const struct operand one[] = { { "ID", "operation", COMPLETE_OPERATION }, { 0 } };
static const struct operand many[] = { { "ID", "operations", COMPLETE_OPERATION, .many = true }, { 0 } };
static const struct option list_options[] = { { "all", 'a', OPTION_FLAG, NULL, "also those that have ended" }, { 0 } };
static const struct example list_examples[] = { { "carrel operation ls", "what is under way" }, { 0 } };
static const struct example wait_examples[] = { { "carrel operation wait $(carrel start -d web)", "later, and with progress" },
						{ 0 } };
static const struct example cancel_examples[] = { { "carrel operation cancel 0123456789abcdef", "what it did is undone" },
						  { 0 } };
static const struct example show_examples[] = { { "carrel operation show 0123456789abcdef", "step, progress, error" }, { 0 } };
const struct verb verb_operation_ls = {
	"operation ls", "list operations", NULL, NULL, list_options, NULL, list_examples, list
};
const struct verb verb_operation_wait = {
	"operation wait", "wait until operations have ended", "Fails when one of them failed.", many, NULL, NULL, wait_examples,
	wait_for
};
const struct verb verb_operation_cancel = {
	"operation cancel", "ask an operation to end", NULL, one, NULL, NULL, cancel_examples, cancel
};
const struct verb verb_operation_show = {
	"operation show", "show all about an operation", NULL, one, NULL, NULL, show_examples, show
};
