/* SPDX-License-Identifier: Apache-2.0 */
#include "service/family.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/mem.h"
#include "service/workspace.h"

struct family {
	char original[ID_SIZE];
	struct workspace *first;
};

struct workspace *family_first(const struct families *all, const char *original)
{
	const struct family *f = map_get(&all->by_original, original);

	return f ? f->first : NULL;
}

void family_join(struct families *all, struct workspace *w)
{
	if (!w->wish.origin)
		return;
	struct family *f = map_get(&all->by_original, w->wish.origin->workspace);
	if (!f) {
		f = mem_alloc(sizeof *f);
		*f = (struct family){ 0 };
		(void)snprintf(f->original, sizeof f->original, "%s", w->wish.origin->workspace);
		map_put(&all->by_original, f->original, f);
	}
	w->next_clone = f->first;
	w->previous_clone = NULL;
	if (f->first)
		f->first->previous_clone = w;
	f->first = w;
}

void family_leave(struct families *all, struct workspace *w)
{
	struct family *f = w->wish.origin ? map_get(&all->by_original, w->wish.origin->workspace) : NULL;

	if (!f)
		return;
	if (w->previous_clone)
		w->previous_clone->next_clone = w->next_clone;
	else
		f->first = w->next_clone;
	if (w->next_clone)
		w->next_clone->previous_clone = w->previous_clone;
	w->next_clone = w->previous_clone = NULL;
	if (f->first)
		return;
	(void)map_remove(&all->by_original, f->original);
	free(f);
}

void families_done(struct families *all) { map_done(&all->by_original); }
