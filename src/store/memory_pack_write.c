/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. Each thread takes the next chunk of the file, compresses it, waits until the chunks before it have got their places,
 * and writes. So chunks are in order, and writing is as parallel as compressing; what a killed writer leaves may have gaps near
 * its end, and is cut at the first chunk that is not whole.
 *
 * Each chunk is on its way to the disk while others are compressed, so the sync at the end finds little left.
 */
#include "store/memory_pack.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zstd.h>

#include "base/fault.h"
#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/sparse.h"

#define THREADS_MOST 64
#define NAME "the memory's file"

struct writing {
	int from, to;
	const struct memory_pack_how *how;
	uint64_t length, first; /* chunks before `first` are there */
	size_t count;
	struct memory_pack_chunk *chunks; /* by number */
	struct sparse_chunk *plain;       /* by number, as they are in the file; when it was asked for */
	pthread_mutex_t lock;
	pthread_cond_t turned;
	size_t next, turn; /* the chunk to be taken; the one to get its place */
	uint64_t at;       /* of the next place */
	bool failed;
	struct err why;
};

static size_t chunk_bytes(const struct writing *j, size_t number)
{
	uint64_t left = j->length - (uint64_t)number * MEMORY_PACK_CHUNK;

	return left < MEMORY_PACK_CHUNK ? (size_t)left : MEMORY_PACK_CHUNK;
}

/* The pages that are not zeros, moved together; returns their bytes. */
static size_t gather(uint8_t *plain, size_t length, struct memory_pack_chunk *c)
{
	size_t have = 0;

	for (size_t at = 0; at < length; at += MEMORY_PACK_PAGE) {
		size_t n = length - at < MEMORY_PACK_PAGE ? length - at : MEMORY_PACK_PAGE;
		if (sparse_is_zero(plain + at, n))
			continue;
		c->pages[at / MEMORY_PACK_PAGE / 8] |= (uint8_t)(1 << (at / MEMORY_PACK_PAGE % 8));
		if (have != at)
			memmove(plain + have, plain + at, n);
		have += n;
	}
	return have;
}

static void compress(const struct writing *j, struct memory_pack_room *room, size_t bytes, struct memory_pack_chunk *c)
{
	uint8_t *stored = room->stored + MEMORY_PACK_HEAD_BYTES;

	if (!room->compress)
		room->compress = ZSTD_createCCtx();
	size_t n = ZSTD_compressCCtx(room->compress, stored, ZSTD_compressBound(MEMORY_PACK_CHUNK), room->plain, bytes,
				     j->how->level);
	if (ZSTD_isError(n) || n >= bytes)
		memcpy(stored, room->plain, n = bytes);
	c->stored = (uint32_t)n;
	memory_pack_head_encode(c, room->stored);
	memory_pack_chunk_digest(room->stored, stored, n, room->hash, &c->digest);
	memory_pack_head_encode(c, room->stored);
}

/* 1: it is in the room, to be written; 0: nothing to write. */
static int make_chunk(struct writing *j, size_t number, struct memory_pack_room *room, struct err *e)
{
	struct memory_pack_chunk *c = &j->chunks[number];
	size_t length = chunk_bytes(j, number);
	bool is_there = number < j->first;

	if ((is_there && !j->how->sparse) || sparse_in_hole(j->from, (uint64_t)number * MEMORY_PACK_CHUNK, MEMORY_PACK_CHUNK))
		return 0;
	int r = fs_pread_all(j->from, room->plain, length, (uint64_t)number * MEMORY_PACK_CHUNK, NAME, e),
	    fault = fault_point("memory.chunk");
	if (r < 0 || fault)
		return r < 0 ? r : err_errno(e, fault, "read the memory");
	if (j->how->sparse)
		j->plain[number] = sparse_chunk_of(room->plain, length);
	if (is_there)
		return 0;
	c->number = (uint32_t)number;
	size_t bytes = gather(room->plain, length, c);
	if (bytes)
		compress(j, room, bytes, c);
	return bytes != 0;
}

static void fail(struct writing *j, const struct err *why)
{
	if (!j->failed)
		j->why = *why;
	j->failed = true;
	(void)pthread_cond_broadcast(&j->turned);
}

/* The place of a chunk that comes to so many bytes. Called and returns with the lock held. False: one before it failed and has
 * none, and nothing may stand where it is missing: who goes on would take it for zeros. */
static bool take_place(struct writing *j, size_t number, size_t bytes, uint64_t *ret_at)
{
	while (j->turn != number && !j->failed)
		(void)pthread_cond_wait(&j->turned, &j->lock);
	if (j->turn != number)
		return false;
	*ret_at = j->at;
	j->at += bytes;
	j->turn = number + 1;
	(void)pthread_cond_broadcast(&j->turned);
	return true;
}

static void *write_chunks(void *data)
{
	struct writing *j = data;
	struct memory_pack_room room;
	struct err why = { 0 };

	memory_pack_room_init(&room);
	(void)pthread_mutex_lock(&j->lock);
	while (!j->failed && j->next < j->count) {
		size_t number = j->next++;
		(void)pthread_mutex_unlock(&j->lock);
		int r = make_chunk(j, number, &room, &why);
		(void)pthread_mutex_lock(&j->lock);
		size_t bytes = r > 0 ? MEMORY_PACK_HEAD_BYTES + j->chunks[number].stored : 0;
		uint64_t at = 0;
		if (r >= 0 && !take_place(j, number, bytes, &at))
			break;
		(void)pthread_mutex_unlock(&j->lock);
		if (r > 0)
			r = fs_pwrite_all(j->to, room.stored, bytes, at, NAME, &why);
		if (r == 0 && bytes)
			(void)sync_file_range(j->to, (off_t)at, (off_t)bytes, SYNC_FILE_RANGE_WRITE);
		(void)pthread_mutex_lock(&j->lock);
		if (r < 0)
			fail(j, &why);
	}
	(void)pthread_mutex_unlock(&j->lock);
	memory_pack_room_done(&room);
	return NULL;
}

