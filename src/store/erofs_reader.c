/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. Everything is read through get(), which knows the length of the file; small reads go through a few cached blocks,
 * because inodes, names and attributes lie close together. Sizes that an image claims are compared with the image's own length
 * before memory is taken, so a small image cannot ask for much of it. Only files with holes may be larger than their image.
 *
 * Source of the format: Linux, Documentation/filesystems/erofs.rst. Directory blocks: see docs/formats/partition.md.
 */
#include "store/erofs_reader.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/own.h"
#include "store/erofs_format.h"

#define CACHE_BLOCKS 64
#define LINK_BYTES_MOST 4095

struct cached {
	uint64_t block; /* number + 1; 0: none */
	size_t length;
	uint8_t bytes[EROFS_BLOCK];
};

struct erofs_reader {
	int fd;
	uint64_t bytes, root, meta_at, shared_at, build_time;
	uint32_t build_nsec;
	struct cached *cache;
};

static int corrupt(struct err *e, const char *what, uint64_t where)
{
	return err_set(e, ERR_CORRUPT, "the partition is damaged: %s at %llu", what, (unsigned long long)where);
}

static int read_at(struct erofs_reader *r, uint64_t at, uint8_t *bytes, size_t length, struct err *e)
{
	while (length > 0) {
		ssize_t n = pread(r->fd, bytes, length, (off_t)at);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_errno(e, errno, "read the partition");
		if (n == 0)
			return corrupt(e, "the file ends", at);
		bytes += n;
		at += (uint64_t)n;
		length -= (size_t)n;
	}
	return 0;
}

static int cache_block(struct erofs_reader *r, uint64_t block, struct cached **ret_cached, struct err *e)
{
	struct cached *c = &r->cache[block % CACHE_BLOCKS];

	if (c->block != block + 1) {
		uint64_t left = r->bytes - block * EROFS_BLOCK;
		c->block = 0;
		c->length = left < EROFS_BLOCK ? (size_t)left : EROFS_BLOCK;
		int result = read_at(r, block * EROFS_BLOCK, c->bytes, c->length, e);
		if (result < 0)
			return result;
		c->block = block + 1;
	}
	*ret_cached = c;
	return 0;
}

static int get(struct erofs_reader *r, uint64_t at, void *bytes, size_t length, struct err *e)
{
	uint8_t *out = bytes;

	if (at > r->bytes || length > r->bytes - at)
		return corrupt(e, "an offset behind its end", at);
	if (length >= EROFS_BLOCK)
		return read_at(r, at, out, length, e);
	while (length > 0) {
		struct cached *c;
		int result = cache_block(r, at / EROFS_BLOCK, &c, e);
		if (result < 0)
			return result;
		size_t skip = at % EROFS_BLOCK, n = c->length - skip < length ? c->length - skip : length;
		memcpy(out, c->bytes + skip, n);
		out += n;
		at += n;
		length -= n;
	}
	return 0;
}

/* --- superblock --- */

static int check_superblock(struct erofs_reader *r, uint8_t *block, struct err *e)
{
	uint8_t *sb = block + EROFS_SB_AT;

	if (get_le32(sb + SB_MAGIC) != EROFS_MAGIC)
		return err_set(e, ERR_CORRUPT, "the file is no EROFS image");
	if (sb[SB_BLOCK_BITS] != EROFS_BLOCK_BITS)
		return err_set(e, ERR_UNSUPPORTED, "the partition has blocks of another size than 4096");
	if (get_le32(sb + SB_FEATURE_INCOMPAT) & ~(uint32_t)EROFS_INCOMPAT_CHUNKED_FILE)
		return err_set(e, ERR_UNSUPPORTED, "the partition uses features of EROFS that are not known here (0x%x)",
			       get_le32(sb + SB_FEATURE_INCOMPAT));
	if (get_le32(sb + SB_FEATURE_COMPAT) & EROFS_COMPAT_CHECKSUM) {
		uint32_t stored = get_le32(sb + SB_CHECKSUM);
		put_le32(sb + SB_CHECKSUM, 0);
		if (erofs_crc32c(UINT32_MAX, sb, EROFS_BLOCK - EROFS_SB_AT) != stored)
			return corrupt(e, "a wrong checksum of the superblock", EROFS_SB_AT);
	}
	uint64_t length = (uint64_t)get_le32(sb + SB_BLOCKS) * EROFS_BLOCK;
	if (length > r->bytes || length < EROFS_BLOCK)
		return corrupt(e, "a length other than the file's", EROFS_SB_AT + SB_BLOCKS);
	r->bytes = length;
	r->root = get_le16(sb + SB_ROOT_NID);
	r->meta_at = (uint64_t)get_le32(sb + SB_META_BLOCK) * EROFS_BLOCK;
	r->shared_at = (uint64_t)get_le32(sb + SB_XATTR_BLOCK) * EROFS_BLOCK;
	r->build_time = get_le64(sb + SB_BUILD_TIME);
	r->build_nsec = get_le32(sb + SB_BUILD_NSEC);
	return 0;
}

