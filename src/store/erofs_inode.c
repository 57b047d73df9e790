/* SPDX-License-Identifier: Apache-2.0 */
#include "store/erofs_inode.h"

#include <string.h>

#include "base/mem.h"
#include "base/own.h"

size_t erofs_inode_size(const struct erofs_inode_plan *i) { return INODE_BYTES + i->xattrs_length + i->behind_length; }

void erofs_inode_encode(const struct erofs_inode_plan *i, uint8_t *out)
{
	memset(out, 0, INODE_BYTES);
	put_le16(out + INODE_FORMAT, (uint16_t)(1 | i->layout << 1));
	put_le16(out + INODE_XATTR_COUNT, i->xattrs_length ? (uint16_t)((i->xattrs_length - XATTR_HEADER_BYTES) / 4 + 1) : 0);
	put_le16(out + INODE_MODE, (uint16_t)i->mode);
	put_le64(out + INODE_FILE_SIZE, i->size_bytes);
	put_le32(out + INODE_U, i->u);
	put_le32(out + INODE_INO, i->ino);
	put_le32(out + INODE_UID, i->uid);
	put_le32(out + INODE_GID, i->gid);
	put_le64(out + INODE_MTIME, (uint64_t)i->mtime);
	put_le32(out + INODE_MTIME_NSEC, i->mtime_nsec);
	put_le32(out + INODE_NLINK, i->links);
	if (i->xattrs_length)
		memcpy(out + INODE_BYTES, i->xattrs, i->xattrs_length);
	if (i->behind_length)
		memcpy(out + INODE_BYTES + i->xattrs_length, i->behind, i->behind_length);
}

/* Shared block, or, for what is larger than one, neighbouring blocks of its own. */
int erofs_inode_room(struct erofs_output *o, size_t size, uint64_t *ret_at, struct err *e)
{
	if (size <= EROFS_BLOCK)
		return erofs_output_room(o, size, ret_at, e);
	uint64_t block;
	int r = erofs_output_blocks(o, (size + EROFS_BLOCK - 1) / EROFS_BLOCK, &block, e);
	if (r == 0)
		*ret_at = block * EROFS_BLOCK;
	return r;
}

int erofs_inode_write_at(struct erofs_output *o, uint64_t at, const struct erofs_inode_plan *i, struct err *e)
{
	own_str uint8_t *bytes = mem_alloc(erofs_inode_size(i));

	erofs_inode_encode(i, bytes);
	return erofs_output_patch(o, at, bytes, erofs_inode_size(i), e);
}
