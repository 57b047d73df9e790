/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. An image is written in one pass. Each inode but a directory's is written when its entry is complete: it
 * lies, with its last bytes behind it, in a shared block; whole blocks of data went to their places while they came.
 * Directories are kept in memory (erofs_tree.h) and written in the end, when their entries are known (erofs_directories.c).
 *
 * Inode numbers count slots of 32 bytes from the start of the image (meta_blkaddr is 0). The superblock has 16 bits for the
 * root's number, so the root lies right behind the superblock in block 0; it is the only block that is written last.
 *
 * Layouts: FLAT_INLINE where the last bytes fit behind the inode within a block, FLAT_PLAIN otherwise, CHUNK_BASED for files
 * that the archive calls sparse: a table of block numbers per chunk, where a chunk without data has none. The chunk size grows
 * with the file, so the table has at most SPARSE_CHUNKS entries.
 *
 * What later entries replace stays in the image without a name; it costs space, not correctness.
 *
 * The image's SHA-256 cannot be had while writing: block 0 comes first and depends on all (docs/decisions/0010).
 */
#include "store/erofs_writer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"
#include "store/erofs_directories.h"
#include "store/erofs_inode.h"
#include "store/erofs_output.h"
#include "store/erofs_tree.h"
#include "store/erofs_xattrs.h"

#define SPARSE_CHUNKS 16384U

const struct erofs_limits erofs_default_limits = { .entries = 8000000, .image_bytes = UINT64_C(1) << 40,
						   .depth = EROFS_DEPTH_MOST };

struct place { /* where a path leads */
	uint32_t directory, entry; /* entry TREE_NONE: not there yet */
	const char *name;
	size_t length;
};

struct file { /* between begin and end */
	bool open, sparse;
	char *path;
	struct erofs_attributes attributes;
	uint64_t size_bytes, cursor, first_block, whole_bytes; /* flat: whole blocks, the rest in `tail` */
	uint8_t tail[EROFS_BLOCK];
	unsigned chunk_bits;
	uint32_t *chunks;
	size_t chunk_count;
	uint8_t *xattrs;
	size_t xattrs_length;
};

struct erofs_writer {
	struct erofs_output out;
	struct erofs_tree tree;
	struct file file;
	uint32_t next_ino;
	unsigned depth_most;
	bool chunked, finished, replaced;
};

struct erofs_writer *erofs_writer_new(int fd, uint64_t base, const struct erofs_limits *limits)
{
	struct erofs_writer *w = mem_alloc(sizeof *w);

	erofs_output_init(&w->out, fd, base, limits->image_bytes);
	erofs_tree_init(&w->tree, limits->entries);
	w->depth_most = limits->depth && limits->depth < EROFS_DEPTH_MOST ? limits->depth : EROFS_DEPTH_MOST;
	(void)erofs_tree_new_directory(&w->tree, 0, w->next_ino++);
	return w;
}

static void drop_file(struct file *f)
{
	free(f->path);
	free(f->chunks);
	free(f->xattrs);
	*f = (struct file){ 0 };
}

void erofs_writer_free(struct erofs_writer *w)
{
	drop_file(&w->file);
	erofs_output_done(&w->out);
	erofs_tree_done(&w->tree);
	free(w);
}

bool erofs_writer_replaced(const struct erofs_writer *w) { return w->replaced; }

/* --- names --- */

static int enter_directory(struct erofs_writer *w, uint32_t parent, const char *name, size_t length, uint32_t *ret_directory,
			   struct err *e)
{
	uint32_t found = erofs_tree_find(&w->tree, parent, name, length);

