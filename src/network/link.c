/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. Requests are collected and sent together: the kernel takes them one after the other under one lock (rtnl), so what
 * can be saved is the way there and back. A start sends three messages: the cables; what their ports may; and, in the
 * workspace's namespace, what is inside.
 *
 * A port becomes usable in this order: made (down, in its bridge), isolated or put into its VLAN, up. The filter knows it by
 * name before it is made. Bridges of our own learn nothing: each port's hardware address is written into their table, so
 * nothing is flooded, nobody can fill the table, and who never sends is found all the same. A cable ends with the namespace at
 * its other end - but the kernel takes namespaces apart when it has time, so a port of that name may be there still when its
 * workspace starts again: it is removed first. Names are never given to two attachments.
 *
 * A tap has no other end: it lives as long as one of its descriptors is open.
 */
#include "network/link.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_addr.h>
#include <linux/if_bridge.h>
#include <linux/if_link.h>
#include <linux/if_tun.h>
#include <linux/veth.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"
#include "network/netlink.h"

/* --- addresses --- */

struct prefix {
	unsigned char family, length, bytes[16];
	size_t size; /* 4 or 16 */
};

/* The texts come from the model, which has checked them. */
static bool read_prefix(const char *text, struct prefix *ret_prefix)
{
	char address[INET6_ADDRSTRLEN] = "";
	const char *slash = text ? strchr(text, '/') : NULL;
	size_t length = slash ? (size_t)(slash - text) : text ? strlen(text) : sizeof address;
	struct prefix p = { .family = AF_INET, .size = 4 };

	if (length >= sizeof address)
		return false;
	memcpy(address, text, length);
	if (inet_pton(AF_INET, address, p.bytes) != 1) {
		p.family = AF_INET6;
		p.size = 16;
		if (inet_pton(AF_INET6, address, p.bytes) != 1)
			return false;
	}
	p.length = slash ? (unsigned char)strtoul(slash + 1, NULL, 10) : (unsigned char)(p.size * 8);
	*ret_prefix = p;
	return true;
}

static void put_address(struct netlink *n, unsigned index, const char *text, bool host_only)
{
	struct prefix p;

	if (!read_prefix(text, &p))
		return;
	if (host_only && p.family == AF_INET6)
		p.length = 128;
	const struct ifaddrmsg header = { .ifa_family = p.family, .ifa_prefixlen = p.length, .ifa_index = index,
					  .ifa_flags = p.family == AF_INET6 ? IFA_F_NODAD : 0 };
	netlink_begin(n, RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, "give an interface its address", &header, sizeof header);
	netlink_put(n, IFA_LOCAL, p.bytes, p.size);
	netlink_put(n, IFA_ADDRESS, p.bytes, p.size);
}

/* `pool` NULL: the default route. */
static void put_route(struct netlink *n, unsigned index, const char *pool, const char *gateway)
{
	struct prefix p, to = { 0 };

	if (!read_prefix(gateway, &p) || (pool && !read_prefix(pool, &to)))
		return;
	const struct rtmsg header = { .rtm_family = p.family, .rtm_dst_len = to.length, .rtm_table = RT_TABLE_MAIN,
				      .rtm_protocol = RTPROT_STATIC, .rtm_scope = RT_SCOPE_UNIVERSE, .rtm_type = RTN_UNICAST,
				      .rtm_flags = RTNH_F_ONLINK };
	netlink_begin(n, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, "set a route", &header, sizeof header);
	if (to.length)
		netlink_put(n, RTA_DST, to.bytes, to.size);
	netlink_put(n, RTA_GATEWAY, p.bytes, p.size);
	netlink_u32(n, RTA_OIF, index);
}

/* --- settings of an interface (Documentation/networking/ip-sysctl.rst) --- */

