/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. VHD, VHDX and VDI are of one kind: the disk is cut into blocks, and one table has a place in the file for each. They
 * differ in header and in the words of that table; the rest is shared here. All three can be the difference to a parent, which
 * is refused.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/mem.h"
#include "store/disk_private.h"
#include "store/erofs_format.h"

#define BLOCK_MOST (UINT64_C(256) << 20)
#define FIXED UINT64_MAX

/* Where block `number` is: its offset in the file, or 0 when it is zero. */
struct blocks;
typedef int place_fn(const struct disk *d, struct blocks *b, uint64_t number, uint64_t *ret_offset, struct err *e);

struct blocks {
	uint64_t block_bytes; /* FIXED: the disk lies in one piece at `data` */
	uint64_t data;
	uint64_t between;     /* vhdx: payload entries up to the next entry of another kind */
	struct disk_table table;
	place_fn *place;
};

static int difference(struct err *e)
{
	(void)err_set(e, ERR_INVALID, "the image is only the difference to a parent, which it names");
	return err_hint(e, "merge it with its parent, or export it as one whole file");
}

static int read_blocks(struct disk *d, uint64_t offset, void *buffer, size_t size, uint64_t *ret_length, struct err *e)
{
	struct blocks *b = d->of;
	uint64_t at = b->data, within = offset, room = d->bytes - offset;
	int r = 0;

	if (b->block_bytes != FIXED) {
		within = offset % b->block_bytes;
		room = b->block_bytes - within;
		r = b->place(d, b, offset / b->block_bytes, &at, e);
	}
	*ret_length = room;
	if (r < 0 || (at == 0 && b->block_bytes != FIXED))
		return r;
	*ret_length = disk_least(room, size);
	if (at > UINT64_MAX / 2)
		return err_set(e, ERR_CORRUPT, "a block at byte %llu", (unsigned long long)at);
	r = disk_fetch(d, at + within, buffer, (size_t)*ret_length, e);
	return r < 0 ? r : 1;
}

static int check_block(uint64_t bytes, struct err *e)
{
	if (bytes < DISK_SECTOR || bytes > BLOCK_MOST || (bytes & (bytes - 1)))
		return err_set(e, ERR_CORRUPT, "blocks of %llu bytes", (unsigned long long)bytes);
	return 0;
}

static int open_blocks(struct disk *d, int (*header)(struct disk *d, struct blocks *b, struct err *e), struct err *e)
{
	struct blocks *b = mem_alloc(sizeof *b);
	int r = header(d, b, e);

	if (r < 0) {
		free(b);
		return r;
	}
	d->of = b;
	d->read = read_blocks;
	d->close = free;
	return 0;
}

static int check_table(const struct blocks *b, uint64_t bytes, struct err *e)
{
	uint64_t needed = (bytes + b->block_bytes - 1) / b->block_bytes;

	if (b->table.count < needed)
		return err_set(e, ERR_CORRUPT, "a table of %llu blocks, the disk has %llu", (unsigned long long)b->table.count,
			       (unsigned long long)needed);
	return 0;
}

/* --- VHD --- */

static int vhd_place(const struct disk *d, struct blocks *b, uint64_t number, uint64_t *ret_offset, struct err *e)
{
	const uint8_t *entry;
	int r = disk_table_entry(d, &b->table, number, &entry, e);

	if (r < 0)
		return r;
	uint64_t sector = disk_be32(entry),
		 map = (b->block_bytes / DISK_SECTOR / 8 + DISK_SECTOR - 1) / DISK_SECTOR * DISK_SECTOR;
	*ret_offset = sector == UINT32_MAX ? 0 : sector * DISK_SECTOR + map;
	return 0;
}

static bool vhd_checksum(const uint8_t *bytes, size_t length, size_t at)
{
	uint32_t sum = 0;

	for (size_t i = 0; i < length; i++)
		if (i < at || i >= at + 4)
			sum += bytes[i];
	return disk_be32(bytes + at) == ~sum;
}

