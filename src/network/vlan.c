/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. The kernel's VLAN device tags what leaves by it and gets what comes with the tag; a bridge of ours joins it with the
 * ports. There is one such device for a VLAN on an interface, so one that the site made is not taken: its addresses would stop
 * working.
 *
 * The host is not on that VLAN: the bridge has no address, and what is sent to its hardware address would be routed by the host
 * all the same (ip-sysctl.rst: addresses belong to the host, not to the interface). IPv4 is therefore kept out by the reverse
 * path, which leads nowhere from a bridge without address, IPv6 by being turned off.
 */
#include "network/vlan.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_link.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"
#include "network/link.h"
#include "network/netlink.h"

static int set(const char *family, const char *device, const char *key, const char *value, struct err *e)
{
	own_str char *path = mem_printf("/proc/sys/net/%s/conf/%s/%s", family, device, key);
	own_fd int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0 && errno == ENOENT && str_eq(family, "ipv6"))
		return 0; /* a kernel without it */
	if (fd < 0 || write(fd, value, strlen(value)) < 0)
		return err_errno(e, errno, "set %s", path);
	return 0;
}

static int keep_host_out(const char *device, struct err *e)
{
	int r = set("ipv6", device, "disable_ipv6", "1", e);

	if (r == 0)
		r = set("ipv4", device, "rp_filter", "1", e);
	if (r == 0)
		r = set("ipv4", device, "forwarding", "0", e);
	return r == 0 ? set("ipv4", device, "arp_ignore", "8", e) : r; /* answers for no address of the host's */
}

static int make_device(const struct vlan *v, unsigned parent, struct err *e)
{
	const struct ifinfomsg header = { .ifi_family = AF_UNSPEC };
	struct netlink n;
	int r = netlink_open(&n, -1, e);

	if (r < 0)
		return r;
	netlink_begin(&n, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, "make a VLAN device", &header, sizeof header);
	netlink_text(&n, IFLA_IFNAME, v->device);
	netlink_u32(&n, IFLA_LINK, parent);
	struct nlattr *info = netlink_nest(&n, IFLA_LINKINFO);
	netlink_text(&n, IFLA_INFO_KIND, "vlan");
	struct nlattr *data = netlink_nest(&n, IFLA_INFO_DATA);
	netlink_put(&n, IFLA_VLAN_ID, &v->id, sizeof v->id);
	netlink_end(&n, data);
	netlink_end(&n, info);
	r = netlink_run(&n, 0, e);
	netlink_close(&n);
	return r;
}

static int make_bridge(const struct vlan *v, struct err *e)
{
	const struct ifinfomsg header = { .ifi_family = AF_UNSPEC };
	const unsigned char mac[6] = { 0x02, 0x76, (unsigned char)(v->number >> 24), (unsigned char)(v->number >> 16),
				       (unsigned char)(v->number >> 8), (unsigned char)v->number };
	struct netlink n;
	int r = netlink_open(&n, -1, e);

	if (r < 0)
		return r;
	netlink_begin(&n, RTM_NEWLINK, NLM_F_CREATE, "make a bridge for a VLAN", &header, sizeof header);
	netlink_text(&n, IFLA_IFNAME, v->bridge);
	netlink_put(&n, IFLA_ADDRESS, mac, sizeof mac);
	struct nlattr *info = netlink_nest(&n, IFLA_LINKINFO);
	netlink_text(&n, IFLA_INFO_KIND, "bridge");
	struct nlattr *data = netlink_nest(&n, IFLA_INFO_DATA);
	netlink_u32(&n, IFLA_BR_FORWARD_DELAY, 0);
	netlink_u8(&n, IFLA_BR_MCAST_SNOOPING, 0);
	netlink_end(&n, data);
	netlink_end(&n, info);
	r = netlink_run(&n, 0, e);
	netlink_close(&n);
	return r;
}

