/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. A qcow2 has its tables in front of the data they point to, so the disk is read once for a map of clusters that are
 * not zero, from which every place follows. A VMDK stream is made for this: grains as they come, each table behind its grains,
 * the directory last.
 */
#include "store/disk_write.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "base/mem.h"
#include "store/disk_private.h"

#define CLUSTER_BITS 16
#define CLUSTER (UINT64_C(1) << CLUSTER_BITS)
#define BUFFER_BYTES (1U << 20)

static const uint8_t zeros[CLUSTER];

static bool is_zero(const uint8_t *bytes, size_t length)
{
	for (size_t n; length > 0; bytes += n, length -= n) {
		n = length < sizeof zeros ? length : sizeof zeros;
		if (memcmp(bytes, zeros, n) != 0)
			return false;
	}
	return true;
}

static int put_zeros(const struct disk_output *out, uint64_t length, struct err *e)
{
	int r = 0;

	for (uint64_t n; r == 0 && length > 0; length -= n) {
		n = disk_least(length, sizeof zeros);
		r = out->put(out->data, zeros, (size_t)n, e);
	}
	return r;
}

int disk_write_raw(struct disk *d, const struct disk_output *out, struct err *e)
{
	own_str uint8_t *buffer = mem_alloc(BUFFER_BYTES);
	int r = 0;

	for (uint64_t at = 0, n = 0; r >= 0 && at < disk_bytes(d); at += n) {
		r = disk_read(d, at, buffer, BUFFER_BYTES, &n, e);
		if (r == 0)
			r = put_zeros(out, n = disk_least(n, BUFFER_BYTES), e);
		else if (r > 0)
			r = out->put(out->data, buffer, (size_t)n, e);
		out->advance(out->data, at + n);
	}
	return r;
}

/* --- qcow2 --- */

struct map {
	uint8_t *bits; /* one a cluster: it is not all zero */
	uint64_t clusters, used;
};

static bool is_used(const struct map *m, uint64_t cluster) { return m->bits[cluster / 8] >> cluster % 8 & 1; }

/* The next `CLUSTER` bytes, or less at the end, filled up. 0: they are zero. `*ret_skip`: clusters that are zero from here
 * on. */
static int read_cluster(struct disk *d, uint64_t cluster, uint8_t *buffer, uint64_t *ret_skip, struct err *e)
{
	uint64_t at = cluster << CLUSTER_BITS, n = 0;
	int r = disk_read(d, at, buffer, CLUSTER, &n, e);

	*ret_skip = 1;
	if (r == 0 && (n >= CLUSTER || at + n >= disk_bytes(d)))
		*ret_skip = n > CLUSTER ? n >> CLUSTER_BITS : 1;
	if (r < 0 || (r == 0 && (n >= CLUSTER || at + n >= disk_bytes(d))))
		return r;
	r = disk_read_all(d, at, buffer, CLUSTER, e);
	return r < 0 ? r : !is_zero(buffer, CLUSTER);
}

static int make_map(struct disk *d, struct map *m, struct err *e)
{
	own_str uint8_t *buffer = mem_alloc(CLUSTER);
	uint64_t skip = 1;

	m->clusters = (disk_bytes(d) + CLUSTER - 1) >> CLUSTER_BITS;
	m->bits = mem_alloc((size_t)(m->clusters / 8 + 1));
	for (uint64_t c = 0; c < m->clusters; c += skip) {
		int r = read_cluster(d, c, buffer, &skip, e);
		if (r < 0)
			return r;
		if (r > 0) {
			m->bits[c / 8] |= (uint8_t)(1U << c % 8);
			m->used++;
		}
	}
	return 0;
}

/* Clusters of the file, by what is in them, in this order. */
struct plan {
	uint64_t refcount_table, refcount_blocks, l1, l2, total;
	uint64_t l1_entries;
};

static bool table_used(const struct map *m, uint64_t table)
{
	uint64_t first = table * (CLUSTER / 8);

	for (uint64_t c = first; c < m->clusters && c < first + CLUSTER / 8; c++)
		if (is_used(m, c))
			return true;
	return false;
}

static struct plan make_plan(const struct map *m)
{
	struct plan p = { .refcount_table = 1, .refcount_blocks = 1 };

