/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory (QEMU, docs/interop/qcow2.txt, version 3). A cluster is the header, part of the table of reference counts, a block of
 * counts, part of the first table, a second table, or the guest's. A map with a bit for each cluster of the file finds those
 * that are two of these: written by the guest, such a one would change what QEMU believes of the file. What is used must have
 * the count one; what is counted and not used was lost by a QEMU that was killed, and costs only room.
 */
#include "store/overlay_check.h"

#include <endian.h>
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"

#define CLUSTER_BITS 16
#define CLUSTER (UINT64_C(1) << CLUSTER_BITS)
#define ENTRIES (CLUSTER / 8)            /* of a table */
#define COUNTS (CLUSTER / 2)             /* of a block */
#define DISK_BYTES_MOST (UINT64_C(16) << 40)
#define FILE_BYTES_MOST (UINT64_C(18) << 40)
#define COUNT_TABLE_MOST 8               /* clusters: for a file of 128 TiB */
#define OFFSET_BITS UINT64_C(0x00fffffffffffe00)
#define COPIED (UINT64_C(1) << 63)
#define COMPRESSED (UINT64_C(1) << 62)
#define ZERO UINT64_C(1)
#define HEADER_BYTES 112
#define FEATURE_NAMES 0x6803f857u

struct check {
	int fd;
	uint64_t file_bytes, clusters; /* of the file */
	uint64_t disk_bytes;
	uint64_t l1_at, l1_entries, counts_at, counts_clusters;
	uint8_t *used;                 /* a bit for each cluster */
	uint64_t *count_blocks;        /* where they are; 0: none */
	uint64_t held;                 /* number of the block in `counts`, plus one */
	uint8_t counts[CLUSTER];
};

static uint32_t be32(const uint8_t *p)
{
	uint32_t v;
	memcpy(&v, p, sizeof v);
	return be32toh(v);
}

static uint64_t be64(const uint8_t *p)
{
	uint64_t v;
	memcpy(&v, p, sizeof v);
	return be64toh(v);
}

static int fetch(const struct check *c, uint64_t at, void *bytes, size_t length, struct err *e)
{
	return fs_pread_all(c->fd, bytes, length, at, "the disk", e);
}

/* --- header --- */

static int refers(const char *to, struct err *e)
{
	(void)err_set(e, ERR_DENIED, "the disk names another file, %s, which a workspace's own disk never does", to);
	return err_hint(e, "a disk of another system is taken in by carrel image import");
}

static int check_features(const uint8_t *h, struct err *e)
{
	if (be64(h + 8) || be32(h + 16))
		return refers("a backing file", e);
	if (be64(h + 72) & 4)
		return refers("one for its data", e);
	if (be32(h + 32))
		return err_set(e, ERR_UNSUPPORTED, "the disk is encrypted, which a workspace's own disk never is");
	if (be32(h + 60) || be64(h + 64))
		return err_set(e, ERR_UNSUPPORTED, "the disk has snapshots inside, which a workspace's own disk never has");
	if (be64(h + 72) || be64(h + 80) || be64(h + 88) || h[104])
		return err_set(e, ERR_UNSUPPORTED, "the disk has features that a workspace's own disk never has");
	return 0;
}

/* Names of features, which QEMU writes for people, and nothing else. */
static int check_extensions(const struct check *c, uint64_t at, struct err *e)
{
	uint8_t x[8];

	while (at + sizeof x <= CLUSTER) {
		int r = fetch(c, at, x, sizeof x, e);
		if (r < 0 || be32(x) == 0)
			return r;
		if (be32(x) != FEATURE_NAMES || be32(x + 4) > CLUSTER - at - sizeof x)
			return err_set(e, ERR_UNSUPPORTED,
				       "the disk's header has an extension (%#x) that a workspace's own disk never has",
				       be32(x));
		at += sizeof x + (be32(x + 4) + UINT64_C(7)) / 8 * 8;
	}
	return 0;
}

