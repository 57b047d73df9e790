/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_MAP_H
#define BASE_MAP_H

/* A hash table from texts to pointers. Keys belong to the caller and must outlive their entry. Starts as `{0}`. */

#include <stddef.h>
#include <stdint.h>

struct map_entry {
	const char *key; /* NULL: free */
	uint64_t hash;
	void *value;
};

struct map {
	struct map_entry *entries;
	size_t count, capacity; /* capacity: a power of two, at most half used */
};

void map_done(struct map *m);
void *map_get(const struct map *m, const char *key);           /* NULL: not there */
void map_put(struct map *m, const char *key, void *value);     /* replaces key and value */
void *map_remove(struct map *m, const char *key);              /* what was there, or NULL */

#endif
