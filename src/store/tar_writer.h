/* SPDX-License-Identifier: Apache-2.0 */
#ifndef STORE_TAR_WRITER_H
#define STORE_TAR_WRITER_H

/*
 * Writes tar: POSIX.1-2017 pax interchange format, with SCHILY.xattr records for extended attributes (as star, GNU tar and OCI
 * tools have them) and GNU's sparse format 1.0. Equal calls give equal bytes. Names are bytes: what is not UTF-8 says
 * hdrcharset=BINARY.
 */

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "store/erofs_reader.h"

typedef int tar_sink_fn(void *data, const void *bytes, size_t length, struct err *e);

struct tar_writer {
	tar_sink_fn *sink;
	void *data;
	uint64_t sockets; /* that tar_export left out */
};

struct tar_range {
	uint64_t offset, length;
};

struct tar_entry {
	const char *path; /* relative; of a directory without the slash at the end */
	const char *link; /* target of a symbolic link, or NULL */
	const char *hard_link; /* path of an earlier entry, or NULL */
	const struct erofs_inode *inode;
	const struct erofs_attribute_list *attributes; /* NULL: none */
	const struct tar_range *ranges; /* of a sparse file: where data is; ascending */
	size_t range_count;
	bool sparse;
};

/* Of a file, content follows by tar_data: all of it, or the ranges one after the other; then tar_pad. */
int tar_header(struct tar_writer *w, const struct tar_entry *entry, struct err *e) must_check;
int tar_data(struct tar_writer *w, const void *bytes, size_t length, struct err *e) must_check;
int tar_pad(struct tar_writer *w, uint64_t content_bytes, struct err *e) must_check;
int tar_end(struct tar_writer *w, struct err *e) must_check;

#endif