	if (found == TREE_NONE) {
		uint32_t made = erofs_tree_new_directory(&w->tree, parent, w->next_ino++);
		*ret_directory = made;
		return erofs_tree_add(&w->tree, parent, name, length, EROFS_TYPE_DIRECTORY, made, e);
	}
	struct tree_entry *entry = &w->tree.entries[found];
	if (entry->whiteout) {
		/* ".wh.d", then "d/x" without "d": the layer hides the old d and brings a new one, without its own entry. */
		uint32_t made = erofs_tree_new_directory(&w->tree, parent, w->next_ino++);
		w->tree.directories[made].opaque = w->replaced = true;
		entry->type = EROFS_TYPE_DIRECTORY;
		entry->target = made;
		entry->whiteout = false;
	}
	if (entry->type != EROFS_TYPE_DIRECTORY)
		return err_set(e, ERR_CORRUPT, "'%.*s' is no directory but has entries below it", (int)length, name);
	*ret_directory = entry->target;
	return 0;
}

static int bad_path(const char *path, const char *why, struct err *e)
{
	return err_set(e, ERR_CORRUPT, "name '%.200s' %s", path, why);
}

/* Walks all but the last component, making what is missing when `make` says so. The root has length 0. */
static int find_place(struct erofs_writer *w, const char *path, bool make, struct place *ret_place, struct err *e)
{
	struct place p = { .entry = TREE_NONE };
	unsigned depth = 0;

	if (strlen(path) > EROFS_PATH_MOST)
		return bad_path(path, "is longer than 4096 bytes", e);
	for (const char *at = path; *at;) {
		size_t length = strcspn(at, "/");
		const char *name = at;
		at += length + (at[length] == '/');
		if (length == 0 || (length == 1 && name[0] == '.'))
			continue;
		if (length == 2 && name[0] == '.' && name[1] == '.')
			return bad_path(path, "leads out of the tree by '..'", e);
		if (length > EROFS_NAME_MOST)
			return bad_path(path, "has a component of more than 255 bytes", e);
		if (++depth > w->depth_most)
			return err_set(e, ERR_CORRUPT, "name '%.200s' is nested more than %u deep", path, w->depth_most);
		if (p.length) {
			uint32_t found = make ? 0 : erofs_tree_find(&w->tree, p.directory, p.name, p.length);
			if (found == TREE_NONE)
				return bad_path(path, "is not there", e);
			int r = enter_directory(w, p.directory, p.name, p.length, &p.directory, e);
			if (r < 0)
				return r;
		}
		p.name = name;
		p.length = length;
	}
	if (p.length)
		p.entry = erofs_tree_find(&w->tree, p.directory, p.name, p.length);
	*ret_place = p;
	return 0;
}

/* Gives the place an inode, replacing what was there. */
static int set_place(struct erofs_writer *w, const struct place *p, uint8_t type, uint32_t target, bool whiteout, struct err *e)
{
	uint32_t number = p->entry;

	if (number == TREE_NONE) {
		int r = erofs_tree_add(&w->tree, p->directory, p->name, p->length, type, target, e);
		if (r < 0)
			return r;
		number = (uint32_t)w->tree.entry_count - 1;
	}
	struct tree_entry *entry = &w->tree.entries[number];
	w->replaced |= entry->type != type || entry->target != target;
	entry->type = type;
	entry->target = target;
	entry->whiteout = whiteout;
	return 0;
}

static int place_for_file(struct erofs_writer *w, const char *path, struct place *ret_place, struct err *e)
{
	int r = find_place(w, path, true, ret_place, e);
	return r == 0 && !ret_place->length ? bad_path(path, "is the root and must be a directory", e) : r;
}

/* --- inodes --- */

static struct erofs_inode_plan inode_of(const struct erofs_attributes *a, uint32_t ino)
{
	return (struct erofs_inode_plan){ .layout = EROFS_FLAT_PLAIN, .mode = a->mode, .ino = ino, .uid = a->uid, .gid = a->gid,
			       .mtime = a->mtime, .mtime_nsec = a->mtime_nsec, .links = 1 };
}

