/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Three phases, each read to its end before the next: the heads of all chunks that will come; an answer of one bit a head,
 * whether this very chunk is there already; the chunks that are not. The third must repeat its heads byte by byte, so what was
 * checked once holds for both.
 *
 * Files are left by an import before this one or new, and both are believed only by digest; what no head covers is made a hole
 * before anything is written, so the result is the bundle's content and nothing else. Runs without rights: it has the files, a
 * socket, and memory.
 */
#include "store/bundle.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zstd.h>

#include "base/hash.h"
#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"
#include "model/bundle.h"

struct unpack {
	const struct bundle_file *files;
	size_t count;
	const struct bundle_unpacking *how;
	ZSTD_DCtx *context;
	uint8_t *stored, *plain;
	struct bundle_record *heads; /* of all chunks */
	size_t head_count, head_room;
	struct hash *records;
	uint8_t *there;              /* a bit for each */
};

static int take_chunk(struct unpack *u, const struct bundle_record *record, struct err *e)
{
	const struct bundle_file *f = &u->files[record->stream];
	const uint8_t *plain = u->stored;
	int r = u->how->receive(u->how->data, u->stored, record->stored_length, e);

	if (r < 0)
		return r;
	if (record->codec == BUNDLE_ZSTD) {
		size_t n = ZSTD_decompressDCtx(u->context, u->plain, BUNDLE_CHUNK_BYTES, u->stored, record->stored_length);
		if (ZSTD_isError(n) || n != record->plain_length)
			return err_set(e, ERR_CORRUPT, "the bundle's part %" PRIu32 " cannot be unpacked at %" PRIu64,
				       record->stream, record->offset);
		plain = u->plain;
	}
	struct digest d = hash_bytes(plain, record->plain_length);
	if (!digest_eq(&d, &record->digest))
		return err_set(e, ERR_CORRUPT, "the bundle's part %" PRIu32 " has other bytes than its checksum at %" PRIu64,
			       record->stream, record->offset);
	return fs_pwrite_all(f->fd, plain, record->plain_length, record->offset, "what the bundle holds", e);
}

static int check_end(const struct bundle_record *end, uint64_t chunks, struct hash *records, struct err *e)
{
	struct digest d = hash_end(records);

	if (end->offset == chunks && digest_eq(&d, &end->digest))
		return 0;
	return err_set(e, ERR_CORRUPT, "the bundle came with %" PRIu64 " chunks, and not as it was sent", chunks);
}

/* --- what there will be, and what of it is there --- */

static int take_head(struct unpack *u, const uint8_t bytes[BUNDLE_RECORD_BYTES], const struct bundle_record *record,
		     struct err *e)
{
	const struct bundle_record *before = u->head_count ? &u->heads[u->head_count - 1] : NULL;

	if (record->stream >= u->count || u->files[record->stream].fd < 0)
		return err_set(e, ERR_CORRUPT, "the bundle has a chunk of a part that was not asked for (%" PRIu32 ")",
			       record->stream);
	int r = bundle_record_check(record, before, u->files[record->stream].size_bytes, e);
	if (r < 0)
		return r;
	MEM_PUSH_ROOM(u->heads, u->head_count, u->head_room);
	u->heads[u->head_count++] = *record;
	hash_add(u->records, bytes, BUNDLE_RECORD_BYTES);
	return 0;
}

static int take_heads(struct unpack *u, struct err *e)
{
	uint8_t bytes[BUNDLE_RECORD_BYTES];
	struct bundle_record record;

	for (;;) {
		int r = u->how->receive(u->how->data, bytes, sizeof bytes, e);
		if (r >= 0)
			r = bundle_record_decode(bytes, &record, e);
		if (r < 0)
			return r;
		if (record.kind == BUNDLE_END)
			return check_end(&record, u->head_count, u->records, e);
		if ((r = take_head(u, bytes, &record, e)) < 0)
			return r;
	}
}

