/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. A qcow2 maps clusters of the guest's disk by two levels of tables. An entry of the second level is empty (zero, or
 * what the disk below has), a place in the file, or a compressed cluster. The refcounts matter only to a writer and are not
 * read; snapshots inside the file are left behind. What would make a reader open another file (backing file, external data
 * file) or ask for a password is refused when the header is read - but for a base that the caller gives, which takes the place
 * of the name in the header.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/mem.h"
#include "store/disk_private.h"

#define HEADER_LEAST 72
#define HEADER_V3 104
#define L1_BYTES_MOST (UINT64_C(32) << 20)
#define OFFSET_BITS UINT64_C(0x00fffffffffffe00)
#define COMPRESSED (UINT64_C(1) << 62)
#define ZERO UINT64_C(1)

enum { DIRTY = 1, CORRUPTED = 2, DATA_FILE = 4, COMPRESSION = 8, EXTENDED = 16 }; /* incompatible features */
enum { EXTENSION_DATA_FILE = 0x44415441, EXTENSION_ENCRYPTION = 0x0537be77 };

struct qcow2 {
	uint32_t version, cluster_bits;
	uint64_t cluster_bytes;
	bool extended; /* entries of 16 bytes, with a map of 32 parts */
	enum disk_packing packing;
	uint64_t l1_count;
	uint8_t *l1;
	uint64_t l2_at; /* offset of the table held; 0: none */
	struct disk_table l2;
	uint64_t unpacked_entry; /* 0: none */
	uint8_t *packed, *unpacked;
};

static void close_qcow2(void *of)
{
	struct qcow2 *q = of;

	free(q->l1);
	free(q->packed);
	free(q->unpacked);
	free(q);
}

/* --- header --- */

static int no(const char *what, const char *hint, struct err *e)
{
	(void)err_set(e, ERR_INVALID, "%s", what);
	return err_hint(e, "%s", hint);
}

static int check_features(const struct disk *d, struct qcow2 *q, const uint8_t *h, struct err *e)
{
	uint64_t features = q->version >= 3 ? disk_be64(h + 72) : 0;

	if (disk_be64(h + 8) != 0 && !d->base)
		return no("the image is only the difference to a backing file, which it names",
			  "qemu-img convert makes one whole file of both", e);
	if (disk_be32(h + 32) != 0)
		return no("the image is encrypted", "decrypt it with qemu-img convert first", e);
	if (features & DATA_FILE)
		return no("the image's data is in another file, which it names", "qemu-img convert makes one file of both", e);
	if (features & CORRUPTED)
		return err_set(e, ERR_CORRUPT, "the image is marked as damaged");
	if (features & ~(uint64_t)(DIRTY | COMPRESSION | EXTENDED))
		return err_set(e, ERR_UNSUPPORTED, "the image uses features that are not known (%#llx)",
			       (unsigned long long)features);
	q->extended = (features & EXTENDED) != 0;
	return 0;
}

/* Up to the end mark, or the end of the first cluster. */
static int check_extensions(const struct disk *d, const struct qcow2 *q, uint32_t at, struct err *e)
{
	uint8_t x[8];

	while ((uint64_t)at + sizeof x <= q->cluster_bytes) {
		int r = disk_fetch(d, at, x, sizeof x, e);
		if (r < 0)
			return r;
		uint32_t type = disk_be32(x), length = disk_be32(x + 4);
		if (type == 0)
			return 0;
		if (type == EXTENSION_DATA_FILE)
			return no("the image's data is in another file, which it names",
				  "qemu-img convert makes one file of both", e);
		if (type == EXTENSION_ENCRYPTION)
			return no("the image is encrypted", "decrypt it with qemu-img convert first", e);
		if (length > q->cluster_bytes - at - sizeof x)
			return err_set(e, ERR_CORRUPT, "an extension of the header is longer than the header");
		at += (uint32_t)sizeof x + (length + 7) / 8 * 8;
	}
	return 0;
}

