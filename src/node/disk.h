/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NODE_DISK_H
#define NODE_DISK_H

/*
 * The files of a workspace that boots a disk, in volumes/: root.qcow2 and disk1.qcow2, ..., one above each partition of its
 * image (store/overlay.h), and nvram.fd, what its UEFI remembers. They are made once, are locked while they are used, and
 * belong to snapshots.
 */

#include "node/isolate.h"
#include "node/record.h"

/* The image is a disk. */
bool disk_is_one(const struct assignment *a);

/* Path of file `number`: 0 is the root disk, then the other disks, last the UEFI's variables when it has UEFI; NULL: there are
 * no more. *ret_name (may be NULL) stays until the path is freed. The caller frees. */
char *disk_file_path(const struct record *r, size_t number, const char **ret_name);

/* All files that a workspace writes, of whatever image: its root volume or disk, the volumes of its spec, then what
 * disk_file_path has more. */
struct disk_volume {
	char *path;
	const char *name;               /* as in snapshots and bundles; stays as long as the record */
	const struct spec_volume *spec; /* NULL: none of the spec */
	size_t number;                  /* as for disk_file_path; SIZE_MAX: one of the spec */
};
/* File number `at`; false after the last. The path is freed by the next call, and by the caller when it stops before. */
bool disk_next_volume(const struct record *r, const char *kept, size_t at, struct disk_volume *v);

/* Makes what is missing, and grows the root disk to what is wanted. */
int disk_make(const struct record *r, uint64_t root_bytes, struct err *e) must_check;
/* Whether UEFI's variables that came from elsewhere have the length that this host's have. */
int disk_check_variables(uint64_t bytes, struct err *e) must_check;
/* 1: it has to wait until nobody uses the disk (`live`). */
/* What the root disk has then. */
uint64_t disk_root_bytes(const struct record *r, uint64_t root_bytes);
int disk_grow(const struct record *r, uint64_t root_bytes, bool live, struct err *e) must_check;
/* What the launch needs beside the root disk, which stays the caller's: other disks, firmware, variables. */
int disk_open_files(const struct record *r, struct isolate_disk *ret_disk, struct err *e) must_check;
void disk_close_files(struct isolate_disk *d);
/* All descriptors in the order that the engine wants; the caller frees the list, not what is in it. Makes the seed, which
 * becomes part of `d`: instance id, host name, keys, user data and networks for cloud-init (NoCloud). */
int disk_launch_fds(const struct record *r, struct isolate_parts *parts, int **ret_fds, size_t *ret_count,
		    struct err *e) must_check;

#endif
