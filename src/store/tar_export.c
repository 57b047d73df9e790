/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. First the names of all directories are collected, breadth first: a merged directory is the directories of that path
 * in each layer, from the top down to the first opaque one, and of each name the topmost entry counts. Then the entries are
 * sorted by when they were made - layer, number of the inode, but never before their directory - and written. The first name of
 * an inode holds the content, the others are hard links.
 */
#include "store/tar_export.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"
#include "store/erofs_format.h"

#define NO_NODE UINT32_MAX
#define DATA_BYTES (1U << 20)
#define LAYERS_MOST 512
#define PATH_BYTES_MOST 65536

struct node {
	uint64_t nid, made; /* sort key: layer and number of the inode */
	size_t name_at;
	uint32_t parent, depth;
	uint32_t sources_at, sources; /* of a directory: its forms in the layers */
	uint16_t layer;
	bool opaque;
};

struct source { /* a directory in one layer */
	uint64_t nid, parent;
	uint16_t layer;
};

struct found { /* a name in one of the directories that are merged */
	size_t name_at;
	uint64_t nid, parent;
	uint16_t layer;
	uint8_t type;
};

struct exporter {
	struct erofs_reader *const *readers;
	bool merge;
	struct tar_writer *out;
	struct node *nodes;
	size_t node_count, node_capacity;
	struct source *sources;
	size_t source_count, source_capacity;
	struct found *found; /* of the directory at hand */
	size_t found_count, found_capacity;
	struct str names;
	struct source listing;
	uint32_t *order; /* nodes as they are written */
	char *data;
};

/* --- collecting --- */

static int note(void *data, const struct erofs_name *entry, struct err *e)
{
	struct exporter *x = data;

	if (x->found_count + x->node_count >= TAR_EXPORT_ENTRIES_MOST)
		return err_set(e, ERR_TOO_LARGE, "the image has more than %d files", TAR_EXPORT_ENTRIES_MOST);
	MEM_PUSH_ROOM(x->found, x->found_count, x->found_capacity);
	x->found[x->found_count++] = (struct found){ x->names.length, entry->nid, x->listing.nid, x->listing.layer,
						     entry->type };
	str_add(&x->names, entry->name, entry->length + 1);
	return 0;
}

/* By name, the upper layer first. */
static int compare_found(const void *left, const void *right, void *names)
{
	const struct found *a = left, *b = right;
	int order = strcmp((const char *)names + a->name_at, (const char *)names + b->name_at);

	return order ? order : (int)b->layer - (int)a->layer;
}

static int is_opaque(struct exporter *x, const struct found *f, bool *ret_opaque, struct err *e)
{
	own_erofs_attributes struct erofs_attribute_list attributes = { 0 };
	struct erofs_inode inode;
	int r = erofs_inode(x->readers[f->layer], f->nid, &inode, e);

	if (r == 0)
		r = erofs_read_attributes(x->readers[f->layer], &inode, &attributes, e);
	if (r == 0)
		*ret_opaque = erofs_is_opaque(&attributes);
	return r;
}

/* The forms of one directory, from the top: up to one that hides what is below. `same` entries have one name. */
static int add_sources(struct exporter *x, struct node *n, const struct found *same, size_t count, struct err *e)
{
	n->sources_at = (uint32_t)x->source_count;
	for (size_t i = 0; i < count && same[i].type == EROFS_TYPE_DIRECTORY; i++) {
		bool opaque = false;
		int r = is_opaque(x, &same[i], &opaque, e);
		if (r < 0)
			return r;
		MEM_PUSH_ROOM(x->sources, x->source_count, x->source_capacity);
		x->sources[x->source_count++] = (struct source){ same[i].nid, same[i].parent, same[i].layer };
		n->sources++;
		if (i == 0)
			n->opaque = opaque;
		if (opaque)
			break;
	}
	return 0;
}