static int set(const char *family, const char *name, const char *key, const char *value, struct err *e)
{
	own_str char *path = mem_printf("/proc/sys/net/%s/conf/%s/%s", family, name, key);
	own_fd int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, value, strlen(value)) < 0)
		return err_errno(e, errno, "set %s", path);
	return 0;
}

static int set_bridge(const struct link_bridge *b, struct err *e)
{
	static const struct { const char *family, *key, *value; } settings[] = {
		{ "ipv4", "proxy_arp_pvlan", "1" }, /* answer for neighbours that isolation hides */
		{ "ipv4", "send_redirects", "0" },  /* the host is the only way between them */
		/* ports published at 127.0.0.1; the filter drops what workspaces send there */
		{ "ipv4", "route_localnet", "1" },
		{ "ipv4", "accept_redirects", "0" }, { "ipv4", "rp_filter", "1" },
		{ "ipv6", "accept_ra", "0" },	     { "ipv6", "accept_redirects", "0" }, { "ipv6", "accept_dad", "0" },
	};
	int r = 0;

	for (size_t i = 0; i < ARRAY_SIZE(settings) && r == 0; i++)
		if (fs_exists(AT_FDCWD, "/proc/sys/net/ipv6") || str_eq(settings[i].family, "ipv4"))
			r = set(settings[i].family, b->name, settings[i].key, settings[i].value, e);
	if (r == 0) { /* answers for others wait up to 0.8 s by default, so that the others can answer first: here nobody can */
		own_str char *path = mem_printf("/proc/sys/net/ipv4/neigh/%s/proxy_delay", b->name);
		own_fd int fd = open(path, O_WRONLY | O_CLOEXEC);
		if (fd < 0 || write(fd, "0", 1) < 0)
			r = err_errno(e, errno, "set %s", path);
	}
	return r;
}

/* A host that takes its IPv6 routes from router advertisements goes on doing so although it forwards. */
static void keep_advertised_routes(void)
{
	own_dir DIR *folder = opendir("/proc/sys/net/ipv6/conf");
	struct dirent *entry;

	while (folder && (entry = readdir(folder))) {
		own_str char *path = mem_printf("/proc/sys/net/ipv6/conf/%s/accept_ra", entry->d_name);
		own_strbuf struct str now = { 0 };
		if (entry->d_name[0] != '.' && fs_read_file(AT_FDCWD, path, 16, &now, NULL) >= 0 &&
		    str_eq(str_text(&now), "1\n"))
			(void)!set("ipv6", entry->d_name, "accept_ra", "2", NULL);
	}
}

int link_forwarding(struct err *e)
{
	own_strbuf struct str six = { 0 };
	int r = set("ipv4", "all", "forwarding", "1", e);

	if (r < 0 || fs_read_file(AT_FDCWD, "/proc/sys/net/ipv6/conf/all/forwarding", 16, &six, NULL) < 0 ||
	    str_eq(str_text(&six), "1\n"))
		return r;
	keep_advertised_routes();
	return set("ipv6", "all", "forwarding", "1", e);
}

/* --- bridges --- */

unsigned link_index(const char *name) { return if_nametoindex(name); }

#define INSIDE(a, type) netlink_find((const unsigned char *)(a) + NLA_HDRLEN, (const unsigned char *)(a) + (a)->nla_len, type)

static void read_number(const struct nlattr *attribute, void *to, size_t size)
{
	if (attribute && attribute->nla_len >= NLA_HDRLEN + size)
		memcpy(to, (const unsigned char *)attribute + NLA_HDRLEN, size);
}

static void read_kind(const struct nlattr *info, struct link_found *f)
{
	const struct nlattr *kind = INSIDE(info, IFLA_INFO_KIND), *data = INSIDE(info, IFLA_INFO_DATA);
	unsigned char filters = 0;

	f->bridge = kind && str_eq((const char *)kind + NLA_HDRLEN, "bridge");
	if (f->bridge && data) {
		read_number(INSIDE(data, IFLA_BR_VLAN_FILTERING), &filters, sizeof filters);
		read_number(INSIDE(data, IFLA_BR_VLAN_DEFAULT_PVID), &f->pvid, sizeof f->pvid);
	}
	f->filters = filters;
	if (kind && data && str_eq((const char *)kind + NLA_HDRLEN, "vlan"))
		read_number(INSIDE(data, IFLA_VLAN_ID), &f->vlan, sizeof f->vlan);
}

