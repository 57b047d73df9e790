/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. Both helpers are workspaces of this agent's own, in maintenance, made of the workspace's image and with the volume in
 * question as a data volume at PLACE; so what confines workspaces confines them, and files go by the tar that copies go by. The
 * reader is a machine; what its kernel does to the file system happens to a copy. What it sends is believed as much as what a
 * user copies in: it is unpacked by a process with the workspace's own rights, in a root of its own.
 *
 *   copied -> both stand -> files are over -> the writer has unmounted -> renamed
 *
 * The root volume's files are those of `upper` (tree_take_volume), with whiteouts and overlay's attributes as they are. Ids of
 * the helpers come from the workspace's, so an agent that begins after one that was killed finds what that one left, and takes
 * it away first.
 */
#include "node/refill.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/fs.h"
#include "base/hash.h"
#include "base/loop.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"
#include "engine/runner_client.h"
#include "node/refill_pump.h"
#include "store/check.h"
#include "store/volume.h"

#define PLACE "/.carrel-copy"
#define VOLUME "copy"
#define FOLDER "helpers"
#define READER_BYTES (UINT64_C(256) << 20)
#define SLOWEST (UINT64_C(4) << 20)  /* bytes in a second: what a copy may take beyond CHECK_SECONDS */
#define HEADERS (UINT64_C(64) << 20) /* of the tar; together with as much again as the volume holds, for many small files */
#define SCRATCH_BYTES (UINT64_C(64) << 20)

struct helper {
	struct work work;
	char *volume; /* its data volume's file */
};

static void say_nothing(struct work *w) { (void)w; }

/* --- helpers --- */

static void make_id(const char *of, const char *what, char out[ID_SIZE])
{
	own_str char *text = mem_printf("%s %s", what, of);
	char hex[DIGEST_HEX_SIZE];
	struct digest d = hash_bytes(text, strlen(text));

	(void)snprintf(out, ID_SIZE, "%.*s", ID_LENGTH, digest_hex(&d, hex));
}

int refill_wish(const struct assignment *of, const char *id, bool machine, uint64_t bytes, struct assignment *ret_wish,
		struct err *e)
{
	json_t *all = encode(&assignment_shape, of);
	json_t *wish = json_pack("{s:s, s:i, s:s, s:O, s:O*, s:I}", "id", id, "generation", 1, "wish", "prepared", "image",
				 json_object_get(all, "image"), "kernel", json_object_get(all, "kernel"), "owner",
				 (json_int_t)of->owner_uid);
	json_t *spec = json_pack("{s:s, s:O, s:s, s:s, s:s, s:{s:I, s:I}, s:[{s:s, s:s, s:I}]}", "name", id, "image",
				 json_object_get(json_object_get(all, "spec"), "image"), "network", "none", "engine",
				 machine ? "auto" : "workspace", "isolation", machine ? "machine" : "namespace", "resources",
				 "disk", (json_int_t)SCRATCH_BYTES, "memory", (json_int_t)READER_BYTES, "volumes", "name",
				 VOLUME, "mount", PLACE, "size", (json_int_t)bytes);

	(void)json_object_set_new(wish, "spec", spec);
	own_str char *text = json_dumps(wish, JSON_COMPACT);
	json_decref(all);
	json_decref(wish);
	return text ? decode_text(text, strlen(text), "a helper", &assignment_shape, ret_wish, e) :
		      err_set(e, ERR_INTERNAL, "a helper has no wish");
}

static int helper_make(struct helper *h, const struct work *of, const char *what, bool machine, uint64_t bytes, struct err *e)
{
	own_str char *folder = record_path(of->record, FOLDER);
	char id[ID_SIZE];

	make_id(of->record->id, what, id);
	h->work = (struct work){ .node = of->node, .record = record_new(folder, id), .tell = say_nothing };
	h->volume = mem_printf("%s/volumes/" VOLUME ".ext4", h->work.record->folder);
	own_str char *volumes = record_path(h->work.record, "volumes");
	int r = refill_wish(&of->record->wish, id, machine, bytes, &h->work.record->wish, e);
	if (r == 0) /* of an agent that was killed */
		r = steps_undo_all(&h->work, e);
	return r == 0 ? fs_mkdirs(volumes, 0700, e) : r;
}

static int helper_end(struct helper *h, struct err *e)
{
	struct record *r = h->work.record;
	int done = r ? steps_undo_all(&h->work, e) : 0;

	isolate_parts_done(&h->work.parts);
	if (r)
		record_free(r);
	free(h->volume);
	*h = (struct helper){ 0 };
	return done;
}

/* --- the way between them --- */

