/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Three places may hold a byte that is not in the file yet: the window (1 MiB that ends at the frontier), an open shared
 * block, and nothing else. Data moves forward and is gathered; what goes back behind the window - a header whose size is known
 * now - is written where it belongs at once. Gaps in the window are zeros, and the shared blocks that they stand for follow
 * when they are full.
 *
 * Shared blocks are chosen best fit among eight; when none has room, the fullest is closed for a new one.
 */
#include "store/erofs_output.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/mem.h"

void erofs_output_init(struct erofs_output *o, int fd, uint64_t base, uint64_t most_bytes)
{
	/* block 0: superblock and root */
	*o = (struct erofs_output){ .fd = fd, .base = base, .next_block = 1, .most_blocks = most_bytes / EROFS_BLOCK };
	if (o->most_blocks >= EROFS_NULL_BLOCK)
		o->most_blocks = EROFS_NULL_BLOCK - 1;
	o->window = mem_alloc(OUTPUT_WINDOW);
	o->open = mem_alloc_array(OUTPUT_OPEN_BLOCKS, sizeof *o->open);
}

void erofs_output_done(struct erofs_output *o)
{
	free(o->window);
	free(o->open);
	*o = (struct erofs_output){ .fd = -1 };
}

static int write_at(struct erofs_output *o, uint64_t at, const uint8_t *bytes, size_t length, struct err *e)
{
	int fault = fault_point("convert-write");
	if (fault)
		return err_errno(e, fault, "write the partition");
	while (length > 0) {
		ssize_t n = pwrite(o->fd, bytes, length, (off_t)(o->base + at));
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_errno(e, errno, "write the partition");
		bytes += n;
		at += (uint64_t)n;
		length -= (size_t)n;
	}
	return 0;
}

static int flush_window(struct erofs_output *o, struct err *e)
{
	int r = o->window_length ? write_at(o, o->window_at, o->window, o->window_length, e) : 0;
	o->window_length = 0;
	return r;
}

int erofs_output_blocks(struct erofs_output *o, uint64_t count, uint64_t *ret_block, struct err *e)
{
	if (count > o->most_blocks - o->next_block) {
		(void)err_set(e, ERR_TOO_LARGE, "the partition would have more than %llu bytes",
			      (unsigned long long)o->most_blocks * EROFS_BLOCK);
		return err_hint(e, "raise the limit on images if this archive is meant to be that large");
	}
	*ret_block = o->next_block;
	o->next_block += count;
	return 0;
}

/* The window always ends at the frontier, behind which nothing was written yet. Forward within its reach bytes are gathered (a
 * gap is zero: a shared block's content follows later); what lies behind goes straight to the file. */
int erofs_output_data(struct erofs_output *o, uint64_t at, const void *bytes, size_t length, struct err *e)
{
	if (o->window_length && at >= o->window_at && at + length <= o->frontier) {
		memcpy(o->window + (at - o->window_at), bytes, length);
		return 0;
	}
	if (at < o->frontier)
		return write_at(o, at, bytes, length, e);
	if (o->window_length && at + length <= o->window_at + OUTPUT_WINDOW) {
		memset(o->window + o->window_length, 0, at - o->frontier);
		memcpy(o->window + (at - o->window_at), bytes, length);
		o->frontier = at + length;
		o->window_length = o->frontier - o->window_at;
		return 0;
	}
	int r = flush_window(o, e);
	o->frontier = at + length;
	if (r < 0 || length >= OUTPUT_WINDOW / 4)
		return r < 0 ? r : write_at(o, at, bytes, length, e);
	o->window_at = at;
	o->window_length = length;
	memcpy(o->window, bytes, length);
	return 0;
}

static int close_fullest(struct erofs_output *o, struct err *e)
{
	unsigned fullest = 0;

	for (unsigned i = 1; i < o->open_count; i++)
		if (o->open[i].used > o->open[fullest].used)
			fullest = i;
	struct open_block *b = &o->open[fullest];
	int r = erofs_output_data(o, b->block * EROFS_BLOCK, b->bytes, EROFS_BLOCK, e);
	*b = o->open[--o->open_count];
	return r;
}

int erofs_output_room(struct erofs_output *o, size_t size, uint64_t *ret_at, struct err *e)
{
	struct open_block *best = NULL;
	uint32_t needed = (uint32_t)(size + EROFS_SLOT - 1) / EROFS_SLOT * EROFS_SLOT;

	for (unsigned i = 0; i < o->open_count; i++) {
		struct open_block *b = &o->open[i];
		if (EROFS_BLOCK - b->used >= needed && (!best || b->used > best->used))
			best = b;
	}
	if (!best) {
		int r = o->open_count == OUTPUT_OPEN_BLOCKS ? close_fullest(o, e) : 0;
		if (r < 0)
			return r;
		best = &o->open[o->open_count];
		r = erofs_output_blocks(o, 1, &best->block, e);
		if (r < 0)
			return r;
		o->open_count++;
		best->used = 0;
		memset(best->bytes, 0, EROFS_BLOCK);
	}
	*ret_at = best->block * EROFS_BLOCK + best->used;
	best->used += needed;
	return 0;
}

int erofs_output_patch(struct erofs_output *o, uint64_t at, const void *bytes, size_t length, struct err *e)
{
	for (unsigned i = 0; i < o->open_count; i++) {
		if (at / EROFS_BLOCK != o->open[i].block)
			continue;
		memcpy(o->open[i].bytes + at % EROFS_BLOCK, bytes, length);
		return 0;
	}
	return erofs_output_data(o, at, bytes, length, e);
}

int erofs_output_flush(struct erofs_output *o, struct err *e)
{
	while (o->open_count) {
		int r = close_fullest(o, e);
		if (r < 0)
			return r;
	}
	int r = flush_window(o, e);
	if (r == 0 && ftruncate(o->fd, (off_t)(o->base + o->next_block * EROFS_BLOCK)) < 0)
		return err_errno(e, errno, "set the partition's length");
	return r;
}
