/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs in a child without rights and ends with it, so buffers are large and static. A disk is read front to back once: zeros
 * become holes, data is written where it was, and both are hashed, since a partition is named by its plain bytes, holes
 * included.
 *
 * What boots it is a guess, made from the disk itself when nothing described it (an MBR's code, a GPT's system partition), and
 * only a default. disk_check_upload is the one function here for the other side of the pipe.
 */
#include "store/disk_convert.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/mem.h"
#include "store/disk_private.h"

#define PIECE_BYTES 65536          /* the unit of holes */
#define BUFFER_BYTES (1U << 20)
#define TELL_EVERY (UINT64_C(16) << 20)
#define GPT_ENTRIES_MOST 128

static const uint8_t zeros[BUFFER_BYTES];

/* --- what it is --- */

int disk_inspect(int fd, bool raw, struct disk_upload *ret_upload, struct err *e)
{
	struct disk_upload u = { .count = 1 };
	struct disk_window w;
	enum disk_format format = DISK_RAW;
	uint8_t head[DISK_SECTOR] = { 0 };
	int r = disk_window_of(fd, &w, e);

	if (r < 0)
		return r;
	if (w.bytes < DISK_SECTOR && (raw || (r = disk_detect(&w, &format, e)) >= 0))
		r = err_set(e, ERR_INVALID, "%llu bytes are no disk", (unsigned long long)w.bytes);
	if (r < 0)
		return r;
	if (!raw) {
		if (pread(fd, head, sizeof head, 0) != (ssize_t)sizeof head)
			return err_errno(e, EIO, "read the upload");
		if (disk_is_ova(head))
			return disk_inspect_ova(&w, ret_upload, e);
		if ((r = disk_detect(&w, &format, e)) < 0)
			return r;
		if (r == 0 && !(head[510] == 0x55 && head[511] == 0xaa)) {
			(void)err_set(e, ERR_INVALID,
				      "the file is none of qcow2, VMDK, VHDX, VHD, VDI and OVA, and has no boot sector");
			return err_hint(e, "if it is a raw disk nevertheless, say so: --format-image raw");
		}
	}
	u.parts[0] = (struct disk_part){ format, 0, w.bytes };
	/* Who writes these formats has guests that may know no virtio. */
	if (format != DISK_RAW && format != DISK_QCOW2) {
		u.machine.disk_bus = BUS_SATA;
		u.machine.nic = NIC_E1000;
	}
	*ret_upload = u;
	return 0;
}

int disk_check_upload(const struct disk_upload *u, uint64_t file_bytes, struct err *e)
{
	const struct image_machine *m = &u->machine;
	bool good = u->count >= 1 && u->count <= DISK_PARTS_MOST && m->firmware <= FIRMWARE_UEFI && m->disk_bus <= BUS_NVME &&
		    m->nic <= NIC_E1000 && m->cpu_milli <= 1024000 && m->memory_bytes <= UINT64_C(1) << 44;

	for (size_t i = 0; good && i < u->count; i++) {
		const struct disk_part *p = &u->parts[i];
		good = p->format <= DISK_VDI && p->offset <= file_bytes && p->bytes <= file_bytes - p->offset;
	}
	return good ? 0 : err_set(e, ERR_CORRUPT, "the reader of disk images gave an answer that cannot be");
}

/* --- what boots it --- */

/* UEFI's partition with boot programs, in a GPT of 512-byte sectors. */
static bool has_system_partition(struct disk *d)
{
	static const uint8_t system[16] = "\x28\x73\x2a\xc1\x1f\xf8\xd2\x11\xba\x4b\x00\xa0\xc9\x3e\xc9\x3b";
	uint8_t h[DISK_SECTOR], entry[128];

	if (disk_read_all(d, DISK_SECTOR, h, sizeof h, NULL) < 0 || memcmp(h, "EFI PART", 8) != 0 ||
	    disk_le32(h + 84) != sizeof entry)
		return false;
	uint64_t at = disk_le64(h + 72);
	for (uint32_t i = 0; i < disk_le32(h + 80) && i < GPT_ENTRIES_MOST; i++) {
		if (at > DISK_BYTES_MOST / DISK_SECTOR ||
		    disk_read_all(d, at * DISK_SECTOR + (uint64_t)i * sizeof entry, entry, sizeof entry, NULL) < 0)
			return false;
		if (memcmp(entry, system, sizeof system) == 0)
			return true;
	}
	return false;
}

