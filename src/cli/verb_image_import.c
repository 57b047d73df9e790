/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>

#include "base/own.h"
#include "base/str.h"
#include "cli/change.h"
#include "cli/print.h"
#include "cli/source.h"

static int fetch(struct client *client, const char *name, const char *source, json_t **ret_answer, struct err *e)
{
	own_json json_t *body = json_pack("{s:s, s:s}", "name", name, "source", source);

	return body ? client_call(client, "POST", "/v1/images", body, ret_answer, e) : err_set(e, ERR_INVALID, "the source is not UTF-8");
}

static int upload(struct cli *cli, struct client *client, const struct args *a, const char *name, const char *text, json_t **ret_answer,
		  struct err *e)
{
	own_source struct source source = SOURCE_NONE;
	struct progress progress;
	const struct source_options options = { args_text(a, "format-image"), args_text(a, "include"), args_text(a, "variant"), args_text(a, "mirror") };

	progress_start(&progress, cli, name);
	int r = source_open(&source, text, &options, &progress, e);
	if (r == 0) {
		own_str char *path = client_path("/v1/images?name=%s&format=%s", name, source.format);
		progress_step(&progress, "send");
		r = client_upload(client, path, source_read, &source, ret_answer, e);
		int made = source_finish(&source, e); /* why the stream broke says more than that it did */
		r = made < 0 ? made : r;
	}
	progress_end(&progress);
	return r;
}

static int print_image(struct cli *cli, struct client *client, const char *name, struct err *e)
{
	own_json json_t *image = NULL;
	own_str char *path = client_path("/v1/images/%s", name);

	if (cli->format == FORMAT_TABLE) {
		(void)puts(name);
		return 0;
	}
	int r = client_call(client, "GET", path, NULL, &image, e);
	if (r == 0)
		print_object(cli, image);
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
		r = str_starts(source, "docker://") ? fetch(client, name, source, &answer, e) : upload(cli, client, a, name, source, &answer, e);
	if (r < 0)
		return r;
	if (args_flag(a, "detach")) {
		(void)puts(client_operation_id(answer) ? client_operation_id(answer) : name);
		return 0;
	}
	r = change_wait(cli, answer, name, NULL, e);
	return r < 0 ? r : print_image(cli, client, name, e);
}

static const char *const formats[] = { "tar", "oci", NULL };
static const struct operand operands[] = {
	{ "NAME", "name of the image, with or without :TAG" },
	{ "SOURCE", "folder, archive, - (an archive on standard input), docker://HOST/NAME:TAG, or debian:SUITE", COMPLETE_FILE },
	{ 0 },
};
static const struct option options[] = {
	{ "format-image", 0, OPTION_TEXT, "FORMAT", "what the archive is, instead of looking at it", formats },
	{ "include", 0, OPTION_TEXT, "PACKAGES", "debian: more packages, joined by commas" },
	{ "variant", 0, OPTION_TEXT, "VARIANT", "debian: minbase, important (the default), standard: see mmdebstrap(1)" },
	{ "mirror", 0, OPTION_TEXT, "URL", "debian: mirror to take the packages from" },
	{ 0 },
};
static const struct example examples[] = {
	{ "carrel image import debian debian:bookworm --include openssh-server", "a Debian from its packages" },
	{ "carrel image import alpine docker://docker.io/library/alpine:3.20", "from a registry" },
	{ "carrel image import app ./rootfs", "a folder" },
	{ "docker save app | carrel image import app -", "what another tool writes" },
	{ 0 },
};
const struct verb verb_image_import = {
	"image import", "make an image from a folder, an archive, a registry or Debian's packages",
	"Archives may be plain or compressed with gzip, xz or zstd; an OCI image layout is recognized as a folder and as an archive. What the "
	"service has already is not stored twice. Ctrl-C ends the import and leaves nothing behind.",
	operands, options, change_options, examples, import,
};
