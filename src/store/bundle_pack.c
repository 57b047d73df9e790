/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. The caller's thread reads chunks into a ring of slots and sends finished ones in order; the other threads hash and
 * compress what is ready. So memory is bounded by the ring, and a slow receiver stops the reading.
 *
 * A chunk that holds only zeros is not sent. Holes are not even read (SEEK_DATA).
 */
#include "store/bundle.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zstd.h>

#include "base/hash.h"
#include "base/mem.h"
#include "base/own.h"
#include "model/bundle.h"

#define LEVEL 3
#define SLOTS_PER_THREAD 3

struct slot {
	enum { SLOT_FREE, SLOT_READ, SLOT_TAKEN, SLOT_DONE } state;
	struct bundle_record record;
	uint8_t *plain, *stored; /* stored: as it goes out */
};

struct pack {
	const struct bundle_file *files;
	size_t count;
	uint32_t stream;      /* to be read next */
	uint64_t offset;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct slot *slots;
	size_t slot_count, head, tail; /* head: the next to be read into; tail: the next to be sent; numbers that only grow */
	bool over;
};

/* --- reading --- */

static bool is_zero(const uint8_t *bytes, size_t length) { return !bytes[0] && memcmp(bytes, bytes + 1, length - 1) == 0; }

/* Moves on to the next data; false: this file has no more. */
static bool skip_hole(struct pack *p)
{
	const struct bundle_file *f = &p->files[p->stream];
	off_t data = lseek(f->fd, (off_t)p->offset, SEEK_DATA);

	if (data < 0 && errno == ENXIO)
		return false;
	if (data > (off_t)p->offset)
		p->offset = (uint64_t)data / BUNDLE_CHUNK_BYTES * BUNDLE_CHUNK_BYTES;
	return p->offset < f->size_bytes;
}

static int read_all(int fd, uint8_t *bytes, size_t length, uint64_t offset, struct err *e)
{
	for (size_t done = 0; done < length;) {
		ssize_t n = pread(fd, bytes + done, length - done, (off_t)(offset + done));
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_errno(e, errno, "read what goes into the bundle");
		if (n == 0)
			return err_set(e, ERR_CONFLICT, "what goes into the bundle became shorter");
		done += (size_t)n;
	}
	return 0;
}

/* 1: a chunk is in the slot; 0: there are no more. */
static int read_chunk(struct pack *p, struct slot *s, struct err *e)
{
	while (p->stream < p->count) {
		const struct bundle_file *f = &p->files[p->stream];
		if (f->fd < 0 || p->offset >= f->size_bytes || !skip_hole(p)) {
			p->stream++;
			p->offset = 0;
			continue;
		}
		uint64_t left = f->size_bytes - p->offset;
		uint32_t length = left < BUNDLE_CHUNK_BYTES ? (uint32_t)left : BUNDLE_CHUNK_BYTES;
		int r = read_all(f->fd, s->plain, length, p->offset, e);
		if (r < 0)
			return r;
		s->record = (struct bundle_record){ .stream = p->stream, .offset = p->offset, .plain_length = length };
		p->offset += length;
		if (!is_zero(s->plain, length))
			return 1;
	}
	return 0;
}

/* --- compressing --- */

static void finish_chunk(struct slot *s, ZSTD_CCtx *context)
{
	struct bundle_record *r = &s->record;
	size_t n = ZSTD_compressCCtx(context, s->stored, ZSTD_compressBound(BUNDLE_CHUNK_BYTES), s->plain, r->plain_length,
				     LEVEL);

	r->digest = hash_bytes(s->plain, r->plain_length);
	r->codec = !ZSTD_isError(n) && n < r->plain_length ? BUNDLE_ZSTD : BUNDLE_PLAIN;
	r->stored_length = r->codec == BUNDLE_ZSTD ? (uint32_t)n : r->plain_length;
	if (r->codec == BUNDLE_PLAIN)
		memcpy(s->stored, s->plain, r->plain_length);
}

static struct slot *next_ready(struct pack *p)
{
	for (size_t i = p->tail; i < p->head; i++)
		if (p->slots[i % p->slot_count].state == SLOT_READ)
			return &p->slots[i % p->slot_count];
	return NULL;
}

