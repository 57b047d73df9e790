/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>

#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"
#include "node/network_private.h"

struct due {
	char *id;
	struct launch_interface *interfaces;
	size_t count;
};

static void due_done(struct due *d)
{
	for (size_t i = 0; i < d->count; i++)
		isolate_interface_done(&d->interfaces[i]);
	free(d->interfaces);
	free(d->id);
	*d = (struct due){ 0 };
}

/* Somebody else is telling this one: that is waited for, and what failed is tried again, so that its error is ours. */
static void await_others(struct networks *s, const char *id)
{
	struct local *l = map_get(&s->locals, id);
	bool waited = false;

	for (; l && l->machine_busy; l = map_get(&s->locals, id)) {
		(void)pthread_cond_wait(&s->told, &s->lock);
		waited = true;
	}
	if (waited && l && l->links_due)
		l->machine_due = true;
}

/* NULL: there is none. */
static struct local *find_due(struct networks *s, const char *id)
{
	if (id)
		await_others(s, id);
	for (size_t i = 0; i < s->locals.capacity; i++) {
		struct local *l = s->locals.entries[i].key ? s->locals.entries[i].value : NULL;
		if (l && l->machine_due && !l->machine_busy && (!id || str_eq(id, l->wish.id)))
			return l;
	}
	return NULL;
}

/* One that is due, which then is no more; 0: there is none. */
static int take_due(struct networks *s, const char *id, struct due *ret_due, struct err *e)
{
	struct local *l = find_due(s, id);

	if (!l)
		return 0;
	l->machine_due = false;
	struct due d = { .id = mem_strdup(l->wish.id) };
	int r = network_list_interfaces(s, &l->wish, &d.interfaces, &d.count, e);
	if (r < 0) {
		l->links_due = true;
		due_done(&d);
		return r;
	}
	l->machine_busy = true;
	*ret_due = d;
	return 1;
}

static void was_told(struct networks *s, const char *id, bool well)
{
	(void)pthread_mutex_lock(&s->lock);
	struct local *l = map_get(&s->locals, id);
	if (l) {
		l->machine_busy = false;
		l->links_due |= !well;
	}
	(void)pthread_cond_broadcast(&s->told);
	(void)pthread_mutex_unlock(&s->lock);
}

int network_connect_machines(struct networks *s, const char *id, struct err *e)
{
	int first = 0;

	for (;;) {
		struct due d = { 0 };
		struct err why;
		(void)pthread_mutex_lock(&s->lock);
		int r = take_due(s, id, &d, &why);
		(void)pthread_mutex_unlock(&s->lock);
		if (r == 0)
			return first;
		if (r > 0) {
			if ((r = isolate_connect_machine(s->node, d.id, d.interfaces, d.count, &why)) < 0)
				(void)err_wrap(&why, "workspace %s", d.id);
			was_told(s, d.id, r >= 0);
		}
		due_done(&d);
		if (r < 0 && first >= 0) {
			first = r;
			if (e)
				*e = why;
		}
	}
}
