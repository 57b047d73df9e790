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

/* One that is due, which then is no more; 0: there is none. */
static int take_due(struct networks *s, const char *id, struct due *ret_due, struct err *e)
{
	for (size_t i = 0; i < s->locals.capacity; i++) {
		struct local *l = s->locals.entries[i].key ? s->locals.entries[i].value : NULL;
		if (!l || !l->machine_due || (id && !str_eq(id, l->wish.id)))
			continue;
		l->machine_due = false;
		struct due d = { .id = mem_strdup(l->wish.id) };
		int r = network_list_interfaces(s, &l->wish, &d.interfaces, &d.count, e);
		if (r < 0) {
			l->links_due = true;
			due_done(&d);
			return r;
		}
		*ret_due = d;
		return 1;
	}
	return 0;
}

static void still_due(struct networks *s, const char *id)
{
	(void)pthread_mutex_lock(&s->lock);
	struct local *l = map_get(&s->locals, id);
	if (l)
		l->links_due = true;
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
		if (r > 0 && (r = isolate_connect_machine(s->node, d.id, d.interfaces, d.count, &why)) < 0) {
			(void)err_wrap(&why, "workspace %s", d.id);
			still_due(s, d.id);
		}
		due_done(&d);
		if (r < 0 && first >= 0) {
			first = r;
			if (e)
				*e = why;
		}
	}
}
