/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. The directories are walked breadth first; each is entered once, so a cycle or a second parent is found when it is
 * named again. A table over inode numbers counts the names of every inode, and in the end the count has to be the one that the
 * inode says.
 */
#include "erofs_check.h"

#include <stdlib.h>
#include <sys/stat.h>

#include "base/mem.h"
#include "base/own.h"
#include "store/erofs_format.h"

struct seen {
	uint64_t nid; /* + 1; 0: free */
	uint32_t names, links;
};

struct directory {
	uint64_t nid, parent;
	unsigned depth;
};

struct check {
	struct erofs_reader *reader;
	struct erofs_counts counts;
	struct seen *table;
	size_t slots;
	struct directory *queue;
	size_t queued, capacity;
	struct directory now;
	uint32_t subdirectories;
};

/* Fibonacci hashing (Knuth, TAOCP 3, 6.4): inode numbers are places, so they differ in their low bits. */
static struct seen *slot_of(struct seen *table, size_t slots, uint64_t nid)
{
	for (size_t i = (nid * UINT64_C(0x9E3779B97F4A7C15)) >> 20;; i++) {
		struct seen *s = &table[i & (slots - 1)];
		if (s->nid == nid + 1 || s->nid == 0)
			return s;
	}
}

static void grow(struct check *c)
{
	size_t slots = c->slots ? c->slots * 2 : 1024;
	struct seen *table = mem_alloc_array(slots, sizeof *table);

	for (size_t i = 0; i < c->slots; i++)
		if (c->table[i].nid)
			*slot_of(table, slots, c->table[i].nid - 1) = c->table[i];
	free(c->table);
	c->table = table;
	c->slots = slots;
}

static struct seen *see(struct check *c, uint64_t nid)
{
	if (c->counts.inodes * 10 >= c->slots * 7)
		grow(c);
	return slot_of(c->table, c->slots, nid);
}

static int corrupt(struct err *e, const char *what, uint64_t nid)
{
	return err_set(e, ERR_CORRUPT, "the partition is damaged: %s (inode %llu)", what, (unsigned long long)nid);
}

static int check_content(struct check *c, const struct erofs_inode *inode, struct err *e)
{
	own_erofs_attributes struct erofs_attribute_list attributes = { 0 };
	int result = erofs_read_attributes(c->reader, inode, &attributes, e);

	if (result == 0 && S_ISLNK(inode->mode)) {
		own_str char *target = NULL;
		return erofs_read_link(c->reader, inode, &target, e);
	}
	if (!S_ISREG(inode->mode))
		return result;
	struct erofs_extent x;
	for (uint64_t at = 0; result == 0 && at < inode->size_bytes; at += x.length) {
		result = erofs_map(c->reader, inode, at, &x, e);
		if (result == 0 && !x.hole)
			c->counts.bytes += x.length;
	}
	return result;
}

static uint8_t type_of(uint32_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFREG: return EROFS_TYPE_REGULAR;
	case S_IFDIR: return EROFS_TYPE_DIRECTORY;
	case S_IFCHR: return EROFS_TYPE_CHAR;
	case S_IFBLK: return EROFS_TYPE_BLOCK;
	case S_IFIFO: return EROFS_TYPE_FIFO;
	case S_IFSOCK: return EROFS_TYPE_SOCKET;
	default: return EROFS_TYPE_LINK;
	}
}

static int enqueue(struct check *c, uint64_t nid, uint64_t parent, unsigned depth, struct err *e)
{
	if (depth > EROFS_READ_DEPTH_MOST)
		return err_set(e, ERR_TOO_LARGE, "the partition has more than %d directories inside each other",
			       EROFS_READ_DEPTH_MOST);
	MEM_PUSH_ROOM(c->queue, c->queued, c->capacity);
	c->queue[c->queued++] = (struct directory){ nid, parent, depth };
	return 0;
}

static int visit(void *data, const struct erofs_name *entry, struct err *e)
{
	struct check *c = data;
	struct seen *s = see(c, entry->nid);
	struct erofs_inode inode;

	c->counts.entries++;
	if (s->nid) {
		if (entry->type == EROFS_TYPE_DIRECTORY || s->links <= s->names)
			return corrupt(e, "more names than its link count says", entry->nid);
		s->names++;
		return 0;
	}
	int result = erofs_inode(c->reader, entry->nid, &inode, e);
	if (result < 0)
		return result;
	if (entry->type != type_of(inode.mode))
		return corrupt(e, "of another kind than its directory says", entry->nid);
	*s = (struct seen){ entry->nid + 1, 1, S_ISDIR(inode.mode) ? 1 : inode.links };
	c->counts.inodes++;
	result = check_content(c, &inode, e);
	if (result < 0 || !S_ISDIR(inode.mode))
		return result;
	c->subdirectories++;
	return enqueue(c, entry->nid, c->now.nid, c->now.depth + 1, e);
}

static int check_directories(struct check *c, struct err *e)
{
	struct erofs_inode inode;

	for (size_t i = 0; i < c->queued; i++) {
		c->now = c->queue[i];
		c->subdirectories = 0;
		int result = erofs_inode(c->reader, c->now.nid, &inode, e);
		if (result == 0)
			result = erofs_list(c->reader, &inode, c->now.parent, visit, c, e);
		if (result < 0)
			return result;
		if (inode.links != c->subdirectories + 2)
			return corrupt(e, "another number of subdirectories than its link count says", inode.nid);
	}
	for (size_t i = 0; i < c->slots; i++)
		if (c->table[i].nid && c->table[i].names != c->table[i].links)
			return corrupt(e, "fewer names than its link count says", c->table[i].nid - 1);
	return 0;
}

int erofs_check(struct erofs_reader *r, struct erofs_counts *ret_counts, struct err *e)
{
	struct check c = { .reader = r };
	struct erofs_inode root;

	grow(&c);
	int result = erofs_inode(r, erofs_root(r), &root, e);
	if (result == 0)
		result = check_content(&c, &root, e);
	if (result == 0) {
		*see(&c, root.nid) = (struct seen){ root.nid + 1, 1, 1 };
		c.counts.inodes = 1;
		result = enqueue(&c, root.nid, root.nid, 1, e);
	}
	if (result == 0)
		result = check_directories(&c, e);
	free(c.table);
	free(c.queue);
	if (result == 0)
		*ret_counts = c.counts;
	return result;
}