static int vhd_header(struct disk *d, struct blocks *b, struct err *e)
{
	uint8_t footer[DISK_SECTOR], h[1024];
	int r = d->window.bytes < sizeof footer ? err_set(e, ERR_CORRUPT, "the file is too short") :
						  disk_fetch(d, d->window.bytes - sizeof footer, footer, sizeof footer, e);

	if (r < 0)
		return r;
	if (!vhd_checksum(footer, sizeof footer, 64))
		return err_set(e, ERR_CORRUPT, "the footer's checksum is wrong");
	uint32_t type = disk_be32(footer + 60);
	d->bytes = disk_be64(footer + 48);
	if ((r = disk_check_bytes(d->bytes, e)) < 0)
		return r;
	if (type == 4)
		return difference(e);
	if (type == 2) {
		b->block_bytes = FIXED;
		return d->bytes <= d->window.bytes - sizeof footer ? 0 : err_set(e, ERR_CORRUPT, "the file is cut");
	}
	if (type != 3)
		return err_set(e, ERR_UNSUPPORTED, "a disk of type %u, fixed and dynamic are known", type);
	if ((r = disk_fetch(d, disk_be64(footer + 16), h, sizeof h, e)) < 0)
		return r;
	if (memcmp(h, "cxsparse", 8) != 0 || !vhd_checksum(h, sizeof h, 36))
		return err_set(e, ERR_CORRUPT, "the header of the dynamic disk is damaged");
	b->block_bytes = disk_be32(h + 32);
	b->table = (struct disk_table){ .offset = disk_be64(h + 16), .count = disk_be32(h + 28), .width = 4 };
	b->place = vhd_place;
	r = check_block(b->block_bytes, e);
	return r < 0 ? r : check_table(b, d->bytes, e);
}

int disk_open_vhd(struct disk *d, struct err *e) { return open_blocks(d, vhd_header, e); }

/* --- VDI --- */

static int vdi_place(const struct disk *d, struct blocks *b, uint64_t number, uint64_t *ret_offset, struct err *e)
{
	const uint8_t *entry;
	int r = disk_table_entry(d, &b->table, number, &entry, e);

	if (r < 0)
		return r;
	uint64_t block = disk_le32(entry); /* the two highest: never written, zero */
	*ret_offset = block >= UINT32_MAX - 1 ? 0 : b->data + block * b->block_bytes;
	return 0;
}

static int vdi_header(struct disk *d, struct blocks *b, struct err *e)
{
	static const uint8_t none[16];
	uint8_t h[DISK_SECTOR];
	int r = disk_fetch(d, 0, h, sizeof h, e);

	if (r < 0)
		return r;
	if (disk_le32(h + 68) != 0x00010001)
		return err_set(e, ERR_UNSUPPORTED, "version %#x of the format, 0x10001 is known", disk_le32(h + 68));
	uint32_t type = disk_le32(h + 76);
	if (type == 3 || type == 4 || memcmp(h + 424, none, sizeof none) != 0 || memcmp(h + 440, none, sizeof none) != 0)
		return difference(e);
	if (type != 1 && type != 2)
		return err_set(e, ERR_UNSUPPORTED, "a disk of type %u, normal and fixed are known", type);
	d->bytes = disk_le64(h + 368);
	b->data = disk_le32(h + 344);
	b->block_bytes = disk_le32(h + 376);
	b->table = (struct disk_table){ .offset = disk_le32(h + 340), .count = disk_le32(h + 384), .width = 4 };
	b->place = vdi_place;
	if (disk_le32(h + 380) != 0 || disk_le32(h + 360) != DISK_SECTOR || b->data == 0)
		return err_set(e, ERR_UNSUPPORTED, "blocks with something between them, or sectors that have not 512 bytes");
	if ((r = disk_check_bytes(d->bytes, e)) < 0 || (r = check_block(b->block_bytes, e)) < 0)
		return r;
	return check_table(b, d->bytes, e);
}

int disk_open_vdi(struct disk *d, struct err *e) { return open_blocks(d, vdi_header, e); }

