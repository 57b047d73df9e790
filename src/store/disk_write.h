/* SPDX-License-Identifier: Apache-2.0 */
#ifndef STORE_DISK_WRITE_H
#define STORE_DISK_WRITE_H

/*
 * Disks in the formats of others, written from front to back: the output may be a pipe. What is zero takes no room. Equal disks
 * give equal bytes.
 *
 *   raw     all of it
 *   qcow2   version 3, not compressed (QEMU, docs/interop/qcow2.txt); the disk is read twice
 *   vmdk    streamOptimized (VMware, Virtual Disk Format 5.0, "Stream-Optimized Compressed Sparse Extents"), with markers,
 *           footer and
 *           end-of-stream marker, which strict readers of the stream want
 */

#include <stddef.h>

#include "base/str.h"
#include "model/machine.h"
#include "store/disk.h"

struct disk_output {
	int (*put)(void *data, const void *bytes, size_t length, struct err *e);
	void (*advance)(void *data, uint64_t done_bytes); /* of the guest's disk */
	void *data;
};

int disk_write_raw(struct disk *d, const struct disk_output *out, struct err *e) must_check;
int disk_write_qcow2(struct disk *d, const struct disk_output *out, struct err *e) must_check;
/* `name`: of the file, for its descriptor; `id` tells this content from another's. ERR_TOO_LARGE: what it holds has no room in
 * the format. */
int disk_write_vmdk(struct disk *d, const char *name, uint32_t id, const struct disk_output *out, struct err *e) must_check;

/* The description of an OVA (DMTF DSP0243 1.1) whose disks are streamOptimized VMDKs. */
struct disk_ovf_disk {
	const char *file;
	uint64_t file_bytes, disk_bytes;
};
void disk_write_ovf(const char *name, const struct image_machine *machine, const struct disk_ovf_disk *disks, size_t count,
		    struct str *out);

#endif