static int add_node(struct exporter *x, uint32_t parent, const struct found *same, size_t count, struct err *e)
{
	struct node n = { .nid = same->nid, .name_at = same->name_at, .parent = parent, .layer = same->layer };
	struct erofs_inode inode;
	int r = erofs_inode(x->readers[same->layer], same->nid, &inode, e);

	if (r < 0 || (x->merge && erofs_is_whiteout(&inode)))
		return r;
	if (S_ISSOCK(inode.mode)) {
		x->out->sockets++;
		return 0;
	}
	if (S_ISDIR(inode.mode) != (same->type == EROFS_TYPE_DIRECTORY))
		return err_set(e, ERR_CORRUPT,
			       "the partition is damaged: inode %llu is of another kind than its directory says",
			       (unsigned long long)same->nid);
	n.made = (uint64_t)same->layer << 32 | inode.ino;
	if (parent != NO_NODE) {
		const struct node *p = &x->nodes[parent];
		n.depth = p->depth + 1;
		n.made = n.made < p->made ? p->made : n.made;
	}
	if (n.depth > EROFS_READ_DEPTH_MOST)
		return err_set(e, ERR_TOO_LARGE, "the image has more than %d directories inside each other",
			       EROFS_READ_DEPTH_MOST);
	if (S_ISDIR(inode.mode))
		r = add_sources(x, &n, same, count, e);
	if (r < 0)
		return r;
	MEM_PUSH_ROOM(x->nodes, x->node_count, x->node_capacity);
	x->nodes[x->node_count++] = n;
	return 0;
}

static int collect_directory(struct exporter *x, uint32_t number, struct err *e)
{
	uint32_t first = x->nodes[number].sources_at, last = first + x->nodes[number].sources;

	x->found_count = 0;
	for (uint32_t i = first; i < last; i++) {
		struct erofs_inode inode;
		x->listing = x->sources[i];
		int r = erofs_inode(x->readers[x->listing.layer], x->listing.nid, &inode, e);
		if (r == 0)
			r = erofs_list(x->readers[x->listing.layer], &inode, x->listing.parent, note, x, e);
		if (r < 0)
			return r;
	}
	if (last - first > 1)
		qsort_r(x->found, x->found_count, sizeof *x->found, compare_found, x->names.bytes);
	for (size_t i = 0, same; i < x->found_count; i += same) {
		for (same = 1; i + same < x->found_count; same++)
			if (strcmp(x->names.bytes + x->found[i].name_at, x->names.bytes + x->found[i + same].name_at) != 0)
				break;
		int r = add_node(x, number, &x->found[i], same, e);
		if (r < 0)
			return r;
	}
	return 0;
}

static int collect(struct exporter *x, size_t layers, struct err *e)
{
	own_str struct found *roots = mem_alloc_array(layers, sizeof *roots);

	str_add(&x->names, "", 1);
	for (size_t i = 0; i < layers; i++) {
		uint64_t root = erofs_root(x->readers[layers - 1 - i]);
		roots[i] = (struct found){ 0, root, root, (uint16_t)(layers - 1 - i), EROFS_TYPE_DIRECTORY };
	}
	int r = add_node(x, NO_NODE, roots, layers, e);
	for (uint32_t i = 0; r == 0 && i < x->node_count; i++)
		if (x->nodes[i].sources)
			r = collect_directory(x, i, e);
	return r;
}

/* --- order --- */

static int compare_made(const void *left, const void *right, void *data)
{
	const struct exporter *x = data;
	uint32_t a = *(const uint32_t *)left, b = *(const uint32_t *)right;
	uint64_t made_a = x->nodes[a].made, made_b = x->nodes[b].made;

	if (made_a != made_b)
		return made_a < made_b ? -1 : 1;
	return a < b ? -1 : a > b; /* breadth first: a directory before what it holds */
}

static void sort(struct exporter *x)
{
	x->order = mem_alloc_array(x->node_count, sizeof *x->order);
	for (size_t i = 0; i < x->node_count; i++)
		x->order[i] = (uint32_t)i;
	qsort_r(x->order, x->node_count, sizeof *x->order, compare_made, x);
}

/* --- writing --- */

