/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Entries, inodes, directories and names are growing arrays, and everything refers to everything by number, so an array may
 * move while it grows. The hash table holds numbers of entries, open addressing, never removed from. Before the image's
 * directories are written the entries are sorted once, by directory and name; from then on a directory is a range of them and
 * nothing may be added.
 */
#include "store/erofs_tree.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/mem.h"

#define FIRST_SLOTS 1024

void erofs_tree_init(struct erofs_tree *t, uint64_t most_entries)
{
	*t = (struct erofs_tree){ .most_entries = most_entries < TREE_NONE - 1 ? most_entries : TREE_NONE - 1,
				  .slot_count = FIRST_SLOTS };
	t->slots = mem_alloc_array(t->slot_count, sizeof *t->slots);
	if (getrandom(&t->seed, sizeof t->seed, 0) != sizeof t->seed)
		abort();
}

void erofs_tree_done(struct erofs_tree *t)
{
	for (size_t i = 0; i < t->directory_count; i++)
		free(t->directories[i].xattrs);
	free(t->entries);
	free(t->inodes);
	free(t->directories);
	free(t->names);
	free(t->slots);
	free(t->sorted);
	*t = (struct erofs_tree){ 0 };
}

const char *erofs_tree_name(const struct erofs_tree *t, const struct tree_entry *entry) { return t->names + entry->name_at; }

/* wyhash's mixing step (Wang Yi, public domain): 64x64 -> 128 bits, folded. */
static uint64_t mix(uint64_t a, uint64_t b)
{
	unsigned __int128 product = (unsigned __int128)a * b;
	return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static uint64_t hash_name(const struct erofs_tree *t, uint32_t directory, const char *name, size_t length)
{
	uint64_t h = mix(t->seed ^ 0xa0761d6478bd642f, directory ^ 0xe7037ed1a0b428db);

	for (; length > 0;) {
		uint64_t word = 0;
		size_t n = length < 8 ? length : 8;
		memcpy(&word, name, n);
		h = mix(h ^ word, 0x8ebc6af09c88c6e3 ^ n ^ t->seed);
		name += n;
		length -= n;
	}
	return mix(h, h ^ t->seed);
}

/* The slot that holds the entry, or the free one where it belongs. */
static size_t slot_for(const struct erofs_tree *t, uint32_t directory, const char *name, size_t length)
{
	size_t mask = t->slot_count - 1;

	for (size_t i = hash_name(t, directory, name, length) & mask;; i = (i + 1) & mask) {
		if (!t->slots[i])
			return i;
		const struct tree_entry *entry = &t->entries[t->slots[i] - 1];
		if (entry->directory == directory && entry->name_length == length &&
		    memcmp(erofs_tree_name(t, entry), name, length) == 0)
			return i;
	}
}

uint32_t erofs_tree_find(const struct erofs_tree *t, uint32_t directory, const char *name, size_t length)
{
	uint32_t slot = t->slots[slot_for(t, directory, name, length)];
	return slot ? slot - 1 : TREE_NONE;
}

static void grow_slots(struct erofs_tree *t)
{
	free(t->slots);
	t->slot_count *= 2;
	t->slots = mem_alloc_array(t->slot_count, sizeof *t->slots);
	for (size_t i = 0; i < t->entry_count; i++) {
		const struct tree_entry *entry = &t->entries[i];
		t->slots[slot_for(t, entry->directory, erofs_tree_name(t, entry), entry->name_length)] = (uint32_t)i + 1;
	}
}

int erofs_tree_add(struct erofs_tree *t, uint32_t directory, const char *name, size_t length, uint8_t type, uint32_t target,
		   struct err *e)
{
	if (t->entry_count >= t->most_entries)
		return err_set(e, ERR_TOO_LARGE, "the archive has more than %llu entries", (unsigned long long)t->most_entries);
	if (t->names_length + length > UINT32_MAX)
		return err_set(e, ERR_TOO_LARGE, "the names of the archive's entries are too long together");
	if ((t->entry_count + 1) * 10 > t->slot_count * 7)
		grow_slots(t);
	if (t->names_length + length > t->names_capacity) {
		t->names_capacity = t->names_capacity ? t->names_capacity * 2 : 4096;
		t->names = mem_grow_array(t->names, t->names_capacity, 1);
	}
	MEM_PUSH_ROOM(t->entries, t->entry_count, t->entry_capacity);
	memcpy(t->names + t->names_length, name, length);
	t->slots[slot_for(t, directory, name, length)] = (uint32_t)t->entry_count + 1;
	t->entries[t->entry_count++] = (struct tree_entry){ .directory = directory, .name_at = (uint32_t)t->names_length,
							    .target = target, .name_length = (uint8_t)length, .type = type };
	t->names_length += length;
	return 0;
}

uint32_t erofs_tree_new_directory(struct erofs_tree *t, uint32_t parent, uint32_t ino)
{
	MEM_PUSH_ROOM(t->directories, t->directory_count, t->directory_capacity);
	t->directories[t->directory_count] = (struct tree_directory){ .parent = parent, .mode = 040755, .ino = ino };
	return (uint32_t)t->directory_count++;
}

uint32_t erofs_tree_new_inode(struct erofs_tree *t, uint64_t nid)
{
	MEM_PUSH_ROOM(t->inodes, t->inode_count, t->inode_capacity);
	t->inodes[t->inode_count] = (struct tree_inode){ .nid = nid };
	return (uint32_t)t->inode_count++;
}

static int compare(const void *left, const void *right, void *tree)
{
	const struct erofs_tree *t = tree;
	const struct tree_entry *a = &t->entries[*(const uint32_t *)left], *b = &t->entries[*(const uint32_t *)right];

	if (a->directory != b->directory)
		return a->directory < b->directory ? -1 : 1;
	size_t shorter = a->name_length < b->name_length ? a->name_length : b->name_length;
	int order = memcmp(erofs_tree_name(t, a), erofs_tree_name(t, b), shorter);
	return order ? order : (int)a->name_length - (int)b->name_length;
}

void erofs_tree_sort(struct erofs_tree *t)
{
	t->sorted = mem_grow_array(t->sorted, t->entry_count, sizeof *t->sorted);
	for (size_t i = 0; i < t->entry_count; i++)
		t->sorted[i] = (uint32_t)i;
	if (t->entry_count)
		qsort_r(t->sorted, t->entry_count, sizeof *t->sorted, compare, t);
	for (size_t i = 0; i < t->entry_count; i++) {
		struct tree_directory *d = &t->directories[t->entries[t->sorted[i]].directory];
		if (d->count++ == 0)
			d->first = (uint32_t)i;
	}
}