static int write_inode(struct erofs_writer *w, const struct erofs_inode_plan *i, uint32_t *ret_number, struct err *e)
{
	uint64_t at;
	int r = erofs_inode_room(&w->out, erofs_inode_size(i), &at, e);

	if (r == 0)
		r = erofs_inode_write_at(&w->out, at, i, e);
	if (r == 0)
		*ret_number = erofs_tree_new_inode(&w->tree, at / EROFS_SLOT);
	return r;
}

static uint8_t type_of(uint32_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFREG:
		return EROFS_TYPE_REGULAR;
	case S_IFDIR:
		return EROFS_TYPE_DIRECTORY;
	case S_IFLNK:
		return EROFS_TYPE_LINK;
	case S_IFCHR:
		return EROFS_TYPE_CHAR;
	case S_IFBLK:
		return EROFS_TYPE_BLOCK;
	case S_IFIFO:
		return EROFS_TYPE_FIFO;
	case S_IFSOCK:
		return EROFS_TYPE_SOCKET;
	default:
		return 0;
	}
}

/* --- entries --- */

int erofs_add_directory(struct erofs_writer *w, const char *path, const struct erofs_attributes *a, struct err *e)
{
	struct place p;
	uint32_t number = 0;
	uint8_t *xattrs = NULL;
	size_t length = 0;
	int r = find_place(w, path, true, &p, e);

	if (r == 0)
		r = erofs_encode_xattrs(a->xattrs, a->xattr_count, &xattrs, &length, e);
	if (r < 0)
		return r;
	if (p.length) {
		const struct tree_entry *entry = p.entry == TREE_NONE ? NULL : &w->tree.entries[p.entry];
		bool known = entry && entry->type == EROFS_TYPE_DIRECTORY, hidden = entry && entry->whiteout;
		number = known ? entry->target : erofs_tree_new_directory(&w->tree, p.directory, w->next_ino++);
		w->tree.directories[number].opaque |= hidden;
		r = set_place(w, &p, EROFS_TYPE_DIRECTORY, number, false, e);
	}
	struct tree_directory *d = &w->tree.directories[number];
	d->mode = S_IFDIR | (a->mode & 07777);
	d->uid = a->uid;
	d->gid = a->gid;
	d->mtime = a->mtime;
	d->mtime_nsec = a->mtime_nsec;
	free(d->xattrs);
	d->xattrs = xattrs;
	d->xattrs_length = length;
	return r;
}

/* Symbolic links and special files: an inode with at most a target behind it. */
static int add_small(struct erofs_writer *w, const char *path, const struct erofs_attributes *a, uint32_t u, const char *target,
		     bool whiteout, struct err *e)
{
	struct place p;
	own_str uint8_t *xattrs = NULL;
	struct erofs_inode_plan i = inode_of(a, w->next_ino);
	uint32_t number = 0;
	int r = place_for_file(w, path, &p, e);

	if (r == 0)
		r = erofs_encode_xattrs(a->xattrs, a->xattr_count, &xattrs, &i.xattrs_length, e);
	if (r < 0)
		return r;
	i.xattrs = xattrs;
	i.u = u;
	i.ino = w->next_ino++;
	if (target) {
		i.size_bytes = strlen(target);
		i.behind = target;
		i.behind_length = strlen(target);
		i.layout = EROFS_FLAT_INLINE;
	}
	if (target && erofs_inode_size(&i) > EROFS_BLOCK) { /* too long to stand behind the inode */
		uint64_t block;
		r = erofs_output_blocks(&w->out, 1, &block, e);
		if (r == 0)
			r = erofs_output_data(&w->out, block * EROFS_BLOCK, target, i.behind_length, e);
		i.behind_length = 0;
		i.layout = EROFS_FLAT_PLAIN;
		i.u = (uint32_t)block;
	}
	if (r == 0)
		r = write_inode(w, &i, &number, e);
	return r < 0 ? r : set_place(w, &p, type_of(a->mode), number, whiteout, e);
}