static int set_timeouts(int fd, struct err *e)
{
	const struct timeval longest = { .tv_sec = CHECK_SECONDS };

	if (fs_set_blocking(fd, true, e) < 0)
		return -e->number;
	if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &longest, sizeof longest) < 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &longest, sizeof longest) < 0)
		return err_errno(e, errno, "set the time for a copy");
	return 0;
}

static int copy_files(struct helper *reader, struct helper *writer, uint64_t bytes, struct err *e)
{
	own_str char *from = mem_printf("%s/%s", reader->work.node->runs, reader->work.record->id);
	own_str char *to = mem_printf("%s/%s", writer->work.node->runs, writer->work.record->id);
	own_fd int output = -1, input = -1;
	int r = runner_copy_out(from, PLACE, &output, e);

	if (r == 0)
		r = runner_copy_in(to, "/", &input, e);
	if (r == 0)
		r = set_timeouts(output, e);
	if (r == 0)
		r = set_timeouts(input, e);
	if (r < 0)
		return r;
	struct refill_limits limits = { .until_ms = loop_now_ms() + (CHECK_SECONDS + bytes / SLOWEST) * 1000,
					.bytes = 2 * bytes + HEADERS };
	return refill_pump(output, input, &limits, e);
}

/* --- all of it --- */

static int stand(struct helper *h, const char *what, const char *point, struct err *e)
{
	int fault = fault_point(point), r = fault ? err_errno(e, fault, "%s", what) : steps_maintain(&h->work, e);

	return r < 0 ? err_wrap(e, "%s", what) : 0;
}

static int prepare(struct work *w, struct helper *reader, struct helper *writer, const char *path, bool root,
		   uint64_t *ret_bytes, struct err *e)
{
	uint64_t bytes = 0, used = 0;
	own_fd int fd = -1;
	int r = volume_measure(path, &bytes, &used, e);

	if (r == 0)
		r = helper_make(reader, w, "reader", true, bytes, e);
	if (r == 0)
		r = helper_make(writer, w, "writer", false, bytes, e);
	if (r == 0)
		r = volume_copy(path, reader->volume, NULL, NULL, e);
	if (r == 0)
		r = volume_open(reader->volume, &fd, e);
	if (r == 0)
		r = volume_set_of_guest(fd, true, e);
	if (r >= 0)
		r = volume_make(w->node->pool, root ? VOLUME_ROOT : VOLUME_DATA, bytes, writer->volume, e);
	*ret_bytes = bytes;
	return r < 0 ? r : 0;
}

/* The writer's kernel has unmounted it, so it is whole. */
static int take_place(struct helper *writer, const char *path, struct err *e)
{
	own_fd int fd = -1;
	int fault, r = steps_undo_start(&writer->work, e);

	isolate_parts_done(&writer->work.parts);
	for (int tries = 0; r == 0 && tries < 10000 && (r = volume_open(writer->volume, &fd, e)) == -EBUSY; tries++, r = 0)
		(void)poll(NULL, 0, 1);
	if (r == 0 && fd < 0)
		r = err_set(e, ERR_CONFLICT, "the new volume is still in use");
	if (r == 0 && fsync(fd) < 0)
		r = err_errno(e, errno, "write the new volume");
	if (r == 0 && (fault = fault_point("refill-rename")))
		r = err_errno(e, fault, "take the place of the volume");
	if (r == 0 && rename(writer->volume, path) < 0)
		r = err_errno(e, errno, "take the place of %s", path);
	if (r < 0)
		return r;
	own_str char *folder = mem_strndup(path, (size_t)(strrchr(path, '/') - path));
	return fs_sync_folder(folder, e);
}

int refill_volume(struct work *w, const char *path, bool root, struct err *e)
{
	own_str char *folder = record_path(w->record, FOLDER);
	struct helper reader = { 0 }, writer = { 0 };
	struct err later = { 0 };
	uint64_t bytes = 0;
	int fault, r = prepare(w, &reader, &writer, path, root, &bytes, e);

	if (r == 0)
		r = stand(&reader, "a helper machine for the files", "refill-reader", e);
	if (r == 0)
		r = stand(&writer, "a helper for the new volume", "refill-writer", e);
	if (r == 0 && (fault = fault_point("refill-copy")))
		r = err_errno(e, fault, "copy the files");
	if (r == 0)
		r = copy_files(&reader, &writer, bytes, e);
	if (r == 0)
		r = take_place(&writer, path, e);
	int ended = helper_end(&reader, r < 0 ? &later : e);
	int other = helper_end(&writer, r < 0 || ended < 0 ? &later : e);
	(void)!fs_remove_tree(AT_FDCWD, folder, NULL);
	return r < 0 ? r : ended < 0 ? ended : other;
}