static void seen_link(void *data, const struct nlmsghdr *message)
{
	struct link_found *f = data;
	const unsigned char *at = (const unsigned char *)NLMSG_DATA(message) + NLMSG_ALIGN(sizeof(struct ifinfomsg)),
			    *end = (const unsigned char *)message + message->nlmsg_len;
	const struct nlattr *info = netlink_find(at, end, IFLA_LINKINFO), *name = netlink_find(at, end, IFLA_IFNAME),
			    *alias = netlink_find(at, end, IFLA_IFALIAS);

	*f = (struct link_found){ .there = true, .up = ((const struct ifinfomsg *)NLMSG_DATA(message))->ifi_flags & IFF_UP };
	if (name)
		(void)snprintf(f->name, sizeof f->name, "%s", (const char *)name + NLA_HDRLEN);
	read_number(netlink_find(at, end, IFLA_MASTER), &f->master, sizeof f->master);
	read_number(netlink_find(at, end, IFLA_MTU), &f->mtu, sizeof f->mtu);
	read_number(netlink_find(at, end, IFLA_LINK), &f->above, sizeof f->above);
	if (alias)
		(void)snprintf(f->owner, sizeof f->owner, "%s", (const char *)alias + NLA_HDRLEN);
	f->card = !info || !INSIDE(info, IFLA_INFO_KIND);
	if (info)
		read_kind(info, f);
}
#undef INSIDE

struct survey {
	link_seen *seen;
	void *data;
};

static void surveyed(void *data, const struct nlmsghdr *message)
{
	const struct survey *s = data;
	struct link_found f;

	if (message->nlmsg_type != RTM_NEWLINK)
		return;
	seen_link(&f, message);
	s->seen(s->data, &f);
}

int link_survey(link_seen *seen, void *data, struct err *e)
{
	const struct ifinfomsg header = { .ifi_family = AF_UNSPEC };
	struct survey s = { seen, data };
	struct netlink n;
	int r = netlink_open(&n, -1, e);

	if (r < 0)
		return r;
	netlink_begin(&n, RTM_GETLINK, NLM_F_DUMP, "list interfaces", &header, sizeof header);
	r = netlink_ask(&n, 0, surveyed, &s, e);
	netlink_close(&n);
	return r;
}

struct link_found link_find(const char *name)
{
	const struct ifinfomsg header = { .ifi_family = AF_UNSPEC };
	struct link_found f = { 0 };
	struct netlink n;
	struct err ignored;

	if (netlink_open(&n, -1, &ignored) < 0)
		return f;
	netlink_begin(&n, RTM_GETLINK, 0, "ask for a link", &header, sizeof header);
	netlink_text(&n, IFLA_IFNAME, name);
	(void)!netlink_ask(&n, ENODEV, seen_link, &f, &ignored);
	netlink_close(&n);
	return f;
}

static void put_bridge(struct netlink *n, const struct link_bridge *b)
{
	const struct ifinfomsg header = { .ifi_family = AF_UNSPEC, .ifi_flags = IFF_UP, .ifi_change = IFF_UP };
	const unsigned char mac[6] = { 0x02, 0x63, (unsigned char)(b->number >> 24), (unsigned char)(b->number >> 16),
				       (unsigned char)(b->number >> 8), (unsigned char)b->number };

	netlink_begin(n, RTM_NEWLINK, NLM_F_CREATE, "make a bridge", &header, sizeof header);
	netlink_text(n, IFLA_IFNAME, b->name);
	netlink_put(n, IFLA_ADDRESS, mac, sizeof mac);
	struct nlattr *info = netlink_nest(n, IFLA_LINKINFO);
	netlink_text(n, IFLA_INFO_KIND, "bridge");
	struct nlattr *data = netlink_nest(n, IFLA_INFO_DATA);
	netlink_u32(n, IFLA_BR_FORWARD_DELAY, 0);
	netlink_u8(n, IFLA_BR_MCAST_SNOOPING, 0);
	netlink_end(n, data);
	netlink_end(n, info);
}

