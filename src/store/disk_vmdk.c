/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. A sparse extent maps grains by a directory of tables; a grain is stored as it is or, in a stream, as a zlib stream
 * behind a header of its own. A stream's directory is told by its last-but-one sector, a copy of the header (the footer). Its
 * descriptor is a text inside the file that could name other files - extents, a parent: it must name exactly one extent, this
 * one, without a path. Specification: VMware, Virtual Disk Format 5.0.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/mem.h"
#include "base/str.h"
#include "store/disk_private.h"

#define DIRECTORY_AT_END UINT64_MAX
#define DESCRIPTOR_MOST (64 << 10)
#define GRAIN_SECTORS_MOST 2048
#define DIRECTORY_ENTRIES_MOST (UINT64_C(4) << 20)

enum { ZEROED_ENTRIES = 1 << 2, COMPRESSED = 1 << 16, MARKERS = 1 << 17 }; /* flags */

struct vmdk {
	uint64_t capacity, grain_bytes, table_entries; /* capacity in sectors */
	bool compressed, zeroed;
	struct disk_table directory, table;
	uint64_t unpacked_at; /* sector of the grain held; 0: none */
	uint8_t *packed, *unpacked;
};

static void close_vmdk(void *of)
{
	struct vmdk *v = of;

	free(v->packed);
	free(v->unpacked);
	free(v);
}

/* --- descriptor --- */

static int no(struct err *e, const char *what)
{
	(void)err_set(e, ERR_INVALID, "%s", what);
	return err_hint(e, "export it as one file, for example as an OVA or with qemu-img convert");
}

/* RW 4192256 SPARSE "name.vmdk" */
static int check_extent(const char *line, uint64_t capacity, unsigned *count, struct err *e)
{
	char access[16], type[16], name[256];
	unsigned long long sectors;

	if (sscanf(line, "%15s %llu %15s \"%255[^\"]\"", access, &sectors, type, name) != 4)
		return err_set(e, ERR_CORRUPT, "the descriptor has an extent that cannot be read: %.60s", line);
	if (!str_eq(type, "SPARSE"))
		return no(e, "the descriptor names an extent that is another file");
	if (strchr(name, '/') || strchr(name, '\\'))
		return no(e, "the descriptor names an extent in a folder");
	if (++*count > 1)
		return no(e, "the descriptor names several extents");
	return sectors == capacity ? 0 : err_set(e, ERR_CORRUPT, "the descriptor says %llu sectors, the header %llu", sectors,
						 (unsigned long long)capacity);
}

static bool has_key(const char *line, const char *key, const char **ret_value)
{
	size_t length = strlen(key);

	if (strncasecmp(line, key, length) != 0)
		return false;
	line += length;
	line += strspn(line, " \t");
	if (*line != '=')
		return false;
	*ret_value = line + 1 + strspn(line + 1, " \t\"");
	return true;
}

static int check_line(const char *line, uint64_t capacity, unsigned *extents, struct err *e)
{
	const char *value;

	if (has_key(line, "parentFileNameHint", &value))
		return no(e, "the image is only the difference to a parent, which it names");
	if (has_key(line, "parentCID", &value) && strncasecmp(value, "ffffffff", 8) != 0)
		return no(e, "the image is only the difference to a parent");
	if (has_key(line, "createType", &value) && !str_starts(value, "monolithicSparse") &&
	    !str_starts(value, "streamOptimized"))
		return no(e, "the disk's bytes are in other files (its createType says so)");
	if (str_starts(line, "RW ") || str_starts(line, "RDONLY ") || str_starts(line, "NOACCESS "))
		return check_extent(line, capacity, extents, e);
	return 0;
}