int erofs_add_symlink(struct erofs_writer *w, const char *path, const struct erofs_attributes *a, const char *target,
		      struct err *e)
{
	if (!*target || strlen(target) > EROFS_LINK_MOST)
		return bad_path(path, "is a symbolic link whose target is empty or longer than 4095 bytes", e);
	struct erofs_attributes link = *a;
	link.mode = S_IFLNK | 0777;
	return add_small(w, path, &link, 0, target, false, e);
}

/* As the kernel's new_encode_dev: minor's low byte, major's 12 bits, minor's rest. */
static uint32_t encode_device(uint32_t major, uint32_t minor) { return (minor & 0xff) | major << 8 | (minor & ~0xffU) << 12; }

int erofs_add_special(struct erofs_writer *w, const char *path, const struct erofs_attributes *a, struct err *e)
{
	uint8_t type = type_of(a->mode);
	bool device = type == EROFS_TYPE_CHAR || type == EROFS_TYPE_BLOCK;

	if (!device && type != EROFS_TYPE_FIFO && type != EROFS_TYPE_SOCKET)
		return bad_path(path, "has a type of file that is not known", e);
	if (type == EROFS_TYPE_CHAR && a->major == 0 && a->minor == 0)
		return erofs_add_whiteout(w, path, e); /* overlayfs sees one, so it has the form of one */
	if (device && (a->major > 0xfff || a->minor > 0xfffff))
		return bad_path(path, "is a device with an impossible number", e);
	return add_small(w, path, a, device ? encode_device(a->major, a->minor) : 0, NULL, false, e);
}

int erofs_add_hard_link(struct erofs_writer *w, const char *path, const char *target, struct err *e)
{
	struct place from, to;
	int r = find_place(w, target, false, &from, e);

	if (r == 0 && (from.entry == TREE_NONE || w->tree.entries[from.entry].whiteout))
		r = bad_path(target, "is not there", e);
	if (r == 0 && w->tree.entries[from.entry].type == EROFS_TYPE_DIRECTORY)
		r = bad_path(target, "is a directory", e);
	if (r < 0)
		return err_wrap(e, "hard link '%.200s'", path);
	struct tree_entry linked = w->tree.entries[from.entry];
	r = place_for_file(w, path, &to, e);
	return r < 0 ? r : set_place(w, &to, linked.type, linked.target, false, e);
}

int erofs_add_whiteout(struct erofs_writer *w, const char *path, struct err *e)
{
	const struct erofs_attributes a = { .mode = S_IFCHR };
	struct place p;
	int r = place_for_file(w, path, &p, e);

	if (r < 0)
		return r;
	if (p.entry == TREE_NONE)
		return add_small(w, path, &a, 0, NULL, true, e);
	/* The layer brings the name itself: only what is below is hidden. */
	const struct tree_entry *entry = &w->tree.entries[p.entry];
	if (entry->type == EROFS_TYPE_DIRECTORY)
		w->tree.directories[entry->target].opaque = true;
	return 0;
}

int erofs_set_opaque(struct erofs_writer *w, const char *path, struct err *e)
{
	struct place p;
	uint32_t number = 0;
	int r = find_place(w, path, true, &p, e);

	if (r == 0 && p.length)
		r = enter_directory(w, p.directory, p.name, p.length, &number, e);
	if (r == 0)
		w->tree.directories[number].opaque = true;
	return r;
}

/* --- files --- */

unsigned erofs_chunk_bits(uint64_t size_bytes)
{
	unsigned bits = EROFS_BLOCK_BITS;

	while ((size_bytes - 1) >> bits >= SPARSE_CHUNKS)
		bits++;
	return bits;
}

static void plan_chunks(struct file *f)
{
	f->chunk_bits = erofs_chunk_bits(f->size_bytes);
	f->chunk_count = (size_t)((f->size_bytes - 1) >> f->chunk_bits) + 1;
	f->chunks = mem_alloc_array(f->chunk_count, sizeof *f->chunks);
	for (size_t i = 0; i < f->chunk_count; i++)
		f->chunks[i] = EROFS_NULL_BLOCK;
}

