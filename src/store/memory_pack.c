/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. The checksum of a chunk is over what is stored, not over what it unpacks to: these are the bytes that a disk or a
 * wire can change, they are fewer, and nothing that was changed ever reaches the decompressor. Digests of chunks are in the
 * table, the table's is in the footer, and the footer's in the manifest of the memory state: one digest stands for every byte,
 * and can be checked in parts and in parallel.
 *
 * Heads repeat what the table says, so that a file that was not finished tells which of its chunks are whole.
 */
#include "store/memory_pack.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zstd.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"

#define MAGIC_START "CARRELM1"
#define MAGIC_CHUNK "MCHK"
#define MAGIC_END "CARRELME"
#define VERSION 1
#define HEAD_HASHED 48
#define NAME "the memory's file"
#define THREADS_MOST 64

/* --- numbers --- */

static void put(uint8_t *at, uint64_t number, unsigned bytes)
{
	for (unsigned i = 0; i < bytes; i++)
		at[i] = (uint8_t)(number >> (8 * i));
}

static uint64_t get(const uint8_t *at, unsigned bytes)
{
	uint64_t number = 0;

	for (unsigned i = 0; i < bytes; i++)
		number |= (uint64_t)at[i] << (8 * i);
	return number;
}

static uint64_t chunks_of(uint64_t length) { return (length + MEMORY_PACK_CHUNK - 1) / MEMORY_PACK_CHUNK; }

/* --- start --- */

void memory_pack_start_encode(const struct memory_pack_start *s, uint8_t out[MEMORY_PACK_START_BYTES])
{
	memcpy(out, MAGIC_START, 8);
	put(out + 8, VERSION, 4);
	put(out + 12, MEMORY_PACK_CHUNK, 4);
	put(out + 16, s->length, 8);
	put(out + 24, s->taken_ms, 8);
	struct digest d = hash_bytes(out, 32);
	memcpy(out + 32, d.bytes, sizeof d.bytes);
}

int memory_pack_start_decode(const uint8_t in[MEMORY_PACK_START_BYTES], struct memory_pack_start *ret_start, struct err *e)
{
	struct digest d = hash_bytes(in, 32);

	if (memcmp(in, MAGIC_START, 8) != 0)
		return err_set(e, ERR_CORRUPT, "the file is no packed memory");
	if (memcmp(d.bytes, in + 32, sizeof d.bytes) != 0)
		return err_set(e, ERR_CORRUPT, "the packed memory's first bytes are not those that were written");
	if (get(in + 8, 4) != VERSION || get(in + 12, 4) != MEMORY_PACK_CHUNK)
		return err_set(e, ERR_UNSUPPORTED, "the packed memory is of version %" PRIu64 ", this program reads version %d",
			       get(in + 8, 4), VERSION);
	*ret_start = (struct memory_pack_start){ get(in + 16, 8), get(in + 24, 8) };
	if (ret_start->length > MEMORY_PACK_LENGTH_MOST)
		return err_set(e, ERR_CORRUPT, "the packed memory has an impossible length");
	return 0;
}

/* --- chunks --- */

void memory_pack_head_encode(const struct memory_pack_chunk *c, uint8_t out[MEMORY_PACK_HEAD_BYTES])
{
	memset(out, 0, MEMORY_PACK_HEAD_BYTES);
	memcpy(out, MAGIC_CHUNK, 4);
	put(out + 4, c->stored, 4);
	put(out + 8, c->number, 4);
	memcpy(out + 16, c->pages, sizeof c->pages);
	memcpy(out + HEAD_HASHED, c->digest.bytes, sizeof c->digest.bytes);
}

static bool has_page(const struct memory_pack_chunk *c, unsigned page) { return c->pages[page / 8] >> (page % 8) & 1; }

static uint32_t page_bytes(uint32_t number, unsigned page, uint64_t length)
{
	uint64_t at = (uint64_t)number * MEMORY_PACK_CHUNK + (uint64_t)page * MEMORY_PACK_PAGE;

	return at >= length ? 0 : length - at < MEMORY_PACK_PAGE ? (uint32_t)(length - at) : MEMORY_PACK_PAGE;
}

static uint32_t plain_bytes(const struct memory_pack_chunk *c, uint64_t length)
{
	uint32_t sum = 0;

	for (unsigned i = 0; i < MEMORY_PACK_PAGES; i++)
		sum += has_page(c, i) ? page_bytes(c->number, i, length) : 0;
	return sum;
}

