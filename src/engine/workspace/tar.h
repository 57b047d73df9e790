/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_WORKSPACE_TAR_H
#define ENGINE_WORKSPACE_TAR_H

/*
 * The tar format, as copies of files need it: pax(1) of POSIX.1-2017 with extended attributes (SCHILY.xattr) and holes
 * (GNU.sparse 1.0), and what GNU tar writes: long names, large numbers, its three forms of holes. Reading takes nothing of what
 * it reads for granted; writing gives pax.
 *
 * Code of our own, where libarchive is used elsewhere: this is part of the first process of machines, of any processor.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "base/str.h"

#define TAR_BLOCK 512
#define TAR_EXTENDED_MOST (1u << 20) /* of one pax header or GNU long name */
#define TAR_PIECES_MOST 262144	     /* of one file */
#define TAR_XATTRS_MOST (4u << 20)   /* bytes of extended attributes of one file, however many headers they come in */

struct tar_xattr {
	char *name;
	size_t length;
	uint8_t *value; /* behind the name, in one allocation with it */
};

struct tar_piece { /* of a file with holes */
	uint64_t offset, length;
};

struct tar_entry {
	mode_t mode;	 /* with the kind of file */
	char *path;	 /* as it stands in the archive: never empty */
	char *target;	 /* of a symbolic or hard link; else NULL */
	bool hard_link;	 /* to the entry `target` of the archive */
	uint64_t size;	 /* of the file, holes included */
	int64_t seconds; /* of its last change */
	uint32_t nanoseconds;
	uint64_t uid, gid;
	uint32_t major, minor;
	struct tar_xattr *xattrs;
	size_t xattr_count, xattr_room;
	struct tar_piece *pieces; /* in order, none over another; none and not sparse: all of it */
	size_t piece_count, piece_room;
	bool sparse;
};

void tar_entry_done(struct tar_entry *entry);
void tar_add_xattr(struct tar_entry *entry, const char *name, size_t name_length, const void *value, size_t length);
void tar_add_piece(struct tar_entry *entry, uint64_t offset, uint64_t length);

/* --- tar_read.c --- */

/* As read(2); interrupted calls are the callee's. */
typedef ssize_t tar_read_fn(void *data, void *bytes, size_t most);

struct tar_reader {
	tar_read_fn *read;
	void *data;
	uint64_t left; /* bytes of the entry's content in the archive that nobody has taken, */
	unsigned padding; /* and what fills its last block */
	bool begun;
};

/* 1: *entry is the next one, to be released; 0: the archive is over. Content that was not taken is passed over. */
int tar_next(struct tar_reader *r, struct tar_entry *entry, struct err *e) must_check;
/* The entry's content, its pieces one after the other; all `length` bytes are there or it is an error. */
int tar_content(struct tar_reader *r, void *bytes, size_t length, struct err *e) must_check;

/* --- tar_write.c --- */

/* The blocks that go before the content: of all pieces of a sparse file, which the caller writes next, padded to TAR_BLOCK. */
void tar_header(const struct tar_entry *entry, struct str *out);
/* Bytes that fill the last block of a content of this length. */
unsigned tar_padding(uint64_t length);

#endif