int link_bridge_make(const struct link_bridge *b, struct err *e)
{
	struct netlink n;
	int r = netlink_open(&n, -1, e);

	if (r < 0)
		return r;
	put_bridge(&n, b);
	r = netlink_run(&n, 0, e);
	unsigned index = link_index(b->name);
	if (r == 0) {
		const struct ifinfomsg header = { .ifi_index = (int)index };
		netlink_begin(&n, RTM_NEWLINK, 0, "set the bridge's packet size", &header, sizeof header);
		netlink_u32(&n, IFLA_MTU, b->mtu);
		put_address(&n, index, b->ipv4, false);
		put_address(&n, index, b->ipv6, false);
		put_address(&n, index, b->ipv6 ? "fe80::1/64" : NULL, false);
		r = netlink_run(&n, 0, e);
	}
	netlink_close(&n);
	if (r == 0)
		r = set_bridge(b, e);
	return r < 0 ? err_wrap(e, "bridge %s", b->name) : 0;
}

int link_remove(const char *name, struct err *e)
{
	const struct ifinfomsg header = { .ifi_family = AF_UNSPEC };
	struct netlink n;
	int r = netlink_open(&n, -1, e);

	if (r < 0)
		return r;
	netlink_begin(&n, RTM_DELLINK, 0, "remove", &header, sizeof header);
	netlink_text(&n, IFLA_IFNAME, name);
	r = netlink_run(&n, ENODEV, e);
	netlink_close(&n);
	return r < 0 ? err_wrap(e, "interface %s", name) : 0;
}

/* --- ports --- */

static bool read_mac(const char *text, unsigned char ret_mac[static 6])
{
	unsigned b[6];

	if (sscanf(text, "%2x:%2x:%2x:%2x:%2x:%2x", &b[0], &b[1], &b[2], &b[3], &b[4], &b[5]) != 6)
		return false;
	for (int i = 0; i < 6; i++)
		ret_mac[i] = (unsigned char)b[i];
	return true;
}

/* A bridge takes the least of its ports' hardware addresses and of their packet sizes for its own, unless it was told: a port
 * of ours must not be that. `fe` is what others (libvirt) begin with for the same reason. */
static void keep_bridge(const struct link_port *p, unsigned char ret_mac[static 6], uint32_t *ret_mtu)
{
	const struct link_found bridge = link_find(p->bridge);

	if (!p->mac || !read_mac(p->mac, ret_mac))
		memset(ret_mac, 0xfe, 6);
	ret_mac[0] = 0xfe;
	*ret_mtu = bridge.mtu ? bridge.mtu : p->mtu;
}

static void put_outside(struct netlink *n, const struct link_port *p)
{
	unsigned char mac[6];
	uint32_t mtu = p->mtu;

	if (!p->isolated) {
		keep_bridge(p, mac, &mtu);
		netlink_put(n, IFLA_ADDRESS, mac, sizeof mac);
	}
	netlink_u32(n, IFLA_MTU, mtu);
}

