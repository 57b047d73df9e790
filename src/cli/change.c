/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/change.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/mem.h"
#include "base/own.h"
#include "cli/print.h"
#include "cli/progress.h"

const struct option change_options[] = {
	{ "wait", 'w', OPTION_FLAG, NULL, "wait until it is done (the default)" },
	{ "detach", 'd', OPTION_FLAG, NULL, "do not wait; print the id of the operation" },
	{ 0 },
};

static void cancel(struct client *client, const char *id)
{
	own_str char *path = client_path("/v1/operations/%s/cancel", id);

	cli_interrupted = 0;
	(void)!client_call(client, "POST", path, NULL, NULL, NULL);
}

static void show_notice(const struct cli *cli, const json_t *operation)
{
	const char *notice = json_string_value(json_object_get(json_object_get(operation, "result"), "notice"));
	own_strbuf struct str text = { 0 };

	if (!notice || cli->quiet)
		return;
	print_escape(&text, notice);
	(void)fprintf(stderr, "carrel: %s\n", str_text(&text));
}

int change_wait(struct cli *cli, const json_t *answer, const char *label, json_t **ret_operation, struct err *e)
{
	struct client *client;
	struct progress progress;
	own_json json_t *operation = NULL;
	const char *id = client_operation_id(answer);
	int r = id ? cli_client(cli, &client, e) : 0;

	if (r < 0 || !id)
		return r;
	progress_start(&progress, cli, label);
	bool shown = cli->error_terminal && !cli->quiet;
	r = client_wait(client, id, shown ? progress_operation : NULL, &progress, &operation, e);
	progress_end(&progress);
	if (r == 0)
		show_notice(cli, operation);
	if (ret_operation && r == 0)
		*ret_operation = json_incref(operation);
	if (r < 0 && e->kind == ERR_CANCELLED && cli_interrupted)
		cancel(client, id);
	return r;
}

int change_run(struct cli *cli, const struct args *a, const char *method, char *path, json_t *body, const char *label,
	       struct err *e)
{
	return change_run_if(cli, a, method, path, NULL, body, label, NULL, e);
}

void change_show(const struct cli *cli, const json_t *operation)
{
	if (operation && cli->format != FORMAT_TABLE)
		print_object(cli, operation);
}

void change_detach(const struct cli *cli, const json_t *answer)
{
	const char *id = client_operation_id(answer);

	if (id && cli->format == FORMAT_TABLE)
		(void)puts(id);
	change_show(cli, answer);
}

int change_run_if(struct cli *cli, const struct args *a, const char *method, char *path, const char *etag, json_t *body,
		  const char *label, json_t **ret_operation, struct err *e)
{
	struct client *client;
	own_json json_t *answer = NULL, *operation = NULL;
	int r = cli_client(cli, &client, e);

	if (r == 0)
		r = client_call_if(client, method, path, etag, body, &answer, NULL, e);
	json_decref(body);
	free(path);
	if (r < 0)
		return r;
	if (args_flag(a, "detach")) {
		change_detach(cli, answer);
		return 0;
	}
	r = change_wait(cli, answer, label, &operation, e);
	if (r < 0)
		return r;
	change_show(cli, operation ? operation : answer);
	if (ret_operation)
		*ret_operation = TAKE(operation);
	return 0;
}

int change_each(struct cli *cli, const struct args *a, const char *method, const char *path, const json_t *body, struct err *e)
{
	int result = 0;

	for (size_t i = 0; i < a->operand_count; i++) {
		const char *name = args_operand(a, i);
		struct err failure = { 0 };
		int r = change_run(cli, a, method, client_path(path, name), json_incref((json_t *)(uintptr_t)body), name,
				   &failure);
		if (r == 0 && !cli->quiet && !args_flag(a, "detach") && cli->format == FORMAT_TABLE) {
			own_strbuf struct str text = { 0 };
			print_escape(&text, name);
			(void)puts(text.bytes);
		}
		if (r < 0 && result < 0)
			cli_report(cli, e); /* the last one is the caller's to report */
		if (r < 0) {
			*e = failure;
			result = r;
		}
	}
	return result;
}
