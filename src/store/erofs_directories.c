/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. A directory names inodes by where they lie, and its own inode says how long its list is, so the first
 * walk, breadth first from the root, gives every directory its size and its places, and the second writes them. A list is made
 * twice for that and never kept: what is in memory of it is one directory's.
 *
 * Entries are sorted by bytes, with "." and ".." where these words sort; each block of a list begins with its entries, and
 * their names follow. The last bytes of a list lie behind the inode where they fit.
 */
#include "store/erofs_directories.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"
#include "store/erofs_inode.h"
#include "store/erofs_xattrs.h"

/* Entries of one directory with "." and ".." in their sorted places, block by block into `out`. */
struct listing {
	struct str out;
	size_t block_at; /* where the open block begins in `out` */
	size_t count, names_length;
	struct {
		uint64_t nid;
		const char *name;
		uint8_t length, type;
	} open[EROFS_BLOCK / (DIRENT_BYTES + 1)];
};

static void close_block(struct listing *l, bool last)
{
	size_t name_at = l->count * DIRENT_BYTES;

	for (size_t i = 0; i < l->count; i++) {
		uint8_t entry[DIRENT_BYTES] = { 0 };
		put_le64(entry + DIRENT_NID, l->open[i].nid);
		put_le16(entry + DIRENT_NAME_AT, (uint16_t)name_at);
		entry[DIRENT_TYPE] = l->open[i].type;
		str_add(&l->out, entry, sizeof entry);
		name_at += l->open[i].length;
	}
	for (size_t i = 0; i < l->count; i++)
		str_add(&l->out, l->open[i].name, l->open[i].length);
	while (!last && l->out.length - l->block_at < EROFS_BLOCK)
		str_putc(&l->out, '\0');
	l->block_at = l->out.length;
	l->count = l->names_length = 0;
}

static void list_entry(struct listing *l, const char *name, uint8_t length, uint8_t type, uint64_t nid)
{
	if ((l->count + 1) * DIRENT_BYTES + l->names_length + length > EROFS_BLOCK)
		close_block(l, false);
	l->open[l->count].nid = nid;
	l->open[l->count].name = name;
	l->open[l->count].length = length;
	l->open[l->count++].type = type;
	l->names_length += length;
}

static void list_directory(const struct erofs_tree *t, const struct tree_directory *d, struct listing *l)
{
	static const char *const dots[] = { ".", ".." };
	const uint64_t dot_nids[] = { d->nid, t->directories[d->parent].nid };
	size_t dot = 0;

	for (uint32_t i = 0; i < d->count; i++) {
		const struct tree_entry *entry = &t->entries[t->sorted[d->first + i]];
		const char *name = erofs_tree_name(t, entry);
		for (; dot < 2; dot++) {
			size_t shorter = entry->name_length < dot + 1 ? entry->name_length : dot + 1;
			int order = memcmp(dots[dot], name, shorter);
			if (order > 0 || (order == 0 && entry->name_length < dot + 1))
				break;
			list_entry(l, dots[dot], (uint8_t)(dot + 1), EROFS_TYPE_DIRECTORY, dot_nids[dot]);
		}
		uint64_t nid = entry->type == EROFS_TYPE_DIRECTORY ? t->directories[entry->target].nid :
								     t->inodes[entry->target].nid;
		list_entry(l, name, entry->name_length, entry->type, nid);
	}
	for (; dot < 2; dot++)
		list_entry(l, dots[dot], (uint8_t)(dot + 1), EROFS_TYPE_DIRECTORY, dot_nids[dot]);
	close_block(l, true);
}

static struct erofs_inode_plan directory_inode(const struct tree_directory *d)
{
	struct erofs_inode_plan i = { .layout = EROFS_FLAT_PLAIN, .mode = d->mode, .ino = d->ino, .uid = d->uid, .gid = d->gid,
			   .mtime = d->mtime, .mtime_nsec = d->mtime_nsec, .links = 2 + d->subdirectories,
			   .size_bytes = d->size_bytes, .xattrs = d->xattrs, .xattrs_length = d->xattrs_length };
	i.u = (uint32_t)(d->data_at / EROFS_BLOCK);
	i.behind_length = (size_t)(d->size_bytes % EROFS_BLOCK);
	size_t room = d->parent == 0 && d->nid == EROFS_ROOT_AT / EROFS_SLOT ? EROFS_BLOCK - EROFS_ROOT_AT : EROFS_BLOCK;
	if (i.behind_length && erofs_inode_size(&i) <= room)
		i.layout = EROFS_FLAT_INLINE;
	else
		i.behind_length = 0;
	return i;
}