static int read_header(struct disk *d, struct qcow2 *q, struct err *e)
{
	uint8_t h[HEADER_V3 + 8] = { 0 };
	uint32_t length = HEADER_LEAST;
	int r = disk_fetch(d, 0, h, HEADER_LEAST, e);

	if (r < 0)
		return r;
	q->version = disk_be32(h + 4);
	if (q->version != 2 && q->version != 3)
		return err_set(e, ERR_UNSUPPORTED, "version %u of the format, 2 and 3 are known", q->version);
	if (q->version == 3) {
		if ((r = disk_fetch(d, 0, h, sizeof h, e)) < 0)
			return r;
		length = disk_be32(h + 100);
	}
	q->cluster_bits = disk_be32(h + 20);
	if (q->cluster_bits < 9 || q->cluster_bits > 21 || length < (q->version == 3 ? HEADER_V3 : HEADER_LEAST) ||
	    length > 1U << q->cluster_bits)
		return err_set(e, ERR_CORRUPT, "the header says clusters of 2^%u bytes and a header of %u", q->cluster_bits,
			       length);
	q->cluster_bytes = UINT64_C(1) << q->cluster_bits;
	/* a disk need not be a number of sectors here; then its last one is filled up */
	d->bytes = disk_be64(h + 24);
	if (d->bytes <= DISK_BYTES_MOST)
		d->bytes = (d->bytes + DISK_SECTOR - 1) / DISK_SECTOR * DISK_SECTOR;
	if ((r = disk_check_bytes(d->bytes, e)) < 0 || (r = check_features(d, q, h, e)) < 0 ||
	    (r = check_extensions(d, q, length, e)) < 0)
		return r;
	if (q->extended && q->cluster_bits < 14)
		return err_set(e, ERR_CORRUPT, "extended entries with clusters of 2^%u bytes", q->cluster_bits);
	bool zstd = q->version == 3 && length > HEADER_V3 && h[HEADER_V3] == 1;
	if (q->version == 3 && length > HEADER_V3 && h[HEADER_V3] > 1)
		return err_set(e, ERR_UNSUPPORTED, "compression number %u is not known", h[HEADER_V3]);
	q->packing = zstd ? DISK_ZSTD : DISK_DEFLATE;
	q->l1_count = disk_be32(h + 36);
	q->l2 = (struct disk_table){ .width = q->extended ? 16 : 8, .count = q->cluster_bytes / (q->extended ? 16 : 8) };
	uint64_t covers = q->l2.count << q->cluster_bits, needed = (d->bytes + covers - 1) / covers;
	if (q->l1_count < needed || needed * 8 > L1_BYTES_MOST)
		return err_set(e, ERR_CORRUPT, "a first table of %llu entries, the disk needs %llu",
			       (unsigned long long)q->l1_count, (unsigned long long)needed);
	q->l1_count = needed;
	q->l1 = mem_alloc_array(q->l1_count, 8);
	return disk_fetch(d, disk_be64(h + 40), q->l1, q->l1_count * 8, e);
}

/* --- reading --- */

static int find_entry(const struct disk *d, struct qcow2 *q, uint64_t cluster, const uint8_t **ret_entry, struct err *e)
{
	uint64_t table = disk_be64(q->l1 + cluster / q->l2.count * 8) & OFFSET_BITS;

	*ret_entry = NULL;
	if (table == 0)
		return 0;
	if (table % q->cluster_bytes)
		return err_set(e, ERR_CORRUPT, "a table at byte %llu, which is within a cluster", (unsigned long long)table);
	if (table != q->l2_at) {
		q->l2.held = 0;
		q->l2.offset = q->l2_at = table;
	}
	return disk_table_entry(d, &q->l2, cluster % q->l2.count, ret_entry, e);
}