/* No page is beyond the end, and there is one at least. */
static bool pages_fit(const struct memory_pack_chunk *c, uint64_t length)
{
	bool any = false;

	for (unsigned i = 0; i < MEMORY_PACK_PAGES; i++) {
		if (has_page(c, i) && page_bytes(c->number, i, length) == 0)
			return false;
		any |= has_page(c, i);
	}
	return any;
}

int memory_pack_head_decode(const uint8_t in[MEMORY_PACK_HEAD_BYTES], uint64_t length, struct memory_pack_chunk *ret_chunk,
			    struct err *e)
{
	struct memory_pack_chunk c = { .stored = (uint32_t)get(in + 4, 4), .number = (uint32_t)get(in + 8, 4) };

	memcpy(c.pages, in + 16, sizeof c.pages);
	memcpy(c.digest.bytes, in + HEAD_HASHED, sizeof c.digest.bytes);
	if (memcmp(in, MAGIC_CHUNK, 4) != 0 || get(in + 12, 4) != 0 || c.number >= chunks_of(length) ||
	    !pages_fit(&c, length) || c.stored == 0 || c.stored > plain_bytes(&c, length))
		return err_set(e, ERR_CORRUPT, "the packed memory has a chunk that cannot be");
	*ret_chunk = c;
	return 0;
}

void memory_pack_entry_encode(const struct memory_pack_chunk *c, uint8_t out[MEMORY_PACK_ENTRY_BYTES])
{
	put(out, c->number, 4);
	put(out + 4, c->stored, 4);
	memcpy(out + 8, c->digest.bytes, sizeof c->digest.bytes);
}

void memory_pack_footer_encode(const struct memory_pack_footer *f, uint8_t out[MEMORY_PACK_FOOTER_BYTES])
{
	memset(out, 0, MEMORY_PACK_FOOTER_BYTES);
	memcpy(out, MAGIC_END, 8);
	put(out + 8, f->table_at, 8);
	put(out + 16, f->chunks, 8);
	memcpy(out + MEMORY_PACK_FOOTER_HASHED, f->digest.bytes, sizeof f->digest.bytes);
}

/* --- room --- */

void memory_pack_room_init(struct memory_pack_room *r)
{
	*r = (struct memory_pack_room){ .plain = mem_alloc(MEMORY_PACK_CHUNK),
					.stored = mem_alloc(MEMORY_PACK_HEAD_BYTES + ZSTD_compressBound(MEMORY_PACK_CHUNK)),
					.hash = hash_new() };
}

void memory_pack_room_done(struct memory_pack_room *r)
{
	(void)ZSTD_freeCCtx(r->compress);
	(void)ZSTD_freeDCtx(r->decompress);
	hash_free(r->hash);
	free(r->plain);
	free(r->stored);
}

void memory_pack_chunk_digest(const uint8_t head[MEMORY_PACK_HEAD_BYTES], const uint8_t *stored, size_t length, struct hash *h,
			      struct digest *ret_digest)
{
	hash_add(h, head, HEAD_HASHED);
	hash_add(h, stored, length);
	*ret_digest = hash_end(h);
}

int memory_pack_chunk_load(int fd, const struct memory_pack_chunk *c, uint64_t at, struct memory_pack_room *r, struct err *e)
{
	uint8_t head[MEMORY_PACK_HEAD_BYTES];
	struct digest d;
	int done = fs_pread_all(fd, r->stored, MEMORY_PACK_HEAD_BYTES + c->stored, at, NAME, e);

	if (done < 0)
		return done;
	memory_pack_head_encode(c, head);
	memory_pack_chunk_digest(head, r->stored + MEMORY_PACK_HEAD_BYTES, c->stored, r->hash, &d);
	if (memcmp(head, r->stored, sizeof head) != 0 || !digest_eq(&d, &c->digest))
		return err_set(e, ERR_CORRUPT, "the packed memory's chunk at %" PRIu64 " has other bytes than its checksum",
			       at);
	return 0;
}

/* --- opening --- */

struct place {
	struct memory_pack_chunk chunk; /* pages: with the chunk itself */
	uint64_t at;
};

struct memory_pack {
	int fd;
	uint64_t file_bytes;
	struct memory_pack_start start;
	struct memory_pack_footer footer;
	struct place *places;
};

void memory_pack_free(struct memory_pack *p)
{
	free(p->places);
	free(p);
}

const struct memory_pack_start *memory_pack_start(const struct memory_pack *p) { return &p->start; }
const struct digest *memory_pack_digest(const struct memory_pack *p) { return &p->footer.digest; }

