/* SPDX-License-Identifier: Apache-2.0 */
#include "base/mem.h"
#include "cli/change.h"
#include "cli/show.h"

static char *list_path(const char *host)
{
	return host ? client_path("/v1/templates?host=%s", host) : mem_strdup("/v1/templates");
}

static char *path_of(const char *name, const char *host)
{
	return host ? client_path("/v1/templates/%s?host=%s", name, host) : client_path("/v1/templates/%s", name);
}

static int list(struct cli *cli, const struct args *a, struct err *e)
{
	static const struct column columns[] = { { "ID", "id", text_short },         { "ENGINE", "engine" },
						 { "ARCHITECTURE", "architecture" }, { "MEMORY", "memory", text_bytes },
						 { "PROCESSORS", "processors" },     { "SIZE", "size", text_bytes },
						 { "USED", "used", text_age },       { 0 } };
	own_str char *path = list_path(args_text(a, "host"));

	return show_list(cli, path, columns, e);
}

static int remove_templates(struct cli *cli, const struct args *a, struct err *e)
{
	int result = 0;

	for (size_t i = 0; i < a->operand_count; i++) {
		const char *name = args_operand(a, i);
		struct err failure = { 0 };
		int r = change_run(cli, a, "DELETE", path_of(name, args_text(a, "host")), NULL, name, &failure);
		if (r == 0 && !cli->quiet) {
			own_strbuf struct str text = { 0 };
			print_escape(&text, name);
			(void)puts(str_text(&text));
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

#define HOST { "host", 0, OPTION_TEXT, "NAME", "on this host of the site; the one that new workspaces go to when missing" }
static const struct operand many[] = { { "ID", "templates; the beginning of an id is enough", COMPLETE_TEMPLATE,
					 .many = true }, { 0 } };
static const struct option options[] = { HOST, { 0 } };
static const struct example list_examples[] = {
	{ "carrel template ls", "what machines go on from instead of booting, and how much disk it takes" },
	{ "carrel template ls --format json | jq '[.[].size] | add'", "for a script" },
	{ 0 },
};
static const struct example rm_examples[] = {
	{ "carrel template rm 3f1c", "the next machine of its kind boots, and another template is made" },
	{ "carrel template rm $(carrel template ls --format json | jq -r '.[].id')", "all of them" },
	{ 0 },
};
const struct verb verb_template_ls = {
	"template ls", "list templates of machines",
	"A machine that has to boot leaves a template behind: the memory of one that was just started, without anything of a "
	"workspace in it. The next machine with the same kernel, memory and processors goes on from there. Templates are a "
	"cache: those that have not been used for longest go when all of them take more disk than carrel-node --templates "
	"allows.",
	NULL, options, NULL, list_examples, list,
};
const struct verb verb_template_rm = {
	"template rm", "remove templates of machines (administrators)",
	"Machines that went on from it keep their memory. It is made again when a machine of its kind has booted; carrel-node "
	"--templates 0 has none made.",
	many, options, NULL, rm_examples, remove_templates,
};