int erofs_open(int fd, struct erofs_reader **ret_reader, struct err *e)
{
	uint8_t block[EROFS_BLOCK];
	struct stat st;

	if (fstat(fd, &st) < 0)
		return err_errno(e, errno, "look at the partition");
	if (st.st_size < (off_t)EROFS_BLOCK)
		return err_set(e, ERR_CORRUPT, "the file is no EROFS image: it is too short");
	own_erofs_reader struct erofs_reader *r = mem_alloc(sizeof *r);
	*r = (struct erofs_reader){ .fd = fd, .bytes = (uint64_t)st.st_size };
	r->cache = mem_alloc_array(CACHE_BLOCKS, sizeof *r->cache);
	int result = read_at(r, 0, block, sizeof block, e);
	if (result == 0)
		result = check_superblock(r, block, e);
	if (result < 0)
		return result;
	*ret_reader = TAKE(r);
	return 0;
}

void erofs_close(struct erofs_reader *r)
{
	free(r->cache);
	free(r);
}

uint64_t erofs_root(const struct erofs_reader *r) { return r->root; }

/* --- inodes --- */

enum { COMPACT_LINKS = 6, COMPACT_UID = 24, COMPACT_GID = 26, COMPACT_BYTES = 32 };

static void decode_extended(const uint8_t *in, struct erofs_inode *i)
{
	i->size_bytes = get_le64(in + INODE_FILE_SIZE);
	i->uid = get_le32(in + INODE_UID);
	i->gid = get_le32(in + INODE_GID);
	i->mtime = (int64_t)get_le64(in + INODE_MTIME);
	i->mtime_nsec = get_le32(in + INODE_MTIME_NSEC);
	i->links = get_le32(in + INODE_NLINK);
}

static void decode_compact(const struct erofs_reader *r, const uint8_t *in, struct erofs_inode *i)
{
	i->size_bytes = get_le32(in + INODE_FILE_SIZE);
	i->uid = get_le16(in + COMPACT_UID);
	i->gid = get_le16(in + COMPACT_GID);
	i->mtime = (int64_t)r->build_time;
	i->mtime_nsec = r->build_nsec;
	i->links = get_le16(in + COMPACT_LINKS);
}

static uint64_t blocks_of(uint64_t bytes) { return bytes / EROFS_BLOCK + (bytes % EROFS_BLOCK != 0); }

/* Of a file in one piece: its blocks and its last bytes are inside the image. */
static int check_flat(const struct erofs_reader *r, const struct erofs_inode *i, struct err *e)
{
	uint64_t blocks = blocks_of(i->size_bytes);

	if (i->layout == EROFS_FLAT_INLINE && blocks > 0) {
		uint64_t tail = i->size_bytes - --blocks * EROFS_BLOCK;
		if (i->body_at % EROFS_BLOCK + tail > EROFS_BLOCK || i->body_at + tail > r->bytes)
			return corrupt(e, "the last bytes of a file that cross a block", i->body_at);
	}
	uint64_t all = r->bytes / EROFS_BLOCK;
	if (blocks > 0 && (i->first_block >= all || blocks > all - i->first_block))
		return corrupt(e, "a file that ends behind the image", i->nid);
	return 0;
}

static int check_chunks(const struct erofs_reader *r, struct erofs_inode *i, struct err *e)
{
	enum { CHUNK_BITS = 31, CHUNK_INDEXES = 32 };

	if (i->first_block & ~(uint32_t)(CHUNK_BITS | CHUNK_INDEXES) || !S_ISREG(i->mode))
		return corrupt(e, "an inode with chunks of an unknown form", i->nid);
	i->chunk_bits = (uint8_t)(EROFS_BLOCK_BITS + (i->first_block & CHUNK_BITS));
	i->chunk_indexes = i->first_block & CHUNK_INDEXES;
	uint64_t unit = i->chunk_indexes ? 8 : 4;
	i->body_at = (i->body_at + unit - 1) / unit * unit;
	if (i->size_bytes > INT64_MAX)
		return corrupt(e, "a file of an impossible size", i->nid);
	uint64_t chunks = i->size_bytes ? ((i->size_bytes - 1) >> i->chunk_bits) + 1 : 0;
	if (i->body_at > r->bytes || chunks > (r->bytes - i->body_at) / unit)
		return corrupt(e, "a table of chunks behind the image", i->nid);
	return 0;
}