/* --- VHDX --- */

#define VHDX_HEADERS (UINT64_C(64) << 10)
#define VHDX_REGIONS (UINT64_C(192) << 10)
#define VHDX_ENTRIES_MOST 2047

static const uint8_t guid_bat[16] = "\x66\x77\xc2\x2d\x23\xf6\x00\x42\x9d\x64\x11\x5e\x9b\xfd\x4a\x08";
static const uint8_t guid_metadata[16] = "\x06\xa2\x7c\x8b\x90\x47\x9a\x4b\xb8\xfe\x57\x5f\x05\x0f\x88\x6e";
static const uint8_t guid_parameters[16] = "\x37\x67\xa1\xca\x36\xfa\x43\x4d\xb3\xb6\x33\xf0\xaa\x44\xe7\x6b";
static const uint8_t guid_size[16] = "\x24\x42\xa5\x2f\x1b\xcd\x76\x48\xb2\x11\x5d\xbe\xd8\x3b\xf4\xb8";
static const uint8_t guid_sector[16] = "\x1d\xbf\x41\x81\x6f\xa9\x09\x47\xba\x47\xf2\x33\xa8\xfa\xab\x5f";
static const uint8_t guid_parent[16] = "\x2d\x5f\xd3\xa8\x0b\xb3\x4d\x45\xab\xf7\xd3\xd8\x48\x34\xab\x0c";

static int vhdx_place(const struct disk *d, struct blocks *b, uint64_t number, uint64_t *ret_offset, struct err *e)
{
	const uint8_t *entry;
	int r = disk_table_entry(d, &b->table, number + number / b->between, &entry, e);

	if (r < 0)
		return r;
	uint64_t word = disk_le64(entry), state = word & 7, at = word >> 20 << 20;
	if (state == 6 && at)
		*ret_offset = at;
	else if (state <= 3)
		*ret_offset = 0;
	else
		return err_set(e, ERR_CORRUPT, "block %llu is in state %llu", (unsigned long long)number,
			       (unsigned long long)state);
	return 0;
}

static bool vhdx_checksum(uint8_t *bytes, size_t length)
{
	uint32_t said = disk_le32(bytes + 4);

	memset(bytes + 4, 0, 4);
	return said == ~erofs_crc32c(UINT32_MAX, bytes, length);
}

/* The newer of two headers that are whole. */
static int vhdx_check_headers(const struct disk *d, struct err *e)
{
	static const uint8_t none[16];
	uint8_t h[4096], chosen[4096];
	uint64_t newest = 0;
	bool found = false;

	for (unsigned i = 0; i < 2; i++) {
		int r = disk_fetch(d, VHDX_HEADERS * (i + 1), h, sizeof h, e);
		if (r < 0)
			return r;
		if (memcmp(h, "head", 4) != 0 || !vhdx_checksum(h, sizeof h) || (found && disk_le64(h + 8) <= newest))
			continue;
		newest = disk_le64(h + 8);
		memcpy(chosen, h, sizeof h);
		found = true;
	}
	if (!found)
		return err_set(e, ERR_CORRUPT, "neither of the headers is whole");
	if (disk_le16(chosen + 66) != 1)
		return err_set(e, ERR_UNSUPPORTED, "version %u of the format, 1 is known", disk_le16(chosen + 66));
	if (memcmp(chosen + 48, none, sizeof none) != 0) {
		(void)err_set(e, ERR_CONFLICT, "the disk was not closed cleanly: its log holds changes");
		return err_hint(e, "shut its machine down and detach it, or replay the log with qemu-img check -r all");
	}
	return 0;
}