	p.l1_entries = (m->clusters + CLUSTER / 8 - 1) / (CLUSTER / 8);
	p.l1 = (p.l1_entries * 8 + CLUSTER - 1) / CLUSTER;
	for (uint64_t t = 0; t < p.l1_entries; t++)
		p.l2 += table_used(m, t);
	for (uint64_t before = UINT64_MAX; before != p.total;) {
		before = p.total;
		p.total = 1 + p.refcount_table + p.refcount_blocks + p.l1 + p.l2 + m->used;
		p.refcount_blocks = (p.total + CLUSTER / 2 - 1) / (CLUSTER / 2);
		p.refcount_table = (p.refcount_blocks * 8 + CLUSTER - 1) / CLUSTER;
	}
	return p;
}

static void be32(uint8_t *p, uint32_t v)
{
	v = htobe32(v);
	memcpy(p, &v, sizeof v);
}

static void be64(uint8_t *p, uint64_t v)
{
	v = htobe64(v);
	memcpy(p, &v, sizeof v);
}

static int put_header(struct disk *d, const struct plan *p, const struct disk_output *out, struct err *e)
{
	own_str uint8_t *h = mem_alloc(CLUSTER);

	memcpy(h, "QFI\xfb", 4);
	be32(h + 4, 3);
	be32(h + 20, CLUSTER_BITS);
	be64(h + 24, disk_bytes(d));
	be32(h + 36, (uint32_t)p->l1_entries);
	be64(h + 40, (1 + p->refcount_table + p->refcount_blocks) * CLUSTER);
	be64(h + 48, CLUSTER);
	be32(h + 56, (uint32_t)p->refcount_table);
	be32(h + 96, 4);
	be32(h + 100, 104);
	return out->put(out->data, h, CLUSTER, e);
}

static int put_refcounts(const struct plan *p, const struct disk_output *out, struct err *e)
{
	own_str uint8_t *block = mem_alloc(CLUSTER);
	int r = 0;

	for (uint64_t i = 0; r == 0 && i < p->refcount_table * (CLUSTER / 8); i++) {
		be64(block + i % (CLUSTER / 8) * 8, i < p->refcount_blocks ? (1 + p->refcount_table + i) * CLUSTER : 0);
		if ((i + 1) % (CLUSTER / 8) == 0)
			r = out->put(out->data, block, CLUSTER, e);
	}
	for (uint64_t i = 0; r == 0 && i < p->refcount_blocks * (CLUSTER / 2); i++) {
		block[i % (CLUSTER / 2) * 2] = 0;
		block[i % (CLUSTER / 2) * 2 + 1] = i < p->total;
		if ((i + 1) % (CLUSTER / 2) == 0)
			r = out->put(out->data, block, CLUSTER, e);
	}
	return r;
}

#define COPIED (UINT64_C(1) << 63) /* a refcount of one */

static int put_tables(const struct map *m, const struct plan *p, const struct disk_output *out, struct err *e)
{
	own_str uint8_t *block = mem_alloc(CLUSTER);
	uint64_t l2 = 1 + p->refcount_table + p->refcount_blocks + p->l1, data = l2 + p->l2;
	int r = 0;

	for (uint64_t t = 0; r == 0 && t < p->l1 * (CLUSTER / 8); t++) {
		bool used = t < p->l1_entries && table_used(m, t);
		be64(block + t % (CLUSTER / 8) * 8, used ? l2++ * CLUSTER | COPIED : 0);
		if ((t + 1) % (CLUSTER / 8) == 0)
			r = out->put(out->data, block, CLUSTER, e);
	}
	for (uint64_t t = 0; r == 0 && t < p->l1_entries; t++) {
		if (!table_used(m, t))
			continue;
		for (uint64_t i = 0, c = t * (CLUSTER / 8); i < CLUSTER / 8; i++, c++)
			be64(block + i * 8, c < m->clusters && is_used(m, c) ? data++ * CLUSTER | COPIED : 0);
		r = out->put(out->data, block, CLUSTER, e);
	}
	return r;
}

