/* SPDX-License-Identifier: Apache-2.0 */
#ifndef STORE_MOUNT_H
#define STORE_MOUNT_H

/*
 * Partitions of one host, mounted once each at FOLDER/HEX, read-only, whoever uses them: so the page cache holds each once.
 *
 * A partition file is written by a process without privileges. Before the kernel sees it, it is taken over: it becomes root's
 * and read-only, must have no writer left, and its SHA-256 is compared with its name once; that it was is kept in an extended
 * attribute that only root can set. What is mounted is the open file that was checked, not a path.
 *
 * Users are counted by mount_ref and mount_unref; a partition without users stays mounted until mount_idle finds it idle.
 * All calls may be made from any thread.
 */

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/hash.h"

struct mounts;

/* How a partition's file gets under the mount: MOUNT_AUTO takes what the kernel can (files since Linux 6.12, else a loop
 * device). */
enum mount_how { MOUNT_AUTO, MOUNT_FILE, MOUNT_LOOP };

/* `store` has partitions/sha256/HEX. Mounts found in `folder` are adopted, without users; leftovers are removed. */
int mounts_open(const char *store, const char *folder, enum mount_how how, struct mounts **ret_mounts,
		struct err *e) must_check;
void mounts_free(struct mounts *m); /* leaves the mounts */

/* One more user; mounts it when it is not. *ret_path (may be NULL) is the mount point, the caller's to free. Hashing a
 * partition that was never used here takes as long as reading it; progress may be NULL and gets bytes. */
int mount_ref(struct mounts *m, const struct digest *d, void (*progress)(void *data, uint64_t done, uint64_t total), void *data,
	      char **ret_path, struct err *e) must_check;
void mount_unref(struct mounts *m, const struct digest *d);

/* Unmounts what has had no user for idle_ms; returns milliseconds until the next may be due, 0: none waits. */
uint64_t mounts_idle(struct mounts *m, uint64_t idle_ms);
/* Unmounts all below `folder`, used or not: for --clean. */
int mounts_clean(const char *folder, struct err *e) must_check;

/* The first part alone: 1 when it was verified before, 0 when it was hashed now. *ret_fd: the open file. */
int mount_take_over(const char *store, const struct digest *d, void (*progress)(void *data, uint64_t done, uint64_t total),
		    void *data, int *ret_fd, struct err *e) must_check;

#endif
