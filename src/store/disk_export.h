/* SPDX-License-Identifier: Apache-2.0 */
#ifndef STORE_DISK_EXPORT_H
#define STORE_DISK_EXPORT_H

/*
 * Disks out in a format of others, front to back: one as raw, qcow2 or VMDK, or all of a machine as an OVA, whose description
 * comes first and tells how long each is, so these are made in scratch files before.
 */

#include "store/disk_write.h"
#include "store/export.h"

struct disk_export_disk {
	struct disk *disk;
	int scratch; /* an empty file, for an OVA */
	uint32_t id; /* tells this content from another's */
};

struct disk_export {
	enum export_format format; /* EXPORT_RAW or one behind it; all but an OVA take the first disk */
	const char *title;         /* of an OVA; NULL: "machine" */
	const struct image_machine *machine;
	const struct disk_export_disk *disks;
	size_t count;
	int (*put)(void *data, const void *bytes, size_t length, struct err *e);
	void (*advance)(void *data, const char *step, uint64_t done_bytes); /* "pack", "write"; of all disks that go out */
	void *data;
};

int disk_export_write(const struct disk_export *x, struct err *e) must_check;

#endif