int disk_write_qcow2(struct disk *d, const struct disk_output *out, struct err *e)
{
	own_str uint8_t *buffer = mem_alloc(CLUSTER);
	struct map m = { 0 };
	struct plan p = { 0 };
	int r = make_map(d, &m, e);

	if (r == 0) {
		p = make_plan(&m);
		r = put_header(d, &p, out, e);
	}
	if (r == 0)
		r = put_refcounts(&p, out, e);
	if (r == 0)
		r = put_tables(&m, &p, out, e);
	for (uint64_t c = 0; r == 0 && c < m.clusters; c++) {
		if (!is_used(&m, c))
			continue;
		r = disk_read_all(d, c << CLUSTER_BITS, buffer, CLUSTER, e);
		if (r == 0)
			r = out->put(out->data, buffer, CLUSTER, e);
		out->advance(out->data, (c + 1) << CLUSTER_BITS);
	}
	free(m.bits);
	return r;
}

/* --- VMDK --- */

#define GRAIN_SECTORS 128
#define GRAIN (GRAIN_SECTORS * DISK_SECTOR)
#define TABLE_ENTRIES 512
#define TABLE_SECTORS 4
#define OVERHEAD 128
#define DESCRIPTOR_SECTORS 20
#define SECTORS_MOST UINT32_MAX

enum marker { MARK_END, MARK_TABLE, MARK_DIRECTORY, MARK_FOOTER };

struct stream {
	const struct disk_output *out;
	uint64_t sector; /* where the output is */
};

static void le32(uint8_t *p, uint32_t v)
{
	v = htole32(v);
	memcpy(p, &v, sizeof v);
}

static void le64(uint8_t *p, uint64_t v)
{
	v = htole64(v);
	memcpy(p, &v, sizeof v);
}

/* Whole sectors, filled up. */
static int put_sectors(struct stream *s, const void *bytes, size_t length, struct err *e)
{
	size_t rest = (DISK_SECTOR - length % DISK_SECTOR) % DISK_SECTOR;
	int r = s->out->put(s->out->data, bytes, length, e);

	s->sector += (length + rest) / DISK_SECTOR;
	if (r == 0 && s->sector > SECTORS_MOST)
		return err_set(e, ERR_TOO_LARGE, "the disk holds more than the format's 2 TiB");
	return r == 0 && rest ? s->out->put(s->out->data, zeros, rest, e) : r;
}

static int put_marker(struct stream *s, enum marker type, uint64_t sectors, struct err *e)
{
	uint8_t m[DISK_SECTOR] = { 0 };

	le64(m, sectors);
	le32(m + 12, type);
	return put_sectors(s, m, sizeof m, e);
}

static void fill_header(uint8_t h[DISK_SECTOR], uint64_t capacity, uint64_t directory)
{
	memset(h, 0, DISK_SECTOR);
	memcpy(h, "KDMV", 4);
	le32(h + 4, 3);
	le32(h + 8, 1 | 1 << 16 | 1 << 17); /* line ends can be checked; compressed; markers */
	le64(h + 12, capacity);
	le64(h + 20, GRAIN_SECTORS);
	le64(h + 28, 1);
	le64(h + 36, DESCRIPTOR_SECTORS);
	le32(h + 44, TABLE_ENTRIES);
	le64(h + 56, directory);
	le64(h + 64, OVERHEAD);
	memcpy(h + 73, "\n \r\n", 4);
	h[77] = 1; /* deflate */
}

static int put_front(struct stream *s, uint64_t capacity, const char *name, uint32_t id, struct err *e)
{
	uint8_t h[DISK_SECTOR];
	own_strbuf struct str text = { 0 };
	uint64_t cylinders = capacity / (255 * 63);

	fill_header(h, capacity, UINT64_MAX);
	str_printf(&text,
		   "# Disk DescriptorFile\nversion=1\nCID=%08x\nparentCID=ffffffff\ncreateType=\"streamOptimized\"\n\n"
		   "# Extent description\nRW %llu SPARSE \"%s\"\n\n# The Disk Data Base\n#DDB\n\n"
		   "ddb.adapterType = \"lsilogic\"\nddb.geometry.cylinders = \"%llu\"\nddb.geometry.heads = "
		   "\"255\"\nddb.geometry.sectors = \"63\"\n"
		   "ddb.toolsVersion = \"2147483647\"\nddb.virtualHWVersion = \"10\"\n",
		   id >= 0xfffffffe ? 1 : id, (unsigned long long)capacity, name,
		   (unsigned long long)(cylinders < 1 ? 1 : cylinders > 65535 ? 65535 : cylinders));
	int r = put_sectors(s, h, sizeof h, e);
	if (r == 0)
		r = put_sectors(s, text.bytes, text.length, e);
	if (r == 0)
		r = put_zeros(s->out, (OVERHEAD - s->sector) * DISK_SECTOR, e);
	s->sector = OVERHEAD;
	return r;
}

