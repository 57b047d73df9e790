/* SPDX-License-Identifier: Apache-2.0 */
#include "network/names_memory.h"

#include <string.h>

#include "base/hash.h"

/* `any`: of any name outside. */
static uint64_t key_of(const struct names_question *q, bool any)
{
	struct names_question k = { .kind = q->kind, .asker = q->asker, .about = q->about };
	uint64_t key;

	if (!any)
		memcpy(k.name, q->name, strlen(q->name));
	struct digest d = hash_bytes(&k, sizeof k);
	memcpy(&key, &d, sizeof key);
	return key | 1;
}

static void put(struct names_memory *m, uint64_t key, const struct names_decision *d)
{
	size_t at = (key >> 8) % (sizeof m->entries / sizeof *m->entries);

	m->entries[at].key = key;
	m->entries[at].decision = *d;
}

void names_memory_note(struct names_memory *m, const struct names_question *q, const struct names_decision *d)
{
	if (d->verdict != NAMES_ANSWER && d->verdict != NAMES_HIDDEN && d->verdict != NAMES_REFUSED)
		return;
	put(m, key_of(q, false), d);
	/* a name of another network of ours is answered elsewhere, or hidden */
	if (q->kind == NAMES_OUTSIDE && !d->elsewhere && d->verdict != NAMES_HIDDEN)
		put(m, key_of(q, true), d);
}

static bool get(const struct names_memory *m, uint64_t key, struct names_decision *ret_decision)
{
	size_t at = (key >> 8) % (sizeof m->entries / sizeof *m->entries);

	if (m->entries[at].key != key)
		return false;
	*ret_decision = m->entries[at].decision;
	return true;
}

bool names_memory_find(const struct names_memory *m, const struct names_question *q, struct names_decision *ret_decision)
{
	if (!get(m, key_of(q, false), ret_decision) && (q->kind != NAMES_OUTSIDE || !get(m, key_of(q, true), ret_decision)))
		return false;
	ret_decision->id = q->id;
	return true;
}

void names_memory_clear(struct names_memory *m) { memset(m, 0, sizeof *m); }