static int plan_flat(struct erofs_writer *w, struct file *f, struct err *e)
{
	uint64_t tail = f->size_bytes % EROFS_BLOCK;

	f->whole_bytes = f->size_bytes - tail;
	if (INODE_BYTES + f->xattrs_length + tail > EROFS_BLOCK)
		f->whole_bytes += EROFS_BLOCK; /* the last block is a whole one too */
	return f->whole_bytes ? erofs_output_blocks(&w->out, f->whole_bytes / EROFS_BLOCK, &f->first_block, e) : 0;
}

int erofs_begin_file(struct erofs_writer *w, const char *path, const struct erofs_attributes *a, uint64_t size_bytes,
		     bool sparse, struct err *e)
{
	struct file *f = &w->file;

	drop_file(f);
	if (size_bytes > INT64_MAX)
		return bad_path(path, "has an impossible size", e);
	int r = erofs_encode_xattrs(a->xattrs, a->xattr_count, &f->xattrs, &f->xattrs_length, e);
	if (r < 0)
		return r;
	f->open = true;
	f->path = mem_strdup(path);
	f->attributes = *a;
	f->size_bytes = size_bytes;
	f->sparse = sparse && size_bytes > EROFS_BLOCK;
	if (!f->sparse)
		return plan_flat(w, f, e);
	plan_chunks(f);
	return 0;
}

static int add_flat(struct erofs_writer *w, uint64_t offset, const uint8_t *bytes, size_t length, struct err *e)
{
	struct file *f = &w->file;
	size_t whole = offset >= f->whole_bytes         ? 0 :
		       f->whole_bytes - offset < length ? (size_t)(f->whole_bytes - offset) :
							  length;
	int r = whole ? erofs_output_data(&w->out, f->first_block * EROFS_BLOCK + offset, bytes, whole, e) : 0;

	if (length > whole)
		memcpy(f->tail + (offset + whole - f->whole_bytes), bytes + whole, length - whole);
	return r;
}

static int add_sparse(struct erofs_writer *w, uint64_t offset, const uint8_t *bytes, size_t length, struct err *e)
{
	struct file *f = &w->file;

	while (length > 0) {
		size_t chunk = (size_t)(offset >> f->chunk_bits);
		uint64_t start = (uint64_t)chunk << f->chunk_bits, end = start + (UINT64_C(1) << f->chunk_bits),
			 block = f->chunks[chunk];
		size_t n = end - offset < length ? (size_t)(end - offset) : length;
		int r = 0;
		if (end > f->size_bytes)
			end = f->size_bytes;
		if (block == EROFS_NULL_BLOCK) {
			r = erofs_output_blocks(&w->out, (end - start + EROFS_BLOCK - 1) / EROFS_BLOCK, &block, e);
			f->chunks[chunk] = r == 0 ? (uint32_t)block : EROFS_NULL_BLOCK;
		}
		if (r == 0)
			r = erofs_output_data(&w->out, block * EROFS_BLOCK + (offset - start), bytes, n, e);
		if (r < 0)
			return r;
		offset += n;
		bytes += n;
		length -= n;
	}
	return 0;
}

int erofs_add_data(struct erofs_writer *w, uint64_t offset, const void *bytes, size_t length, struct err *e)
{
	struct file *f = &w->file;

	if (!f->open || offset < f->cursor || offset > f->size_bytes || length > f->size_bytes - offset)
		return bad_path(f->path ? f->path : "", "has data outside of its size", e);
	f->cursor = offset + length;
	return f->sparse ? add_sparse(w, offset, bytes, length, e) : add_flat(w, offset, bytes, length, e);
}