static void *worker(void *data)
{
	struct pack *p = data;
	ZSTD_CCtx *context = ZSTD_createCCtx();

	(void)pthread_mutex_lock(&p->lock);
	while (!p->over) {
		struct slot *s = next_ready(p);
		if (!s) {
			(void)pthread_cond_wait(&p->changed, &p->lock);
			continue;
		}
		s->state = SLOT_TAKEN;
		(void)pthread_mutex_unlock(&p->lock);
		finish_chunk(s, context);
		(void)pthread_mutex_lock(&p->lock);
		s->state = SLOT_DONE;
		(void)pthread_cond_broadcast(&p->changed);
	}
	(void)pthread_mutex_unlock(&p->lock);
	(void)ZSTD_freeCCtx(context);
	return NULL;
}

/* --- the caller's thread --- */

static int send_oldest(struct pack *p, bundle_send_fn *send, void *data, struct err *e)
{
	struct slot *s = &p->slots[p->tail % p->slot_count];
	uint8_t record[BUNDLE_RECORD_BYTES];

	(void)pthread_mutex_lock(&p->lock);
	while (s->state != SLOT_DONE)
		(void)pthread_cond_wait(&p->changed, &p->lock);
	(void)pthread_mutex_unlock(&p->lock);
	bundle_record_encode(&s->record, record);
	int r = send(data, record, sizeof record, e);
	if (r >= 0)
		r = send(data, s->stored, s->record.stored_length, e);
	(void)pthread_mutex_lock(&p->lock);
	s->state = SLOT_FREE;
	p->tail++;
	(void)pthread_mutex_unlock(&p->lock);
	return r;
}

static int pack_all(struct pack *p, bundle_send_fn *send, void *data, struct err *e)
{
	int r = 1;

	while (r > 0) {
		if (p->head - p->tail == p->slot_count && (r = send_oldest(p, send, data, e)) < 0)
			return r;
		struct slot *s = &p->slots[p->head % p->slot_count];
		r = read_chunk(p, s, e);
		if (r <= 0)
			break;
		(void)pthread_mutex_lock(&p->lock);
		s->state = SLOT_READ;
		p->head++;
		(void)pthread_cond_broadcast(&p->changed);
		(void)pthread_mutex_unlock(&p->lock);
	}
	while (r >= 0 && p->tail < p->head)
		r = send_oldest(p, send, data, e);
	return r;
}

int bundle_pack(const struct bundle_file *files, size_t count, const struct bundle_from *from, unsigned threads,
		bundle_send_fn *send, void *data, struct err *e)
{
	struct pack p = { .files = files, .count = count, .stream = from->stream, .offset = from->offset,
			  .slot_count = (size_t)threads * SLOTS_PER_THREAD };
	own_str pthread_t *started = mem_alloc_array(threads, sizeof *started);
	unsigned running = 0;
	int r = 0, number;

	(void)pthread_mutex_init(&p.lock, NULL);
	(void)pthread_cond_init(&p.changed, NULL);
	p.slots = mem_alloc_array(p.slot_count, sizeof *p.slots);
	for (size_t i = 0; i < p.slot_count; i++) {
		p.slots[i].plain = mem_alloc(BUNDLE_CHUNK_BYTES);
		p.slots[i].stored = mem_alloc(ZSTD_compressBound(BUNDLE_CHUNK_BYTES));
	}
	while (running < threads && r == 0) {
		if ((number = pthread_create(&started[running], NULL, worker, &p)))
			r = err_errno(e, number, "start a thread");
		running += number == 0;
	}
	if (r == 0)
		r = pack_all(&p, send, data, e);
	(void)pthread_mutex_lock(&p.lock);
	p.over = true;
	(void)pthread_cond_broadcast(&p.changed);
	(void)pthread_mutex_unlock(&p.lock);
	while (running)
		(void)pthread_join(started[--running], NULL);
	for (size_t i = 0; i < p.slot_count; i++) {
		free(p.slots[i].plain);
		free(p.slots[i].stored);
	}
	free(p.slots);
	(void)pthread_cond_destroy(&p.changed);
	(void)pthread_mutex_destroy(&p.lock);
	return r < 0 ? r : 0;
}
