/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What somebody else took away: found at the regular look, and made again. A port whose other end or namespace went is made
 * anew; one that is there, but in no bridge, or down, is put right where it is, so that neither a program inside nor a machine
 * notices more than a pause.
 */
#include <stdlib.h>

#include "base/log.h"
#include "base/mem.h"
#include "network/link.h"
#include "node/network_private.h"

bool network_in_use(const struct networks *s, const char *network)
{
	for (size_t i = 0; i < s->locals.capacity; i++) {
		const struct local *l = s->locals.entries[i].key ? s->locals.entries[i].value : NULL;
		const struct attachment *a = l ? l->wish.attachments.items : NULL;
		for (size_t j = 0; l && j < l->wish.attachments.count; j++)
			if (str_eq(a[j].network, network))
				return true;
	}
	return false;
}

/* --- how the host's ports are --- */

struct ports {
	struct map by_name; /* struct link_found */
	struct link_found *items;
	size_t count, room;
};

static void note(void *data, const struct link_found *link)
{
	struct ports *p = data;

	if (!str_starts(link->name, "cr"))
		return;
	MEM_PUSH_ROOM(p->items, p->count, p->room);
	p->items[p->count++] = *link;
}

static void read_ports(struct ports *p)
{
	struct err e;

	if (link_survey(note, p, &e) < 0) {
		log_error(&e, "networks");
		p->count = 0; /* nothing is said of any */
	}
	for (size_t i = 0; i < p->count; i++)
		map_put(&p->by_name, p->items[i].name, &p->items[i]);
}

static void join(struct networks *s, struct local *l, size_t i)
{
	const struct attachment *a = &((const struct attachment *)l->wish.attachments.items)[i];
	struct err e;

	int r = network_rejoin(s, l, i, &e);
	if (r == 0)
		log_warn("port %s of workspace %s was taken out of its network by somebody else and is connected again",
			 a->port, l->wish.id);
	else
		log_error(&e, "workspace %s", l->wish.id);
}

void network_miss_ports(struct networks *s)
{
	struct ports p = { 0 };

	read_ports(&p);
	for (size_t i = 0; i < s->locals.capacity && p.count; i++) {
		struct local *l = s->locals.entries[i].key ? s->locals.entries[i].value : NULL;
		const struct attachment *a = l ? l->wish.attachments.items : NULL;
		for (size_t j = 0;
		     l && l->pid && !l->held && !l->machine_due && !l->machine_busy && j < l->wish.attachments.count; j++) {
			const struct link_found *f = map_get(&p.by_name, a[j].port);
			const struct carried *c = map_get(&s->carried, a[j].network);
			unsigned bridge = c ? link_index(c->bridge) : 0;
			l->links_due |= !l->machine && !f;
			if (f && bridge && (f->master != bridge || !f->up))
				join(s, l, j);
		}
	}
	map_done(&p.by_name);
	free(p.items);
}
