/* SPDX-License-Identifier: Apache-2.0 */
#ifndef STORE_TAR_READER_H
#define STORE_TAR_READER_H

/*
 * One layer: a tar stream (ustar, pax, GNU; packed or not) into an EROFS writer. To be called in a sandbox: the stream may come
 * from anybody. OCI's whiteouts (image-spec, layer.md) become those of overlayfs.
 */

#include "base/err.h"
#include "base/hash.h"
#include "store/erofs_writer.h"

struct tar_limits {
	uint64_t plain_bytes; /* of the unpacked stream */
};
extern const struct tar_limits tar_default_limits; /* 1 TiB */

struct tar_summary {
	struct digest plain; /* of the unpacked stream: OCI's diff_id */
	uint64_t plain_bytes;
};

int tar_read(int fd, const struct tar_limits *limits, struct erofs_writer *w, struct tar_summary *ret_summary,
	     struct err *e) must_check;

#endif
