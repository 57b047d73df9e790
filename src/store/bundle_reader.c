/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The reader owns a table of all chunks - a whole file's own, or one found by walking the records of an unfinished one - and
 * one buffer of a chunk. Both ways end in add_chunk, which holds the order (streams ascending, offsets ascending, no gap
 * between records), so nothing after it need ask again.
 *
 * The table at the end is under a digest, which makes a whole file cheap to open; a chunk's record is still compared with its
 * entry when it is read, and its plain bytes with their digest. An unfinished file is believed up to the first record that is
 * not right, and cut there.
 */
#include "store/bundle_reader.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zstd.h>

#include "base/fs.h"
#include "base/hash.h"
#include "base/mem.h"
#include "base/own.h"

struct chunk {
	struct bundle_record record;
	uint64_t at; /* of the record in the file */
};

struct bundle_reader {
	int fd;
	uint64_t file_bytes, start_bytes;
	struct digest start_digest;
	struct bundle_header header;
	struct chunk *chunks;
	size_t count, capacity;
	ZSTD_DCtx *context;
	uint8_t *buffer; /* a stored chunk */
};

void bundle_reader_free(struct bundle_reader *r)
{
	bundle_header_done(&r->header);
	(void)ZSTD_freeDCtx(r->context);
	free(r->buffer);
	free(r->chunks);
	free(r);
}

const struct bundle_header *bundle_reader_header(const struct bundle_reader *r) { return &r->header; }
const char *bundle_reader_digest(const struct bundle_reader *r, char hex[DIGEST_HEX_SIZE])
{
	return digest_hex(&r->start_digest, hex);
}

uint64_t bundle_reader_start_bytes(const struct bundle_reader *r) { return r->start_bytes; }
size_t bundle_reader_chunks(const struct bundle_reader *r) { return r->count; }
const struct bundle_record *bundle_reader_chunk(const struct bundle_reader *r, size_t number)
{
	return &r->chunks[number].record;
}