static void decode_device(struct erofs_inode *i)
{
	if (!S_ISCHR(i->mode) && !S_ISBLK(i->mode))
		return;
	i->major = (i->first_block >> 8) & 0xfff;
	i->minor = (i->first_block & 0xff) | ((i->first_block >> 12) & 0xfff00);
}

static int check_form(const struct erofs_reader *r, struct erofs_inode *i, struct err *e)
{
	bool has_bytes = S_ISREG(i->mode) || S_ISDIR(i->mode) || S_ISLNK(i->mode);

	if (!has_bytes && !S_ISCHR(i->mode) && !S_ISBLK(i->mode) && !S_ISFIFO(i->mode) && !S_ISSOCK(i->mode))
		return corrupt(e, "an inode of an unknown kind", i->nid);
	if (i->mtime_nsec >= 1000000000 || i->links == 0)
		return corrupt(e, "an inode with an impossible time or link count", i->nid);
	decode_device(i);
	if (!has_bytes)
		return i->size_bytes ? corrupt(e, "a device with content", i->nid) : 0;
	if (i->layout == EROFS_CHUNK_BASED)
		return check_chunks(r, i, e);
	if (i->layout != EROFS_FLAT_PLAIN && i->layout != EROFS_FLAT_INLINE)
		return corrupt(e, "a compressed or unknown file", i->nid);
	return check_flat(r, i, e);
}

int erofs_inode(struct erofs_reader *r, uint64_t nid, struct erofs_inode *ret_inode, struct err *e)
{
	uint8_t in[INODE_BYTES];

	if (r->meta_at >= r->bytes || nid >= (r->bytes - r->meta_at) / EROFS_SLOT)
		return corrupt(e, "the number of an inode behind the image", nid);
	uint64_t at = r->meta_at + nid * EROFS_SLOT;
	int result = get(r, at, in, COMPACT_BYTES, e);
	unsigned format = result == 0 ? get_le16(in + INODE_FORMAT) : 0, attributes = get_le16(in + INODE_XATTR_COUNT);
	size_t size = format & 1 ? INODE_BYTES : COMPACT_BYTES;
	if (result == 0 && size == INODE_BYTES)
		result = get(r, at + COMPACT_BYTES, in + COMPACT_BYTES, INODE_BYTES - COMPACT_BYTES, e);
	if (result < 0)
		return result;
	if (format & ~0xfU)
		return corrupt(e, "an inode of an unknown form", nid);
	struct erofs_inode i = { .nid = nid, .layout = (uint8_t)(format >> 1), .mode = get_le16(in + INODE_MODE),
				 .first_block = get_le32(in + INODE_U), .ino = get_le32(in + INODE_INO),
				 .xattrs_at = at + size };
	i.xattrs_length = attributes ? XATTR_HEADER_BYTES + (attributes - 1) * 4 : 0;
	i.body_at = i.xattrs_at + i.xattrs_length;
	if (size == INODE_BYTES)
		decode_extended(in, &i);
	else
		decode_compact(r, in, &i);
	result = check_form(r, &i, e);
	if (result == 0)
		*ret_inode = i;
	return result;
}

bool erofs_is_whiteout(const struct erofs_inode *inode)
{
	return S_ISCHR(inode->mode) && inode->major == 0 && inode->minor == 0;
}

/* --- content --- */

static int chunk_at(struct erofs_reader *r, const struct erofs_inode *i, uint64_t chunk, uint32_t *ret_block, struct err *e)
{
	uint8_t in[8];
	size_t unit = i->chunk_indexes ? 8 : 4;
	int result = get(r, i->body_at + chunk * unit, in, unit, e);

	if (result < 0)
		return result;
	if (i->chunk_indexes && get_le32(in) != 0)
		return corrupt(e, "a chunk on another device", i->nid);
	*ret_block = get_le32(in + unit - 4);
	return 0;
}

