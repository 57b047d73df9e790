/* SPDX-License-Identifier: Apache-2.0 */
#ifndef STORE_EROFS_WRITER_H
#define STORE_EROFS_WRITER_H

/*
 * Builds one EROFS image in one pass: entries come in the order of an archive, file data goes to its place on disk as it
 * arrives. The image depends on nothing but the calls: same entries, same bytes, on any machine.
 *
 * An entry may be named again; the later one counts, except that a directory named twice keeps its children. Missing parents
 * become directories 0755 of user 0; one that was hidden by a whiteout before becomes such a directory, opaque. Memory: about
 * 90 bytes and the name per entry, whatever the size of the files.
 */

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

#define EROFS_NAME_MOST 255
#define EROFS_PATH_MOST 4096
#define EROFS_DEPTH_MOST 256
#define EROFS_LINK_MOST 4095
#define EROFS_XATTRS_BYTES_MOST 131072 /* of one inode, as stored */

struct erofs_limits {
	uint64_t entries, image_bytes;
	unsigned depth; /* directories inside each other, at most EROFS_DEPTH_MOST */
};
extern const struct erofs_limits erofs_default_limits; /* 8 million, 1 TiB, 256 */

struct erofs_xattr {
	/* whole, "user.x"; names of other kinds than user, trusted, security and system.posix_acl_* are refused */
	const char *name;
	const void *value;
	size_t length;
};

struct erofs_attributes {
	uint32_t mode;        /* type and permissions, as in st_mode */
	uint32_t uid, gid;
	int64_t mtime;
	uint32_t mtime_nsec;
	uint32_t major, minor; /* devices */
	const struct erofs_xattr *xattrs;
	size_t xattr_count;
};

struct erofs_writer;

/* `fd` is a regular file, written by pwrite from offset `base` to its end; it stays the caller's. */
struct erofs_writer *erofs_writer_new(int fd, uint64_t base, const struct erofs_limits *limits);
void erofs_writer_free(struct erofs_writer *w);
static inline void erofs_writer_free_at(struct erofs_writer **w)
{
	if (*w)
		erofs_writer_free(*w);
}
#define own_erofs_writer __attribute__((cleanup(erofs_writer_free_at)))

/* Paths are relative, "" is the root; "." components and doubled slashes are dropped, ".." is refused. */
int erofs_add_directory(struct erofs_writer *w, const char *path, const struct erofs_attributes *a, struct err *e) must_check;
int erofs_add_symlink(struct erofs_writer *w, const char *path, const struct erofs_attributes *a, const char *target,
		      struct err *e) must_check;
/* device, fifo, socket */
int erofs_add_special(struct erofs_writer *w, const char *path, const struct erofs_attributes *a, struct err *e) must_check;
/* The target must be there already and be no directory. */
int erofs_add_hard_link(struct erofs_writer *w, const char *path, const char *target, struct err *e) must_check;

/* A file: begin, data in ascending offsets (what is left out is zero), end. `sparse`: at least one chunk (2^erofs_chunk_bits
 * bytes, aligned) gets no data; only such chunks are holes. */
unsigned erofs_chunk_bits(uint64_t size_bytes); /* of a file that is not empty */
int erofs_begin_file(struct erofs_writer *w, const char *path, const struct erofs_attributes *a, uint64_t size_bytes,
		     bool sparse, struct err *e) must_check;
int erofs_add_data(struct erofs_writer *w, uint64_t offset, const void *bytes, size_t length, struct err *e) must_check;
int erofs_end_file(struct erofs_writer *w, struct err *e) must_check;

/* overlayfs: hides PATH of the layers below, or, opaque, everything that they have below PATH. */
int erofs_add_whiteout(struct erofs_writer *w, const char *path, struct err *e) must_check;
int erofs_set_opaque(struct erofs_writer *w, const char *path, struct err *e) must_check;

/* Whether entries replaced others, whose bytes are still in the image: it is not the one that its own tar gives. */
bool erofs_writer_replaced(const struct erofs_writer *w);

/* Writes directories, link counts and the superblock. Nothing may be added afterwards. */
int erofs_finish(struct erofs_writer *w, uint64_t *ret_size_bytes, uint64_t *ret_inodes, struct err *e) must_check;

#endif
