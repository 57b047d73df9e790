/* SPDX-License-Identifier: Apache-2.0 */
/* What somebody else took away: found at the regular look, and made again by the same code that made it first. */
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

/* A port whose bridge is gone belongs to nothing. Connections outlive that: the new one has the same addresses. */
int network_drop_ports(const struct networks *s, const char *network, struct err *e)
{
	int r = 0;

	for (size_t i = 0; i < s->locals.capacity; i++) {
		const struct local *l = s->locals.entries[i].key ? s->locals.entries[i].value : NULL;
		const struct attachment *a = l ? l->wish.attachments.items : NULL;
		for (size_t j = 0; l && !l->machine && l->pid && j < l->wish.attachments.count && r == 0; j++)
			if (str_eq(a[j].network, network) && link_index(a[j].port))
				r = link_remove(a[j].port, e);
	}
	return r;
}

void network_miss_ports(struct networks *s)
{
	for (size_t i = 0; i < s->locals.capacity; i++) {
		struct local *l = s->locals.entries[i].key ? s->locals.entries[i].value : NULL;
		const struct attachment *a = l ? l->wish.attachments.items : NULL;
		for (size_t j = 0; l && !l->machine && l->pid && j < l->wish.attachments.count; j++)
			l->links_due |= !link_index(a[j].port);
	}
}
