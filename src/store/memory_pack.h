/* SPDX-License-Identifier: Apache-2.0 */
#ifndef STORE_MEMORY_PACK_H
#define STORE_MEMORY_PACK_H

/*
 * A packed memory file (docs/formats/memory-pack.md): chunks of 1 MiB that stand for themselves, without their pages of zeros,
 * each a zstd frame with a SHA-256, then a table of them whose digest is that of the whole. It is written and read on all
 * processors, and goes on where it was ended. A file may have come from anywhere: it is read strictly, by a process without
 * rights (carrel-memory).
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/hash.h"

#define MEMORY_PACK_CHUNK (1u << 20)
#define MEMORY_PACK_PAGE 4096u
#define MEMORY_PACK_PAGES (MEMORY_PACK_CHUNK / MEMORY_PACK_PAGE)
#define MEMORY_PACK_LENGTH_MOST (UINT64_C(1) << 46)

/* zstd's levels, measured: docs/decisions/0123 and 0137. */
#define MEMORY_PACK_LEVEL 2
#define MEMORY_PACK_LEVEL_NOW 1 /* somebody waits for it */

#define MEMORY_PACK_START_BYTES 64
#define MEMORY_PACK_HEAD_BYTES 80
#define MEMORY_PACK_ENTRY_BYTES 40
#define MEMORY_PACK_FOOTER_BYTES 64

/* --- the form, pure --- */

struct memory_pack_start {
	uint64_t length;   /* of the plain file */
	uint64_t taken_ms; /* when the state was made: a file that was begun for another one is not gone on with */
};

struct memory_pack_chunk {
	uint32_t number;                         /* of the chunk in the plain file */
	uint32_t stored;                         /* bytes behind the head; as many as the pages have: they are not compressed */
	uint8_t pages[MEMORY_PACK_PAGES / 8];    /* bit N: page N is there; bit 0 of byte 0 first */
	struct digest digest;                    /* of the head's first 48 bytes and what is stored */
};

struct memory_pack_footer {
	uint64_t table_at, chunks;
	struct digest digest; /* of start, table and the rest of the footer */
};

void memory_pack_start_encode(const struct memory_pack_start *s, uint8_t out[MEMORY_PACK_START_BYTES]);
int memory_pack_start_decode(const uint8_t in[MEMORY_PACK_START_BYTES], struct memory_pack_start *ret_start,
			     struct err *e) must_check;
void memory_pack_head_encode(const struct memory_pack_chunk *c, uint8_t out[MEMORY_PACK_HEAD_BYTES]);
/* Strict, for a file of this length: ERR_CORRUPT. */
int memory_pack_head_decode(const uint8_t in[MEMORY_PACK_HEAD_BYTES], uint64_t length, struct memory_pack_chunk *ret_chunk,
			    struct err *e) must_check;

/* --- writing --- */

struct memory_pack_made {
	uint64_t bytes;       /* of the packed file */
	struct digest digest; /* memory_pack_digest */
	struct digest sparse; /* of what was read, as base/sparse.h has it; when it was asked for */
	uint64_t kept;        /* chunks that were there already */
};

struct memory_pack_how {
	uint64_t taken_ms; /* of the state */
	bool sparse;       /* ret_made->sparse, too */
	int level;         /* zstd's */
	unsigned threads;
};
/* Packs `from`, whose bytes nobody changes, into `to`, which is empty or was begun by an earlier call, and syncs it. */
int memory_pack_write(int from, int to, const struct memory_pack_how *how, struct memory_pack_made *ret_made,
		      struct err *e) must_check;

/* --- reading --- */

struct memory_pack;

/* checks start, table and footer; fd stays the caller's */
int memory_pack_open(int fd, struct memory_pack **ret_pack, struct err *e) must_check;
void memory_pack_free(struct memory_pack *p);
static inline void memory_pack_free_at(struct memory_pack **p)
{
	if (*p)
		memory_pack_free(*p);
}
#define own_memory_pack __attribute__((cleanup(memory_pack_free_at)))

const struct memory_pack_start *memory_pack_start(const struct memory_pack *p);
const struct digest *memory_pack_digest(const struct memory_pack *p);
/* Every chunk against its checksum and, `to` >= 0, its pages to their places in `to`, which is empty and gets the length. */
int memory_pack_read(struct memory_pack *p, int to, unsigned threads, struct err *e) must_check;

/* --- of both --- */

/* What one thread works with. */
struct memory_pack_room {
	void *compress, *decompress; /* zstd's; made at first use */
	struct hash *hash;
	uint8_t *plain;              /* MEMORY_PACK_CHUNK */
	uint8_t *stored;             /* a head and what a chunk comes to at most */
};
void memory_pack_room_init(struct memory_pack_room *r);
void memory_pack_room_done(struct memory_pack_room *r);
void memory_pack_chunk_digest(const uint8_t head[MEMORY_PACK_HEAD_BYTES], const uint8_t *stored, size_t length, struct hash *h,
			      struct digest *ret_digest);
/* Head and stored bytes at `at` are what `c` says and have its checksum; afterwards they are in r->stored. */
int memory_pack_chunk_load(int fd, const struct memory_pack_chunk *c, uint64_t at, struct memory_pack_room *r,
			   struct err *e) must_check;
void memory_pack_entry_encode(const struct memory_pack_chunk *c, uint8_t out[MEMORY_PACK_ENTRY_BYTES]);
/* All but the digest, which is of start, table and these first bytes. */
#define MEMORY_PACK_FOOTER_HASHED 32
void memory_pack_footer_encode(const struct memory_pack_footer *f, uint8_t out[MEMORY_PACK_FOOTER_BYTES]);

#endif