static int map_chunks(struct erofs_reader *r, const struct erofs_inode *i, uint64_t offset, struct erofs_extent *x,
		      struct err *e)
{
	uint64_t chunk = offset >> i->chunk_bits, size = UINT64_C(1) << i->chunk_bits, within = offset & (size - 1);
	uint64_t end = (chunk + 1) << i->chunk_bits;
	uint32_t first, next = 0;

	int result = chunk_at(r, i, chunk, &first, e);
	if (result < 0)
		return result;
	while (end < i->size_bytes) {
		result = chunk_at(r, i, ++chunk, &next, e);
		if (result < 0)
			return result;
		uint64_t expected = first == EROFS_NULL_BLOCK ? EROFS_NULL_BLOCK :
								first + (end - (offset - within)) / EROFS_BLOCK;
		if (next != expected)
			break;
		end += size;
	}
	if (end > i->size_bytes)
		end = i->size_bytes;
	*x = (struct erofs_extent){ .offset = offset, .length = end - offset, .hole = first == EROFS_NULL_BLOCK };
	if (x->hole)
		return 0;
	x->image_at = (uint64_t)first * EROFS_BLOCK + within;
	if (x->image_at > r->bytes || x->length > r->bytes - x->image_at)
		return corrupt(e, "a chunk behind the image", i->nid);
	return 0;
}

int erofs_map(struct erofs_reader *r, const struct erofs_inode *i, uint64_t offset, struct erofs_extent *ret_extent,
	      struct err *e)
{
	if (offset >= i->size_bytes)
		return err_set(e, ERR_INVALID, "offset %llu is behind the file", (unsigned long long)offset);
	if (i->layout == EROFS_CHUNK_BASED)
		return map_chunks(r, i, offset, ret_extent, e);
	uint64_t tail = i->layout == EROFS_FLAT_INLINE ? (blocks_of(i->size_bytes) - 1) * EROFS_BLOCK : i->size_bytes;
	if (offset >= tail)
		*ret_extent = (struct erofs_extent){ offset, i->size_bytes - offset, i->body_at + (offset - tail), false };
	else
		*ret_extent = (struct erofs_extent){ offset, tail - offset, (uint64_t)i->first_block * EROFS_BLOCK + offset,
						     false };
	return 0;
}

int erofs_read(struct erofs_reader *r, const struct erofs_inode *i, uint64_t offset, void *bytes, size_t length, struct err *e)
{
	struct erofs_extent x;
	uint8_t *out = bytes;

	while (length > 0) {
		int result = erofs_map(r, i, offset, &x, e);
		if (result < 0)
			return result;
		size_t n = x.length < length ? (size_t)x.length : length;
		if (x.hole)
			memset(out, 0, n);
		else if ((result = get(r, x.image_at, out, n, e)) < 0)
			return result;
		out += n;
		offset += n;
		length -= n;
	}
	return 0;
}

int erofs_read_link(struct erofs_reader *r, const struct erofs_inode *i, char **ret_target, struct err *e)
{
	if (!S_ISLNK(i->mode) || i->size_bytes == 0 || i->size_bytes > LINK_BYTES_MOST)
		return corrupt(e, "a symbolic link of an impossible length", i->nid);
	own_str char *target = mem_alloc(i->size_bytes + 1);
	int result = erofs_read(r, i, 0, target, i->size_bytes, e);
	if (result < 0)
		return result;
	if (strlen(target) != i->size_bytes)
		return corrupt(e, "a symbolic link with a NUL inside", i->nid);
	*ret_target = TAKE(target);
	return 0;
}

/* --- directories --- */

struct listing {
	struct erofs_reader *reader;
	const struct erofs_inode *directory;
	uint64_t parent;
	erofs_name_fn *fn;
	void *data;
	char last[256];
	size_t last_length;
	bool any, self, up;
};

/* One name after the last by bytes, not empty, without what no name may have. */
static int check_name(struct listing *l, const char *name, size_t length, struct err *e)
{
	if (length == 0 || length > 255 || memchr(name, '/', length) || memchr(name, '\0', length))
		return corrupt(e, "a name that no file may have", l->directory->nid);
	int order = memcmp(l->last, name, length < l->last_length ? length : l->last_length);
	if (l->any && (order > 0 || (order == 0 && length <= l->last_length)))
		return corrupt(e, "names out of order", l->directory->nid);
	memcpy(l->last, name, length);
	l->last[length] = '\0';
	l->last_length = length;
	l->any = true;
	return 0;
}