size_t bundle_reader_find(const struct bundle_reader *r, uint32_t stream)
{
	size_t low = 0, high = r->count;

	while (low < high) {
		size_t middle = (low + high) / 2;
		if (r->chunks[middle].record.stream < stream)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static int read_at(const struct bundle_reader *r, void *bytes, size_t length, uint64_t at, struct err *e)
{
	return fs_pread_all(r->fd, bytes, length, at, "the bundle", e);
}

static int read_start(struct bundle_reader *r, struct err *e)
{
	uint8_t start[BUNDLE_START_BYTES], digest[32];
	uint32_t length = 0;
	int done = read_at(r, start, sizeof start, 0, e);

	if (done == 0)
		done = bundle_start_decode(start, &length, e);
	if (done < 0)
		return done;
	own_str char *text = mem_alloc(length + 1);
	if ((done = read_at(r, text, length, sizeof start, e)) < 0 ||
	    (done = read_at(r, digest, sizeof digest, sizeof start + length, e)) < 0)
		return done;
	own_hash struct hash *h = hash_new();
	hash_add(h, start, sizeof start);
	hash_add(h, text, length);
	r->start_digest = hash_end(h);
	if (memcmp(r->start_digest.bytes, digest, sizeof digest) != 0)
		return err_set(e, ERR_CORRUPT, "the bundle's header has other bytes than its checksum");
	r->start_bytes = sizeof start + length + sizeof digest;
	return bundle_header_decode(text, length, &r->header, e);
}

/* In order, inside its stream, and behind the one before. */
static int add_chunk(struct bundle_reader *r, const struct bundle_record *record, uint64_t at, struct err *e)
{
	const struct chunk *before = r->count ? &r->chunks[r->count - 1] : NULL;
	const struct bundle_stream *streams = r->header.streams.items;
	uint64_t expected = before ? before->at + BUNDLE_RECORD_BYTES + before->record.stored_length : r->start_bytes;

	if (record->kind != BUNDLE_CHUNK || at != expected)
		return err_set(e, ERR_CORRUPT, "the bundle's chunks do not follow each other");
	if (record->stream >= r->header.streams.count || streams[record->stream].left_out)
		return err_set(e, ERR_CORRUPT, "the bundle has a chunk of no part (%" PRIu32 ")", record->stream);
	int done = bundle_record_check(record, before ? &before->record : NULL, streams[record->stream].size_bytes, e);
	if (done < 0)
		return done;
	MEM_PUSH_ROOM(r->chunks, r->count, r->capacity);
	r->chunks[r->count++] = (struct chunk){ *record, at };
	return 0;
}

static int read_table(struct bundle_reader *r, struct err *e)
{
	uint8_t bytes[BUNDLE_FOOTER_BYTES], entry[BUNDLE_ENTRY_BYTES];
	struct bundle_footer footer = { 0 };
	own_hash struct hash *h = hash_new();

	if (r->file_bytes < r->start_bytes + BUNDLE_FOOTER_BYTES)
		return err_set(e, ERR_CORRUPT, "the bundle is cut off");
	int done = read_at(r, bytes, sizeof bytes, r->file_bytes - BUNDLE_FOOTER_BYTES, e);
	if (done == 0)
		done = bundle_footer_decode(bytes, r->file_bytes, &footer, e);
	hash_add(h, r->start_digest.bytes, sizeof r->start_digest.bytes);
	for (uint64_t i = 0; done == 0 && i < footer.chunks; i++) {
		struct bundle_record record;
		uint64_t at;
		done = read_at(r, entry, sizeof entry, footer.table_at + i * sizeof entry, e);
		if (done == 0)
			done = bundle_entry_decode(entry, &record, &at, e);
		if (done == 0)
			done = add_chunk(r, &record, at, e);
		hash_add(h, entry, sizeof entry);
	}
	if (done < 0)
		return done;
	struct digest d = hash_end(h);
	const struct chunk *last = r->count ? &r->chunks[r->count - 1] : NULL;
	uint64_t end = last ? last->at + BUNDLE_RECORD_BYTES + last->record.stored_length : r->start_bytes;
	if (!digest_eq(&d, &footer.digest) || end != footer.table_at)
		return err_set(e, ERR_CORRUPT, "the bundle's table has other bytes than its checksum");
	return 0;
}

int bundle_reader_open(int fd, bool whole, struct bundle_reader **ret_reader, struct err *e)
{
	struct bundle_reader *r = mem_alloc(sizeof *r);
	struct stat st;
	int done = 0;

	r->fd = fd;
	r->context = ZSTD_createDCtx();
	r->buffer = mem_alloc(BUNDLE_CHUNK_BYTES);
	if (fstat(fd, &st) < 0)
		done = err_errno(e, errno, "look at the bundle");
	else
		r->file_bytes = st.st_size > 0 ? (uint64_t)st.st_size : 0;
	if (done == 0)
		done = read_start(r, e);
	if (done == 0 && whole)
		done = read_table(r, e);
	if (done < 0) {
		bundle_reader_free(r);
		return done;
	}
	*ret_reader = r;
	return 0;
}

int bundle_reader_stored(struct bundle_reader *r, size_t number, void *stored, struct err *e)
{
	const struct chunk *c = &r->chunks[number];
	uint8_t wanted[BUNDLE_RECORD_BYTES], found[BUNDLE_RECORD_BYTES];
	int done = read_at(r, found, sizeof found, c->at, e);

	bundle_record_encode(&c->record, wanted);
	if (done == 0 && memcmp(wanted, found, sizeof wanted) != 0)
		done = err_set(e, ERR_CORRUPT, "the bundle's table and its chunk at %" PRIu64 " differ", c->at);
	return done < 0 ? done : read_at(r, stored, c->record.stored_length, c->at + BUNDLE_RECORD_BYTES, e);
}

int bundle_reader_plain(struct bundle_reader *r, size_t number, void *plain, struct err *e)
{
	const struct bundle_record *c = &r->chunks[number].record;
	int done = bundle_reader_stored(r, number, r->buffer, e);

	if (done < 0)
		return done;
	if (c->codec == BUNDLE_PLAIN) {
		memcpy(plain, r->buffer, c->plain_length);
	} else {
		size_t n = ZSTD_decompressDCtx(r->context, plain, BUNDLE_CHUNK_BYTES, r->buffer, c->stored_length);
		if (ZSTD_isError(n) || n != c->plain_length)
			return err_set(e, ERR_CORRUPT, "the bundle's chunk at %" PRIu64 " cannot be unpacked",
				       r->chunks[number].at);
	}
	struct digest d = hash_bytes(plain, c->plain_length);
	if (!digest_eq(&d, &c->digest))
		return err_set(e, ERR_CORRUPT, "the bundle's chunk at %" PRIu64 " has other bytes than its checksum",
			       r->chunks[number].at);
	return 0;
}

/* --- unfinished files --- */

/* Whether the next chunk is there, whole and - `plain` NULL: not looked at - right. */
static bool take_next(struct bundle_reader *r, uint64_t at, uint8_t *plain)
{
	uint8_t bytes[BUNDLE_RECORD_BYTES];
	struct bundle_record record;

	if (read_at(r, bytes, sizeof bytes, at, NULL) < 0 || bundle_record_decode(bytes, &record, NULL) < 0 ||
	    add_chunk(r, &record, at, NULL) < 0)
		return false;
	bool there = at + BUNDLE_RECORD_BYTES + record.stored_length <= r->file_bytes;
	if (there && (!plain || bundle_reader_plain(r, r->count - 1, plain, NULL) == 0))
		return true;
	r->count--;
	return false;
}

static uint64_t take_chunks(struct bundle_reader *r, uint8_t *plain)
{
	uint64_t at = r->start_bytes;

	while (take_next(r, at, plain))
		at += BUNDLE_RECORD_BYTES + r->chunks[r->count - 1].record.stored_length;
	return at;
}

int bundle_reader_recover(struct bundle_reader *r, uint64_t *ret_length, struct err *e)
{
	own_str uint8_t *plain = mem_alloc(BUNDLE_CHUNK_BYTES);
	uint64_t at = take_chunks(r, plain);

	if (ftruncate(r->fd, (off_t)at) < 0)
		return err_errno(e, errno, "cut the unfinished bundle");
	*ret_length = at;
	return 0;
}

int bundle_reader_finish(struct bundle_reader *r, struct err *e)
{
	uint64_t length = take_chunks(r, NULL);
	int done = 0;
	struct bundle_footer footer = { .table_at = length, .chunks = r->count };
	uint8_t entry[BUNDLE_ENTRY_BYTES], bytes[BUNDLE_FOOTER_BYTES];
	own_hash struct hash *h = hash_new();

	if (done == 0 && length != r->file_bytes)
		return err_set(e, ERR_CORRUPT, "the bundle did not come whole: %" PRIu64 " of %" PRIu64 " bytes are right",
			       length, r->file_bytes);
	if (done == 0 && lseek(r->fd, (off_t)length, SEEK_SET) < 0)
		done = err_errno(e, errno, "write the bundle's table");
	hash_add(h, r->start_digest.bytes, sizeof r->start_digest.bytes);
	for (size_t i = 0; done == 0 && i < r->count; i++) {
		bundle_entry_encode(&r->chunks[i].record, r->chunks[i].at, entry);
		hash_add(h, entry, sizeof entry);
		done = fs_write_all(r->fd, entry, sizeof entry, e);
	}
	if (done < 0)
		return done;
	footer.digest = hash_end(h);
	bundle_footer_encode(&footer, bytes);
	return fs_write_all(r->fd, bytes, sizeof bytes, e);
}