/* The bridge's packet size is the VLAN's, whatever ports come. */
static int join_and_up(const struct vlan *v, uint32_t mtu, struct err *e)
{
	const struct ifinfomsg device = { .ifi_index = (int)link_index(v->device), .ifi_flags = IFF_UP, .ifi_change = IFF_UP },
			       bridge = { .ifi_index = (int)link_index(v->bridge), .ifi_flags = IFF_UP, .ifi_change = IFF_UP };
	struct netlink n;
	int r = netlink_open(&n, -1, e);

	if (r < 0)
		return r;
	netlink_begin(&n, RTM_NEWLINK, 0, "connect a VLAN device", &device, sizeof device);
	netlink_text(&n, IFLA_IFALIAS, v->owner);
	netlink_u32(&n, IFLA_MASTER, (uint32_t)bridge.ifi_index);
	netlink_begin(&n, RTM_NEWLINK, 0, "bring the bridge of a VLAN up", &bridge, sizeof bridge);
	netlink_text(&n, IFLA_IFALIAS, v->owner);
	netlink_u32(&n, IFLA_MTU, mtu);
	r = netlink_run(&n, 0, e);
	netlink_close(&n);
	return r;
}

/* --- when it cannot be --- */

struct search {
	unsigned parent;
	uint16_t vlan;
	char name[IFNAMSIZ];
};

static int compare(void *data, const char *name)
{
	struct search *s = data;
	const struct link_found f = link_find(name);

	if (f.vlan == s->vlan && f.above == s->parent)
		(void)snprintf(s->name, sizeof s->name, "%s", name);
	return 0;
}

static int refuse(const struct vlan *v, unsigned parent, bool bridge, struct err *e)
{
	struct search s = { .parent = parent, .vlan = v->id };

	if (!vlan_supported()) {
		(void)(bridge ? err_set(e, ERR_UNSUPPORTED, "bridge %s does not filter VLANs and this kernel has no VLAN "
							    "devices, so nothing can be in VLAN %u",
					v->parent, v->id)
			      : err_set(e, ERR_UNSUPPORTED, "interface %s is no bridge and this kernel has no VLAN devices, so "
			      "nothing can be in VLAN %u",
					v->parent, v->id));
		return err_hint(e, "load the module 8021q, set vlan_filtering on a bridge, or name a bridge that is connected "
				   "to the VLAN alone");
	}
	bool listed = link_list("", compare, &s, NULL) == 0;
	if (listed && str_starts(s.name, "crv") && !str_eq(s.name, v->device)) {
		(void)err_set(e, ERR_CONFLICT, "another network of this host is on VLAN %u of %s already (%s)", v->id,
			      v->parent, s.name);
		return err_hint(e, "connect the workspace to that network; only a bridge that filters VLANs carries several on "
				   "one");
	}
	if (listed && *s.name && !str_eq(s.name, v->device)) {
		(void)err_set(e, ERR_CONFLICT, "VLAN %u of %s is interface %s of the site already", v->id, v->parent, s.name);
		return err_hint(e, "put %s into a bridge of the site and make the network on that one, without a VLAN", s.name);
	}
	return -EIO;
}

bool vlan_supported(void)
{
	/* A VLAN device of nothing: what does not know the kind says so, what knows it misses the rest. */
	const struct ifinfomsg header = { .ifi_family = AF_UNSPEC };
	struct netlink n;
	struct err ignored;

	if (netlink_open(&n, -1, &ignored) < 0)
		return false;
	netlink_begin(&n, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, "ask for VLAN devices", &header, sizeof header);
	struct nlattr *info = netlink_nest(&n, IFLA_LINKINFO);
	netlink_text(&n, IFLA_INFO_KIND, "vlan");
	netlink_end(&n, info);
	int r = netlink_run(&n, 0, &ignored);
	netlink_close(&n);
	return r == -EINVAL;
}

int vlan_make(const struct vlan *v, struct err *e)
{
	const struct link_found parent = link_find(v->parent), device = link_find(v->device);
	unsigned index = link_index(v->parent);
	int r = 0;

	if (parent.mtu < v->mtu) {
		(void)err_set(e, ERR_INVALID, "packets of %u bytes do not fit VLAN %u of %s, which takes %u", v->mtu, v->id,
			      v->parent, parent.mtu);
		return err_hint(e, "create the network with --mtu %u", parent.mtu);
	}
	if (!device.there && (r = make_device(v, index, e)) < 0 && refuse(v, index, parent.bridge, e) == -EIO)
		return err_wrap(e, "VLAN %u of %s", v->id, v->parent);
	if (r == 0)
		r = keep_host_out(v->device, e);
	if (r == 0 && !link_index(v->bridge) && (r = make_bridge(v, e)) == 0)
		r = keep_host_out(v->bridge, e);
	return r == 0 ? join_and_up(v, parent.mtu, e) : r;
}
