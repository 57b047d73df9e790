/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The archive and its operation are two things to listen to: the bytes come on one connection, and while they do not - a layer
 * is packed, the disk read - a second one asks how far it is. The file is written beside and renamed when it is whole;
 * warnings of the service (what the format cannot hold) are known at the end only.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/loop.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"
#include "cli/print.h"
#include "cli/progress.h"
#include "cli/target.h"

#define LOOK_EVERY_MS 500

struct output {
	struct cli *cli;
	int fd;
	uint64_t done, looked_ms;
	struct progress progress;
	struct client *second; /* the first one's connection is busy with the archive */
	char operation[64];
	struct err failure;
};

/* How far the service is: it packs a layer before the first byte of it comes. */
static void look(void *data)
{
	struct output *o = data;
	own_str char *path = client_path("/v1/operations/%s", o->operation);
	own_json json_t *operation = NULL;

	if (!o->operation[0] || o->cli->quiet || loop_now_ms() - o->looked_ms < LOOK_EVERY_MS)
		return;
	o->looked_ms = loop_now_ms();
	if (!o->second && client_new(o->cli->address, &o->second, NULL) < 0)
		return;
	if (client_call(o->second, "GET", path, NULL, &operation, NULL) == 0)
		progress_operation(&o->progress, operation);
}

static void take_operation(void *data, const char *id)
{
	struct output *o = data;
	(void)snprintf(o->operation, sizeof o->operation, "%s", id);
}

static int write_bytes(void *data, const char *bytes, size_t length)
{
	struct output *o = data;

	if (cli_interrupted || fs_write_all(o->fd, bytes, length, &o->failure) < 0)
		return 1;
	o->done += length;
	if (!o->operation[0])
		progress_bytes(&o->progress, o->done, 0, 0);
	look(o);
	return 0;
}

/* What the archive does not hold. */
static void warn(const struct output *o, struct client *client)
{
	own_str char *path = client_path("/v1/operations/%s?wait=10", o->operation);
	own_json json_t *operation = NULL;
	json_t *warning;
	size_t i;

	if (!o->operation[0] || client_call(client, "GET", path, NULL, &operation, NULL) < 0)
		return;
	json_array_foreach(json_object_get(json_object_get(operation, "result"), "warnings"), i, warning) {
		own_strbuf struct str text = { 0 };
		print_escape(&text, json_string_value(warning));
		(void)fprintf(stderr, "carrel: warning: %s\n", str_text(&text));
	}
}

static int download(struct cli *cli, const char *name, const char *format, struct output *o, struct err *e)
{
	struct client *client;
	own_str char *path = client_path("/v1/images/%s/export?format=%s", name, format);
	int r = cli_client(cli, &client, e);

	if (r == 0)
		r = cli_catch_interrupt(cli, e);
	if (r < 0)
		return r;
	const struct client_sink sink = { .write = write_bytes, .operation = take_operation, .tick = look, .data = o };
	o->cli = cli;
	progress_start(&o->progress, cli, name);
	r = client_download(client, path, &sink, e);
	progress_end(&o->progress);
	if (o->second)
		client_free(o->second);
	if (r == 0)
		warn(o, client);
	else if (cli_interrupted)
		r = err_set(e, ERR_CANCELLED, "interrupted");
	if (r < 0 && o->failure.kind != ERR_NONE) {
		*e = o->failure;
		return err_wrap(e, "export");
	}
	return r;
}

/* The file is there when it is whole, or not at all. */
static int export_to_file(struct cli *cli, const char *name, const char *format, const char *file, struct err *e)
{
	own_str char *temporary = mem_printf("%s.%d.part", file, (int)getpid());
	own_fd int fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0644);
	struct output o = { .fd = fd };

	if (fd < 0)
		return err_errno(e, errno, "create %s", temporary);
	int r = download(cli, name, format, &o, e);
	if (r == 0 && fsync(fd) < 0)
		r = err_errno(e, errno, "write %s", temporary);
	if (r == 0 && rename(temporary, file) < 0)
		r = err_errno(e, errno, "rename to %s", file);
	if (r < 0)
		(void)unlink(temporary);
	return r;
}

/* "win.qcow2" */
static const char *format_of(const char *file)
{
	static const char *const of_disks[] = { "qcow2", "vmdk", "ova", "raw" };
	const char *dot = strrchr(file, '.');

	for (size_t i = 0; dot && i < ARRAY_SIZE(of_disks); i++)
		if (str_eq(dot + 1, of_disks[i]))
			return of_disks[i];
	return "oci";
}

static int export(struct cli *cli, const struct args *a, struct err *e)
{
	const char *name = args_operand(a, 0), *file = args_operand(a, 1), *format = args_text(a, "format-image");

	format = format ? format : format_of(file);
	if (!str_eq(file, "-")) {
		own_str char *target = NULL;
		int r = target_of(file, &target, e);
		return r < 0 ? r : export_to_file(cli, name, format, target, e);
	}
	if (cli->output_terminal)
		return err_set(e, ERR_INVALID, "an archive is not written to a terminal");
	struct output o = { .fd = STDOUT_FILENO };
	return download(cli, name, format, &o, e);
}

static const char *const formats[] = { "oci", "oci-zstd", "partitions", "tar", "qcow2", "vmdk", "ova", "raw", NULL };
static const struct operand operands[] = {
	{ "IMAGE", "image", COMPLETE_IMAGE },
	{ "FILE", "file to write; - is standard output", COMPLETE_FILE },
	{ 0 },
};
static const struct option options[] = {
	{ "format-image", 0, OPTION_TEXT, "FORMAT",
	  "oci: an OCI image layout in a tar; tar: one tar of all files; partitions: an OCI layout with our own layers; of "
	  "disks: qcow2, vmdk (streamOptimized), ova, raw; what the name of FILE ends with, else oci",
	  formats },
	{ 0 },
};
static const struct example examples[] = {
	{ "carrel image export debian debian.oci.tar", "for any OCI tool, or another Carrel" },
	{ "carrel image export win win.ova", "a disk, for VMware, VirtualBox and others" },
	{ "carrel image export --format-image tar debian - | tar t", "all files, as one tar" },
	{ 0 },
};
const struct verb verb_image_export = {
	"image export", "write an image to a file",
	"The file appears under its name when it is whole. Ctrl-C, a reader that goes away, and carrel operation cancel end "
	"the export; carrel operation ls shows how far it is. Equal images give equal bytes.",
	operands, options, NULL, examples, export,
};