static int deliver(struct listing *l, uint64_t nid, uint8_t type, struct err *e)
{
	bool self = strcmp(l->last, ".") == 0, up = strcmp(l->last, "..") == 0;

	if (!self && !up) {
		const struct erofs_name entry = { l->last, l->last_length, nid, type };
		return l->fn(l->data, &entry, e);
	}
	if (type != EROFS_TYPE_DIRECTORY || nid != (self ? l->directory->nid : l->parent))
		return corrupt(e, "a directory that names another as itself or its parent", l->directory->nid);
	l->self = l->self || self;
	l->up = l->up || up;
	return 0;
}

/* The entries, 12 bytes each, then their names; the first name's place tells how many there are. The last one ends with the
 * block or a NUL. */
static int list_block(struct listing *l, const uint8_t *block, size_t length, struct err *e)
{
	size_t names = length >= DIRENT_BYTES ? get_le16(block + DIRENT_NAME_AT) : 0, count = names / DIRENT_BYTES;

	if (count == 0 || names % DIRENT_BYTES || names > length)
		return corrupt(e, "a directory block", l->directory->nid);
	for (size_t i = 0; i < count; i++) {
		const uint8_t *entry = block + i * DIRENT_BYTES;
		size_t from = get_le16(entry + DIRENT_NAME_AT);
		size_t to = i + 1 < count ? get_le16(entry + DIRENT_BYTES + DIRENT_NAME_AT) : length;
		if (from < names || from > to || to > length)
			return corrupt(e, "a name outside its directory block", l->directory->nid);
		size_t size = i + 1 < count ? to - from : strnlen((const char *)block + from, to - from);
		int result = check_name(l, (const char *)block + from, size, e);
		if (result == 0)
			result = deliver(l, get_le64(entry + DIRENT_NID), entry[DIRENT_TYPE], e);
		if (result != 0)
			return result;
	}
	return 0;
}

int erofs_list(struct erofs_reader *r, const struct erofs_inode *directory, uint64_t parent, erofs_name_fn *fn, void *data,
	       struct err *e)
{
	own_str struct listing *l = mem_alloc(sizeof *l);
	uint8_t block[EROFS_BLOCK];

	*l = (struct listing){ .reader = r, .directory = directory, .parent = parent, .fn = fn, .data = data };
	if (!S_ISDIR(directory->mode))
		return corrupt(e, "no directory where one is named", directory->nid);
	for (uint64_t at = 0; at < directory->size_bytes; at += EROFS_BLOCK) {
		uint64_t left = directory->size_bytes - at;
		size_t length = left < EROFS_BLOCK ? (size_t)left : EROFS_BLOCK;
		int result = erofs_read(r, directory, at, block, length, e);
		if (result == 0)
			result = list_block(l, block, length, e);
		if (result != 0)
			return result;
	}
	return l->self && l->up ? 0 : corrupt(e, "a directory without \".\" or \"..\"", directory->nid);
}

struct search {
	const char *name;
	size_t length;
	uint64_t nid;
};

static int match(void *data, const struct erofs_name *entry, struct err *e)
{
	struct search *s = data;

	(void)e;
	if (entry->length != s->length || memcmp(entry->name, s->name, s->length) != 0)
		return 0;
	s->nid = entry->nid;
	return 1;
}

int erofs_find(struct erofs_reader *r, const char *path, struct erofs_inode *ret_inode, struct err *e)
{
	struct erofs_inode inode;
	uint64_t parent = r->root;
	int result = erofs_inode(r, r->root, &inode, e);

	for (const char *p = path + strspn(path, "/"); result == 0 && *p; p += strspn(p, "/")) {
		struct search s = { .name = p, .length = strcspn(p, "/") };
		if (!S_ISDIR(inode.mode))
			return err_set(e, ERR_NOT_FOUND, "%s is not in the partition", path);
		uint64_t self = inode.nid;
		result = erofs_list(r, &inode, parent, match, &s, e);
		if (result == 0)
			return err_set(e, ERR_NOT_FOUND, "%s is not in the partition", path);
		if (result > 0)
			result = erofs_inode(r, s.nid, &inode, e);
		parent = self;
		p += s.length;
	}
	if (result == 0)
		*ret_inode = inode;
	return result;
}

/* --- extended attributes: a header, the places of shared ones, then those of the inode, each padded to 4 --- */

enum { SHARED_COUNT = 4, PREFIX_COUNT = 7 };

static const char *const prefixes[PREFIX_COUNT] = {
	[EROFS_XATTR_USER] = "user.",
	[EROFS_XATTR_ACL_ACCESS] = "system.posix_acl_access",
	[EROFS_XATTR_ACL_DEFAULT] = "system.posix_acl_default",
	[EROFS_XATTR_TRUSTED] = "trusted.",
	[EROFS_XATTR_SECURITY] = "security.",
};

