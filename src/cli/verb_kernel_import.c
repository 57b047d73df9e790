/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <sys/utsname.h>

#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"
#include "cli/change.h"
#include "cli/print.h"
#include "cli/source.h"

/* The smallest of Debian's kernels that machines run well with. */
static const char *package_for(const char *architecture)
{
	static const char *const packages[][2] = { { "amd64", "linux-image-cloud-amd64" },
						   { "x86_64", "linux-image-cloud-amd64" },
						   { "arm64", "linux-image-cloud-arm64" },
						   { "aarch64", "linux-image-cloud-arm64" },
						   { "riscv64", "linux-image-riscv64" } };
	static struct utsname here;

	if (!architecture && uname(&here) == 0)
		architecture = here.machine;
	for (size_t i = 0; i < ARRAY_SIZE(packages); i++)
		if (str_eq(architecture, packages[i][0]))
			return packages[i][1];
	return "linux-image";
}

static int fetch(struct client *client, const struct args *a, const char *name, const char *source, json_t **ret_answer,
		 struct err *e)
{
	own_json json_t *body = json_pack("{s:s, s:s, s:s*}", "name", name, "source", source, "architecture",
					  args_text(a, "arch"));

	return body ? client_call(client, "POST", "/v1/kernels", body, ret_answer, e) :
		      err_set(e, ERR_INVALID, "a name is not UTF-8");
}

static int upload(struct cli *cli, struct client *client, const struct args *a, const char *name, const char *text,
		  json_t **ret_answer, struct err *e)
{
	own_source struct source source = SOURCE_NONE;
	own_str char *path = client_path("/v1/kernels?name=%s", name);
	const char *package = args_text(a, "package"), *architecture = args_text(a, "arch");
	const struct source_options options = { .format = "tar", .mirror = args_text(a, "mirror"), .architecture = architecture,
						.kernel = package ? package : package_for(architecture) };
	struct progress progress;

	progress_start(&progress, cli, name);
	int r = source_open(&source, text, &options, &progress, e);
	if (r == 0) {
		progress_step(&progress, "send");
		r = client_upload(client, path, source_read, &source, ret_answer, e);
		int made = source_finish(&source, e); /* why the stream broke says more than that it did */
		r = made < 0 ? made : r;
	}
	progress_end(&progress);
	return r;
}

static int import(struct cli *cli, const struct args *a, struct err *e)
{
	const char *name = args_operand(a, 0), *source = args_operand(a, 1);
	own_json json_t *answer = NULL;
	struct client *client;
	int r = cli_client(cli, &client, e);

	if (r == 0)
		r = cli_catch_interrupt(cli, e);
	if (r == 0)
		r = str_starts(source, "docker://") ? fetch(client, a, name, source, &answer, e) :
						      upload(cli, client, a, name, source, &answer, e);
	if (r < 0)
		return r;
	if (args_flag(a, "detach")) {
		(void)puts(client_operation_id(answer) ? client_operation_id(answer) : name);
		return 0;
	}
	r = change_wait(cli, answer, name, NULL, e);
	if (r == 0)
		(void)puts(name);
	return r;
}

static const struct operand operands[] = {
	{ "NAME", "name of the kernel" },
	{ "SOURCE",
	  "debian:SUITE, a package of a kernel (.deb), a folder with boot/ and lib/modules/, or docker://HOST/NAME:TAG",
	  COMPLETE_FILE },
	{ 0 },
};
static const struct option options[] = {
	{ "arch", 0, OPTION_TEXT, "PROCESSOR",
	  "debian, docker: processor that it is for, such as arm64 or riscv64; this machine's when missing" },
	{ "package", 0, OPTION_TEXT, "PACKAGE", "debian: package of the kernel; the one for virtual machines when missing" },
	{ "mirror", 0, OPTION_TEXT, "URL", "debian: mirror to take the package from" },
	{ 0 },
};
static const struct example examples[] = {
	{ "carrel kernel import linux debian:bookworm", "Debian's kernel for virtual machines" },
	{ "carrel kernel import linux-full debian:bookworm --package linux-image-amd64", "the one with all drivers" },
	{ "carrel kernel import linux-arm64 debian:bookworm --arch arm64", "for machines of another processor" },
	{ "carrel kernel import own ./linux-image-6.12.9_amd64.deb", "a package that was built from source (make bindeb-pkg)" },
	{ 0 },
};
const struct verb verb_kernel_import = {
	"kernel import", "make a kernel for machines from a distribution's package",
	"A kernel is a partition as others are: kept once, named by its content, shared by all machines. Its configuration is "
	"checked for what machines need (virtio, erofs, overlayfs, ext4), and what is missing is named. The package is fetched "
	"and unpacked by apt in a root of its own; nothing is installed on this machine.",
	operands, options, change_options, examples, import,
};