static int check_header(struct check *c, uint64_t base_bytes, struct err *e)
{
	uint8_t h[HEADER_BYTES];
	int r = fetch(c, 0, h, sizeof h, e);

	if (r < 0)
		return r;
	if (memcmp(h, "QFI\xfb", 4) != 0 || be32(h + 4) != 3)
		return err_set(e, ERR_CORRUPT, "the disk is no qcow2 of version 3");
	uint32_t length = be32(h + 100);
	if (length == 104)
		h[104] = 0; /* an extension begins there */
	if (be32(h + 20) != CLUSTER_BITS || be32(h + 96) != 4 || (length != 104 && length != 112))
		return err_set(e, ERR_UNSUPPORTED, "the disk has another layout than a workspace's own disk");
	if ((r = check_features(h, e)) < 0 || (r = check_extensions(c, length, e)) < 0)
		return r;
	c->disk_bytes = be64(h + 24);
	c->l1_entries = be32(h + 36);
	c->l1_at = be64(h + 40);
	c->counts_at = be64(h + 48);
	c->counts_clusters = be32(h + 56);
	if (!c->disk_bytes || c->disk_bytes > DISK_BYTES_MOST || c->disk_bytes % 512 || c->disk_bytes < base_bytes)
		return err_set(e, ERR_CORRUPT, "the disk says that it has %" PRIu64 " bytes, and what lies below has %" PRIu64,
			       c->disk_bytes, base_bytes);
	uint64_t needed = (c->disk_bytes + ENTRIES * CLUSTER - 1) / (ENTRIES * CLUSTER),
		 most = DISK_BYTES_MOST / (ENTRIES * CLUSTER);
	if (c->l1_entries < needed || c->l1_entries > most || c->counts_clusters == 0 || c->counts_clusters > COUNT_TABLE_MOST)
		return err_set(e, ERR_CORRUPT, "the disk's first table has %" PRIu64 " entries, it needs %" PRIu64,
			       c->l1_entries, needed);
	return 0;
}

/* --- clusters --- */

static int use(struct check *c, uint64_t at, const char *what, struct err *e)
{
	uint64_t number = at >> CLUSTER_BITS;

	if (at % CLUSTER || number >= c->clusters)
		return err_set(e, ERR_CORRUPT, "the disk has %s at byte %" PRIu64 ", where no cluster of it begins", what, at);
	if (c->used[number / 8] & 1U << number % 8)
		return err_set(e, ERR_CORRUPT, "the disk has %s at byte %" PRIu64 ", which is used for something else as well",
			       what, at);
	c->used[number / 8] |= (uint8_t)(1U << number % 8);
	return 0;
}

static int use_many(struct check *c, uint64_t at, uint64_t bytes, const char *what, struct err *e)
{
	int r = 0;

	for (uint64_t done = 0; r == 0 && done < bytes; done += CLUSTER)
		r = use(c, at + done, what, e);
	return r;
}

static int take_counts(struct check *c, struct err *e)
{
	uint64_t entries = c->counts_clusters * ENTRIES;
	uint8_t entry[8];
	int r = use_many(c, c->counts_at, c->counts_clusters * CLUSTER, "the table of counts", e);

	c->count_blocks = mem_alloc_array((c->clusters + COUNTS - 1) / COUNTS + 1, sizeof *c->count_blocks);
	for (uint64_t i = 0; r == 0 && i < entries; i++) {
		if ((r = fetch(c, c->counts_at + i * 8, entry, sizeof entry, e)) < 0 || be64(entry) == 0)
			continue;
		if (i * COUNTS < c->clusters) /* else a QEMU that was killed had made it for what it had no time to write */
			c->count_blocks[i] = be64(entry);
		r = use(c, be64(entry), "a block of counts", e);
	}
	return r;
}