static int make_path(const struct exporter *x, uint32_t number, const char *mark, char **ret_path, struct err *e)
{
	size_t length = strlen(mark) + 2;

	for (uint32_t i = number; x->nodes[i].parent != NO_NODE; i = x->nodes[i].parent)
		length += strlen(x->names.bytes + x->nodes[i].name_at) + 1;
	if (length > PATH_BYTES_MOST)
		return err_set(e, ERR_TOO_LARGE, "the image has a path of more than %d bytes", PATH_BYTES_MOST);
	char *path = mem_alloc(length), *at = path + length;
	*--at = '\0';
	for (uint32_t i = number; x->nodes[i].parent != NO_NODE; i = x->nodes[i].parent) {
		const char *name = x->names.bytes + x->nodes[i].name_at;
		size_t size = strlen(name);
		at -= size;
		memcpy(at, name, size);
		if (i == number && mark[0]) {
			at -= strlen(mark);
			memcpy(at, mark, strlen(mark));
		}
		*--at = '/';
	}
	if (number == 0) /* the root */
		*--at = '.';
	else
		at++;
	memmove(path, at, strlen(at) + 1);
	*ret_path = path;
	return 0;
}

static int put_marker(struct exporter *x, const char *path, struct err *e)
{
	const struct erofs_inode empty = { .mode = S_IFREG | 0644, .links = 1 };
	const struct tar_entry entry = { .path = path, .inode = &empty };

	return tar_header(x->out, &entry, e);
}

static int put_range(struct exporter *x, struct erofs_reader *r, const struct erofs_inode *inode, uint64_t at, uint64_t length,
		     struct err *e)
{
	while (length > 0) {
		size_t n = length < DATA_BYTES ? (size_t)length : DATA_BYTES;
		int result = erofs_read(r, inode, at, x->data, n, e);
		if (result == 0)
			result = tar_data(x->out, x->data, n, e);
		if (result < 0)
			return result;
		at += n;
		length -= n;
	}
	return 0;
}

static int find_ranges(struct erofs_reader *r, const struct erofs_inode *inode, struct tar_range **ranges, size_t *count,
		       bool *ret_hole, struct err *e)
{
	size_t capacity = 0;
	struct erofs_extent extent;

	for (uint64_t at = 0; at < inode->size_bytes; at += extent.length) {
		int result = erofs_map(r, inode, at, &extent, e);
		if (result < 0)
			return result;
		*ret_hole = *ret_hole || extent.hole;
		if (extent.hole)
			continue;
		struct tar_range *last = *count ? &(*ranges)[*count - 1] : NULL;
		if (last && last->offset + last->length == at) {
			last->length += extent.length;
			continue;
		}
		MEM_PUSH_ROOM(*ranges, *count, capacity);
		(*ranges)[(*count)++] = (struct tar_range){ at, extent.length };
	}
	return 0;
}

static int put_file(struct exporter *x, struct erofs_reader *r, struct tar_entry *entry, struct err *e)
{
	own_str struct tar_range *ranges = NULL;
	size_t count = 0;
	bool hole = false;
	int result = find_ranges(r, entry->inode, &ranges, &count, &hole, e);

	entry->sparse = hole;
	entry->ranges = ranges;
	entry->range_count = count;
	if (result == 0)
		result = tar_header(x->out, entry, e);
	uint64_t bytes = 0;
	for (size_t i = 0; result == 0 && i < count; i++) {
		result = put_range(x, r, entry->inode, ranges[i].offset, ranges[i].length, e);
		bytes += ranges[i].length;
	}
	return result == 0 ? tar_pad(x->out, bytes, e) : result;
}

/* overlayfs's own note of an opaque directory is said by a file in an OCI layer, and by nothing in a merged tree. */
static void drop_opaque(struct erofs_attribute_list *list)
{
	for (size_t i = 0; i < list->count; i++) {
		if (strcmp(list->items[i].name, "user.overlay.opaque") != 0)
			continue;
		free(list->items[i].name);
		free(list->items[i].value);
		memmove(&list->items[i], &list->items[i + 1], (--list->count - i) * sizeof *list->items);
		return;
	}
}

