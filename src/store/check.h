/* SPDX-License-Identifier: Apache-2.0 */
#ifndef STORE_CHECK_H
#define STORE_CHECK_H

/*
 * Whether the host's kernel may mount a volume that a guest's kernel wrote. A program (libexec/carrel/carrel-check) holds its
 * superblock against what volumes are, and runs e2fsck on it in a sandbox: nobody's rights, no other file, no network, limits
 * of memory and time. What was not unmounted is first finished as any mount would (journal, orphans: `e2fsck -p`); then the
 * whole structure is read (`e2fsck -fn`), and a volume that has a single fault is refused. Nothing is ever repaired.
 */

#include <stdint.h>

#include "base/err.h"

/* `fd`: open for reading and writing, and locked. ERR_CORRUPT, ERR_UNSUPPORTED: not to be mounted; ERR_TIMEOUT. Any thread. */
int check_volume(int fd, struct err *e) must_check;

/* Whether QEMU may open a workspace's own disk that came from elsewhere (store/overlay_check.h), by the same program. Any
 * thread. */
int check_disk(int fd, uint64_t base_bytes, struct err *e) must_check;

#define CHECK_FD      3 /* where the program finds it */
#define CHECK_SECONDS 900

#endif
