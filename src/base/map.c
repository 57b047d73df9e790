/* SPDX-License-Identifier: Apache-2.0 */
#include "base/map.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/mem.h"

/* FNV-1a from a start that an outsider does not know, so that nobody chooses names that collide. */
static uint64_t hash_of(const char *key)
{
	static uint64_t start;
	if (!start && getrandom(&start, sizeof start, GRND_NONBLOCK) < 0)
		start = UINT64_C(0xcbf29ce484222325);
	uint64_t hash = start;
	for (; *key; key++)
		hash = (hash ^ (unsigned char)*key) * UINT64_C(0x100000001b3);
	return hash ^ (hash >> 29);
}

void map_done(struct map *m)
{
	free(m->entries);
	*m = (struct map){ 0 };
}

/* The entry of `key`, or the free one where it belongs. */
static struct map_entry *find(const struct map *m, const char *key, uint64_t hash)
{
	size_t at = hash & (m->capacity - 1);

	while (m->entries[at].key && (m->entries[at].hash != hash || strcmp(m->entries[at].key, key) != 0))
		at = (at + 1) & (m->capacity - 1);
	return &m->entries[at];
}

void *map_get(const struct map *m, const char *key) { return m->count ? find(m, key, hash_of(key))->value : NULL; }

static void grow(struct map *m)
{
	struct map bigger = { .capacity = m->capacity ? m->capacity * 2 : 16, .count = m->count };

	bigger.entries = mem_alloc_array(bigger.capacity, sizeof *bigger.entries);
	for (size_t i = 0; i < m->capacity; i++)
		if (m->entries[i].key)
			*find(&bigger, m->entries[i].key, m->entries[i].hash) = m->entries[i];
	free(m->entries);
	*m = bigger;
}

void map_put(struct map *m, const char *key, void *value)
{
	uint64_t hash = hash_of(key);

	if (m->count * 2 >= m->capacity)
		grow(m);
	struct map_entry *entry = find(m, key, hash);
	if (!entry->key)
		m->count++;
	*entry = (struct map_entry){ key, hash, value };
}

/* Entries behind the gap that are not at home move into it (Knuth, vol. 3, 6.4, algorithm R). */
static void close_gap(struct map *m, size_t gap)
{
	size_t mask = m->capacity - 1;

	for (size_t at = (gap + 1) & mask; m->entries[at].key; at = (at + 1) & mask) {
		size_t home = m->entries[at].hash & mask;
		if (((at - home) & mask) < ((at - gap) & mask))
			continue;
		m->entries[gap] = m->entries[at];
		gap = at;
	}
	m->entries[gap] = (struct map_entry){ 0 };
}

void *map_remove(struct map *m, const char *key)
{
	if (m->count == 0)
		return NULL;
	struct map_entry *entry = find(m, key, hash_of(key));
	void *value = entry->value;
	if (!entry->key)
		return NULL;
	m->count--;
	close_gap(m, (size_t)(entry - m->entries));
	return value;
}
