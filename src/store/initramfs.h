/* SPDX-License-Identifier: Apache-2.0 */
#ifndef STORE_INITRAMFS_H
#define STORE_INITRAMFS_H

/*
 * The initramfs of a machine: carrel-init as /init, the modules of a kernel partition as /modules, and /dev/console. A cpio
 * archive in the form "newc" (Documentation/driver-api/early-userspace/buffer-format.rst of Linux). The same two inputs give
 * the same bytes.
 */

#include "base/err.h"
#include "base/hash.h"

/* The one for this pair in a folder of ours, made when it is not there yet: *ret_name is its name in the folder, "HEX.cpio" for
 * a digest over both inputs. Safe when several do it at once. */
#define INITRAMFS_NAME_SIZE (DIGEST_HEX_SIZE + 5)
int initramfs_get(int folder_fd, const struct digest *kernel, int kernel_partition_fd, int init_fd,
		  char ret_name[INITRAMFS_NAME_SIZE], struct err *e) must_check;

#endif
