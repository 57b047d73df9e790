/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the formats have in common: the window, the check of sizes, tables of which one piece is held at a time, and
 * decompression of single units. A format's file sets `bytes`, `read` and its own state, and gets every byte by disk_fetch,
 * which no offset leads out of the window.
 *
 * Memory is a constant per open disk, whatever the file says about its tables. A raw disk's holes are told as zeros without
 * reading.
 */
#include "store/disk.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include "base/mem.h"
#include "store/disk_private.h"

static const char *const format_names[] = { "raw", "qcow2", "vmdk", "vhdx", "vhd", "vdi", NULL };

int disk_window_of(int fd, struct disk_window *ret_window, struct err *e)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return err_errno(e, errno, "look at the disk");
	*ret_window = (struct disk_window){ fd, 0, (uint64_t)st.st_size };
	return 0;
}

static int fetch(const struct disk_window *w, uint64_t offset, void *bytes, size_t length, struct err *e)
{
	uint8_t *to = bytes;

	if (offset > w->bytes || length > w->bytes - offset)
		return err_set(e, ERR_CORRUPT,
			       "the disk image ends too early: it says that there is something at byte %llu, and has %llu",
			       (unsigned long long)offset, (unsigned long long)w->bytes);
	for (size_t done = 0; done < length;) {
		ssize_t n = pread(w->fd, to + done, length - done, (off_t)(w->offset + offset + done));
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_errno(e, errno, "read the disk image");
		if (n == 0)
			return err_set(e, ERR_CORRUPT, "the disk image was cut while it was read");
		done += (size_t)n;
	}
	return 0;
}

int disk_fetch(const struct disk *d, uint64_t offset, void *bytes, size_t length, struct err *e)
{
	return fetch(&d->window, offset, bytes, length, e);
}

int disk_check_bytes(uint64_t bytes, struct err *e)
{
	if (bytes == 0 || bytes % DISK_SECTOR)
		return err_set(e, ERR_CORRUPT, "a disk of %llu bytes: it is not a number of sectors",
			       (unsigned long long)bytes);
	if (bytes > DISK_BYTES_MOST)
		return err_set(e, ERR_TOO_LARGE, "a disk of %llu bytes, at most %llu are possible", (unsigned long long)bytes,
			       (unsigned long long)DISK_BYTES_MOST);
	return 0;
}

/* --- which format --- */

#define OTHERS_HINT "qemu-img convert -O qcow2 makes one of it that can be imported"

static int refused(const char *what, const char *hint, struct err *e)
{
	(void)err_set(e, ERR_UNSUPPORTED, "%s", what);
	return err_hint(e, "%s", hint);
}

static const struct {
	const char *magic;
	size_t at, length;
	enum disk_format format;
} magics[] = {
	{ "QFI\xfb", 0, 4, DISK_QCOW2 },
	{ "KDMV", 0, 4, DISK_VMDK },
	{ "vhdxfile", 0, 8, DISK_VHDX },
	{ "\x7f\x10\xda\xbe", 64, 4, DISK_VDI },
};

int disk_detect(const struct disk_window *w, enum disk_format *ret_format, struct err *e)
{
	uint8_t head[DISK_SECTOR] = { 0 }, tail[DISK_SECTOR] = { 0 };
	size_t known = w->bytes < sizeof head ? (size_t)w->bytes : sizeof head;
	int r = fetch(w, 0, head, known, e);

	if (r == 0 && w->bytes >= sizeof tail)
		r = fetch(w, w->bytes - sizeof tail, tail, sizeof tail, e);
	if (r < 0)
		return r;
	for (size_t i = 0; i < ARRAY_SIZE(magics); i++) {
		if (memcmp(head + magics[i].at, magics[i].magic, magics[i].length) == 0) {
			*ret_format = magics[i].format;
			return 1;
		}
	}
	if (memcmp(tail, "conectix", 8) == 0) {
		*ret_format = DISK_VHD;
		return 1;
	}
	if (memcmp(head, "# Disk DescriptorFile", 21) == 0)
		return refused("a VMDK descriptor: the disk's bytes are in other files, which it names",
			       "export it as one file, for example as an OVA or with qemu-img convert", e);
	if (memcmp(head, "COWD", 4) == 0)
		return refused("a VMDK of ESX's own sparse format", "export it as an OVA", e);
	if (memcmp(head, "QED\0", 4) == 0)
		return refused("a QED image", OTHERS_HINT, e);
	if (memcmp(head, "WithoutFreeSpace", 16) == 0 || memcmp(head, "WithouFreSpacExt", 16) == 0)
		return refused("a disk of Parallels", OTHERS_HINT, e);
	return 0;
}

/* --- raw --- */

static int read_raw(struct disk *d, uint64_t offset, void *buffer, size_t size, uint64_t *ret_length, struct err *e)
{
	uint64_t in_file = offset < d->window.bytes ? disk_least(d->window.bytes - offset, size) : 0;

	if (in_file == 0) { /* the rest of the last sector */
		*ret_length = d->bytes - offset;
		return 0;
	}
	off_t at = (off_t)(d->window.offset + offset), data = lseek(d->window.fd, at, SEEK_DATA);
	if (data < 0 && errno == ENXIO) {
		*ret_length = d->bytes - offset;
		return 0;
	}
	if (data > at) {
		*ret_length = disk_least((uint64_t)(data - at), d->bytes - offset);
		return 0;
	}
	int r = disk_fetch(d, offset, buffer, (size_t)in_file, e);
	*ret_length = in_file;
	return r < 0 ? r : 1;
}

