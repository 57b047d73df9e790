/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The interfaces of a workspace: what its launch needs of them, and those of one that runs. Both are made from the attachment
 * and its network by fill_interface, so a port that was plugged in is as one that was there at the start; the list is the
 * launch's own (strings are copies), a struct link_port borrows. Called under the lock of the networks. A workspace that ends
 * meanwhile is no error: its ports go with its namespace.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/own.h"
#include "network/link.h"
#include "node/network_private.h"

/* --- interfaces --- */

static char *copy_or_null(const char *text) { return text ? mem_strdup(text) : NULL; }

static char *gateway_or_null(const char *pool)
{
	char address[NETWORK_ADDRESS_SIZE];
	unsigned length;

	if (!pool)
		return NULL;
	network_gateway(pool, address, &length);
	return mem_strdup(address);
}

static const char *name_server(const struct network *w, bool ipv6)
{
	for (size_t i = 0; i < w->dns.count; i++)
		if ((strchr(w->dns.items[i], ':') != NULL) == ipv6)
			return w->dns.items[i];
	return NULL;
}

/* What stands in one is its own. The default route goes by the first interface; on a bridge of the site IPv6's comes by
 * advertisement. */
static void fill_interface(const struct network *w, const struct carried *c, const struct attachment *a, bool first,
			   struct launch_interface *out)
{
	char zone[80];
	bool ours = w->kind != NETWORK_BRIDGE;

	*out = (struct launch_interface){ .port = mem_strdup(a->port), .bridge = mem_strdup(c->bridge),
					  .device = mem_strdup(a->device), .mac = mem_strdup(a->mac), .mtu = (uint32_t)w->mtu,
					  .isolated = ours, .vlan = c->vlan ? 0 : (uint16_t)w->vlan,
					  .ipv4 = copy_or_null(a->ipv4), .ipv6 = copy_or_null(a->ipv6) };
	out->gateway4 = first && a->ipv4 ? gateway_or_null(w->ipv4) : NULL;
	if (!ours) {
		out->dns[0] = copy_or_null(name_server(w, false));
		out->dns[1] = copy_or_null(name_server(w, true));
		return;
	}
	out->zone = mem_strdup(network_zone(w, zone));
	out->dns[0] = gateway_or_null(w->ipv4);
	out->dns[1] = gateway_or_null(w->ipv6);
	out->gateway6 = first && a->ipv6 ? mem_strdup(LINK_GATEWAY6) : NULL;
	out->pool6 = !first && a->ipv6 ? copy_or_null(w->ipv6) : NULL;
}

int network_list_interfaces(struct networks *s, const struct assignment *a, struct launch_interface **ret_list,
			    size_t *ret_count, struct err *e)
{
	const struct attachment *all = a->attachments.items;
	struct launch_interface *list = *ret_list = mem_alloc_array(a->attachments.count + 1, sizeof *list);

	*ret_count = 0;
	for (size_t i = 0; i < a->attachments.count; i++) {
		struct carried *c;
		const struct network *w;
		int r = network_carry_of(s, &all[i], &w, &c, e);
		if (r < 0)
			return r;
		fill_interface(w, c, &all[i], i == 0, &list[(*ret_count)++]);
	}
	return 0;
}

/* --- interfaces of a workspace that runs --- */

static bool lists_port(const struct assignment *a, const char *port)
{
	const struct attachment *all = a->attachments.items;

	for (size_t i = 0; i < a->attachments.count; i++)
		if (str_eq(all[i].port, port))
			return true;
	return false;
}

/* Borrowed from both. */
static struct link_port port_of(const struct local *l, const struct launch_interface *f)
{
	uint32_t number = (uint32_t)strtoul(f->device + strcspn(f->device, "0123456789"), NULL, 10);

	return (struct link_port){ .port = f->port, .bridge = f->bridge, .owner = l->wish.id, .device = f->device,
				   .mac = f->mac, .index = LINK_INSIDE_FIRST + number, .mtu = f->mtu, .isolated = f->isolated,
				   .vlan = f->vlan, .ipv4 = f->ipv4, .ipv6 = f->ipv6, .gateway4 = f->gateway4,
				   .gateway6 = f->gateway6, .pool6 = f->pool6 };
}

int network_rejoin(struct networks *s, const struct local *l, size_t attachment, struct err *e)
{
	const struct attachment *a = &((const struct attachment *)l->wish.attachments.items)[attachment];
	const struct network *w = map_get(&s->directory.networks, a->network);
	const struct carried *c = map_get(&s->carried, a->network);
	struct launch_interface f;

	if (!w || !c)
		return 0;
	fill_interface(w, c, a, attachment == 0, &f);
	const struct link_port p = port_of(l, &f);
	int r = link_port_join(&p, e);
	isolate_interface_done(&f);
	return r;
}

static int add_interface(struct networks *s, const struct local *l, const struct attachment *a, bool first, struct err *e)
{
	struct carried *c;
	struct launch_interface f;
	const struct network *w;
	int r = network_carry_of(s, a, &w, &c, e);

	if (r < 0)
		return r;
	own_str char *path = mem_printf("/proc/%" PRIu64 "/ns/net", l->pid);
	own_fd int space = open(path, O_RDONLY | O_CLOEXEC);
	if (space < 0)
		return errno == ENOENT ? 0 : err_errno(e, errno, "open %s", path); /* it has just ended */
	fill_interface(w, c, a, first, &f);
	const struct link_port p = port_of(l, &f);
	r = link_ports_make(&p, 1, space, e);
	isolate_interface_done(&f);
	return r;
}

int network_compare_links(struct networks *s, struct local *l, struct err *e)
{
	const struct attachment *all = l->wish.attachments.items;
	int r = 0;

	for (size_t i = 0; i < l->wish.attachments.count && r == 0; i++)
		if (!link_index(all[i].port))
			r = add_interface(s, l, &all[i], i == 0, e);
	return r;
}

int network_remove_links(const struct assignment *before, const struct assignment *now, struct err *e)
{
	const struct attachment *all = before->attachments.items;
	int r = 0;

	for (size_t i = 0; i < before->attachments.count && r == 0; i++)
		if (!lists_port(now, all[i].port))
			r = link_remove(all[i].port, e);
	return r;
}