static unsigned find_firmware(struct disk *d)
{
	uint8_t sector[DISK_SECTOR];
	bool code = false, efi_type = false;

	if (disk_read_all(d, 0, sector, sizeof sector, NULL) < 0)
		return FIRMWARE_AUTO;
	for (unsigned i = 0; i < 440; i++)
		code = code || sector[i];
	for (unsigned i = 0; i < 4; i++)
		efi_type = efi_type || sector[446 + i * 16 + 4] == 0xef;
	if (sector[510] != 0x55 || sector[511] != 0xaa)
		return FIRMWARE_AUTO;
	if (code) /* disks for both start faster this way */
		return FIRMWARE_BIOS;
	return efi_type || has_system_partition(d) ? FIRMWARE_UEFI : FIRMWARE_AUTO;
}

/* --- writing it --- */

static int write_piece(int fd, const uint8_t *bytes, size_t length, uint64_t at, struct err *e)
{
	while (length > 0) {
		ssize_t n = pwrite(fd, bytes, length, (off_t)at);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_errno(e, errno, "write the disk");
		bytes += n;
		at += (uint64_t)n;
		length -= (size_t)n;
	}
	return 0;
}

int disk_write_data(int fd, const uint8_t *bytes, size_t length, uint64_t at, struct err *e)
{
	for (size_t done = 0; done < length;) {
		size_t n = length - done < PIECE_BYTES ? length - done : PIECE_BYTES;
		int r = memcmp(bytes + done, zeros, n) == 0 ? 0 : write_piece(fd, bytes + done, n, at + done, e);
		if (r < 0)
			return r;
		done += n;
	}
	return 0;
}

static void hash_zeros(struct hash *h, uint64_t length)
{
	for (uint64_t n; length > 0; length -= n) {
		n = disk_least(length, sizeof zeros);
		hash_add(h, zeros, (size_t)n);
	}
}

int disk_convert(struct disk *d, int output_fd, disk_progress_fn *progress, void *data, struct err *e)
{
	own_hash struct hash *h = hash_new();
	own_str uint8_t *buffer = mem_alloc(BUFFER_BYTES);
	struct disk_progress p = { .total_bytes = disk_bytes(d) };
	uint64_t told = 0;
	int r = 0;

	while (r >= 0 && p.done_bytes < p.total_bytes) {
		uint64_t length = 0;
		r = disk_read(d, p.done_bytes, buffer, BUFFER_BYTES, &length, e);
		if (r == 0) /* in steps that can be told */
			hash_zeros(h, length = disk_least(length, TELL_EVERY));
		else if (r > 0 &&
			 (r = output_fd < 0 ? 0 : disk_write_data(output_fd, buffer, (size_t)length, p.done_bytes, e)) == 0)
			hash_add(h, buffer, (size_t)length);
		p.done_bytes += length;
		if (r >= 0 && p.done_bytes - told >= TELL_EVERY) {
			told = p.done_bytes;
			r = progress(data, &p, e);
		}
	}
	if (r >= 0 && output_fd >= 0 && ftruncate(output_fd, (off_t)p.total_bytes) < 0)
		r = err_errno(e, errno, "write the disk");
	if (r < 0)
		return r;
	p.complete = true;
	p.digest = hash_end(h);
	p.firmware = find_firmware(d);
	return progress(data, &p, e);
}
