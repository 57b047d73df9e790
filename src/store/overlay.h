/* SPDX-License-Identifier: Apache-2.0 */
#ifndef STORE_OVERLAY_H
#define STORE_OVERLAY_H

/*
 * The disk that a workspace has on top of a raw partition: a qcow2 (QEMU, docs/interop/qcow2.txt, version 3) that holds what
 * was written. It names no backing file - whoever opens it says what lies below - and its first table has room for the largest
 * disk, so that a disk grows by one number. QEMU writes it, so after the first run nothing in it is believed (store/disk.h
 * reads it).
 */

#include <stdint.h>

#include "base/err.h"

/* Makes `path` by rename, empty, or leaves it alone when it is there: 1 when it was made. */
int overlay_make(const char *path, uint64_t disk_bytes, struct err *e) must_check;
/* Size of the guest's disk. */
int overlay_measure(const char *path, uint64_t *ret_disk_bytes, struct err *e) must_check;
/* Nobody uses it. Smaller than it is: ERR_INVALID. */
int overlay_grow(const char *path, uint64_t disk_bytes, struct err *e) must_check;

#endif