/* Of a file that an import before this one left: nothing in it is believed. A new one is a hole. */
static bool is_there(const struct unpack *u, const struct bundle_record *head)
{
	int fd = u->files[head->stream].fd;
	off_t data = lseek(fd, (off_t)head->offset, SEEK_DATA);

	if (data < 0 || (uint64_t)data >= head->offset + head->plain_length)
		return false;
	if (fs_pread_all(fd, u->plain, head->plain_length, head->offset, "the file", NULL) < 0)
		return false;
	struct digest d = hash_bytes(u->plain, head->plain_length);
	return digest_eq(&d, &head->digest);
}

static int clear(int fd, uint64_t from, uint64_t to, struct err *e)
{
	off_t data = from < to ? lseek(fd, (off_t)from, SEEK_DATA) : -1;

	if (data < 0 || (uint64_t)data >= to)
		return 0;
	if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)from, (off_t)(to - from)) < 0)
		return err_errno(e, errno, "clear what was there before");
	return 0;
}

/* What no chunk covers is zeros, whatever was there: two bundles of one workspace may have the same header. */
static int clear_gaps(const struct unpack *u, struct err *e)
{
	size_t at = 0;
	int r = 0;

	for (size_t i = 0; i < u->count && r >= 0; i++) {
		uint64_t end = 0;
		for (; at < u->head_count && u->heads[at].stream == i && r >= 0; at++) {
			r = clear(u->files[i].fd, end, u->heads[at].offset, e);
			end = u->heads[at].offset + u->heads[at].plain_length;
		}
		if (r >= 0 && u->files[i].fd >= 0)
			r = clear(u->files[i].fd, end, u->files[i].size_bytes, e);
	}
	return r;
}

static int tell_there(struct unpack *u, struct err *e)
{
	size_t length = (u->head_count + 7) / 8;

	u->there = mem_alloc(length + 1);
	for (size_t i = 0; i < u->head_count; i++)
		if (is_there(u, &u->heads[i]))
			u->there[i / 8] |= (uint8_t)(1U << i % 8);
	return length ? u->how->answer(u->how->data, u->there, length, e) : 0;
}

/* --- the rest --- */

/* In the same order, and exactly those. */
static int take_missing(struct unpack *u, struct err *e)
{
	own_hash struct hash *records = hash_new();
	uint8_t bytes[BUNDLE_RECORD_BYTES], wanted[BUNDLE_RECORD_BYTES];
	struct bundle_record end;
	uint64_t chunks = 0;
	int r = 0;

	for (size_t i = 0; r >= 0 && i < u->head_count; i++) {
		if (u->there[i / 8] & 1U << i % 8)
			continue;
		bundle_record_encode(&u->heads[i], wanted);
		r = u->how->receive(u->how->data, bytes, sizeof bytes, e);
		if (r >= 0 && memcmp(bytes, wanted, sizeof bytes) != 0)
			r = err_set(e, ERR_CORRUPT, "the bundle came with another chunk than was told of before");
		if (r >= 0)
			r = take_chunk(u, &u->heads[i], e);
		hash_add(records, bytes, sizeof bytes);
		chunks++;
	}
	if (r >= 0)
		r = u->how->receive(u->how->data, bytes, sizeof bytes, e);
	if (r >= 0)
		r = bundle_record_decode(bytes, &end, e);
	if (r >= 0 && end.kind != BUNDLE_END)
		r = err_set(e, ERR_CORRUPT, "the bundle came with more chunks than were told of before");
	return r < 0 ? r : check_end(&end, chunks, records, e);
}

int bundle_unpack(const struct bundle_file *files, size_t count, const struct bundle_unpacking *how, struct err *e)
{
	struct unpack u = { .files = files, .count = count, .how = how, .context = ZSTD_createDCtx(), .records = hash_new() };

	u.stored = mem_alloc(BUNDLE_CHUNK_BYTES);
	u.plain = mem_alloc(BUNDLE_CHUNK_BYTES);
	int r = take_heads(&u, e);
	if (r >= 0)
		r = clear_gaps(&u, e);
	if (r >= 0)
		r = tell_there(&u, e);
	if (r >= 0)
		r = take_missing(&u, e);
	free(u.stored);
	free(u.plain);
	free(u.heads);
	free(u.there);
	hash_free(u.records);
	(void)ZSTD_freeDCtx(u.context);
	return r < 0 ? r : 0;
}
