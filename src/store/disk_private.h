/* SPDX-License-Identifier: Apache-2.0 */
#ifndef STORE_DISK_PRIVATE_H
#define STORE_DISK_PRIVATE_H

/* Between disk.c and the formats. */

#include <endian.h>
#include <stdbool.h>
#include <string.h>

#include "store/disk.h"

struct disk {
	struct disk_window window;
	uint64_t bytes;
	struct disk *base;
	void *of; /* the format's own */
	int (*read)(struct disk *d, uint64_t offset, void *buffer, size_t size, uint64_t *ret_length, struct err *e);
	void (*close)(void *of);
};

/* Fill `bytes`, `of`, `read` and `close`; on failure the format has freed what it made. */
int disk_open_qcow2(struct disk *d, struct err *e) must_check;
int disk_open_vmdk(struct disk *d, struct err *e) must_check;
int disk_open_vhdx(struct disk *d, struct err *e) must_check;
int disk_open_vhd(struct disk *d, struct err *e) must_check;
int disk_open_vdi(struct disk *d, struct err *e) must_check;

/* Holes where it is zero, in the unit of holes from `at` on. */
int disk_write_data(int fd, const uint8_t *bytes, size_t length, uint64_t at, struct err *e) must_check;

/* `length` bytes of the window at `offset`, all of them inside. */
int disk_fetch(const struct disk *d, uint64_t offset, void *bytes, size_t length, struct err *e) must_check;
/* The guest's disk has a size that can be: whole sectors, not more than DISK_BYTES_MOST. */
int disk_check_bytes(uint64_t bytes, struct err *e) must_check;
/* One unit of compressed bytes into exactly `length` plain ones. */
enum disk_packing { DISK_DEFLATE, DISK_ZLIB, DISK_ZSTD };
int disk_unpack(enum disk_packing how, const void *packed, size_t packed_length, void *plain, size_t length,
		struct err *e) must_check;

static inline uint64_t disk_least(uint64_t a, uint64_t b) { return a < b ? a : b; }
static inline uint16_t disk_le16(const uint8_t *p) { uint16_t v; memcpy(&v, p, sizeof v); return le16toh(v); }
static inline uint32_t disk_le32(const uint8_t *p) { uint32_t v; memcpy(&v, p, sizeof v); return le32toh(v); }
static inline uint64_t disk_le64(const uint8_t *p) { uint64_t v; memcpy(&v, p, sizeof v); return le64toh(v); }
static inline uint32_t disk_be32(const uint8_t *p) { uint32_t v; memcpy(&v, p, sizeof v); return be32toh(v); }
static inline uint64_t disk_be64(const uint8_t *p) { uint64_t v; memcpy(&v, p, sizeof v); return be64toh(v); }

/* A table of the file that is read in pieces: one piece is kept. Entries are `width` bytes. */
struct disk_table {
	uint64_t offset, count; /* in the window; entries */
	uint64_t at;            /* first entry in `piece` */
	uint32_t width;
	uint32_t held;          /* entries in `piece` */
	uint8_t piece[65536];
};
int disk_table_entry(const struct disk *d, struct disk_table *t, uint64_t number, const uint8_t **ret_entry,
		     struct err *e) must_check;

#endif
