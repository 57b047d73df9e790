/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two ways to one operation: a registry is fetched by the service, which gets a source and perhaps a password in the request's
 * body; everything else is a stream that this side makes or reads and uploads. In both the answer is the operation, waited for
 * like any other. What the options mean is the service's to check, but for those that would silently do nothing.
 */
#include <stdio.h>

#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"
#include "cli/change.h"
#include "cli/credentials.h"
#include "cli/print.h"
#include "cli/source.h"
#include "model/machine.h"

static int fetch(struct client *client, const struct args *a, const char *name, const char *source, json_t **ret_answer,
		 struct err *e)
{
	struct registry_login login = { 0 };
	int r = credentials_find(a, source, &login, e);

	if (r < 0)
		return r;
	own_json json_t *body = json_pack("{s:s, s:s, s:s*, s:s*, s:s*}", "name", name, "source", source, "architecture",
					  args_text(a, "arch"), "user", login.user, "password", login.password);
	registry_login_done(&login);
	return body ? client_call(client, "POST", "/v1/images", body, ret_answer, e) :
		      err_set(e, ERR_INVALID, "source, user name or password is not UTF-8");
}

static int check_options(const struct args *a, bool registry, struct err *e)
{
	static const char *const of_registries[] = { "username", "password-stdin", "authfile" };

	for (size_t i = 0; i < ARRAY_SIZE(of_registries) && !registry; i++)
		if (args_text(a, of_registries[i]) || args_flag(a, of_registries[i]))
			return err_set(e, ERR_INVALID, "--%s is for sources that begin with docker://", of_registries[i]);
	return 0;
}

static const char *const of_disks[] = { "firmware", "disk-bus", "nic" };

static void upload_path(struct str *out, const struct args *a, const char *name, const char *format)
{
	own_str char *path = client_path("/v1/images?name=%s&format=%s", name, format);

	str_puts(out, path);
	if (args_text(a, "arch")) {
		own_str char *arch = client_path("&architecture=%s", args_text(a, "arch"));
		str_puts(out, arch);
	}
	for (size_t i = 0; i < ARRAY_SIZE(of_disks); i++)
		if (args_text(a, of_disks[i]))
			str_printf(out, "&%s=%s", of_disks[i], args_text(a, of_disks[i])); /* one of a list */
}

static int upload(struct cli *cli, struct client *client, const struct args *a, const char *name, const char *text,
		  json_t **ret_answer, struct err *e)
{
	own_source struct source source = SOURCE_NONE;
	struct progress progress;
	const struct source_options options = { args_text(a, "format-image"), args_text(a, "include"), args_text(a, "variant"),
						args_text(a, "mirror"), args_text(a, "arch"), NULL };

	progress_start(&progress, cli, name);
	int r = source_open(&source, text, &options, &progress, e);
	if (r == 0) {
		own_strbuf struct str path = { 0 };
		upload_path(&path, a, name, source.format);
		progress_step(&progress, "send");
		r = client_upload(client, str_text(&path), source_read, &source, ret_answer, e);
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
	bool registry = str_starts(source, "docker://");
	int r = check_options(a, registry, e);

	if (r == 0)
		r = cli_client(cli, &client, e);
	if (r == 0)
		r = cli_catch_interrupt(cli, e);
	if (r == 0)
		r = registry ? fetch(client, a, name, source, &answer, e) : upload(cli, client, a, name, source, &answer, e);
	if (r < 0)
		return r;
	if (args_flag(a, "detach")) {
		(void)puts(client_operation_id(answer) ? client_operation_id(answer) : name);
		return 0;
	}
	r = change_wait(cli, answer, name, NULL, e);
	return r < 0 ? r : print_image(cli, client, name, e);
}

static const char *const formats[] = { "tar", "oci", "disk", "raw", NULL };
static const struct operand operands[] = {
	{ "NAME", "name of the image, with or without :TAG" },
	{ "SOURCE", "folder, archive, disk image, - (one of these on standard input), docker://HOST/NAME:TAG, or debian:SUITE",
	  COMPLETE_FILE },
	{ 0 },
};
static const struct option options[] = {
	{ "format-image", 0, OPTION_TEXT, "FORMAT", "what SOURCE is, instead of looking at it", formats },
	{ "firmware", 0, OPTION_TEXT, "FIRMWARE", "disks: what boots it: bios or uefi", machine_firmware_names },
	{ "disk-bus", 0, OPTION_TEXT, "BUS", "disks: how they are attached: virtio, sata or nvme", machine_bus_names },
	{ "nic", 0, OPTION_TEXT, "CARD", "disks: the network card: virtio or e1000", machine_nic_names },
	{ "arch", 0, OPTION_TEXT, "PROCESSOR",
	  "processor that the image is for, such as arm64 or riscv64; the service's own when missing" },
	{ "include", 0, OPTION_TEXT, "PACKAGES", "debian: more packages, joined by commas" },
	{ "variant", 0, OPTION_TEXT, "VARIANT", "debian: minbase, important (the default), standard: see mmdebstrap(1)" },
	{ "username", 0, OPTION_TEXT, "NAME", "docker: user name for the registry" },
	{ "password-stdin", 0, OPTION_FLAG, NULL, "docker: read the password or token from standard input" },
	{ "authfile", 0, OPTION_TEXT, "FILE", "docker: file with the passwords of registries", .complete = COMPLETE_FILE },
	{ "mirror", 0, OPTION_TEXT, "URL", "debian: mirror to take the packages from" },
	{ 0 },
};
static const struct example examples[] = {
	{ "carrel image import debian debian:bookworm --include openssh-server", "a Debian from its packages" },
	{ "carrel image import alpine docker://docker.io/library/alpine:3.20", "from a registry" },
	{ "carrel image import app docker://registry.example.org/app --username me --password-stdin <token",
	  "from one that asks who you are" },
	{ "carrel image import app ./rootfs", "a folder" },
	{ "carrel image import win server.qcow2 --firmware uefi --disk-bus sata", "a disk, booted as it is" },
	{ "docker save app | carrel image import app -", "what another tool writes" },
	{ 0 },
};
const struct verb verb_image_import = {
	"image import", "make an image from a folder, an archive, a disk, a registry or Debian's packages",
	"Archives may be plain or compressed with gzip, xz or zstd; an OCI image layout is recognized as a folder and as an "
	"archive. What the service has already is not stored twice. Ctrl-C ends the import and leaves nothing behind.\n\n"
	"Disk images - qcow2, VMDK, VHDX, VHD, VDI, OVA and raw disks - become images that machines boot as they are (engines "
	"emulator and kvm), packed or not. Those that need other files, such as a backing file, are refused.\n\n"
	"A registry that asks for user name and password gets those that are given here, or its own entry of a password file "
	"as docker login and podman login write it: --authfile, $REGISTRY_AUTH_FILE, $XDG_RUNTIME_DIR/containers/auth.json, "
	"~/.docker/config.json. Entries of other registries stay where they are, helper programs (credHelpers) are not run, "
	"and the service keeps nothing of it.",
	operands, options, change_options, examples, import,
};
