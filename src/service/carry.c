/* SPDX-License-Identifier: Apache-2.0 */
#include "service/carry.h"

#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "db/workspace.h"
#include "service/lifecycle.h"

#define LABEL "carrel.importing" /* digest of the bundle's header */
#define CARRY_KEPT_MS (UINT64_C(24) * 3600 * 1000)
#define LOOK_EVERY_MS (10 * 60 * 1000)

static bool is_unfilled(const struct workspace *w) { return pairs_get(&w->wish.spec->labels, LABEL) != NULL; }

static void drop_label(struct pairs *p)
{
	for (size_t i = 0; i < p->count; i++) {
		if (!str_eq(p->items[i].key, LABEL))
			continue;
		free(p->items[i].key);
		free(p->items[i].value);
		memmove(&p->items[i], &p->items[i + 1], (--p->count - i) * sizeof *p->items);
		return;
	}
}

/* Its id makes its machine id, so it is kept where it can be. */
void carry_take(struct service *s, struct workspace *w, const struct carried *c)
{
	const struct assignment_snapshot *n = c->snapshots.items;

	w->wish.wish = WISH_PREPARED;
	pairs_set(&w->wish.spec->labels, LABEL, c->bundle ? c->bundle : "true");
	if (!id_valid(c->id) || workspace_by_id(s, c->id))
		return; /* a second copy: its snapshots would be the first one's */
	(void)snprintf(w->id, sizeof w->id, "%s", c->id);
	free(w->wish.id);
	w->wish.id = mem_strdup(w->id);
	for (size_t i = 0; i < c->snapshots.count; i++)
		if (id_valid(n[i].id))
			(void)workspace_add_snapshot(w, n[i].id, n[i].name, w->created_ms, false);
}

void carry_filled(struct service *s, struct workspace *w)
{
	struct change *c = change_new(s, NULL);

	drop_label(&w->wish.spec->labels);
	(void)snprintf(c->workspace, sizeof c->workspace, "%s", w->id);
	w->wish.generation++;
	workspace_store(w, c->batch, false);
	change_commit(c);
}

void carry_ended(struct service *s, struct workspace *w)
{
	if (!is_unfilled(w) || w->wish.wish == WISH_REMOVED)
		return;
	struct change *c = change_new(s, NULL);
	converge_wish(w, WISH_REMOVED);
	(void)lifecycle_begin(c, w, "remove");
	workspace_store(w, c->batch, false);
	change_commit(c);
}

int carry_check(const struct workspace *w, struct err *e)
{
	if (!is_unfilled(w))
		return 0;
	(void)err_set(e, ERR_CONFLICT, "workspace '%s' was not imported whole yet", w->name);
	return err_hint(e, "the same carrel import goes on where it broke off; carrel rm %s gives it up", w->name);
}

static bool is_given_up(const struct workspace *w)
{
	return is_unfilled(w) && w->wish.wish != WISH_REMOVED && service_now_ms() > w->created_ms + CARRY_KEPT_MS;
}

static void look_for_old_ones(void *data)
{
	struct service *s = data;

	for (size_t i = 0; i < s->workspaces.count; i++) {
		struct workspace *w = s->workspaces.items[i];
		if (!is_given_up(w))
			continue;
		log_info("workspace %s was not imported whole within a day and is removed", w->name);
		carry_ended(s, w);
	}
	(void)loop_add_timer(s->loop, LOOK_EVERY_MS, look_for_old_ones, s);
}

void carry_recover(struct service *s) { look_for_old_ones(s); }
