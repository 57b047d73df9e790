/* SPDX-License-Identifier: Apache-2.0 */
/* What a suspend or a resume would come to: asked by the service, found out by a worker while nothing else is done with the
 * workspace. */
#include <stdlib.h>

#include "base/mem.h"
#include "base/decode.h"
#include "base/str.h"
#include "node/agent_private.h"
#include "node/suspend.h"

struct check {
	struct workspace *w;
	agent_check_fn *done;
	void *data;
	json_t *id, *answer; /* id: of the question */
	struct assignment to; /* what it shall be, of a live move; to.id NULL: a suspend is asked about */
	struct check *next;
};

static void answer(struct check *c, json_t *what) /* takes both */
{
	c->done(c->data, c->id, what);
	json_decref(c->id);
	if (c->to.id)
		assignment_done(&c->to);
	free(c);
}

static void check_job(void *data)
{
	struct check *c = data;
	c->answer = suspend_check(c->w->agent->node, c->w->record, c->to.id ? &c->to : NULL);
}

static void check_done(void *data)
{
	struct check *c = data;
	struct workspace *w = c->w;

	w->busy = false;
	answer(c, c->answer);
	agent_idle(w);
}

bool agent_check_next(struct workspace *w)
{
	struct check *c = w->checks;

	if (!c || w->busy)
		return false;
	w->checks = c->next;
	w->busy = true;
	workers_run(w->agent->node->workers, check_job, check_done, c, false);
	return true;
}

void agent_check_drop(struct workspace *w)
{
	for (struct check *c; (c = w->checks);) {
		w->checks = c->next;
		answer(c, json_pack("{s:s, s:s}", "level", "volumes", "reason", "the workspace is gone"));
	}
}

void agent_suspend_check(struct agent *a, const char *id, const json_t *to, json_t *question, agent_check_fn *done, void *data)
{
	struct workspace *w = agent_find(a, id);
	struct check *c = mem_alloc(sizeof *c), **end;

	*c = (struct check){ .w = w, .done = done, .data = data, .id = json_incref(question) };
	struct err why = { 0 };
	if (to && decode_json((json_t *)(uintptr_t)to, "the check", &assignment_shape, &c->to, &why) < 0) {
		answer(c, json_pack("{s:s, s:s}", "level", "volumes", "reason", why.message));
		return;
	}
	if (!w || !w->record->wish.id) {
		answer(c, json_pack("{s:s, s:s}", "level", "volumes", "reason", "this host does not have it"));
		return;
	}
	for (end = &w->checks; *end; end = &(*end)->next)
		;
	*end = c;
	(void)agent_check_next(w);
}
