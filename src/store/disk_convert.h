/* SPDX-License-Identifier: Apache-2.0 */
#ifndef STORE_DISK_CONVERT_H
#define STORE_DISK_CONVERT_H

/*
 * What carrel-import's children do with a disk from outside: look what an upload is, and write a disk as a raw partition. The
 * answers are of a fixed size and hold no pointers, since they cross a pipe from a child without rights.
 */

#include "base/hash.h"
#include "model/machine.h"
#include "store/disk.h"

#define DISK_PARTS_MOST 8

struct disk_part { /* one disk in the upload */
	unsigned format; /* enum disk_format */
	uint64_t offset, bytes;
};

struct disk_upload {
	struct disk_part parts[DISK_PARTS_MOST];
	uint64_t count;
	struct image_machine machine; /* as far as the upload says it */
};

/* A disk of one of the formats, an OVA, or a raw disk: one that has a boot sector, or any when `raw` says so. */
int disk_inspect(int fd, bool raw, struct disk_upload *ret_upload, struct err *e) must_check;
/* An answer that may come from somebody who took the child over. */
int disk_check_upload(const struct disk_upload *u, uint64_t file_bytes, struct err *e) must_check;

/* An OVA's part: a tar whose first member is its description (OVF 1.x and 2.x, DMTF DSP0243). */
int disk_inspect_ova(const struct disk_window *w, struct disk_upload *ret_upload, struct err *e) must_check;
bool disk_is_ova(const uint8_t head[512]);

struct disk_progress {
	uint64_t done_bytes, total_bytes; /* of the guest's disk */
	bool complete;                    /* then: */
	struct digest digest;
	unsigned firmware;                /* that a first look at the disk suggests; FIRMWARE_AUTO: none */
};
typedef int disk_progress_fn(void *data, const struct disk_progress *p, struct err *e);
/* Writes the disk into an empty file (output_fd -1: nowhere), with holes where it is zero, and tells how far it is; last, once,
 * with `complete`. */
int disk_convert(struct disk *d, int output_fd, disk_progress_fn *progress, void *data, struct err *e) must_check;

#endif
