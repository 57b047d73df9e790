/* SPDX-License-Identifier: Apache-2.0 */
#ifndef STORE_VOLUME_H
#define STORE_VOLUME_H

/*
 * Volumes: writable disks. A volume is an ext4 file system in a sparse file of exactly the size that was asked for, so the size
 * is a hard limit. A root volume holds the folders upper/ and work/ (overlayfs), any other the folder data/. Guarantees:
 * - a file with a volume's final name is a whole file system: it got there by rename;
 * - each has a UUID of its own, for each is made by mkfs, never copied from another (a restored snapshot keeps its volume's);
 * - whoever uses a volume holds flock(LOCK_EX) on the open file that volume_open gave; a loop device made from it holds on to
 *   it.
 * docs/formats/volume.md describes the file.
 */

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

enum volume_kind { VOLUME_ROOT, VOLUME_DATA };

/* Ready-made volumes in one folder. All calls may be made from any thread. */
struct volume_pool;

/* Makes the folder, removes what is unfinished or damaged. `per_size` blanks are kept of each size. */
int volume_pool_open(const char *folder, unsigned per_size, struct volume_pool **ret_pool, struct err *e) must_check;
void volume_pool_free(struct volume_pool *p);
/* From now on blanks of this kind and size are kept; the size used longest ago gives way past VOLUME_POOL_SIZES. */
void volume_pool_want(struct volume_pool *p, enum volume_kind kind, uint64_t size_bytes);
/* Makes at most one blank that is missing; 1 when it made one, 0 when the pool is full. Long (mkfs): for an idle worker. */
int volume_pool_refill(struct volume_pool *p, struct err *e) must_check;

#define VOLUME_POOL_SIZES 6

/* Makes `path`: a blank by rename, or a new file system when there is none. A volume that exists already is left alone (its
 * size is volume_grow's affair). 1 when it came from the pool, 0 when it was made or was there. */
int volume_make(struct volume_pool *p, enum volume_kind kind, uint64_t size_bytes, const char *path, struct err *e) must_check;

/* Opens for use and locks; ERR_CONFLICT when another has it. */
int volume_open(const char *path, int *ret_fd, struct err *e) must_check;
/* Size of the disk, and bytes it takes on the host. */
int volume_measure(const char *path, uint64_t *ret_size_bytes, uint64_t *ret_used_bytes, struct err *e) must_check;
/* Size of the file system in it, from the superblock: less than the file's while a growth is unfinished. */
int volume_file_system_bytes(const char *path, uint64_t *ret_bytes, struct err *e) must_check;

/* Grows a volume that nobody uses, file and file system; safe to repeat. Smaller than it is: ERR_INVALID. */
int volume_grow(const char *path, uint64_t size_bytes, struct err *e) must_check;
/* The file alone: who mounts it next grows the file system. */
int volume_grow_file(const char *path, uint64_t size_bytes, struct err *e) must_check;
/* Grows one that is mounted: the file, the loop device made from it, then the file system by its mount. The last part is
 * refused by kernels where root lacks CAP_SYS_RESOURCE (ERR_DENIED): volume_grow finishes it when nobody uses the volume. */
int volume_grow_mounted(const char *path, uint64_t size_bytes, int loop_fd, int mount_fd, struct err *e) must_check;

/* Whether a guest with a kernel of its own may have written it: any bytes, then. The mark is an extended attribute of the file,
 * so it goes where the file goes, also into snapshots and back; setting it is durable before it returns. */
bool volume_is_of_guest(const char *path);
int volume_set_of_guest(int fd, bool guest, struct err *e) must_check;

/* Called now and then with bytes of data copied and to be copied; negative cancels. May be NULL. */
typedef int volume_progress_fn(void *data, uint64_t done_bytes, uint64_t total_bytes);
/* Copies a volume (or snapshot) to `to`, whole or not at all, replacing what was there: a clone where the file system shares
 * blocks, else a copy that keeps holes. Durable when it returns. The source must not change meanwhile. */
int volume_copy(const char *from, const char *to, volume_progress_fn *progress, void *data, struct err *e) must_check;

/* Gives back what unfinished calls left in a folder of volumes. */
int volume_clean_folder(const char *folder, struct err *e) must_check;

#endif
