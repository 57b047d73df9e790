/* SPDX-License-Identifier: Apache-2.0 */
#ifndef STORE_OVERLAY_CHECK_H
#define STORE_OVERLAY_CHECK_H

/*
 * Whether a disk that came from elsewhere is one that store/overlay.h made and QEMU wrote, and nothing more: it names no other
 * file, asks for no password, has no snapshots and no features, and each of its clusters is used once and counted so. It is
 * read whole but for the guest's data, before QEMU gets it. For processes without rights.
 */

#include <stdint.h>

#include "base/err.h"

/* `base_bytes`: of the partition below; the disk is not smaller. ERR_CORRUPT, ERR_UNSUPPORTED, ERR_DENIED: it refers to another
 * file. */
int overlay_check(int fd, uint64_t base_bytes, struct err *e) must_check;

#endif