static int check_descriptor(const struct disk *d, uint64_t sector, uint64_t sectors, uint64_t capacity, struct err *e)
{
	uint64_t length = sectors * DISK_SECTOR;
	unsigned extents = 0;
	int r;

	if (sector == 0) /* an extent of a disk whose descriptor is another file */
		return no(e, "the file has no descriptor: it is a part of a disk");
	if (sectors == 0 || sectors > DESCRIPTOR_MOST / DISK_SECTOR || sector > d->window.bytes / DISK_SECTOR)
		return err_set(e, ERR_CORRUPT, "a descriptor of %llu sectors", (unsigned long long)sectors);
	own_str char *text = mem_alloc((size_t)length + 1);
	if ((r = disk_fetch(d, sector * DISK_SECTOR, text, (size_t)length, e)) < 0)
		return r;
	for (char *line = text, *next; r == 0 && line; line = next) {
		next = strchr(line, '\n');
		if (next)
			*next++ = '\0';
		line[strcspn(line, "\r")] = '\0';
		r = check_line(line + strspn(line, " \t"), capacity, &extents, e);
	}
	if (r == 0 && extents == 0)
		return err_set(e, ERR_CORRUPT, "the descriptor names no extent");
	return r;
}

/* --- header --- */

static int read_header(struct disk *d, struct vmdk *v, struct err *e)
{
	uint8_t h[DISK_SECTOR];
	int r = disk_fetch(d, 0, h, sizeof h, e);

	if (r < 0)
		return r;
	uint64_t descriptor = disk_le64(h + 28), descriptor_sectors = disk_le64(h + 36);
	if (disk_le64(h + 56) == DIRECTORY_AT_END) {
		if (d->window.bytes < 3 * DISK_SECTOR)
			return err_set(e, ERR_CORRUPT, "the stream is cut");
		if ((r = disk_fetch(d, d->window.bytes - 2 * DISK_SECTOR, h, sizeof h, e)) < 0)
			return r;
		if (memcmp(h, "KDMV", 4) != 0)
			return err_set(e, ERR_CORRUPT, "the stream is cut: its footer is missing");
	}
	uint32_t version = disk_le32(h + 4), flags = disk_le32(h + 8);
	uint64_t grain = disk_le64(h + 20), directory = disk_le64(h + 56);
	if (version < 1 || version > 3)
		return err_set(e, ERR_UNSUPPORTED, "version %u of the format, 1 to 3 are known", version);
	v->capacity = disk_le64(h + 12);
	v->table_entries = disk_le32(h + 44);
	v->zeroed = (flags & ZEROED_ENTRIES) != 0;
	v->compressed = (flags & COMPRESSED) != 0;
	if (v->compressed && disk_le16(h + 77) != 1)
		return err_set(e, ERR_UNSUPPORTED, "compression number %u is not known", disk_le16(h + 77));
	if (v->capacity == 0 || v->capacity > DISK_BYTES_MOST / DISK_SECTOR)
		return err_set(e, v->capacity ? ERR_TOO_LARGE : ERR_CORRUPT, "a disk of %llu sectors",
			       (unsigned long long)v->capacity);
	if (grain < 8 || grain > GRAIN_SECTORS_MOST || (grain & (grain - 1)) || v->table_entries == 0 ||
	    v->table_entries > 8192 || directory == DIRECTORY_AT_END || directory > d->window.bytes / DISK_SECTOR)
		return err_set(e, ERR_CORRUPT, "grains of %llu sectors, tables of %llu entries, a directory at sector %llu",
			       (unsigned long long)grain, (unsigned long long)v->table_entries, (unsigned long long)directory);
	uint64_t covers = grain * v->table_entries;
	v->grain_bytes = grain * DISK_SECTOR;
	v->directory = (struct disk_table){ .offset = directory * DISK_SECTOR, .count = (v->capacity + covers - 1) / covers,
					    .width = 4 };
	v->table = (struct disk_table){ .count = v->table_entries, .width = 4 };
	if (v->directory.count > DIRECTORY_ENTRIES_MOST)
		return err_set(e, ERR_TOO_LARGE, "a directory of %llu entries", (unsigned long long)v->directory.count);
	d->bytes = v->capacity * DISK_SECTOR;
	return check_descriptor(d, descriptor, descriptor_sectors, v->capacity, e);
}