static int vhdx_find_regions(const struct disk *d, uint64_t *ret_metadata, struct blocks *b, struct err *e)
{
	uint64_t bat_bytes = 0;
	own_str uint8_t *h = mem_alloc(65536);
	int r = disk_fetch(d, VHDX_REGIONS, h, 65536, e);

	if (r < 0)
		return r;
	if (memcmp(h, "regi", 4) != 0 || !vhdx_checksum(h, 65536) || disk_le32(h + 8) > VHDX_ENTRIES_MOST)
		return err_set(e, ERR_CORRUPT, "the table of regions is damaged");
	for (uint32_t i = 0; i < disk_le32(h + 8); i++) {
		const uint8_t *x = h + 16 + (size_t)i * 32;
		if (memcmp(x, guid_bat, 16) == 0) {
			b->table.offset = disk_le64(x + 16);
			bat_bytes = disk_le32(x + 24);
		} else if (memcmp(x, guid_metadata, 16) == 0) {
			*ret_metadata = disk_le64(x + 16);
		} else if (disk_le32(x + 28) & 1) {
			return err_set(e, ERR_UNSUPPORTED, "a region that is required and not known");
		}
	}
	b->table.count = bat_bytes / 8;
	b->table.width = 8;
	return bat_bytes && *ret_metadata ? 0 : err_set(e, ERR_CORRUPT, "a region is missing");
}

struct vhdx_items {
	uint64_t bytes;
	uint32_t block, flags, sector;
};

static int vhdx_take_item(const struct disk *d, uint64_t metadata, const uint8_t *x, struct vhdx_items *items, struct err *e)
{
	uint8_t v[8];
	uint32_t at = disk_le32(x + 16), flags = disk_le32(x + 24);
	bool parameters = memcmp(x, guid_parameters, 16) == 0, size = memcmp(x, guid_size, 16) == 0,
	     sector = memcmp(x, guid_sector, 16) == 0;

	if (memcmp(x, guid_parent, 16) == 0)
		return difference(e);
	if (!parameters && !size && !sector) /* the others say nothing about bytes, but for users' own that are required */
		return (flags & 5) == 5 ? err_set(e, ERR_UNSUPPORTED, "metadata that is required and not known") : 0;
	int r = disk_fetch(d, metadata + at, v, sector ? 4 : 8, e);
	if (r < 0)
		return r;
	if (parameters) {
		items->block = disk_le32(v);
		items->flags = disk_le32(v + 4);
	} else if (size) {
		items->bytes = disk_le64(v);
	} else {
		items->sector = disk_le32(v);
	}
	return 0;
}

static int vhdx_header(struct disk *d, struct blocks *b, struct err *e)
{
	struct vhdx_items items = { 0 };
	uint64_t metadata = 0;
	own_str uint8_t *h = mem_alloc(65536);
	int r = vhdx_check_headers(d, e);

	if (r < 0 || (r = vhdx_find_regions(d, &metadata, b, e)) < 0)
		return r;
	if (metadata > UINT64_MAX / 2)
		return err_set(e, ERR_CORRUPT, "metadata at byte %llu", (unsigned long long)metadata);
	if ((r = disk_fetch(d, metadata, h, 65536, e)) < 0)
		return r;
	if (memcmp(h, "metadata", 8) != 0 || disk_le16(h + 10) > VHDX_ENTRIES_MOST)
		return err_set(e, ERR_CORRUPT, "the table of metadata is damaged");
	for (unsigned i = 0; i < disk_le16(h + 10); i++)
		if ((r = vhdx_take_item(d, metadata, h + 32 + (size_t)i * 32, &items, e)) < 0)
			return r;
	if (items.flags & 2)
		return difference(e);
	if (items.block < 1 << 20 || (items.sector != 512 && items.sector != 4096))
		return err_set(e, ERR_CORRUPT, "blocks of %u bytes and sectors of %u", items.block, items.sector);
	b->block_bytes = items.block;
	b->place = vhdx_place;
	d->bytes = items.bytes;
	if ((r = disk_check_bytes(d->bytes, e)) < 0 || (r = check_block(b->block_bytes, e)) < 0)
		return r;
	b->between = (UINT64_C(1) << 23) * items.sector / b->block_bytes;
	return check_table(b, d->bytes, e);
}

int disk_open_vhdx(struct disk *d, struct err *e) { return open_blocks(d, vhdx_header, e); }