static void put_port(struct netlink *n, const struct link_port *p, unsigned master, int namespace_fd)
{
	const struct ifinfomsg header = { .ifi_family = AF_UNSPEC }, peer_header = { .ifi_index = (int)p->index };
	unsigned char mac[6];

	netlink_begin(n, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, "make a port", &header, sizeof header);
	netlink_text(n, IFLA_IFNAME, p->port);
	put_outside(n, p);
	netlink_u32(n, IFLA_MASTER, master);
	struct nlattr *info = netlink_nest(n, IFLA_LINKINFO);
	netlink_text(n, IFLA_INFO_KIND, "veth");
	struct nlattr *data = netlink_nest(n, IFLA_INFO_DATA), *peer = netlink_nest(n, VETH_INFO_PEER);
	netlink_raw(n, &peer_header, sizeof peer_header);
	netlink_text(n, IFLA_IFNAME, p->device);
	netlink_u32(n, IFLA_MTU, p->mtu);
	if (p->mac && read_mac(p->mac, mac))
		netlink_put(n, IFLA_ADDRESS, mac, sizeof mac);
	netlink_u32(n, IFLA_NET_NS_FD, (uint32_t)namespace_fd);
	netlink_end(n, peer);
	netlink_end(n, data);
	netlink_end(n, info);
}

/* On a network of ours, frames for the workspace go to this port because the host says so, not because it was heard there. */
static void put_hardware_address(struct netlink *n, unsigned index, const unsigned char mac[static 6])
{
	const struct ndmsg header = { .ndm_family = AF_BRIDGE, .ndm_ifindex = (int)index, .ndm_state = NUD_NOARP,
				      .ndm_flags = NTF_MASTER };

	netlink_begin(n, RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, "tell the bridge where an address is", &header,
		      sizeof header);
	netlink_put(n, NDA_LLADDR, mac, 6);
}

/* What a frame of it may reach is settled first, then it comes up. */
static void put_port_up(struct netlink *n, const struct link_port *p, unsigned index)
{
	const struct ifinfomsg header = { .ifi_index = (int)index }, up = { .ifi_index = (int)index, .ifi_flags = IFF_UP,
									    .ifi_change = IFF_UP };
	unsigned char mac[6];
	bool known = p->isolated && p->mac && read_mac(p->mac, mac);

	netlink_begin(n, RTM_NEWLINK, 0, "set up a port", &header, sizeof header);
	netlink_text(n, IFLA_IFALIAS, p->owner);
	struct nlattr *info = netlink_nest(n, IFLA_LINKINFO);
	netlink_text(n, IFLA_INFO_SLAVE_KIND, "bridge");
	struct nlattr *data = netlink_nest(n, IFLA_INFO_SLAVE_DATA);
	netlink_u8(n, IFLA_BRPORT_ISOLATED, p->isolated);
	netlink_u8(n, IFLA_BRPORT_LEARNING, !known);
	netlink_u8(n, IFLA_BRPORT_UNICAST_FLOOD, !known);
	netlink_end(n, data);
	netlink_end(n, info);
	if (known)
		put_hardware_address(n, index, mac);
	netlink_begin(n, RTM_NEWLINK, 0, "bring a port up", &up, sizeof up);
}

static void put_vlan(struct netlink *n, unsigned index, uint16_t type, const char *what, struct bridge_vlan_info vlan)
{
	const struct ifinfomsg header = { .ifi_family = AF_BRIDGE, .ifi_index = (int)index };

	netlink_begin(n, type, 0, what, &header, sizeof header);
	struct nlattr *spec = netlink_nest(n, IFLA_AF_SPEC);
	netlink_put(n, IFLA_BRIDGE_VLAN_INFO, &vlan, sizeof vlan);
	netlink_end(n, spec);
}

/* The port leaves the bridge's default VLAN for its own. Turning the filtering on would change what the site's other ports
 * reach. */
