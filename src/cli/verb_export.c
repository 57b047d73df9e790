/* SPDX-License-Identifier: Apache-2.0 */
/*
 * FILE.part is the state of an export: locked while it is written, kept when that is interrupted, and looked at by
 * carrel-bundle (recover) to find the place to go on from. The service then sends the header again, which must be the same
 * bytes, or the workspace has changed and all begins anew. The table at the end is written by carrel-bundle (finish), and only
 * a whole file gets its name.
 *
 * Disks alone (--as) are in formats that cannot be continued, and begin at zero each time.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"
#include "cli/bundle.h"
#include "cli/print.h"
#include "cli/target.h"

static int make_request(struct cli *cli, const struct args *a, json_t **ret_request, struct err *e)
{
	json_t *digests = json_array();
	const char *base;
	size_t at = 0;
	int r = 0;

	while (r == 0 && (base = args_next(a, "base", &at)))
		r = bundle_base(cli, base, digests, e);
	if (r < 0) {
		json_decref(digests);
		return r;
	}
	*ret_request = json_pack("{s:o, s:b}", "leave-out", digests, "snapshots", args_flag(a, "snapshots"));
	return 0;
}

/* What an export before this one left: from where to go on, or nothing. */
static uint64_t take_up(const char *part, int fd, json_t *request)
{
	own_json json_t *found = NULL;
	struct stat st;

	if (fstat(fd, &st) < 0 || st.st_size == 0)
		return 0;
	if (bundle_ask("recover", part, &found, NULL) < 0) {
		(void)!ftruncate(fd, 0);
		return 0;
	}
	(void)json_object_set_new(request, "from", json_pack("{s:O, s:O}", "stream", json_object_get(found, "stream"), "offset",
							      json_object_get(found, "offset")));
	(void)lseek(fd, 0, SEEK_END);
	return (uint64_t)json_integer_value(json_object_get(found, "start"));
}

static int transfer(struct cli *cli, const char *name, json_t *request, int fd, uint64_t known, struct err *e)
{
	struct bundle_transfer t = { .path = client_path("/v1/workspaces/%s/export", name), .request = request, .into = fd,
				     .from = -1, .back = -1, .known = known, .label = name };
	return bundle_transfer(cli, &t, e);
}

static int fill(struct cli *cli, const char *name, json_t *request, const char *part, int fd, struct err *e)
{
	uint64_t known = take_up(part, fd, request);
	int r = transfer(cli, name, request, fd, known, e);

	if (r < 0 && known && e->kind == ERR_PRECONDITION) {
		if (!cli->quiet)
			(void)fprintf(stderr, "carrel: the workspace has changed since %s was begun: from the start again\n",
				      part);
		(void)json_object_del(request, "from");
		if (ftruncate(fd, 0) < 0 || lseek(fd, 0, SEEK_SET) < 0)
			return err_errno(e, errno, "empty %s", part);
		r = transfer(cli, name, request, fd, 0, e);
	}
	if (r == 0)
		r = bundle_ask("finish", part, NULL, e);
	return r;
}

/* Its disk alone: a file of others, which cannot be continued. */
static int export_disk(struct cli *cli, const struct args *a, const char *name, const char *part, const char *file,
		       struct err *e)
{
	own_json json_t *request = json_pack("{s:s}", "format", args_text(a, "as"));
	const char *more = args_text(a, "base") ? "base" : args_flag(a, "snapshots") ? "snapshots" : NULL;

	if (more)
		return err_set(e, ERR_INVALID, "--as writes a disk, which --%s says nothing about", more);
	own_fd int fd = open(part, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return err_errno(e, errno, "create %s", part);
	int r = transfer(cli, name, request, fd, 0, e);
	if (r == 0 && fsync(fd) < 0)
		r = err_errno(e, errno, "write %s", part);
	if (r == 0 && rename(part, file) < 0)
		r = err_errno(e, errno, "rename to %s", file);
	if (r < 0)
		(void)unlink(part);
	return r;
}

static int export(struct cli *cli, const struct args *a, struct err *e)
{
	const char *name = args_operand(a, 0);
	own_str char *file = NULL;
	own_json json_t *request = NULL;

	if (str_eq(args_operand(a, 1), "-")) {
		(void)err_set(e, ERR_INVALID,
			      "a bundle goes into a file, not to standard output: an interrupted one is gone on with");
		return err_hint(e, "a file named - is ./-");
	}
	int r = target_of(args_operand(a, 1), &file, e);
	if (r < 0)
		return r;
	own_str char *part = mem_printf("%s.part", file);
	if (args_text(a, "as"))
		return export_disk(cli, a, name, part, file, e);
	if ((r = make_request(cli, a, &request, e)) < 0)
		return r;
	own_fd int fd = open(part, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return err_errno(e, errno, "create %s", part);
	if (flock(fd, LOCK_EX | LOCK_NB) < 0)
		return err_set(e, ERR_CONFLICT, "another export writes %s", part);
	r = fill(cli, name, request, part, fd, e);
	struct stat st;
	if (r < 0 && fstat(fd, &st) == 0 && st.st_size == 0)
		(void)unlink(part); /* nothing came: refused */
	else if (r < 0)
		return err_hint(e, "the same command goes on where %s ends", part);
	if (r == 0 && fsync(fd) < 0)
		r = err_errno(e, errno, "write %s", part);
	if (r == 0 && rename(part, file) < 0)
		r = err_errno(e, errno, "rename to %s", file);
	return r;
}

static const struct operand operands[] = {
	{ "NAME", "workspace, stopped or suspended", COMPLETE_WORKSPACE },
	{ "FILE", "file to write", COMPLETE_FILE },
	{ 0 },
};
static const struct option options[] = {
	{ "base", 'b', OPTION_MANY, "IMAGE|FILE",
	  "leave out the partitions of an image, of another bundle, or of a list: the other side has them", NULL,
	  COMPLETE_IMAGE_OR_FILE },
	{ "snapshots", 0, OPTION_FLAG, NULL, "its snapshots too" },
	{ "as", 0, OPTION_TEXT, "FORMAT",
	  "of a stopped workspace that boots a disk: that alone, with what it wrote, as qcow2, vmdk, ova or raw" },
	{ 0 },
};
static const struct example examples[] = {
	{ "carrel export web web.bundle", "the whole workspace: image, volumes, and its memory when it is suspended" },
	{ "carrel export --base debian web web.bundle", "for a service that has the image debian" },
	{ "carrel export --as ova server server.ova", "the disks of a machine, for other systems" },
	{ 0 },
};
const struct verb verb_export = {
	"export", "write a whole workspace to one file",
	"The file holds spec, identity, image, volumes and, of a suspended workspace, its memory: carrel import makes it a "
	"workspace again, here or elsewhere. (An image alone: carrel image export.)\n\n"
	"It is written as FILE.part. What interrupts the export leaves that, and the same command goes on where it ended.",
	operands, options, NULL, examples, export,
};
