/* SPDX-License-Identifier: Apache-2.0 */
/* Carrying a network: its bridge, and who answers on it. */
#include <stdio.h>
#include <stdlib.h>

#include "base/mem.h"
#include "base/own.h"
#include "network/link.h"
#include "network/names.h"
#include "node/network_private.h"

#define KEEP_MS 60000 /* a network without workspaces */

static char *folder_of(const struct networks *s, const char *name) { return mem_printf("%s/%s", s->folder, name); }

static int make_bridge(struct networks *s, const struct network *w, const char *bridge, struct err *e)
{
	char four[NETWORK_ADDRESS_SIZE + 4] = "", six[NETWORK_ADDRESS_SIZE + 4] = "", address[NETWORK_ADDRESS_SIZE];
	unsigned length;

	if (w->ipv4) {
		network_gateway(w->ipv4, address, &length);
		(void)snprintf(four, sizeof four, "%s/%u", address, length);
	}
	if (w->ipv6) {
		network_gateway(w->ipv6, address, &length);
		(void)snprintf(six, sizeof six, "%s/%u", address, length);
	}
	const struct link_bridge b = { bridge, *four ? four : NULL, *six ? six : NULL, (uint32_t)w->number, (uint32_t)w->mtu };
	int r = s->forwarding ? 0 : link_forwarding(e);
	s->forwarding |= r == 0;
	return r < 0 ? r : link_bridge_make(&b, e);
}

static int put_names(struct networks *s, const struct network *w, const char *bridge, struct err *e)
{
	const struct names names = { w, bridge };
	own_str char *folder = folder_of(s, w->name);
	int r = names_start(folder, &names, e);

	if (r == 1)
		loop_post(s->node->loop, network_voices_open, s);
	for (size_t i = 0; i < s->directory.members.capacity && r >= 0; i++)
		if (s->directory.members.entries[i].key)
			r = names_put(folder, &names, s->directory.members.entries[i].value, e);
	return r < 0 ? r : 0;
}

static int carry(struct networks *s, const struct network *w, struct carried **ret_carried, struct err *e)
{
	struct carried *c = map_get(&s->carried, w->name);

	if (!c) {
		c = mem_alloc(sizeof *c);
		c->name = mem_strdup(w->name);
		c->ours = w->kind != NETWORK_BRIDGE;
		bridge_of(s, w, c->bridge);
		map_put(&s->carried, c->name, c);
	}
	c->idle_since_ms = 0;
	*ret_carried = c;
	if (!c->ours)
		return network_join_site(s, w, c, e);
	if (!link_index(c->bridge)) {
		c->names = false;
		int r = make_bridge(s, w, c->bridge, e);
		if (r < 0)
			return r;
	}
	if (c->names)
		return 0;
	int r = put_names(s, w, c->bridge, e);
	c->names = r == 0;
	return r;
}

static int drop(struct networks *s, struct carried *c, struct err *e)
{
	own_str char *folder = folder_of(s, c->name);
	int r = c->ours ? names_stop(folder, e) : network_leave_site(c, e);

	if (r == 0 && c->ours)
		r = link_remove(c->bridge, e);
	if (r < 0)
		return r;
	(void)map_remove(&s->carried, c->name);
	free(c->name);
	free(c);
	return 0;
}

static bool is_member(void *data, const char *id)
{
	struct networks *s = data;
	return map_get(&s->directory.members, id) || map_get(&s->locals, id);
}

int network_look_after_carried(struct networks *s, struct err *e)
{
	size_t count = s->carried.count;
	own_str const void **all = directory_list(&s->carried);
	uint64_t now = loop_now_ms();
	int r = 0;

	for (size_t i = 0; i < count && r == 0; i++) {
		struct carried *c = (struct carried *)(uintptr_t)all[i];
		const struct network *w = map_get(&s->directory.networks, c->name);
		bool used = network_in_use(s, c->name);
		own_str char *folder = folder_of(s, c->name);
		if (used)
			c->idle_since_ms = 0;
		else if (!c->idle_since_ms)
			c->idle_since_ms = now;
		if (!used && (!w || now - c->idle_since_ms > KEEP_MS))
			r = drop(s, c, e);
		else if (w && c->ours)
			r = link_index(c->bridge) ? put_names(s, w, c->bridge, e) : used ? carry(s, w, &c, e) : 0;
		if (r == 0 && w && c->ours && used)
			r = names_sweep(folder, is_member, s, e);
	}
	return r;
}

int network_carry_of(struct networks *s, const struct attachment *a, const struct network **ret_network,
		     struct carried **ret_carried, struct err *e)
{
	const struct network *w = *ret_network = map_get(&s->directory.networks, a->network);

	if (w)
		return carry(s, w, ret_carried, e);
	(void)err_set(e, ERR_NOT_FOUND, "this host has not been told about network %s", a->network);
	return err_hint(e, "it will be, as soon as the service is connected");
}

int network_carry_all(struct networks *s, const struct local *l, struct err *e)
{
	const struct attachment *all = l->wish.attachments.items;
	int r = 0;

	for (size_t i = 0; i < l->wish.attachments.count && r == 0; i++) {
		const struct network *w;
		struct carried *c;
		r = network_carry_of(s, &all[i], &w, &c, e);
	}
	return r;
}