void erofs_attributes_done(struct erofs_attribute_list *list)
{
	for (size_t i = 0; i < list->count; i++) {
		free(list->items[i].name);
		free(list->items[i].value);
	}
	free(list->items);
	*list = (struct erofs_attribute_list){ 0 };
}

/* The entry at `at`, which has to end before `end`; *ret_next is where the next one may begin. */
static int read_attribute(struct erofs_reader *r, uint64_t at, uint64_t end, struct erofs_attribute_list *list,
			  uint64_t *ret_next, struct err *e)
{
	uint8_t head[XATTR_ENTRY_BYTES] = { 0 };
	char name[256];

	if (end > r->bytes || end < at || end - at < sizeof head)
		return corrupt(e, "an attribute that is cut off", at);
	int result = get(r, at, head, sizeof head, e);
	if (result < 0)
		return result;
	size_t name_length = head[XATTR_NAME_LENGTH], value_length = get_le16(head + XATTR_VALUE_LENGTH);
	uint64_t next = at + sizeof head + name_length + value_length;
	if (next > end || head[XATTR_PREFIX] >= PREFIX_COUNT || !prefixes[head[XATTR_PREFIX]])
		return corrupt(e, "an attribute that is cut off or of an unknown kind", at);
	result = get(r, at + sizeof head, name, name_length, e);
	if (result < 0)
		return result;
	const char *prefix = prefixes[head[XATTR_PREFIX]];
	if (memchr(name, '\0', name_length) || (name_length == 0) != (prefix[strlen(prefix) - 1] != '.'))
		return corrupt(e, "an attribute of an impossible name", at);
	MEM_PUSH_ROOM(list->items, list->count, list->capacity);
	struct erofs_attribute *a = &list->items[list->count++];
	*a = (struct erofs_attribute){ mem_printf("%s%.*s", prefix, (int)name_length, name), mem_alloc(value_length + 1),
				       value_length };
	*ret_next = (next + 3) & ~UINT64_C(3);
	return get(r, at + sizeof head + name_length, a->value, value_length, e);
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct erofs_attribute *)a)->name, ((const struct erofs_attribute *)b)->name);
}

static int read_shared(struct erofs_reader *r, uint64_t at, size_t count, struct erofs_attribute_list *list, struct err *e)
{
	uint8_t place[4];
	uint64_t next;
	int result = 0;

	for (size_t i = 0; result == 0 && i < count; i++) {
		result = get(r, at + i * 4, place, sizeof place, e);
		if (result == 0)
			result = read_attribute(r, r->shared_at + (uint64_t)get_le32(place) * 4, r->bytes, list, &next, e);
	}
	return result;
}

int erofs_read_attributes(struct erofs_reader *r, const struct erofs_inode *inode, struct erofs_attribute_list *ret_list,
			  struct err *e)
{
	own_erofs_attributes struct erofs_attribute_list list = { 0 };
	uint8_t head[XATTR_HEADER_BYTES] = { 0 };
	uint64_t at = inode->xattrs_at, end = at + inode->xattrs_length;

	if (inode->xattrs_length) {
		int result = get(r, at, head, sizeof head, e);
		at += sizeof head;
		if (result == 0 && head[SHARED_COUNT] > (end - at) / 4)
			result = corrupt(e, "more shared attributes than there is room for", inode->nid);
		if (result == 0)
			result = read_shared(r, at, head[SHARED_COUNT], &list, e);
		at += (uint64_t)head[SHARED_COUNT] * 4;
		while (result == 0 && at < end)
			result = read_attribute(r, at, end, &list, &at, e);
		if (result < 0)
			return result;
	}
	if (list.count)
		qsort(list.items, list.count, sizeof *list.items, by_name);
	for (size_t i = 1; i < list.count; i++)
		if (by_name(&list.items[i - 1], &list.items[i]) == 0)
			return corrupt(e, "an attribute named twice", inode->nid);
	*ret_list = list;
	list = (struct erofs_attribute_list){ 0 };
	return 0;
}

bool erofs_is_opaque(const struct erofs_attribute_list *list)
{
	for (size_t i = 0; i < list->count; i++)
		if (strcmp(list->items[i].name, "user.overlay.opaque") == 0)
			return list->items[i].length == 1 && list->items[i].value[0] == 'y';
	return false;
}