static int read_footer(struct memory_pack *p, uint8_t footer[MEMORY_PACK_FOOTER_BYTES], struct err *e)
{
	uint64_t room = p->file_bytes - MEMORY_PACK_FOOTER_BYTES;
	int r = fs_pread_all(p->fd, footer, MEMORY_PACK_FOOTER_BYTES, room, NAME, e);

	if (r < 0)
		return r;
	p->footer = (struct memory_pack_footer){ .table_at = get(footer + 8, 8), .chunks = get(footer + 16, 8) };
	memcpy(p->footer.digest.bytes, footer + MEMORY_PACK_FOOTER_HASHED, sizeof p->footer.digest.bytes);
	bool good = memcmp(footer, MAGIC_END, 8) == 0 && get(footer + 24, 8) == 0 &&
		    p->footer.chunks <= chunks_of(p->start.length) && p->footer.table_at >= MEMORY_PACK_START_BYTES &&
		    p->footer.table_at <= room && (room - p->footer.table_at) == p->footer.chunks * MEMORY_PACK_ENTRY_BYTES;
	return good ? 0 : err_set(e, ERR_CORRUPT, "the packed memory is cut off, or its end is not what was written");
}

/* In order, without a gap from the start to the table. */
static int read_entry(struct memory_pack *p, size_t i, const uint8_t entry[MEMORY_PACK_ENTRY_BYTES], struct err *e)
{
	struct place *here = &p->places[i], *before = i ? here - 1 : NULL;

	here->chunk.number = (uint32_t)get(entry, 4);
	here->chunk.stored = (uint32_t)get(entry + 4, 4);
	memcpy(here->chunk.digest.bytes, entry + 8, sizeof here->chunk.digest.bytes);
	here->at = before ? before->at + MEMORY_PACK_HEAD_BYTES + before->chunk.stored : MEMORY_PACK_START_BYTES;
	bool good = here->chunk.stored > 0 && here->chunk.stored <= MEMORY_PACK_CHUNK &&
		    here->chunk.number < chunks_of(p->start.length) && (!before || here->chunk.number > before->chunk.number) &&
		    here->at + MEMORY_PACK_HEAD_BYTES + here->chunk.stored <= p->footer.table_at;
	return good ? 0 : err_set(e, ERR_CORRUPT, "the packed memory's table cannot be");
}

static int read_table(struct memory_pack *p, const uint8_t start[MEMORY_PACK_START_BYTES],
		      const uint8_t footer[MEMORY_PACK_FOOTER_BYTES], struct err *e)
{
	own_hash struct hash *h = hash_new();
	uint8_t entry[MEMORY_PACK_ENTRY_BYTES];
	int r = 0;

	p->places = mem_alloc_array(p->footer.chunks + 1, sizeof *p->places);
	hash_add(h, start, MEMORY_PACK_START_BYTES);
	for (size_t i = 0; r == 0 && i < p->footer.chunks; i++) {
		r = fs_pread_all(p->fd, entry, sizeof entry, p->footer.table_at + i * sizeof entry, NAME, e);
		hash_add(h, entry, sizeof entry);
		if (r == 0)
			r = read_entry(p, i, entry, e);
	}
	if (r < 0)
		return r;
	hash_add(h, footer, MEMORY_PACK_FOOTER_HASHED);
	struct digest d = hash_end(h);
	const struct place *last = p->footer.chunks ? &p->places[p->footer.chunks - 1] : NULL;
	uint64_t end = last ? last->at + MEMORY_PACK_HEAD_BYTES + last->chunk.stored : MEMORY_PACK_START_BYTES;
	if (!digest_eq(&d, &p->footer.digest) || end != p->footer.table_at)
		return err_set(e, ERR_CORRUPT, "the packed memory's table has other bytes than its checksum");
	return 0;
}

int memory_pack_open(int fd, struct memory_pack **ret_pack, struct err *e)
{
	uint8_t start[MEMORY_PACK_START_BYTES], footer[MEMORY_PACK_FOOTER_BYTES];
	own_memory_pack struct memory_pack *p = mem_alloc(sizeof *p);
	struct stat st;

	p->fd = fd;
	if (fstat(fd, &st) < 0)
		return err_errno(e, errno, "look at the packed memory");
	p->file_bytes = st.st_size > 0 ? (uint64_t)st.st_size : 0;
	if (p->file_bytes < MEMORY_PACK_START_BYTES + MEMORY_PACK_FOOTER_BYTES)
		return err_set(e, ERR_CORRUPT, "the packed memory is cut off");
	int r = fs_pread_all(fd, start, sizeof start, 0, NAME, e);
	if (r == 0)
		r = memory_pack_start_decode(start, &p->start, e);
	if (r == 0)
		r = read_footer(p, footer, e);
	if (r == 0)
		r = read_table(p, start, footer, e);
	if (r == 0)
		*ret_pack = TAKE(p);
	return r;
}