static int put_grain(struct stream *s, const uint8_t *plain, uint64_t first_sector, struct err *e)
{
	uint8_t packed[12 + GRAIN + GRAIN / 8];
	uLongf length = sizeof packed - 12;

	if (compress2(packed + 12, &length, plain, GRAIN, 4) != Z_OK)
		return err_set(e, ERR_INTERNAL, "zlib cannot compress");
	le64(packed, first_sector);
	le32(packed + 8, (uint32_t)length);
	return put_sectors(s, packed, 12 + length, e);
}

/* The grains of one table, and the table. *ret_sector: where it is; 0: all is zero, there is none. */
static int put_table(struct disk *d, struct stream *s, uint64_t number, uint32_t *ret_sector, struct err *e)
{
	uint8_t table[TABLE_ENTRIES * 4] = { 0 };
	own_str uint8_t *buffer = mem_alloc(GRAIN);
	bool any = false;
	int r = 0;

	*ret_sector = 0;
	for (uint64_t i = 0; r == 0 && i < TABLE_ENTRIES; i++) {
		uint64_t at = (number * TABLE_ENTRIES + i) * GRAIN, n = 0;
		if (at >= disk_bytes(d))
			break;
		int found = disk_read(d, at, buffer, GRAIN, &n, e);
		if (found == 0 && (n >= GRAIN || at + n >= disk_bytes(d)))
			continue;
		r = found < 0 ? found : disk_read_all(d, at, buffer, GRAIN, e);
		if (r < 0 || is_zero(buffer, GRAIN))
			continue;
		le32(table + i * 4, (uint32_t)s->sector);
		any = true;
		r = put_grain(s, buffer, at / DISK_SECTOR, e);
	}
	if (r < 0 || !any)
		return r;
	if ((r = put_marker(s, MARK_TABLE, TABLE_SECTORS, e)) < 0)
		return r;
	*ret_sector = (uint32_t)s->sector;
	return put_sectors(s, table, sizeof table, e);
}

static int put_end(struct stream *s, uint64_t capacity, const uint8_t *directory, uint64_t tables, struct err *e)
{
	uint8_t footer[DISK_SECTOR];
	int r = put_marker(s, MARK_DIRECTORY, (tables * 4 + DISK_SECTOR - 1) / DISK_SECTOR, e);

	fill_header(footer, capacity, s->sector);
	if (r == 0)
		r = put_sectors(s, directory, (size_t)tables * 4, e);
	if (r == 0)
		r = put_marker(s, MARK_FOOTER, 1, e);
	if (r == 0)
		r = put_sectors(s, footer, sizeof footer, e);
	return r == 0 ? put_marker(s, MARK_END, 0, e) : r;
}

int disk_write_vmdk(struct disk *d, const char *name, uint32_t id, const struct disk_output *out, struct err *e)
{
	const uint64_t covers = (uint64_t)TABLE_ENTRIES * GRAIN;
	uint64_t capacity = disk_bytes(d) / DISK_SECTOR, tables = (disk_bytes(d) + covers - 1) / covers;
	own_str uint8_t *directory = mem_alloc((size_t)tables * 4);
	struct stream s = { .out = out };
	int r = put_front(&s, capacity, name, id, e);

	for (uint64_t t = 0; r == 0 && t < tables; t++) {
		uint32_t sector = 0;
		r = put_table(d, &s, t, &sector, e);
		le32(directory + t * 4, sector);
		out->advance(out->data, disk_least((t + 1) * covers, disk_bytes(d)));
	}
	return r == 0 ? put_end(&s, capacity, directory, tables, e) : r;
}
