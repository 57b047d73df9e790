/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. Both helpers are workspaces of this agent's own, in maintenance, made of the workspace's image and with the volume in question as a data
 * volume at PLACE; so what confines workspaces confines them, and files go by the tar that copies go by. The reader is a machine; what its kernel
 * does to the file system happens to a copy. What it sends is believed as much as what a user copies in: it is unpacked by a
 * process with the workspace's own rights, in a root of its own.
 *
 *   copied -> both stand -> files are over -> the writer has unmounted -> renamed
 *
 * The root volume's files are those of `upper` (tree_take_volume), with whiteouts and overlay's attributes as they are. Ids of the helpers come from the
 * workspace's, so an agent that begins after one that was killed finds what that one left, and takes it away first.
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

#include "base/err_json.h"
#include "base/fault.h"
#include "base/fs.h"
#include "base/hash.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"
#include "engine/runner_client.h"
#include "store/check.h"
#include "store/volume.h"

#define PLACE "/.carrel-copy"
#define VOLUME "copy"
#define FOLDER "helpers"
#define READER_BYTES (UINT64_C(256) << 20)
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

/* The workspace's image and kernel, and nothing else of its wish. */
static int make_wish(const struct record *of, const char *id, bool machine, uint64_t bytes, struct assignment *ret_wish, struct err *e)
{
	json_t *all = encode(&assignment_shape, &of->wish);
	json_t *wish = json_pack("{s:s, s:i, s:s, s:O, s:O*, s:I}", "id", id, "generation", 1, "wish", "prepared", "image",
				 json_object_get(all, "image"), "kernel", json_object_get(all, "kernel"), "owner", (json_int_t)of->wish.owner_uid);
	json_t *spec = json_pack("{s:s, s:O, s:s, s:s, s:s, s:{s:I, s:I}, s:[{s:s, s:s, s:I}]}", "name", id, "image",
				 json_object_get(json_object_get(all, "spec"), "image"), "network", "none", "engine", machine ? "auto" : "workspace",
				 "isolation", machine ? "machine" : "namespace", "resources", "disk", (json_int_t)SCRATCH_BYTES, "memory",
				 (json_int_t)READER_BYTES, "volumes", "name", VOLUME, "mount", PLACE, "size", (json_int_t)bytes);

	(void)json_object_set_new(wish, "spec", spec);
	own_str char *text = json_dumps(wish, JSON_COMPACT);
	json_decref(all);
	json_decref(wish);
	return text ? decode_text(text, strlen(text), "a helper", &assignment_shape, ret_wish, e) : err_set(e, ERR_INTERNAL, "a helper has no wish");
}

static int helper_make(struct helper *h, const struct work *of, const char *what, bool machine, uint64_t bytes, struct err *e)
{
	own_str char *folder = record_path(of->record, FOLDER);
	char id[ID_SIZE];

	make_id(of->record->id, what, id);
	h->work = (struct work){ .node = of->node, .record = record_new(folder, id), .tell = say_nothing };
	h->volume = mem_printf("%s/volumes/" VOLUME ".ext4", h->work.record->folder);
	own_str char *volumes = record_path(h->work.record, "volumes");
	int r = make_wish(of->record, id, machine, bytes, &h->work.record->wish, e);
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
	if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &longest, sizeof longest) < 0 || setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &longest, sizeof longest) < 0)
		return err_errno(e, errno, "set the time for a copy");
	return 0;
}

/* 1: bytes in `frame`; 0: it ended well. */
static int receive(int fd, char *frame, size_t *ret_length, const char *who, struct err *e)
{
	ssize_t n;

	do
		n = recv(fd, frame, RUNNER_FRAME_LONGEST, 0);
	while (n < 0 && errno == EINTR);
	if (n < 0 && (errno == EAGAIN))
		return err_set(e, ERR_TIMEOUT, "%s has done nothing for %d s", who, CHECK_SECONDS);
	if (n <= 0)
		return err_set(e, ERR_UNAVAILABLE, "%s ended", who);
	*ret_length = (size_t)n;
	if (frame[0] != '{')
		return 1;
	json_t *answer = json_loadb(frame, (size_t)n, 0, NULL), *error = json_object_get(answer, "error");
	bool well = json_is_integer(json_object_get(answer, "exit")) && json_integer_value(json_object_get(answer, "exit")) == 0;
	int r = 0;
	if (!well)
		r = err_set(e, ERR_CORRUPT, "%s: %s", who, json_string_value(json_object_get(error, "message")) ?
			    json_string_value(json_object_get(error, "message")) : "it failed without a word");
	json_decref(answer);
	return r;
}

static int send_frame(int fd, const char *frame, size_t length, struct err *e)
{
	if (send(fd, frame, length, MSG_NOSIGNAL) == (ssize_t)length)
		return 0;
	return errno == EPIPE ? -EPIPE : err_errno(e, errno, "send files to the new volume");
}

static int pump(int from, int to, struct err *e)
{
	static const char reader[] = "the helper machine", writer[] = "the new volume";
	own_str char *frame = mem_alloc(RUNNER_FRAME_LONGEST + 1);
	size_t length = 0;
	int r, sent = 0;

	while (sent == 0 && (r = receive(from, frame, &length, reader, e)) > 0) {
		if (frame[0] != 1) /* warnings of the copy */
			continue;
		frame[0] = 0;
		sent = send_frame(to, frame, length, e);
	}
	if (sent < 0 && sent != -EPIPE)
		return sent;
	if (sent == 0 && r < 0)
		return r;
	frame[0] = 0;
	if (sent == 0 && (r = send_frame(to, frame, 1, e)) < 0 && r != -EPIPE) /* the end of its input */
		return r;
	do
		r = receive(to, frame, &length, writer, e); /* and why it hung up, if it did */
	while (r > 0);
	return r == 0 && sent < 0 ? err_set(e, ERR_INTERNAL, "%s hung up", writer) : r;
}

static int copy_files(struct helper *reader, struct helper *writer, struct err *e)
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
	return r == 0 ? pump(output, input, e) : r;
}

/* --- all of it --- */

static int stand(struct helper *h, const char *what, const char *point, struct err *e)
{
	int fault = fault_point(point), r = fault ? err_errno(e, fault, "%s", what) : steps_maintain(&h->work, e);

	return r < 0 ? err_wrap(e, "%s", what) : 0;
}

static int prepare(struct work *w, struct helper *reader, struct helper *writer, const char *path, bool root, struct err *e)
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
	int fault, r = prepare(w, &reader, &writer, path, root, e);

	if (r == 0)
		r = stand(&reader, "a helper machine for the files", "refill-reader", e);
	if (r == 0)
		r = stand(&writer, "a helper for the new volume", "refill-writer", e);
	if (r == 0 && (fault = fault_point("refill-copy")))
		r = err_errno(e, fault, "copy the files");
	if (r == 0)
		r = copy_files(&reader, &writer, e);
	if (r == 0)
		r = take_place(&writer, path, e);
	int ended = helper_end(&reader, r < 0 ? &later : e);
	int other = helper_end(&writer, r < 0 || ended < 0 ? &later : e);
	(void)!fs_remove_tree(AT_FDCWD, folder, NULL);
	return r < 0 ? r : ended < 0 ? ended : other;
}