static int take_table(struct check *c, uint64_t table, uint64_t first, struct err *e)
{
	own_str uint8_t *bytes = mem_alloc(CLUSTER);
	int r = use(c, table, "a table", e);

	if (r == 0)
		r = fetch(c, table, bytes, CLUSTER, e);
	for (uint64_t i = 0; r == 0 && i < ENTRIES; i++) {
		uint64_t entry = be64(bytes + i * 8), at = entry & OFFSET_BITS;
		if (entry == 0)
			continue;
		if (first + i * CLUSTER >= c->disk_bytes)
			r = err_set(e, ERR_CORRUPT, "the disk has a cluster behind its end");
		else if (entry & ~(OFFSET_BITS | COPIED | ZERO)) /* COMPRESSED is one of them */
			r = err_set(e, entry & COMPRESSED ? ERR_UNSUPPORTED : ERR_CORRUPT,
				    "the disk has a cluster of a kind that a workspace's own disk never has");
		else if (at || !(entry & ZERO))
			r = use(c, at, "a cluster", e);
	}
	return r;
}

static int take_tables(struct check *c, struct err *e)
{
	own_str uint8_t *l1 = mem_alloc(c->l1_entries * 8 + 1);
	int r = use_many(c, c->l1_at, c->l1_entries * 8, "the first table", e);

	if (r == 0)
		r = fetch(c, c->l1_at, l1, c->l1_entries * 8, e);
	for (uint64_t i = 0; r == 0 && i < c->l1_entries; i++) {
		uint64_t entry = be64(l1 + i * 8), first = i * ENTRIES * CLUSTER;
		if (entry == 0)
			continue;
		if ((entry & ~(OFFSET_BITS | COPIED)) || first >= c->disk_bytes)
			r = err_set(e, ERR_CORRUPT, "the disk's first table has an entry that means nothing");
		else
			r = take_table(c, entry & OFFSET_BITS, first, e);
	}
	return r;
}

/* --- counts --- */

static int check_count(struct check *c, uint64_t number, struct err *e)
{
	uint64_t block = number / COUNTS;
	const uint8_t *at = c->counts + number % COUNTS * 2;

	if (c->count_blocks[block] && c->held != block + 1) {
		int r = fetch(c, c->count_blocks[block], c->counts, CLUSTER, e);
		if (r < 0)
			return r;
		c->held = block + 1;
	}
	if (c->count_blocks[block] && at[0] == 0 && at[1] == 1)
		return 0;
	return err_set(e, ERR_CORRUPT, "the disk's cluster at byte %" PRIu64 " is used once and counted otherwise",
		       number * CLUSTER);
}

static int check_counts(struct check *c, struct err *e)
{
	int r = 0;

	for (uint64_t i = 0; r == 0 && i < c->clusters; i++)
		if (c->used[i / 8] & 1U << i % 8)
			r = check_count(c, i, e);
	return r;
}

int overlay_check(int fd, uint64_t base_bytes, struct err *e)
{
	own_str struct check *c = mem_alloc(sizeof *c);
	struct stat st;

	if (fstat(fd, &st) < 0)
		return err_errno(e, errno, "look at the disk");
	c->fd = fd;
	c->file_bytes = (uint64_t)st.st_size;
	if (!S_ISREG(st.st_mode) || c->file_bytes < CLUSTER || c->file_bytes > FILE_BYTES_MOST)
		return err_set(e, ERR_CORRUPT, "the disk is a file of %" PRIu64 " bytes", c->file_bytes);
	c->clusters = (c->file_bytes + CLUSTER - 1) / CLUSTER;
	c->used = mem_alloc(c->clusters / 8 + 1);
	int r = check_header(c, base_bytes, e);
	if (r == 0)
		r = use(c, 0, "the header", e);
	if (r == 0)
		r = take_counts(c, e);
	if (r == 0)
		r = take_tables(c, e);
	if (r == 0)
		r = check_counts(c, e);
	free(c->used);
	free(c->count_blocks);
	return r;
}
