/* SPDX-License-Identifier: Apache-2.0 */
#ifndef STORE_IMPORT_DISK_H
#define STORE_IMPORT_DISK_H

/*
 * An upload that is a disk, packed or not, or an OVA with several, becomes one raw partition a disk: the upload is written down
 * as it comes (with holes where it is zero), a child without rights says what it is, and one more for each disk writes it anew
 * (disk_convert.h).
 */

#include "store/disk_convert.h"
#include "store/store.h"

struct disk_import {
	struct store_session *session;
	int input_fd;         /* the upload, read to its end */
	bool raw;             /* it is a raw disk, whatever its first bytes look like */
	uint64_t bytes_most;  /* of the upload, and of each disk; 0: as many as there can be */
	/* `step`: "fetch", "convert"; total 0: not known */
	void (*progress)(void *data, const char *step, uint64_t done_bytes, uint64_t total_bytes);
	void *data;
};

struct disk_partition {
	struct digest digest;
	uint64_t bytes;
};

struct disk_imported {
	struct disk_partition partitions[DISK_PARTS_MOST];
	size_t count;
	struct image_machine machine;
};

int disk_import(const struct disk_import *how, struct disk_imported *ret_imported, struct err *e) must_check;

/* A raw disk that is there as a file becomes a partition; its digest is known. */
int disk_import_raw(const struct disk_import *how, const char *name, const struct digest *wanted, uint64_t *ret_bytes,
		    struct err *e) must_check;

/* What was asked for goes over what the disks say; `wish` may be NULL. */
void disk_import_override(struct image_machine *m, const struct image_machine *wish);

#endif