/* --- reading --- */

static int unpack_grain(const struct disk *d, struct vmdk *v, uint64_t sector, uint64_t first_sector, struct err *e)
{
	uint8_t h[12];
	uint64_t most = 2 * v->grain_bytes;

	if (v->unpacked_at == sector)
		return 0;
	v->unpacked_at = 0;
	if (!v->unpacked) {
		v->unpacked = mem_alloc((size_t)v->grain_bytes);
		v->packed = mem_alloc((size_t)most);
	}
	int r = disk_fetch(d, sector * DISK_SECTOR, h, sizeof h, e);
	if (r < 0)
		return r;
	uint64_t at = disk_le64(h), length = disk_le32(h + 8);
	if (at != first_sector || length == 0 || length > most)
		return err_set(e, ERR_CORRUPT, "a grain for sector %llu of %llu bytes where one for sector %llu should be",
			       (unsigned long long)at, (unsigned long long)length, (unsigned long long)first_sector);
	if ((r = disk_fetch(d, sector * DISK_SECTOR + sizeof h, v->packed, (size_t)length, e)) < 0)
		return r;
	/* the last grain may be as long as the disk only */
	uint64_t plain = disk_least(v->grain_bytes, d->bytes - first_sector * DISK_SECTOR);
	memset(v->unpacked, 0, (size_t)v->grain_bytes);
	struct err ignored;
	r = disk_unpack(DISK_ZLIB, v->packed, (size_t)length, v->unpacked, (size_t)v->grain_bytes, &ignored);
	if (r < 0 && (plain == v->grain_bytes ||
		      (r = disk_unpack(DISK_ZLIB, v->packed, (size_t)length, v->unpacked, (size_t)plain, e)) < 0))
		return err_set(e, ERR_CORRUPT, "the grain for sector %llu cannot be unpacked",
			       (unsigned long long)first_sector);
	v->unpacked_at = sector;
	return 0;
}

static int read_vmdk(struct disk *d, uint64_t offset, void *buffer, size_t size, uint64_t *ret_length, struct err *e)
{
	struct vmdk *v = d->of;
	uint64_t grain = offset / v->grain_bytes, within = offset % v->grain_bytes, room = v->grain_bytes - within;
	const uint8_t *entry;
	int r = disk_table_entry(d, &v->directory, grain / v->table_entries, &entry, e);

	if (r < 0)
		return r;
	uint64_t table = disk_le32(entry);
	if (table == 0) {
		*ret_length = (grain / v->table_entries + 1) * v->table_entries * v->grain_bytes - offset;
		return 0;
	}
	if (v->table.offset != table * DISK_SECTOR) {
		v->table.held = 0;
		v->table.offset = table * DISK_SECTOR;
	}
	if ((r = disk_table_entry(d, &v->table, grain % v->table_entries, &entry, e)) < 0)
		return r;
	uint64_t sector = disk_le32(entry);
	*ret_length = room;
	if (sector == 0 || (sector == 1 && v->zeroed))
		return 0;
	*ret_length = disk_least(room, size);
	if (v->compressed) {
		if ((r = unpack_grain(d, v, sector, grain * v->grain_bytes / DISK_SECTOR, e)) < 0)
			return r;
		memcpy(buffer, v->unpacked + within, (size_t)*ret_length);
		return 1;
	}
	r = disk_fetch(d, sector * DISK_SECTOR + within, buffer, (size_t)*ret_length, e);
	return r < 0 ? r : 1;
}

int disk_open_vmdk(struct disk *d, struct err *e)
{
	struct vmdk *v = mem_alloc(sizeof *v);
	int r = read_header(d, v, e);

	if (r < 0) {
		close_vmdk(v);
		return r;
	}
	d->of = v;
	d->read = read_vmdk;
	d->close = close_vmdk;
	return 0;
}
