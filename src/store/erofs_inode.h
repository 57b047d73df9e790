/* SPDX-License-Identifier: Apache-2.0 */
#ifndef STORE_EROFS_INODE_H
#define STORE_EROFS_INODE_H

/* An inode as it is going to lie in an image: the extended form, its attributes and its last bytes behind it. */

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "store/erofs_output.h"

struct erofs_inode_plan {
	uint32_t layout, mode, u, ino, uid, gid, mtime_nsec, links;
	uint64_t size_bytes;
	int64_t mtime;
	const uint8_t *xattrs;
	size_t xattrs_length;
	const void *behind; /* last bytes or chunk table */
	size_t behind_length;
};

size_t erofs_inode_size(const struct erofs_inode_plan *i);
void erofs_inode_encode(const struct erofs_inode_plan *i, uint8_t *out);
/* A place in a shared block, or, for what is larger than one, in neighbouring blocks of its own. */
int erofs_inode_room(struct erofs_output *o, size_t size, uint64_t *ret_at, struct err *e) must_check;
int erofs_inode_write_at(struct erofs_output *o, uint64_t at, const struct erofs_inode_plan *i, struct err *e) must_check;

#endif
