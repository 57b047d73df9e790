/* SPDX-License-Identifier: Apache-2.0 */
#ifndef STORE_EROFS_OUTPUT_H
#define STORE_EROFS_OUTPUT_H

/*
 * Where the bytes of an image go. Blocks are handed out in ascending order, so data reaches the file nearly in sequence; what
 * is small (inodes with their last bytes) shares blocks, a few of which stay open until they are full.
 */

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "store/erofs_format.h"

#define OUTPUT_WINDOW (1U << 20)
#define OUTPUT_OPEN_BLOCKS 8

struct erofs_output {
	int fd;
	uint64_t base; /* where the image begins in the file */
	uint64_t next_block, most_blocks;
	uint8_t *window; /* bytes of the file from window_at on that are not written yet */
	uint64_t window_at;
	size_t window_length;
	uint64_t frontier; /* end of all that was written or gathered */
	struct open_block {
		uint64_t block;
		uint32_t used;
		uint8_t bytes[EROFS_BLOCK];
	} *open;
	unsigned open_count;
};

void erofs_output_init(struct erofs_output *o, int fd, uint64_t base, uint64_t most_bytes);
void erofs_output_done(struct erofs_output *o);
/* `count` neighbouring blocks. ERR_TOO_LARGE past the limit. */
int erofs_output_blocks(struct erofs_output *o, uint64_t count, uint64_t *ret_block, struct err *e) must_check;
/* Room of `size` (at most a block) inside one shared block, aligned to EROFS_SLOT. */
int erofs_output_room(struct erofs_output *o, size_t size, uint64_t *ret_at, struct err *e) must_check;
/* File data, at a place in blocks of its own. */
int erofs_output_data(struct erofs_output *o, uint64_t at, const void *bytes, size_t length, struct err *e) must_check;
/* Anything anywhere, shared blocks too. */
int erofs_output_patch(struct erofs_output *o, uint64_t at, const void *bytes, size_t length, struct err *e) must_check;
/* Writes all that is held back and sets the file's length. */
int erofs_output_flush(struct erofs_output *o, struct err *e) must_check;

#endif
