/* SPDX-License-Identifier: Apache-2.0 */
/*
 * carrel-bundle pack STREAM OFFSET [BYTES|-]...     the bundle's first bytes (descriptor 4), then the chunks after that place
 * carrel-bundle unpack [BYTES|-]...                 records and chunks as store/bundle.h has it
 * carrel-bundle disk FORMAT TITLE MACHINE COUNT     no bundle: the disks of a workspace in a format of others
 * (store/disk_export.h), with what
 *                                                   its image needs as JSON; of each disk the partition, the workspace's own, a
 *                                                   scratch file
 *
 * carrel-bundle show FILE       the header of a whole bundle: {"header":{...},"digest":HEX,"bytes":N,"chunks":N,"sent":N}
 * carrel-bundle layout FILE     its image, as a tar for an import
 * carrel-bundle chunks FILE     the other end of unpack: the records of volumes, snapshots and memory; then standard input
 * tells which of them are
 *                               there, and the rest goes out with its bytes
 * carrel-bundle verify FILE     every chunk against its checksum
 * carrel-bundle recover FILE    of an unfinished one: {"length":N,"start":N,"stream":N,"offset":N}, cut after its last good
 * chunk carrel-bundle finish FILE     table and footer are written
 *
 * For each part of the bundle its length, or "-" when it is left out; the files of the others are descriptors 5, 6, ... The
 * stream is a socket of frames on descriptor 3, as carrel-run's are: a channel byte and up to 65,535 bytes, at last {"exit":0}
 * or {"error":{...}}. Everything after the arguments happens in the sandbox.
 */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err_json.h"
#include "base/fs.h"
#include "base/hash.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/sandbox.h"
#include "base/str.h"
#include "model/bundle.h"
#include "store/bundle.h"
#include "store/bundle_layout.h"
#include "store/bundle_reader.h"
#include "store/disk_export.h"

#define FRAME_BYTES 65535
#define THREADS_MOST 8
#define DISKS_MOST 8

struct stream {
	uint8_t frame[1 + FRAME_BYTES];
	size_t have, at; /* of the frame's bytes */
	bool ended;
};

/* --- frames --- */