/* --- reading --- */

struct reading {
	struct memory_pack *pack;
	int to;
	atomic_size_t next;
	pthread_mutex_t lock;
	bool failed;
	struct err why;
};

/* Pages that follow each other are one write. */
static int put_pages(const struct reading *j, const struct memory_pack_chunk *c, const uint8_t *plain, struct err *e)
{
	uint64_t length = j->pack->start.length, first = (uint64_t)c->number * MEMORY_PACK_CHUNK;
	int r = 0;

	for (unsigned i = 0; r == 0 && i < MEMORY_PACK_PAGES;) {
		unsigned from = i;
		size_t bytes = 0;
		for (; i < MEMORY_PACK_PAGES && has_page(c, i); i++)
			bytes += page_bytes(c->number, i, length);
		if (bytes)
			r = fs_pwrite_all(j->to, plain, bytes, first + (uint64_t)from * MEMORY_PACK_PAGE, NAME, e);
		plain += bytes;
		i += bytes == 0;
	}
	return r;
}

static int unpack_chunk(const struct reading *j, const struct place *p, struct memory_pack_room *room, struct err *e)
{
	uint8_t head[MEMORY_PACK_HEAD_BYTES];
	struct memory_pack_chunk c;
	int r = fs_pread_all(j->pack->fd, head, sizeof head, p->at, NAME, e);

	if (r == 0)
		r = memory_pack_head_decode(head, j->pack->start.length, &c, e);
	if (r < 0)
		return r;
	if (c.number != p->chunk.number || c.stored != p->chunk.stored || !digest_eq(&c.digest, &p->chunk.digest))
		return err_set(e, ERR_CORRUPT, "the packed memory's table and its chunk at %" PRIu64 " differ", p->at);
	if ((r = memory_pack_chunk_load(j->pack->fd, &c, p->at, room, e)) < 0)
		return r;
	uint32_t bytes = plain_bytes(&c, j->pack->start.length);
	const uint8_t *stored = room->stored + MEMORY_PACK_HEAD_BYTES, *plain = stored;
	if (c.stored < bytes) {
		if (!room->decompress)
			room->decompress = ZSTD_createDCtx();
		size_t n = ZSTD_decompressDCtx(room->decompress, room->plain, bytes, stored, c.stored);
		if (ZSTD_isError(n) || n != bytes)
			return err_set(e, ERR_CORRUPT, "the packed memory's chunk at %" PRIu64 " cannot be unpacked", p->at);
		plain = room->plain;
	}
	return j->to < 0 ? 0 : put_pages(j, &c, plain, e);
}

static void fail(struct reading *j, const struct err *why)
{
	(void)pthread_mutex_lock(&j->lock);
	if (!j->failed)
		j->why = *why;
	j->failed = true;
	(void)pthread_mutex_unlock(&j->lock);
	atomic_store(&j->next, j->pack->footer.chunks);
}

static void *read_chunks(void *data)
{
	struct reading *j = data;
	struct memory_pack_room room;
	struct err why = { 0 };
	size_t count = j->pack->footer.chunks;

	memory_pack_room_init(&room);
	for (size_t i; (i = atomic_fetch_add(&j->next, 1)) < count;)
		if (unpack_chunk(j, &j->pack->places[i], &room, &why) < 0)
			fail(j, &why);
	memory_pack_room_done(&room);
	return NULL;
}

int memory_pack_read(struct memory_pack *p, int to, unsigned threads, struct err *e)
{
	struct reading j = { .pack = p, .to = to, .lock = PTHREAD_MUTEX_INITIALIZER };
	pthread_t started[THREADS_MOST];
	unsigned count = 0;

	if (to >= 0 && ftruncate(to, (off_t)p->start.length) < 0)
		return err_errno(e, errno, "make the memory's file");
	while (count + 1 < threads && count < THREADS_MOST && pthread_create(&started[count], NULL, read_chunks, &j) == 0)
		count++;
	(void)read_chunks(&j);
	while (count > 0)
		(void)pthread_join(started[--count], NULL);
	if (!j.failed)
		return 0;
	if (e)
		*e = j.why;
	return -j.why.number;
}