static int join_vlan(struct netlink *n, const struct link_port *p, unsigned index, struct err *e)
{
	if (!p->vlan)
		return 0;
	const struct link_found bridge = link_find(p->bridge);
	if (!bridge.filters) {
		(void)err_set(e, ERR_UNSUPPORTED, "bridge %s does not filter VLANs, so a port cannot be in VLAN %u", p->bridge,
			      p->vlan);
		return err_hint(e, "set vlan_filtering on it, or name a bridge that is connected to the VLAN alone");
	}
	if (bridge.pvid && bridge.pvid != p->vlan)
		put_vlan(n, index, RTM_DELLINK, "leave the default VLAN", (struct bridge_vlan_info){ .vid = bridge.pvid });
	put_vlan(n, index, RTM_SETLINK, "join a VLAN",
		 (struct bridge_vlan_info){ .flags = BRIDGE_VLAN_INFO_PVID | BRIDGE_VLAN_INFO_UNTAGGED, .vid = p->vlan });
	return 0;
}

/* In the socket's namespace. The kernel follows our wish for the number of a veth's peer only where nothing else made it choose
 * (veth_newlink: not unless the other end's was given, too), so one that is made a second time has another. */
static int index_inside(const struct netlink *n, const struct link_port *p, unsigned *ret_index, struct err *e)
{
	struct ifreq request = { 0 };

	(void)snprintf(request.ifr_name, sizeof request.ifr_name, "%s", p->device);
	if (ioctl(n->fd, SIOCGIFINDEX, &request) < 0)
		return err_errno(e, errno, "find interface %s of a workspace", p->device);
	*ret_index = (unsigned)request.ifr_ifindex;
	return 0;
}

static int put_inside(struct netlink *n, const struct link_port *p, struct err *e)
{
	unsigned index = p->index;
	int r = index_inside(n, p, &index, e);
	const struct ifinfomsg up = { .ifi_index = (int)index, .ifi_flags = IFF_UP, .ifi_change = IFF_UP };

	if (r < 0)
		return r;
	netlink_begin(n, RTM_NEWLINK, 0, "bring an interface up", &up, sizeof up);
	put_address(n, index, p->ipv4, false);
	put_address(n, index, p->ipv6, p->isolated); /* neighbours are asked for on a bridge of the site only */
	put_route(n, index, NULL, p->gateway4);
	put_route(n, index, NULL, p->gateway6);
	put_route(n, index, p->pool6, p->pool6 ? LINK_GATEWAY6 : NULL); /* neighbours of a /128 are behind it too */
	return 0;
}

static int find_bridge(const struct link_port *p, unsigned *ret_index, struct err *e)
{
	*ret_index = link_index(p->bridge);
	return *ret_index ? 0 : err_set(e, ERR_NOT_FOUND, "there is no bridge %s", p->bridge);
}

static int make_ports(struct netlink *n, const struct link_port *ports, size_t count, int namespace_fd, struct err *e)
{
	unsigned master;
	int r;

	for (size_t i = 0; i < count; i++) {
		if ((r = find_bridge(&ports[i], &master, e)) < 0 ||
		    (link_index(ports[i].port) && (r = link_remove(ports[i].port, e)) < 0))
			return r;
		put_port(n, &ports[i], master, namespace_fd);
	}
	r = netlink_run(n, 0, e);
	for (size_t i = 0; i < count && r == 0; i++) {
		unsigned index = link_index(ports[i].port);
		if ((r = join_vlan(n, &ports[i], index, e)) == 0)
			put_port_up(n, &ports[i], index);
	}
	return r < 0 ? r : netlink_run(n, 0, e);
}

/* An address that a router's advertisement makes is not this workspace's when the network gives them: nobody would hear it. */
static int no_other_addresses(const struct link_port *p, int namespace_fd, struct err *e)
{
	own_fd int home = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);

	if (home < 0 || setns(namespace_fd, CLONE_NEWNET) < 0)
		return err_errno(e, errno, "enter a network namespace");
	int r = set("ipv6", p->device, "autoconf", "0", e);
	if (setns(home, CLONE_NEWNET) < 0)
		return err_errno(e, errno, "return from a network namespace");
	return r;
}