static int open_raw(struct disk *d, struct err *e)
{
	d->bytes = (d->window.bytes + DISK_SECTOR - 1) / DISK_SECTOR * DISK_SECTOR;
	d->read = read_raw;
	return disk_check_bytes(d->bytes, e);
}

/* --- all of them --- */

int disk_open(const struct disk_window *w, enum disk_format format, struct disk *base, struct disk **ret_disk, struct err *e)
{
	static int (*const opens[])(struct disk *d, struct err *e) = {
		[DISK_RAW] = open_raw,	       [DISK_QCOW2] = disk_open_qcow2, [DISK_VMDK] = disk_open_vmdk,
		[DISK_VHDX] = disk_open_vhdx, [DISK_VHD] = disk_open_vhd,     [DISK_VDI] = disk_open_vdi,
	};
	struct disk *d = mem_alloc(sizeof *d);

	d->window = *w;
	d->base = base;
	int r = opens[format](d, e);
	if (r < 0) {
		free(d);
		return err_wrap(e, "%s", format_names[format]);
	}
	*ret_disk = d;
	return 0;
}

void disk_close(struct disk *d)
{
	if (d && d->close)
		d->close(d->of);
	free(d);
}

uint64_t disk_bytes(const struct disk *d) { return d->bytes; }

int disk_read(struct disk *d, uint64_t offset, void *buffer, size_t size, uint64_t *ret_length, struct err *e)
{
	uint64_t length = 0;
	int r = d->read(d, offset, buffer, (size_t)disk_least(size, d->bytes - offset), &length, e);

	if (r < 0)
		return r;
	*ret_length = disk_least(length, d->bytes - offset);
	return r;
}

int disk_read_all(struct disk *d, uint64_t offset, void *buffer, size_t size, struct err *e)
{
	uint8_t *to = buffer;

	for (size_t done = 0; done < size;) {
		uint64_t n = size - done;
		int r = offset + done < d->bytes ? disk_read(d, offset + done, to + done, size - done, &n, e) : 0;
		if (r < 0)
			return r;
		n = disk_least(n, size - done);
		if (r == 0)
			memset(to + done, 0, (size_t)n);
		done += (size_t)n;
	}
	return 0;
}

int disk_table_entry(const struct disk *d, struct disk_table *t, uint64_t number, const uint8_t **ret_entry, struct err *e)
{
	if (number >= t->count)
		return err_set(e, ERR_CORRUPT, "a table of the disk image has %llu entries, number %llu is missing",
			       (unsigned long long)t->count, (unsigned long long)number);
	if (number < t->at || number - t->at >= t->held) {
		uint64_t room = sizeof t->piece / t->width, first = number / room * room;
		uint32_t held = (uint32_t)disk_least(room, t->count - first);
		t->held = 0;
		int r = disk_fetch(d, t->offset + first * t->width, t->piece, (size_t)held * t->width, e);
		if (r < 0)
			return r;
		t->at = first;
		t->held = held;
	}
	*ret_entry = t->piece + (number - t->at) * t->width;
	return 0;
}

/* --- compressed units --- */

static int inflate_all(int window_bits, const void *packed, size_t packed_length, void *plain, size_t length)
{
	z_stream z = { .next_in = (Bytef *)(uintptr_t)packed, .avail_in = (uInt)packed_length, .next_out = plain,
		       .avail_out = (uInt)length };

	if (inflateInit2(&z, window_bits) != Z_OK)
		return -1;
	int r = inflate(&z, Z_FINISH);
	bool whole = z.avail_out == 0 && (r == Z_STREAM_END || r == Z_OK || r == Z_BUF_ERROR);
	(void)inflateEnd(&z);
	return whole ? 0 : -1;
}

int disk_unpack(enum disk_packing how, const void *packed, size_t packed_length, void *plain, size_t length, struct err *e)
{
	int r;

	if (how == DISK_ZSTD) { /* the space may go on behind the frame */
		ZSTD_inBuffer in = { packed, packed_length, 0 };
		ZSTD_outBuffer out = { plain, length, 0 };
		ZSTD_DCtx *z = ZSTD_createDCtx();
		size_t state = 1;
		while (z && out.pos < out.size && in.pos < in.size && !ZSTD_isError(state))
			state = ZSTD_decompressStream(z, &out, &in);
		r = z && !ZSTD_isError(state) && out.pos == length ? 0 : -1;
		(void)ZSTD_freeDCtx(z);
	} else {
		r = inflate_all(how == DISK_ZLIB ? 15 : -15, packed, packed_length, plain, length);
	}
	return r < 0 ? err_set(e, ERR_CORRUPT, "a compressed part of the disk image cannot be unpacked") : 0;
}
