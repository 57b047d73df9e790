/* SPDX-License-Identifier: Apache-2.0 */
#include "node/ids.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/mem.h"

struct ids {
	uint64_t first_id, ranges, next, taken;
	bool *given;
	pthread_mutex_t lock;
};

struct ids *ids_new(uint64_t first_id, uint64_t ranges)
{
	struct ids *i = mem_alloc(sizeof *i);

	i->first_id = first_id;
	i->ranges = ranges;
	i->given = mem_alloc_array(ranges, sizeof *i->given);
	(void)pthread_mutex_init(&i->lock, NULL);
	return i;
}

void ids_free(struct ids *i)
{
	(void)pthread_mutex_destroy(&i->lock);
	free(i->given);
	free(i);
}

int ids_take(struct ids *i, uint64_t *ret_first_id, struct err *e)
{
	int r = -1;

	(void)pthread_mutex_lock(&i->lock);
	for (uint64_t tried = 0; tried < i->ranges && r < 0; tried++, i->next = (i->next + 1) % i->ranges) {
		if (i->given[i->next])
			continue;
		i->given[i->next] = true;
		i->taken++;
		*ret_first_id = i->first_id + i->next * IDS_PER_RANGE;
		r = 0;
	}
	(void)pthread_mutex_unlock(&i->lock);
	if (r == 0)
		return 0;
	(void)err_set(e, ERR_NO_CAPACITY, "all %" PRIu64 " ranges of user ids are in use", i->ranges);
	return err_hint(e, "remove workspaces, or raise id-ranges in the agent's configuration");
}

static bool find(const struct ids *i, uint64_t first_id, uint64_t *ret_at)
{
	if (first_id < i->first_id || (first_id - i->first_id) % IDS_PER_RANGE ||
	    (first_id - i->first_id) / IDS_PER_RANGE >= i->ranges)
		return false;
	*ret_at = (first_id - i->first_id) / IDS_PER_RANGE;
	return true;
}

bool ids_mark(struct ids *i, uint64_t first_id)
{
	uint64_t at;
	bool fresh = false;

	(void)pthread_mutex_lock(&i->lock);
	if (find(i, first_id, &at) && !i->given[at]) {
		fresh = i->given[at] = true;
		i->taken++;
		i->next = (at + 1) % i->ranges;
	}
	(void)pthread_mutex_unlock(&i->lock);
	return fresh;
}

void ids_give_back(struct ids *i, uint64_t first_id)
{
	uint64_t at;

	(void)pthread_mutex_lock(&i->lock);
	if (find(i, first_id, &at) && i->given[at]) {
		i->given[at] = false;
		i->taken--;
	}
	(void)pthread_mutex_unlock(&i->lock);
}

uint64_t ids_taken(struct ids *i)
{
	(void)pthread_mutex_lock(&i->lock);
	uint64_t taken = i->taken;
	(void)pthread_mutex_unlock(&i->lock);
	return taken;
}
