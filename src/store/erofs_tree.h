/* SPDX-License-Identifier: Apache-2.0 */
#ifndef STORE_EROFS_TREE_H
#define STORE_EROFS_TREE_H

/*
 * The names of an image while it is built: which entry stands in which directory and which inode it names. Entries are found by
 * a hash table over (directory, name) with a random seed, so nobody can make it slow. Replacing an entry never moves another
 * one.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define TREE_NONE UINT32_MAX

struct tree_entry {
	uint32_t directory; /* that holds it */
	uint32_t name_at;   /* in the names */
	uint32_t target;    /* directory number, or inode number */
	uint8_t name_length;
	uint8_t type;       /* EROFS_TYPE_* */
	bool whiteout;
};

struct tree_inode {
	uint64_t nid;
	uint32_t links;     /* counted in the end */
};

struct tree_directory {
	uint64_t nid, size_bytes;
	uint64_t data_at;   /* of whole blocks; 0: none */
	uint32_t parent, first, count; /* children: a range of the sorted entries */
	uint32_t mode, uid, gid, mtime_nsec, ino, subdirectories;
	int64_t mtime;
	uint8_t *xattrs;    /* as stored */
	size_t xattrs_length;
	bool opaque, reached;
};

struct erofs_tree {
	struct tree_entry *entries;
	struct tree_inode *inodes;
	struct tree_directory *directories; /* 0 is the root */
	size_t entry_count, entry_capacity, inode_count, inode_capacity, directory_count, directory_capacity;
	char *names;
	size_t names_length, names_capacity;
	uint32_t *slots; /* entry numbers + 1 */
	size_t slot_count;
	uint64_t seed, most_entries;
	uint32_t *sorted; /* entry numbers, after tree_sort */
};

void erofs_tree_init(struct erofs_tree *t, uint64_t most_entries);
void erofs_tree_done(struct erofs_tree *t);
const char *erofs_tree_name(const struct erofs_tree *t, const struct tree_entry *entry); /* name_length bytes */
/* Number of the entry, or TREE_NONE. */
uint32_t erofs_tree_find(const struct erofs_tree *t, uint32_t directory, const char *name, size_t length);
/* A new entry; the caller has made sure that there is none of the name. */
int erofs_tree_add(struct erofs_tree *t, uint32_t directory, const char *name, size_t length, uint8_t type, uint32_t target,
		   struct err *e) must_check;
uint32_t erofs_tree_new_directory(struct erofs_tree *t, uint32_t parent, uint32_t ino); /* 0755, user 0, time 0 */
uint32_t erofs_tree_new_inode(struct erofs_tree *t, uint64_t nid);
/* Sorts the entries by directory and name bytes and gives each directory its range. */
void erofs_tree_sort(struct erofs_tree *t);

#endif
