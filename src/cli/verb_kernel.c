/* SPDX-License-Identifier: Apache-2.0 */
#include "base/mem.h"
#include "cli/change.h"
#include "cli/show.h"

static char *default_text(const json_t *kernel, const json_t *value)
{
	(void)kernel;
	return mem_strdup(json_is_true(value) ? "default" : "");
}

static int list(struct cli *cli, const struct args *a, struct err *e)
{
	static const struct column columns[] = { { "NAME", "name" }, { "RELEASE", "release" },
						 { "ARCHITECTURE", "architecture" }, { "", "default", default_text },
						 { "SIZE", "size", text_bytes }, { "CREATED", "created", text_age }, { 0 } };

	(void)a;
	return show_list(cli, "/v1/kernels", columns, e);
}

static int show(struct cli *cli, const struct args *a, struct err *e)
{
	return show_object(cli, client_path("/v1/kernels/%s", args_operand(a, 0)), e);
}

static int remove_kernels(struct cli *cli, const struct args *a, struct err *e)
{
	return change_each(cli, a, "DELETE", "/v1/kernels/%s", NULL, e);
}

static int make_default(struct cli *cli, const struct args *a, struct err *e)
{
	own_str char *path = client_path("/v1/kernels/%s/default", args_operand(a, 0));
	own_json json_t *answer = NULL;
	struct client *client;
	int r = cli_client(cli, &client, e);

	return r < 0 ? r : client_call(client, "POST", path, NULL, &answer, e);
}

static const struct operand one[] = { { "NAME", "kernel", COMPLETE_KERNEL }, { 0 } };
static const struct operand many[] = { { "NAME", "kernels", COMPLETE_KERNEL, .many = true }, { 0 } };
static const struct example list_examples[] = { { "carrel kernel ls", "what machines can boot" }, { 0 } };
static const struct example show_examples[] = { { "carrel kernel show linux", "its release and its partition" }, { 0 } };
static const struct example rm_examples[] = {
	{ "carrel kernel rm linux-old", "machines that were started with it keep it until their next start" }, { 0 }
};
static const struct example default_examples[] = {
	{ "carrel kernel default linux-6.12", "machines boot it from their next start on" }, { 0 }
};
const struct verb verb_kernel_ls = { "kernel ls", "list kernels for machines", NULL, NULL, NULL, NULL, list_examples, list };
const struct verb verb_kernel_show = { "kernel show", "show a kernel", NULL, one, NULL, NULL, show_examples, show };
const struct verb verb_kernel_rm = { "kernel rm", "remove kernels", NULL,          many, change_options,
				     NULL,        rm_examples,      remove_kernels };
const struct verb verb_kernel_default = {
	"kernel default", "make a kernel the default of its processor (administrators)",
	"Machines boot the kernel that their spec names (--kernel), else the one that their image asks for (label "
	"carrel.kernel), else the default for their processor. The first kernel that an administrator imports for a processor "
	"becomes its default.",
	one, NULL, NULL, default_examples, make_default,
};