int erofs_end_file(struct erofs_writer *w, struct err *e)
{
	struct file *f = &w->file;
	own_str uint8_t *table = NULL;
	struct place p;
	uint32_t number;
	/* first: directories that it makes have smaller numbers than what they hold */
	int r = place_for_file(w, f->path, &p, e);

	if (r < 0) {
		drop_file(f);
		return r;
	}
	struct erofs_inode_plan i = inode_of(&f->attributes, w->next_ino++);
	i.size_bytes = f->size_bytes;
	i.xattrs = f->xattrs;
	i.xattrs_length = f->xattrs_length;
	if (f->sparse) {
		table = mem_alloc(f->chunk_count * 4);
		for (size_t c = 0; c < f->chunk_count; c++)
			put_le32(table + 4 * c, f->chunks[c]);
		i.layout = EROFS_CHUNK_BASED;
		i.u = f->chunk_bits - EROFS_BLOCK_BITS;
		i.behind = table;
		i.behind_length = f->chunk_count * 4;
		w->chunked = true;
	} else {
		i.u = (uint32_t)f->first_block;
		if (f->size_bytes > f->whole_bytes) {
			i.layout = EROFS_FLAT_INLINE;
			i.behind = f->tail;
			i.behind_length = (size_t)(f->size_bytes - f->whole_bytes);
		}
	}
	r = write_inode(w, &i, &number, e);
	if (r == 0)
		r = set_place(w, &p, EROFS_TYPE_REGULAR, number, false, e);
	drop_file(f);
	return r;
}

/* --- the end --- */

/* Inodes were written with one link. */
static int correct_links(struct erofs_writer *w, uint64_t *inodes, struct err *e)
{
	for (size_t i = 0; i < w->tree.inode_count; i++) {
		const struct tree_inode *inode = &w->tree.inodes[i];
		uint8_t links[4];
		*inodes += inode->links > 0;
		if (inode->links <= 1)
			continue;
		put_le32(links, inode->links);
		int r = erofs_output_patch(&w->out, inode->nid * EROFS_SLOT + INODE_NLINK, links, sizeof links, e);
		if (r < 0)
			return r;
	}
	return 0;
}

static void encode_superblock(const struct erofs_writer *w, uint64_t inodes, uint8_t *block_zero)
{
	uint8_t *sb = block_zero + EROFS_SB_AT;

	put_le32(sb + SB_MAGIC, EROFS_MAGIC);
	put_le32(sb + SB_FEATURE_COMPAT, EROFS_COMPAT_CHECKSUM | EROFS_COMPAT_MTIME);
	sb[SB_BLOCK_BITS] = EROFS_BLOCK_BITS;
	put_le16(sb + SB_ROOT_NID, EROFS_ROOT_AT / EROFS_SLOT);
	put_le64(sb + SB_INODES, inodes);
	put_le32(sb + SB_BLOCKS, (uint32_t)w->out.next_block);
	put_le32(sb + SB_FEATURE_INCOMPAT, w->chunked ? EROFS_INCOMPAT_CHUNKED_FILE : 0);
	put_le32(sb + SB_CHECKSUM, erofs_crc32c(~0U, sb, EROFS_BLOCK - EROFS_SB_AT));
}

int erofs_finish(struct erofs_writer *w, uint64_t *ret_size_bytes, uint64_t *ret_inodes, struct err *e)
{
	uint8_t block_zero[EROFS_BLOCK] = { 0 };
	uint64_t inodes = 0;

	if (w->finished || w->file.open)
		return err_set(e, ERR_INTERNAL, "the image is finished already, or a file of it is not");
	w->finished = true;
	int r = erofs_write_directories(&w->tree, &w->out, block_zero, &inodes, e);
	if (r == 0)
		r = correct_links(w, &inodes, e);
	if (r == 0)
		encode_superblock(w, inodes, block_zero);
	if (r == 0)
		r = erofs_output_flush(&w->out, e);
	if (r == 0)
		r = erofs_output_data(&w->out, 0, block_zero, sizeof block_zero, e);
	if (r == 0)
		r = erofs_output_flush(&w->out, e);
	if (r < 0)
		return r;
	*ret_size_bytes = w->out.next_block * EROFS_BLOCK;
	*ret_inodes = inodes;
	return 0;
}