/* What an earlier call has left: the chunks that are whole, if they are of this state; the rest is cut off. */
static int go_on(struct writing *j, const uint8_t start[MEMORY_PACK_START_BYTES], struct memory_pack_made *made, struct err *e)
{
	uint8_t bytes[MEMORY_PACK_HEAD_BYTES];
	struct memory_pack_room room;
	struct memory_pack_chunk c;

	j->at = MEMORY_PACK_START_BYTES;
	memory_pack_room_init(&room);
	bool ours = fs_pread_all(j->to, bytes, MEMORY_PACK_START_BYTES, 0, NAME, NULL) == 0 &&
		    memcmp(bytes, start, MEMORY_PACK_START_BYTES) == 0;
	while (ours && fs_pread_all(j->to, bytes, sizeof bytes, j->at, NAME, NULL) == 0 &&
	       memory_pack_head_decode(bytes, j->length, &c, NULL) == 0 && c.number >= j->first &&
	       memory_pack_chunk_load(j->to, &c, j->at, &room, NULL) == 0) {
		j->chunks[c.number] = c;
		j->first = (uint64_t)c.number + 1;
		j->at += MEMORY_PACK_HEAD_BYTES + c.stored;
		made->kept++;
	}
	memory_pack_room_done(&room);
	if (ftruncate(j->to, (off_t)(ours ? j->at : 0)) < 0)
		return err_errno(e, errno, "cut the unfinished memory");
	return ours ? 0 : fs_pwrite_all(j->to, start, MEMORY_PACK_START_BYTES, 0, NAME, e);
}

static int write_table(struct writing *j, const uint8_t start[MEMORY_PACK_START_BYTES], struct memory_pack_made *made,
		       struct err *e)
{
	struct memory_pack_footer footer = { .table_at = j->at };
	own_str uint8_t *table = mem_alloc(j->count * MEMORY_PACK_ENTRY_BYTES + MEMORY_PACK_FOOTER_BYTES);
	own_hash struct hash *h = hash_new();
	uint8_t *at = table;

	for (size_t i = 0; i < j->count; i++)
		if (j->chunks[i].stored) {
			memory_pack_entry_encode(&j->chunks[i], at);
			at += MEMORY_PACK_ENTRY_BYTES;
			footer.chunks++;
		}
	memory_pack_footer_encode(&footer, at);
	hash_add(h, start, MEMORY_PACK_START_BYTES);
	hash_add(h, table, (size_t)(at - table) + MEMORY_PACK_FOOTER_HASHED);
	made->digest = footer.digest = hash_end(h);
	memory_pack_footer_encode(&footer, at);
	at += MEMORY_PACK_FOOTER_BYTES;
	made->bytes = j->at + (uint64_t)(at - table);
	int r = fs_pwrite_all(j->to, table, (size_t)(at - table), j->at, NAME, e);
	return r == 0 && fsync(j->to) < 0 ? err_errno(e, errno, "write the packed memory") : r;
}

static int write_all(struct writing *j, struct err *e)
{
	pthread_t started[THREADS_MOST];
	unsigned count = 0;

	while (count + 1 < j->how->threads && count < THREADS_MOST &&
	       pthread_create(&started[count], NULL, write_chunks, j) == 0)
		count++;
	(void)write_chunks(j);
	while (count > 0)
		(void)pthread_join(started[--count], NULL);
	if (!j->failed)
		return 0;
	if (e)
		*e = j->why;
	return -j->why.number;
}

int memory_pack_write(int from, int to, const struct memory_pack_how *how, struct memory_pack_made *ret_made, struct err *e)
{
	struct writing j = { .from = from, .to = to, .how = how, .lock = PTHREAD_MUTEX_INITIALIZER,
			     .turned = PTHREAD_COND_INITIALIZER };
	uint8_t start[MEMORY_PACK_START_BYTES];
	struct memory_pack_made made = { 0 };
	struct stat st;

	if (fstat(from, &st) < 0)
		return err_errno(e, errno, "look at the memory");
	j.length = st.st_size > 0 ? (uint64_t)st.st_size : 0;
	if (j.length > MEMORY_PACK_LENGTH_MOST)
		return err_set(e, ERR_TOO_LARGE, "the memory is too long to be packed");
	j.count = (size_t)((j.length + MEMORY_PACK_CHUNK - 1) / MEMORY_PACK_CHUNK);
	own_str struct memory_pack_chunk *chunks = mem_alloc_array(j.count + 1, sizeof *chunks);
	own_str struct sparse_chunk *plain = how->sparse ? mem_alloc_array(j.count + 1, sizeof *plain) : NULL;
	j.chunks = chunks;
	j.plain = plain;
	memory_pack_start_encode(&(struct memory_pack_start){ j.length, how->taken_ms }, start);
	int r = go_on(&j, start, &made, e);
	if (r == 0)
		r = write_all(&j, e);
	if (r == 0)
		r = write_table(&j, start, &made, e);
	if (r < 0)
		return r;
	if (how->sparse)
		made.sparse = sparse_digest(plain, j.count, j.length);
	*ret_made = made;
	return 0;
}
