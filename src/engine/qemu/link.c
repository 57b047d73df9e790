/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One description of a link, told in two languages: the command line's ("tap,id=net0,...") and QMP's (JSON). describe_link
 * says what there is, pair how it is written, so that a link that is plugged in cannot differ from one that was there at the
 * start. What the inside gets is made of the same plan's texts as a namespace's interface, route by route.
 */
#include "engine/qemu/link.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "engine/workspace/plan.h"

struct machine_queues machine_queues(bool vhost, unsigned processors)
{
	unsigned most = processors < MACHINE_QUEUES_MOST ? processors : MACHINE_QUEUES_MOST;

	return (struct machine_queues){ .count = vhost && most ? most : 1, .vhost = vhost };
}

/* --- from a plan --- */

size_t machine_link_count(const char *const *interfaces)
{
	size_t texts = 0;

	while (interfaces && interfaces[texts])
		texts++;
	return texts / INTERFACE_TEXTS;
}

int machine_link_read(const char *const *interface, struct machine_link *ret_link, struct err *e)
{
	const char *device = interface[INTERFACE_DEVICE];
	uint64_t place = 0;

	if (str_to_u64(device + strcspn(device, "0123456789"), UINT32_MAX, &place) < 0 || place >= MACHINE_LINKS_MOST)
		return err_set(e, ERR_UNSUPPORTED, "interface %s: those of a machine are numbered from 0 to %d", device,
			       MACHINE_LINKS_MOST - 1);
	*ret_link = (struct machine_link){ .mac = interface[INTERFACE_MAC], .place = (unsigned)place };
	return 0;
}

static void add_text(struct guest_texts *list, char *text)
{
	list->items = mem_grow_array(list->items, list->count + 1, sizeof *list->items);
	list->items[list->count++] = text;
}

static void add_route(struct guest_texts *list, const char *gateway)
{
	if (*gateway)
		add_text(list, mem_printf("default via %s", gateway));
}

void machine_links_inside(const char *const *interfaces, struct guest_objects *ret_interfaces)
{
	size_t count = machine_link_count(interfaces);
	struct guest_interface *list = mem_alloc_array(count + 1, sizeof *list);

	for (size_t i = 0; i < count; i++) {
		const char *const *at = interfaces + i * INTERFACE_TEXTS;
		struct guest_interface *g = &list[i];
		*g = (struct guest_interface){ .mac = mem_strdup(at[INTERFACE_MAC]), .name = mem_strdup(at[INTERFACE_DEVICE]),
					       .mtu = strtoull(at[INTERFACE_MTU], NULL, 10) };
		if (*at[INTERFACE_IPV4])
			add_text(&g->addresses, mem_strdup(at[INTERFACE_IPV4]));
		if (*at[INTERFACE_IPV6] && *at[INTERFACE_ISOLATED] == '1') /* alone on its link, as in a namespace */
			add_text(&g->addresses,
				 mem_printf("%.*s/128", (int)strcspn(at[INTERFACE_IPV6], "/"), at[INTERFACE_IPV6]));
		else if (*at[INTERFACE_IPV6])
			add_text(&g->addresses, mem_strdup(at[INTERFACE_IPV6]));
		add_route(&g->routes, at[INTERFACE_GATEWAY4]);
		add_route(&g->routes, at[INTERFACE_GATEWAY6]);
		if (*at[INTERFACE_POOL6])
			add_text(&g->routes, mem_printf("%s via fe80::1", at[INTERFACE_POOL6]));
	}
	*ret_interfaces = (struct guest_objects){ list, count };
}

void machine_links_inside_done(struct guest_objects *interfaces)
{
	struct guest_identity all = { .interfaces = *interfaces };

	guest_done(&guest_identity_shape, &all);
	*interfaces = (struct guest_objects){ 0 };
}

/* --- for QEMU --- */

struct pairs_out {
	struct str *text;
	bool json;
};

static void pair(const struct pairs_out *o, const char *key, const char *value, bool quoted)
{
	bool first = o->text->length == 0;
	const char *q = o->json && quoted ? "\"" : "";

	if (o->json)
		str_printf(o->text, "%s\"%s\":%s%s%s", first ? "{" : ",", key, q, value, q);
	else if (first)
		str_puts(o->text, value); /* type or driver */
	else
		str_printf(o->text, ",%s=%s", key, value);
}

static void pair_true(const struct pairs_out *o, const char *key) { pair(o, key, o->json ? "true" : "on", false); }

static void pair_number(const struct pairs_out *o, const char *key, const char *prefix, unsigned number)
{
	char text[32];

	(void)snprintf(text, sizeof text, "%s%u", prefix, number);
	pair(o, key, text, *prefix);
}

static void describe_link(const struct machine_link *l, struct machine_queues q, const char *taps, const char *vhosts,
			  const struct pairs_out *netdev, const struct pairs_out *device)
{
	char place[16];

	(void)snprintf(place, sizeof place, "%x.0", l->place + 1); /* place 0 is the bridge's own controller */
	pair(netdev, "type", "tap", true);
	pair_number(netdev, "id", "net", l->place);
	pair(netdev, "fds", taps, true);
	if (q.vhost) {
		pair_true(netdev, "vhost");
		pair(netdev, "vhostfds", vhosts, true);
	}
	pair(device, "driver", q.e1000 ? "e1000" : "virtio-net-pci", true);
	pair_number(device, "id", "link", l->place);
	pair_number(device, "netdev", "net", l->place);
	pair(device, "mac", l->mac, true);
	pair(device, "romfile", "", true);
	if (!q.e1000)
		pair(device, "disable-legacy", "on", true);
	pair(device, "bus", MACHINE_LINK_BUS, true);
	pair(device, "addr", place, true);
	if (q.count > 1) {
		pair_true(device, "mq");
		pair_number(device, "vectors", "", 2 * q.count + 2);
	}
}

void machine_link_words(const struct machine_link *l, struct machine_queues q, const char *taps, const char *vhosts,
			struct str *ret_netdev, struct str *ret_device)
{
	const struct pairs_out netdev = { ret_netdev, false }, device = { ret_device, false };

	describe_link(l, q, taps, vhosts, &netdev, &device);
}

void machine_link_plug(const struct machine_link *l, struct machine_queues q, const char *taps, const char *vhosts,
		       struct str *ret_netdev, struct str *ret_device)
{
	const struct pairs_out netdev = { ret_netdev, true }, device = { ret_device, true };

	describe_link(l, q, taps, vhosts, &netdev, &device);
	str_putc(ret_netdev, '}');
	str_putc(ret_device, '}');
}

void machine_link_unplug(unsigned place, struct str *ret_netdev, struct str *ret_device)
{
	str_printf(ret_netdev, "{\"id\":\"net%u\"}", place);
	str_printf(ret_device, "{\"id\":\"link%u\"}", place);
}