/* overlayfs wants the mark as an attribute; it joins those that the archive gave. */
static int mark_opaque(struct tree_directory *d, struct err *e)
{
	static const struct erofs_xattr opaque = { "user.overlay.opaque", "y", 1 };
	uint8_t *bytes;
	size_t length;
	int r = erofs_encode_xattrs(&opaque, 1, &bytes, &length, e);

	if (r < 0)
		return r;
	if (d->xattrs) {
		size_t entry = length - XATTR_HEADER_BYTES;
		d->xattrs = mem_grow_array(d->xattrs, d->xattrs_length + entry, 1);
		memcpy(d->xattrs + d->xattrs_length, bytes + XATTR_HEADER_BYTES, entry);
		d->xattrs_length += entry;
		free(bytes);
	} else {
		d->xattrs = bytes;
		d->xattrs_length = length;
	}
	return 0;
}

/* Size and place of one directory; its children that are directories are queued, its other inodes counted. */
static int place_directory(struct erofs_tree *t, struct erofs_output *o, uint32_t number, uint32_t *queue,
			   size_t *queue_length, struct err *e)
{
	struct tree_directory *d = &t->directories[number];
	struct listing l = { 0 };
	int r = d->opaque ? mark_opaque(d, e) : 0;

	for (uint32_t i = 0; i < d->count; i++) {
		const struct tree_entry *entry = &t->entries[t->sorted[d->first + i]];
		if (entry->type == EROFS_TYPE_DIRECTORY) {
			d->subdirectories++;
			queue[(*queue_length)++] = entry->target;
		} else {
			t->inodes[entry->target].links++;
		}
	}
	list_directory(t, d, &l);
	d->size_bytes = l.out.length;
	str_done(&l.out);
	if (number == 0)
		d->nid = EROFS_ROOT_AT / EROFS_SLOT;
	struct erofs_inode_plan i = directory_inode(d);
	uint64_t blocks = (d->size_bytes - i.behind_length + EROFS_BLOCK - 1) / EROFS_BLOCK, block = 0, at = EROFS_ROOT_AT;
	if (r == 0 && blocks)
		r = erofs_output_blocks(o, blocks, &block, e);
	d->data_at = block * EROFS_BLOCK;
	if (number == 0 && EROFS_ROOT_AT + erofs_inode_size(&i) > EROFS_BLOCK)
		return err_set(e, ERR_TOO_LARGE, "the extended attributes of the root folder are too large");
	if (r == 0 && number != 0)
		r = erofs_inode_room(o, erofs_inode_size(&i), &at, e);
	d->nid = at / EROFS_SLOT;
	return r;
}

static int write_directory(const struct erofs_tree *t, struct erofs_output *o, const struct tree_directory *d,
			   uint8_t *block_zero, struct err *e)
{
	struct listing l = { 0 };
	struct erofs_inode_plan i = directory_inode(d);

	list_directory(t, d, &l);
	size_t whole = l.out.length - i.behind_length;
	i.behind = l.out.bytes + whole;
	int r = whole ? erofs_output_data(o, d->data_at, l.out.bytes, whole, e) : 0;
	if (r == 0 && d->nid == EROFS_ROOT_AT / EROFS_SLOT)
		erofs_inode_encode(&i, block_zero + EROFS_ROOT_AT);
	else if (r == 0)
		r = erofs_inode_write_at(o, d->nid * EROFS_SLOT, &i, e);
	str_done(&l.out);
	return r;
}

int erofs_write_directories(struct erofs_tree *t, struct erofs_output *o, uint8_t *block_zero, uint64_t *ret_count,
			    struct err *e)
{
	own_str uint32_t *queue = mem_alloc_array(t->directory_count, sizeof *queue);
	size_t length = 1; /* the root */
	int r = 0;

	erofs_tree_sort(t);
	for (size_t i = 0; i < length && r == 0; i++)
		r = place_directory(t, o, queue[i], queue, &length, e);
	for (size_t i = 0; i < length && r == 0; i++)
		r = write_directory(t, o, &t->directories[queue[i]], block_zero, e);
	*ret_count = length;
	return r;
}
