/* SPDX-License-Identifier: Apache-2.0 */
#ifndef STORE_DISK_H
#define STORE_DISK_H

/*
 * Disk images as other systems write them, read strictly: what a format could say beyond "these bytes are at this place" -
 * another file that must be opened, a password, a log to be replayed - is refused with a sentence that names it. No reader
 * opens anything: it has one descriptor and a window into it. Nothing is trusted; every offset is checked against the window.
 *
 *   qcow2   QEMU, docs/interop/qcow2.txt, versions 2 and 3
 *   vmdk    VMware, Virtual Disk Format 5.0: monolithicSparse and streamOptimized
 *   vhdx    MS-VHDX: fixed and dynamic
 *   vhd     Microsoft, Virtual Hard Disk Image Format Specification: fixed and dynamic
 *   vdi     VirtualBox, VDICore.h: normal and fixed
 *
 * Readers run in a child without rights (base/sandbox.h); tests/fuzz/fuzz_disk.c feeds them.
 */

#include <stdint.h>

#include "base/err.h"
#include "base/own.h"

enum disk_format { DISK_RAW, DISK_QCOW2, DISK_VMDK, DISK_VHDX, DISK_VHD, DISK_VDI };

#define DISK_SECTOR 512
#define DISK_BYTES_MOST (UINT64_C(16) << 40)

/* Where in a file a disk image lies: the whole, or a member of an archive. */
struct disk_window {
	int fd;
	uint64_t offset, bytes;
};
/* The whole file. */
int disk_window_of(int fd, struct disk_window *ret_window, struct err *e) must_check;

/* By magic, never by name. 0: none of these formats, which raw disks have in common. A format that is known and not read is an
 * error. */
int disk_detect(const struct disk_window *w, enum disk_format *ret_format, struct err *e) must_check;

struct disk;
/* `base` shows where a qcow2 that was made on top of another disk has nothing of its own; the name of a backing file in its
 * header is then passed over. NULL: such a qcow2 is refused. The base stays the caller's and must outlive the disk. */
int disk_open(const struct disk_window *w, enum disk_format format, struct disk *base, struct disk **ret_disk,
	      struct err *e) must_check;
void disk_close(struct disk *d);
DEFINE_FREE_AT(struct disk, disk, disk_close)
#define own_disk __attribute__((cleanup(disk_free_at)))

uint64_t disk_bytes(const struct disk *d); /* of the guest's disk: whole sectors */

/* What is at `offset`: 1: *ret_length bytes (1 to size) are in `buffer`; 0: *ret_length bytes are zero, as many as are known to
 * be, which may be more than size. `offset` is below disk_bytes. */
int disk_read(struct disk *d, uint64_t offset, void *buffer, size_t size, uint64_t *ret_length, struct err *e) must_check;
/* Exactly `size` bytes. */
int disk_read_all(struct disk *d, uint64_t offset, void *buffer, size_t size, struct err *e) must_check;

#endif
