/* SPDX-License-Identifier: Apache-2.0 */
#ifndef STORE_DISK_UNPACK_H
#define STORE_DISK_UNPACK_H

/* An upload that is packed as a whole, as disks are offered for download (.raw.xz, .img.gz), for carrel-import's children. */

#include "store/disk_convert.h"

/* gzip, xz, zstd or bzip2 in a file, into an empty one with holes where it is zero. `progress` is told the bytes that came out,
 * last with `complete`, and nothing else of disk_progress. ERR_TOO_LARGE: more than bytes_most; ERR_CORRUPT. */
int disk_unpack_file(int input_fd, int output_fd, uint64_t bytes_most, disk_progress_fn *progress, void *data,
		struct err *e) must_check;

#endif
