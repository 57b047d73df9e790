/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What networks of kind bridge join: the site's bridge, which is only looked at, or a VLAN. A bridge that filters VLANs keeps
 * ports apart itself; above any other interface of the site a VLAN device is made, and a bridge of ours joins it with the
 * ports. Which of the two it is was decided when the first port came: a bridge of ours that is there stays the way.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/own.h"
#include "network/link.h"
#include "network/vlan.h"
#include "node/network_private.h"

#define BRIDGE "crw"
#define DEVICE "crv"
#define PREFIX 3 /* characters of both; what follows is the same for the two */

static void device_of(const char *bridge, char ret_device[static NETWORK_DEVICE_LENGTH + 1])
{
	(void)snprintf(ret_device, NETWORK_DEVICE_LENGTH + 1, DEVICE "%s", bridge + PREFIX);
}

static bool is_ours(const char *name)
{
	return str_starts(name, "crn") || str_starts(name, BRIDGE) || str_starts(name, DEVICE);
}

static int make_vlan(const struct networks *s, const struct network *w, struct carried *c, const char *bridge, struct err *e)
{
	own_str char *owner = mem_printf("carrel %s: network %s", s->instance, w->name);
	char device[NETWORK_DEVICE_LENGTH + 1];

	device_of(bridge, device);
	const struct vlan v = { device, bridge, w->bridge, owner, (uint16_t)w->vlan, (uint32_t)w->number, (uint32_t)w->mtu };
	int r = vlan_make(&v, e);
	if (r < 0)
		return err_wrap(e, "network %s", w->name);
	(void)snprintf(c->bridge, sizeof c->bridge, "%s", bridge);
	c->vlan = true;
	return 0;
}

int network_join_site(struct networks *s, const struct network *w, struct carried *c, struct err *e)
{
	const struct link_found found = link_find(w->bridge);
	char bridge[NETWORK_DEVICE_LENGTH + 1];

	(void)snprintf(bridge, sizeof bridge, BRIDGE "%s%" PRIx64, s->instance, w->number & 0xffffff);
	if (!found.there) {
		(void)err_set(e, ERR_NOT_FOUND, "network %s: this host has no %s %s of the site", w->name,
			      w->vlan ? "interface" : "bridge", w->bridge);
		return err_hint(e, "make it, or start the workspace on a host that has it");
	}
	if (is_ours(w->bridge) || (!found.bridge && !w->vlan)) {
		(void)err_set(e, ERR_INVALID, "network %s: interface %s is not a bridge of the site", w->name, w->bridge);
		return is_ours(w->bridge) ?
			       -EINVAL :
			       err_hint(e, "put it into a bridge and name that; only a VLAN (--vlan) may be on any interface");
	}
	if (w->vlan && (!found.filters || link_index(bridge)))
		return make_vlan(s, w, c, bridge, e);
	(void)snprintf(c->bridge, sizeof c->bridge, "%s", w->bridge);
	c->vlan = false;
	return 0;
}

int network_leave_site(struct carried *c, struct err *e)
{
	char device[NETWORK_DEVICE_LENGTH + 1];

	if (!c->vlan)
		return 0;
	device_of(c->bridge, device);
	int r = link_remove(c->bridge, e);
	return r == 0 ? link_remove(device, e) : r;
}

static int sweep(void *data, const char *name)
{
	const struct networks *s = data;

	for (size_t i = 0; i < s->carried.capacity; i++) {
		const struct carried *c = s->carried.entries[i].key ? s->carried.entries[i].value : NULL;
		if (c && c->vlan && str_eq(c->bridge + PREFIX, name + PREFIX))
			return 0;
	}
	return link_remove(name, NULL);
}

static int take_away(void *data, const char *name)
{
	(void)data;
	return link_remove(name, NULL);
}

static int each(const char *instance, int (*what)(void *data, const char *name), void *data, struct err *e)
{
	own_str char *bridges = mem_printf(BRIDGE "%s", instance), *devices = mem_printf(DEVICE "%s", instance);
	int r = link_list(bridges, what, data, e);

	return r == 0 ? link_list(devices, what, data, e) : r;
}

int network_sweep_vlans(struct networks *s, struct err *e) { return each(s->instance, sweep, s, e); }

int network_clean_vlans(const char *instance, struct err *e) { return each(instance, take_away, NULL, e); }