static int put_inode(struct exporter *x, const struct node *n, const char *path, const struct erofs_inode *inode, struct err *e)
{
	own_erofs_attributes struct erofs_attribute_list attributes = { 0 };
	own_str char *target = NULL;
	struct erofs_reader *r = x->readers[n->layer];
	int result = erofs_read_attributes(r, inode, &attributes, e);

	if (result == 0 && S_ISLNK(inode->mode))
		result = erofs_read_link(r, inode, &target, e);
	if (result < 0)
		return result;
	drop_opaque(&attributes);
	struct tar_entry entry = { .path = path, .link = target, .inode = inode, .attributes = &attributes };
	if (S_ISREG(inode->mode))
		return put_file(x, r, &entry, e);
	result = tar_header(x->out, &entry, e);
	if (result < 0 || !n->opaque || x->merge)
		return result;
	own_str char *marker = mem_printf("%s/.wh..wh..opq", path);
	return put_marker(x, marker, e);
}

/* --- hard links: of each inode with several names the node that was written first --- */

struct first_name {
	uint64_t nid; /* + 1; 0: free */
	uint32_t node;
	uint16_t layer;
};

struct first_names {
	struct first_name *slots;
	size_t count, capacity;
};

static struct first_name *first_slot(const struct first_names *f, uint64_t nid, uint16_t layer)
{
	for (size_t i = ((nid ^ (uint64_t)layer << 40) * UINT64_C(0x9E3779B97F4A7C15)) >> 20;; i++) {
		struct first_name *s = &f->slots[i & (f->capacity - 1)];
		if (s->nid == 0 || (s->nid == nid + 1 && s->layer == layer))
			return s;
	}
}

static struct first_name *first_name(struct first_names *f, uint64_t nid, uint16_t layer)
{
	if (f->count * 10 >= f->capacity * 7) {
		struct first_names old = *f;
		f->capacity = old.capacity ? old.capacity * 2 : 256;
		f->slots = mem_alloc_array(f->capacity, sizeof *f->slots);
		for (size_t i = 0; i < old.capacity; i++)
			if (old.slots[i].nid)
				*first_slot(f, old.slots[i].nid - 1, old.slots[i].layer) = old.slots[i];
		free(old.slots);
	}
	return first_slot(f, nid, layer);
}

static int put_node(struct exporter *x, struct first_names *firsts, uint32_t number, struct err *e)
{
	const struct node *n = &x->nodes[number];
	own_str char *path = NULL;
	struct erofs_inode inode;

	int r = erofs_inode(x->readers[n->layer], n->nid, &inode, e);
	bool whiteout = r == 0 && erofs_is_whiteout(&inode);
	if (r == 0)
		r = make_path(x, number, whiteout ? ".wh." : "", &path, e);
	if (r < 0 || whiteout)
		return r < 0 ? r : put_marker(x, path, e);
	if (S_ISDIR(inode.mode) || inode.links < 2)
		return put_inode(x, n, path, &inode, e);
	struct first_name *first = first_name(firsts, n->nid, n->layer);
	if (first->nid) {
		own_str char *target = NULL;
		r = make_path(x, first->node, "", &target, e);
		const struct tar_entry entry = { .path = path, .hard_link = target, .inode = &inode };
		return r == 0 ? tar_header(x->out, &entry, e) : r;
	}
	*first = (struct first_name){ n->nid + 1, number, n->layer };
	firsts->count++;
	return put_inode(x, n, path, &inode, e);
}

int tar_export(struct erofs_reader *const *readers, size_t count, bool merge, struct tar_writer *out, struct err *e)
{
	struct exporter x = { .readers = readers, .merge = merge, .out = out };
	struct first_names firsts = { 0 };

	if (count == 0 || count > LAYERS_MOST || (!merge && count != 1))
		return err_set(e, ERR_INVALID, "a stack of %zu partitions cannot be exported", count);
	int r = collect(&x, count, e);
	if (r == 0) {
		sort(&x);
		x.data = mem_alloc(DATA_BYTES);
	}
	for (size_t i = 0; r == 0 && i < x.node_count; i++)
		r = put_node(&x, &firsts, x.order[i], e);
	if (r == 0)
		r = tar_end(out, e);
	free(firsts.slots);
	free(x.nodes);
	free(x.sources);
	free(x.found);
	free(x.order);
	free(x.data);
	str_done(&x.names);
	return r;
}
