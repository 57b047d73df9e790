/* SPDX-License-Identifier: Apache-2.0 */
#ifndef STORE_IMPORT_KERNEL_H
#define STORE_IMPORT_KERNEL_H

/* A kernel for machines, as an image of one partition: made from a package, or recognized in what was imported. */

#include "model/image.h"
#include "store/kernel.h"
#include "store/store.h"

typedef void import_kernel_progress_fn(void *data, uint64_t done_bytes);
/* Reads a kernel package (or a tar of what it installs) from input_fd to its end; the partition is put into the store. */
int import_kernel(struct store_session *session, int input_fd, import_kernel_progress_fn *progress, void *data,
		  struct digest *ret_partition, uint64_t *ret_bytes, struct kernel_about *ret_about, struct err *e) must_check;

/* Its labels say that the image is a kernel: then its partitions must be one, as it says. *ret_release: its release, or
 * NULL. */
int import_kernel_recognize(struct store *store, const struct image *image, char **ret_release, struct err *e) must_check;

#endif