static int unpack_cluster(const struct disk *d, struct qcow2 *q, uint64_t entry, struct err *e)
{
	uint32_t shift = 62 - (q->cluster_bits - 8);
	uint64_t at = entry & ((UINT64_C(1) << shift) - 1);
	uint64_t sectors = (entry & (COMPRESSED - 1)) >> shift;
	uint64_t length = (sectors + 1) * DISK_SECTOR - at % DISK_SECTOR;

	if (q->unpacked_entry == entry)
		return 0;
	q->unpacked_entry = 0;
	if (!q->unpacked) {
		q->unpacked = mem_alloc(q->cluster_bytes);
		q->packed = mem_alloc(2 * q->cluster_bytes + DISK_SECTOR);
	}
	if (length > 2 * q->cluster_bytes || at >= d->window.bytes)
		return err_set(e, ERR_CORRUPT, "a compressed cluster of %llu bytes at byte %llu", (unsigned long long)length,
			       (unsigned long long)at);
	length = disk_least(length, d->window.bytes - at); /* the last one's sector may be cut */
	int r = disk_fetch(d, at, q->packed, (size_t)length, e);
	if (r == 0)
		r = disk_unpack(q->packing, q->packed, (size_t)length, q->unpacked, (size_t)q->cluster_bytes, e);
	if (r == 0)
		q->unpacked_entry = entry;
	return r;
}

static int read_below(struct disk *d, uint64_t offset, void *buffer, size_t size, uint64_t room, uint64_t *ret_length,
		      struct err *e)
{
	if (!d->base || offset >= d->base->bytes) {
		*ret_length = room;
		return 0;
	}
	int r = disk_read(d->base, offset, buffer, (size_t)disk_least(size, room), ret_length, e);
	*ret_length = disk_least(*ret_length, room);
	return r;
}

/* How much of the cluster from `within` on has one answer, and which. */
enum part { BELOW, ZEROES, HERE };
static enum part find_part(const struct qcow2 *q, const uint8_t *entry, uint64_t within, uint64_t *room)
{
	uint64_t first = disk_be64(entry);

	if (!q->extended)
		return q->version >= 3 && (first & ZERO) ? ZEROES : first & OFFSET_BITS ? HERE : BELOW;
	uint64_t map = disk_be64(entry + 8), part_bytes = q->cluster_bytes / 32;
	unsigned part = (unsigned)(within / part_bytes);
	*room = disk_least(*room, part_bytes - within % part_bytes);
	return map >> (part + 32) & 1 ? ZEROES : map >> part & 1 ? HERE : BELOW;
}

static int read_qcow2(struct disk *d, uint64_t offset, void *buffer, size_t size, uint64_t *ret_length, struct err *e)
{
	struct qcow2 *q = d->of;
	uint64_t cluster = offset >> q->cluster_bits, within = offset & (q->cluster_bytes - 1),
		 room = q->cluster_bytes - within;
	const uint8_t *entry;
	int r = find_entry(d, q, cluster, &entry, e);

	if (r < 0)
		return r;
	if (!entry) { /* no table: all that it would cover */
		room = ((cluster / q->l2.count + 1) * q->l2.count << q->cluster_bits) - offset;
		return read_below(d, offset, buffer, size, room, ret_length, e);
	}
	uint64_t first = disk_be64(entry);
	if (first & COMPRESSED) {
		*ret_length = disk_least(room, size);
		if ((r = unpack_cluster(d, q, first, e)) < 0)
			return r;
		memcpy(buffer, q->unpacked + within, (size_t)*ret_length);
		return 1;
	}
	enum part part = find_part(q, entry, within, &room);
	if (part == BELOW)
		return read_below(d, offset, buffer, size, room, ret_length, e);
	*ret_length = room;
	if (part == ZEROES)
		return 0;
	uint64_t at = first & OFFSET_BITS;
	if (at == 0 || at % q->cluster_bytes)
		return err_set(e, ERR_CORRUPT, "a cluster at byte %llu", (unsigned long long)at);
	*ret_length = disk_least(room, size);
	at += within;
	/* The last cluster of a file need not be written to its end. */
	if (at < d->window.bytes)
		*ret_length = disk_least(*ret_length, d->window.bytes - at);
	r = disk_fetch(d, at, buffer, (size_t)*ret_length, e);
	return r < 0 ? r : 1;
}

int disk_open_qcow2(struct disk *d, struct err *e)
{
	struct qcow2 *q = mem_alloc(sizeof *q);
	int r = read_header(d, q, e);

	if (r < 0) {
		close_qcow2(q);
		return r;
	}
	d->of = q;
	d->read = read_qcow2;
	d->close = close_qcow2;
	return 0;
}
