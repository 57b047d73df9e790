/* SPDX-License-Identifier: Apache-2.0 */
#ifndef STORE_EROFS_READER_H
#define STORE_EROFS_READER_H

/*
 * Reads an EROFS image without compression and believes none of its bytes: each offset and length is checked against the file
 * before it is used, and what the format forbids is ERR_CORRUPT. It is meant for a process without rights (base/sandbox.h); it
 * uses only pread on the descriptor that it is given, which stays the caller's and must outlive the reader.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define EROFS_READ_DEPTH_MOST 512 /* directories inside each other */

struct erofs_reader;

/* Checks the superblock: magic, checksum, block size 4096, only features that we know. */
int erofs_open(int fd, struct erofs_reader **ret_reader, struct err *e) must_check;
void erofs_close(struct erofs_reader *r);
static inline void erofs_close_at(struct erofs_reader **r)
{
	if (*r)
		erofs_close(*r);
}
#define own_erofs_reader __attribute__((cleanup(erofs_close_at)))

uint64_t erofs_root(const struct erofs_reader *r); /* its inode number ("nid") */

struct erofs_inode {
	uint64_t nid, size_bytes;
	int64_t mtime;
	uint32_t mode, uid, gid, mtime_nsec, links, ino;
	uint32_t major, minor; /* devices */
	/* where its bytes are */
	uint8_t layout, chunk_bits;
	bool chunk_indexes;
	uint32_t first_block, xattrs_length;
	uint64_t xattrs_at, body_at;
};
int erofs_inode(struct erofs_reader *r, uint64_t nid, struct erofs_inode *ret_inode, struct err *e) must_check;
bool erofs_is_whiteout(const struct erofs_inode *inode); /* overlayfs: a character device 0:0 */

/* A run of the file's bytes: in the image at image_at, or a hole. */
struct erofs_extent {
	uint64_t offset, length, image_at;
	bool hole;
};
/* The run that begins at `offset` (less than the size), as long as possible. */
int erofs_map(struct erofs_reader *r, const struct erofs_inode *inode, uint64_t offset, struct erofs_extent *ret_extent,
	      struct err *e) must_check;
/* All within the file's size; holes are zeros. */
int erofs_read(struct erofs_reader *r, const struct erofs_inode *inode, uint64_t offset, void *bytes, size_t length,
	       struct err *e) must_check;
/* The target of a symbolic link, ending with a NUL; the caller frees. */
int erofs_read_link(struct erofs_reader *r, const struct erofs_inode *inode, char **ret_target, struct err *e) must_check;

struct erofs_name {
	const char *name; /* ends with a NUL; never "." or ".." */
	size_t length;
	uint64_t nid;
	uint8_t type; /* EROFS_TYPE_* */
};
/* A result other than 0 ends the listing and becomes its result. */
typedef int erofs_name_fn(void *data, const struct erofs_name *entry, struct err *e);
/* Ascending by bytes. `parent` is what ".." has to name. */
int erofs_list(struct erofs_reader *r, const struct erofs_inode *directory, uint64_t parent, erofs_name_fn *fn, void *data,
	       struct err *e) must_check;
/* Path from the root; symbolic links are not followed. ERR_NOT_FOUND. */
int erofs_find(struct erofs_reader *r, const char *path, struct erofs_inode *ret_inode, struct err *e) must_check;

struct erofs_attribute {
	char *name; /* whole: "user.x" */
	uint8_t *value;
	size_t length;
};
struct erofs_attribute_list {
	struct erofs_attribute *items;
	size_t count, capacity;
};
void erofs_attributes_done(struct erofs_attribute_list *list);
#define own_erofs_attributes __attribute__((cleanup(erofs_attributes_done)))
/* Ascending by name, none twice. */
int erofs_read_attributes(struct erofs_reader *r, const struct erofs_inode *inode, struct erofs_attribute_list *ret_list,
			  struct err *e) must_check;
/* overlayfs: user.overlay.opaque is "y". */
bool erofs_is_opaque(const struct erofs_attribute_list *list);

#endif