static int send_frame(struct stream *s, struct err *e)
{
	ssize_t n;

	do
		n = send(BUNDLE_SOCKET_FD, s->frame, 1 + s->have, MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	s->have = 0;
	return n < 0 ? err_errno(e, errno, "send the bundle") : 0;
}

static int send_bytes(void *data, const void *bytes, size_t length, struct err *e)
{
	struct stream *s = data;
	const uint8_t *from = bytes;

	s->frame[0] = 1;
	while (length) {
		size_t n = length < FRAME_BYTES - s->have ? length : FRAME_BYTES - s->have;
		memcpy(s->frame + 1 + s->have, from, n);
		s->have += n;
		from += n;
		length -= n;
		int r = s->have == FRAME_BYTES ? send_frame(s, e) : 0;
		if (r < 0)
			return r;
	}
	return 0;
}

/* Text frames (the size of a terminal, a signal) mean nothing here. */
static int receive_frame(struct stream *s, struct err *e)
{
	for (;;) {
		ssize_t n = recv(BUNDLE_SOCKET_FD, s->frame, sizeof s->frame, 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return err_set(e, ERR_CANCELLED, "the bundle broke off");
		if (s->frame[0] != 0)
			continue;
		if (n == 1)
			return err_set(e, ERR_CORRUPT, "the bundle is cut off");
		s->have = (size_t)n - 1;
		s->at = 0;
		return 0;
	}
}

static int receive_bytes(void *data, void *bytes, size_t length, struct err *e)
{
	struct stream *s = data;
	uint8_t *to = bytes;

	while (length) {
		int r = s->at == s->have ? receive_frame(s, e) : 0;
		if (r < 0)
			return r;
		size_t n = length < s->have - s->at ? length : s->have - s->at;
		memcpy(to, s->frame + 1 + s->at, n);
		s->at += n;
		to += n;
		length -= n;
	}
	return 0;
}

/* What comes in and what goes out do not share a frame. */
static int send_answer(void *data, const void *bytes, size_t length, struct err *e)
{
	static struct stream out;

	(void)data;
	int r = send_bytes(&out, bytes, length, e);
	return r == 0 && out.have ? send_frame(&out, e) : r;
}

static void send_text(json_t *json)
{
	char *text = json_dumps(json, JSON_COMPACT);

	if (text)
		(void)!send(BUNDLE_SOCKET_FD, text, strlen(text), MSG_NOSIGNAL);
	free(text);
	json_decref(json);
}

/* --- what to do --- */

static int parse_files(char **words, int count, struct bundle_file **ret_files, struct err *e)
{
	struct bundle_file *files = mem_alloc_array((size_t)count + 1, sizeof *files);
	int next = BUNDLE_FIRST_FD, r = 0;

	for (int i = 0; i < count && r == 0; i++) {
		files[i].fd = str_eq(words[i], "-") ? -1 : next++;
		if (files[i].fd >= 0)
			r = str_to_u64(words[i], UINT64_MAX, &files[i].size_bytes);
	}
	if (r < 0) {
		free(files);
		return err_set(e, ERR_INVALID, "a length is no number");
	}
	*ret_files = files;
	return 0;
}

/* --- files --- */

/* What an answer is: JSON on standard output, or an error on standard error for who started us. */
static int answer(json_t *json, struct err *e)
{
	char *text = json_dumps(json, JSON_COMPACT);
	int r = fs_write_all(STDOUT_FILENO, text ? text : "{}", text ? strlen(text) : 2, e);

	free(text);
	json_decref(json);
	return r;
}

static int show(struct bundle_reader *b, uint64_t bytes, struct err *e)
{
	const struct bundle_header *h = bundle_reader_header(b);
	const struct bundle_stream *s = h->streams.items;
	uint64_t sent = 2 * BUNDLE_RECORD_BYTES;
	char hex[DIGEST_HEX_SIZE];

	for (size_t i = 0; i < bundle_reader_chunks(b); i++) {
		const struct bundle_record *c = bundle_reader_chunk(b, i);
		if (s[c->stream].kind > BUNDLE_PARTITION)
			sent += 2 * BUNDLE_RECORD_BYTES + c->stored_length;
	}
	return answer(json_pack("{s:o, s:s, s:I, s:I, s:I}", "header", encode(&bundle_header_shape, h), "digest",
				bundle_reader_digest(b, hex), "bytes", (json_int_t)bytes, "chunks",
				(json_int_t)bundle_reader_chunks(b), "sent", (json_int_t)sent),
		      e);
}

static bool goes_out(const struct bundle_reader *b, size_t chunk)
{
	const struct bundle_stream *s = bundle_reader_header(b)->streams.items;
	return s[bundle_reader_chunk(b, chunk)->stream].kind > BUNDLE_PARTITION;
}

/* Those whose bit in `there` is not set, with their bytes; NULL: all of them without. Then the end record. */
static int send_records(struct bundle_reader *b, const uint8_t *there, struct err *e)
{
	own_str uint8_t *stored = mem_alloc(BUNDLE_CHUNK_BYTES);
	struct bundle_record end = { .kind = BUNDLE_END };
	own_hash struct hash *records = hash_new();
	uint8_t bytes[BUNDLE_RECORD_BYTES];
	size_t number = 0;
	int r = 0;

	for (size_t i = 0; r == 0 && i < bundle_reader_chunks(b); i++) {
		const struct bundle_record *c = bundle_reader_chunk(b, i);
		if (!goes_out(b, i))
			continue;
		size_t bit = number++;
		if (there && there[bit / 8] & 1U << bit % 8)
			continue;
		bundle_record_encode(c, bytes);
		hash_add(records, bytes, sizeof bytes);
		end.offset++;
		if (there)
			r = bundle_reader_stored(b, i, stored, e);
		if (r == 0)
			r = fs_write_all(STDOUT_FILENO, bytes, sizeof bytes, e);
		if (r == 0 && there)
			r = fs_write_all(STDOUT_FILENO, stored, c->stored_length, e);
	}
	end.digest = hash_end(records);
	bundle_record_encode(&end, bytes);
	return r == 0 ? fs_write_all(STDOUT_FILENO, bytes, sizeof bytes, e) : r;
}

static int send_chunks(struct bundle_reader *b, struct err *e)
{
	size_t count = 0, length;

	for (size_t i = 0; i < bundle_reader_chunks(b); i++)
		count += goes_out(b, i);
	length = (count + 7) / 8;
	own_str uint8_t *there = mem_alloc(length + 1);
	int r = send_records(b, NULL, e);
	for (size_t done = 0; r == 0 && done < length;) {
		ssize_t n = read(STDIN_FILENO, there + done, length - done);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return err_set(e, ERR_CANCELLED, "the other side did not say what it has");
		done += (size_t)n;
	}
	return r == 0 ? send_records(b, there, e) : r;
}

static int verify(struct bundle_reader *b, struct err *e)
{
	own_str uint8_t *plain = mem_alloc(BUNDLE_CHUNK_BYTES);
	int r = 0;

	for (size_t i = 0; r == 0 && i < bundle_reader_chunks(b); i++)
		r = bundle_reader_plain(b, i, plain, e);
	return r == 0 ? answer(json_object(), e) : r;
}

static int recover(struct bundle_reader *b, struct err *e)
{
	uint64_t length = 0;
	int r = bundle_reader_recover(b, &length, e);
	size_t count = bundle_reader_chunks(b);
	const struct bundle_record *last = count ? bundle_reader_chunk(b, count - 1) : NULL;

	return r < 0 ? r :
		       answer(json_pack("{s:I, s:I, s:I, s:I}", "length", (json_int_t)length, "start",
					(json_int_t)bundle_reader_start_bytes(b), "stream",
					(json_int_t)(last ? last->stream : 0), "offset",
					(json_int_t)(last ? last->offset + BUNDLE_CHUNK_BYTES : 0)),
			      e);
}

static int work_on_file(const char *what, const char *path, struct err *e)
{
	bool whole = !str_eq(what, "recover") && !str_eq(what, "finish");
	own_fd int fd = open(path, (whole ? O_RDONLY : O_RDWR) | O_CLOEXEC);
	own_bundle_reader struct bundle_reader *b = NULL;
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return err_errno(e, errno, "open %s", path);
	if (!S_ISREG(st.st_mode))
		return err_set(e, ERR_INVALID, "%s is no file", path);
	int r = sandbox_enter(0, NULL, e);
	if (r == 0)
		r = bundle_reader_open(fd, whole, &b, e);
	if (r < 0)
		return r;
	if (str_eq(what, "show"))
		return show(b, (uint64_t)st.st_size, e);
	if (str_eq(what, "layout"))
		return bundle_layout_write(b, STDOUT_FILENO, e);
	if (str_eq(what, "chunks"))
		return send_chunks(b, e);
	if (str_eq(what, "verify"))
		return verify(b, e);
	if (str_eq(what, "recover"))
		return recover(b, e);
	if (str_eq(what, "finish"))
		return bundle_reader_finish(b, e);
	return err_set(e, ERR_INVALID, "carrel-bundle knows no '%s'", what);
}

static unsigned threads(void)
{
	long processors = sysconf(_SC_NPROCESSORS_ONLN);
	return processors < 1 ? 1 : processors > THREADS_MOST ? THREADS_MOST : (unsigned)processors;
}

static int pack(int argc, char **argv, struct err *e)
{
	own_str struct bundle_file *files = NULL;
	own_strbuf struct str prefix = { 0 };
	static struct stream s;
	struct bundle_from from = { 0 };
	uint64_t number = 0;

	if (argc < 4 || str_to_u64(argv[2], UINT32_MAX, &number) < 0 || str_to_u64(argv[3], UINT64_MAX, &from.offset) < 0)
		return err_set(e, ERR_INVALID, "use: carrel-bundle pack STREAM OFFSET [BYTES|-]...");
	from.stream = (uint32_t)number;
	int r = parse_files(argv + 4, argc - 4, &files, e);
	unsigned count = threads();
	if (r == 0)
		r = sandbox_enter(SANDBOX_THREADS, NULL, e);
	if (r == 0)
		r = fs_read_fd(BUNDLE_PREFIX_FD, BUNDLE_HEADER_MOST + 1024, &prefix, e);
	if (r == 0)
		r = send_bytes(&s, prefix.bytes, prefix.length, e);
	if (r == 0)
		r = bundle_pack(files, (size_t)argc - 4, &from, count, send_bytes, &s, e);
	return r == 0 && s.have ? send_frame(&s, e) : r;
}

static int unpack(int argc, char **argv, struct err *e)
{
	own_str struct bundle_file *files = NULL;
	static struct stream s;
	const struct bundle_unpacking how = { receive_bytes, send_answer, &s };
	int r = parse_files(argv + 2, argc - 2, &files, e);

	if (r == 0)
		r = sandbox_enter(0, NULL, e);
	return r == 0 ? bundle_unpack(files, (size_t)argc - 2, &how, e) : r;
}

/* --- disks --- */

static void advance(void *data, const char *step, uint64_t done_bytes)
{
	(void)data;
	(void)step;
	(void)done_bytes;
}

static int open_disk(int fd, uint32_t id, struct disk **ret_base, struct disk_export_disk *d, struct err *e)
{
	struct disk_window below = { .fd = -1 }, own = { .fd = -1 };
	int r = disk_window_of(fd, &below, e);

	d->scratch = fd + 2;
	d->id = id;
	if (r == 0)
		r = disk_window_of(fd + 1, &own, e);
	if (r == 0)
		r = disk_open(&below, DISK_RAW, NULL, ret_base, e);
	return r == 0 ? disk_open(&own, DISK_QCOW2, *ret_base, &d->disk, e) : r;
}

static int write_disks(struct disk_export *x, uint32_t id, struct err *e)
{
	struct disk_export_disk disks[DISKS_MOST] = { 0 };
	struct disk *bases[DISKS_MOST] = { 0 };
	int r = 0;

	x->disks = disks;
	for (size_t i = 0; r == 0 && i < x->count; i++)
		r = open_disk(BUNDLE_FIRST_FD + 3 * (int)i, id + (uint32_t)i, &bases[i], &disks[i], e);
	if (r == 0)
		r = disk_export_write(x, e);
	for (size_t i = 0; i < x->count; i++) {
		if (disks[i].disk)
			disk_close(disks[i].disk);
		if (bases[i])
			disk_close(bases[i]);
	}
	return r;
}

static int disk(int argc, char **argv, struct err *e)
{
	static struct stream s;
	struct image_machine machine = { 0 };
	struct disk_export x = { .put = send_bytes, .advance = advance, .data = &s, .machine = &machine };
	uint64_t count = 0;

	while (argc == 6 && export_format_names[x.format] && !str_eq(export_format_names[x.format], argv[2]))
		x.format++;
	if (argc != 6 || x.format < EXPORT_RAW || !export_format_names[x.format] ||
	    str_to_u64(argv[5], DISKS_MOST, &count) < 0 || count == 0)
		return err_set(e, ERR_INVALID, "use: carrel-bundle disk FORMAT TITLE MACHINE COUNT");
	x.title = argv[3];
	x.count = (size_t)count;
	struct digest d = hash_bytes(x.title, strlen(x.title));
	uint32_t id;
	memcpy(&id, d.bytes, sizeof id);
	int r = decode_text(argv[4], strlen(argv[4]), "machine", &image_machine_shape, &machine, e);
	if (r == 0)
		r = sandbox_enter(0, NULL, e);
	if (r == 0)
		r = write_disks(&x, id, e);
	return r == 0 && s.have ? send_frame(&s, e) : r;
}

/* An error is one line of JSON on standard error. */
static int file_main(char **argv)
{
	struct err e = { 0 };

	(void)signal(SIGPIPE, SIG_IGN);
	if (work_on_file(argv[1], argv[2], &e) == 0)
		return 0;
	json_t *json = err_to_json(&e);
	char *text = json_dumps(json, JSON_COMPACT);
	(void)fprintf(stderr, "%s\n", text ? text : "{}");
	free(text);
	json_decref(json);
	return 1;
}

int main(int argc, char **argv)
{
	struct err e = { 0 };
	int r = -EINVAL;

	if (argc > 1 && str_eq(argv[1], "pack"))
		r = pack(argc, argv, &e);
	else if (argc > 1 && str_eq(argv[1], "unpack"))
		r = unpack(argc, argv, &e);
	else if (argc > 1 && str_eq(argv[1], "disk"))
		r = disk(argc, argv, &e);
	else if (argc == 3)
		return file_main(argv);
	else
		(void)err_set(&e, ERR_INVALID, "use: carrel-bundle WORD FILE");
	send_text(r < 0 ? json_pack("{s:o}", "error", err_to_json(&e)) : json_pack("{s:i}", "exit", 0));
	return r < 0;
}