static int configure(const struct link_port *ports, size_t count, int namespace_fd, struct err *e)
{
	struct netlink n;
	int r = netlink_open(&n, namespace_fd, e);

	if (r < 0)
		return r;
	for (size_t i = 0; i < count && r == 0; i++)
		if (!ports[i].isolated && ports[i].ipv6)
			r = no_other_addresses(&ports[i], namespace_fd, e);
	for (size_t i = 0; i < count && r == 0; i++)
		r = put_inside(&n, &ports[i], e);
	if (r == 0)
		r = netlink_run(&n, 0, e);
	netlink_close(&n);
	return r;
}

int link_ports_make(const struct link_port *ports, size_t count, int namespace_fd, struct err *e)
{
	struct netlink n;
	int r = netlink_open(&n, -1, e);

	if (r < 0)
		return r;
	r = make_ports(&n, ports, count, namespace_fd, e);
	netlink_close(&n);
	if (r == 0)
		r = configure(ports, count, namespace_fd, e);
	for (size_t i = 0; i < count && r < 0; i++)
		(void)!link_remove(ports[i].port, NULL);
	return r < 0 ? err_wrap(e, "network interfaces") : 0;
}

/* --- ports that are there --- */

int link_port_join(const struct link_port *p, struct err *e)
{
	const struct ifinfomsg header = { .ifi_family = AF_UNSPEC };
	struct netlink n;
	unsigned master;
	int r = find_bridge(p, &master, e);

	if (r < 0 || (r = netlink_open(&n, -1, e)) < 0)
		return r;
	unsigned index = link_index(p->port);
	netlink_begin(&n, RTM_NEWLINK, 0, "connect a port", &header, sizeof header);
	netlink_text(&n, IFLA_IFNAME, p->port);
	put_outside(&n, p);
	netlink_u32(&n, IFLA_MASTER, master);
	if ((r = join_vlan(&n, p, index, e)) == 0) {
		put_port_up(&n, p, index);
		r = netlink_run(&n, 0, e);
	}
	netlink_close(&n);
	return r;
}

/* --- taps --- */

static int open_queue(const struct link_port *p, unsigned queues, int *ret_fd, struct err *e)
{
	struct ifreq request = { .ifr_flags = (short)(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR |
						      (queues > 1 ? IFF_MULTI_QUEUE : 0)) };
	own_fd int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);

	if (fd < 0)
		return err_errno(e, errno, "open /dev/net/tun");
	(void)snprintf(request.ifr_name, sizeof request.ifr_name, "%s", p->port);
	if (ioctl(fd, TUNSETIFF, &request) < 0)
		return err_errno(e, errno, "make tap %s", p->port);
	*ret_fd = TAKE_FD(fd);
	return 0;
}

int link_tap_make(const struct link_port *p, unsigned queues, int *ret_fds, struct err *e)
{
	int fds[LINK_QUEUES_MOST];
	unsigned made = 0;
	int r = 0;

	if (!queues || queues > LINK_QUEUES_MOST)
		return err_set(e, ERR_INVALID, "%u queues, the most is %d", queues, LINK_QUEUES_MOST);
	while (made < queues && (r = open_queue(p, queues, &fds[made], e)) == 0)
		made++;
	if (r == 0)
		r = link_port_join(p, e);
	if (r == 0) {
		memcpy(ret_fds, fds, queues * sizeof *fds);
		return 0;
	}
	while (made--)
		(void)close(fds[made]);
	return err_wrap(e, "network interfaces");
}

int link_list(const char *prefix, int (*each)(void *data, const char *name), void *data, struct err *e)
{
	struct if_nameindex *all = if_nameindex();
	int r = 0;

	if (!all)
		return err_errno(e, errno, "list interfaces");
	for (const struct if_nameindex *i = all; i->if_name && r >= 0; i++)
		if (str_starts(i->if_name, prefix))
			r = each(data, i->if_name);
	if_freenameindex(all);
	return r < 0 ? r : 0;
}
