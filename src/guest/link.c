/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests are made by hand and answered one at a time: this is linked into the first process of a machine, which should be
 * small, and needs few kinds of message. Answers are matched by their order, as the socket has one question under way, and
 * wait 10 s at most.
 *
 * An interface is found by its hardware address, for names are the kernel's in any order: those that have another's name are
 * put aside first. Of an interface that goes down only the IPv4 addresses are asked for, since IPv6 and routes go with it;
 * "exists already" is an answer like success. So all of it can be done again, which is what happens to a machine that was
 * resumed. A clone's interface is found by its name, since its hardware address is what shall change, and stays up.
 */
#include "guest/link.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_addr.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"
#include "guest/device.h"

#define NAME_GIVEN "4\n" /* renamed by a program */

/* --- texts --- */

int link_parse_prefix(const char *text, struct link_prefix *ret_prefix, struct err *e)
{
	own_str char *copy = mem_strdup(text);
	char *slash = strchr(copy, '/');
	struct link_prefix p = { 0 };
	uint64_t length;

	if (slash)
		*slash++ = '\0';
	p.family = strchr(copy, ':') ? AF_INET6 : AF_INET;
	uint8_t most = p.family == AF_INET6 ? 128 : 32;
	if (inet_pton(p.family, copy, p.address) != 1)
		return err_set(e, ERR_INVALID, "\"%s\" is not an address", text);
	if (slash && str_to_u64(slash, most, &length) < 0)
		return err_set(e, ERR_INVALID, "\"%s\" has no valid prefix length", text);
	p.length = slash ? (uint8_t)length : most;
	*ret_prefix = p;
	return 0;
}

int link_parse_route(const char *text, struct link_prefix *ret_to, struct link_prefix *ret_gateway, struct err *e)
{
	own_str char *copy = mem_strdup(text);
	char *via = strstr(copy, " via ");
	struct link_prefix to = { 0 }, gateway = { 0 };
	int r;

	if (via) {
		*via = '\0';
		if ((r = link_parse_prefix(via + strlen(" via "), &gateway, e)) < 0)
			return r;
	}
	if (str_eq(copy, "default") && gateway.family)
		to.family = gateway.family;
	else if ((r = link_parse_prefix(copy, &to, e)) < 0)
		return r;
	if (gateway.family && gateway.family != to.family)
		return err_set(e, ERR_INVALID, "route \"%s\" mixes IPv4 and IPv6", text);
	*ret_to = to;
	*ret_gateway = gateway;
	return 0;
}

/* --- netlink --- */

struct message {
	struct nlmsghdr header;
	char body[512];
};

static void *begin(struct message *m, uint16_t type, uint16_t flags, size_t size)
{
	*m = (struct message){ .header = { .nlmsg_type = type, .nlmsg_flags = (uint16_t)(NLM_F_REQUEST | NLM_F_ACK | flags),
					   .nlmsg_seq = 1 } };
	m->header.nlmsg_len = (uint32_t)NLMSG_LENGTH(size);
	return m->body;
}

static void attribute(struct message *m, uint16_t type, const void *bytes, size_t length)
{
	struct rtattr *a = (struct rtattr *)(void *)((char *)m + NLMSG_ALIGN(m->header.nlmsg_len));

	a->rta_type = type;
	a->rta_len = (uint16_t)RTA_LENGTH(length);
	memcpy(RTA_DATA(a), bytes, length);
	m->header.nlmsg_len = (uint32_t)(NLMSG_ALIGN(m->header.nlmsg_len) + RTA_ALIGN(a->rta_len));
}

static int open_socket(struct err *e)
{
	struct timeval patience = { .tv_sec = 10 };
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);

	if (fd < 0)
		return err_errno(e, errno, "open a netlink socket");
	(void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
	return fd;
}

static int answer(int fd)
{
	union {
		char bytes[4096];
		struct nlmsghdr header;
	} in;
	ssize_t n = recv(fd, &in, sizeof in, 0);

	if (n < (ssize_t)NLMSG_LENGTH(sizeof(struct nlmsgerr)) || in.header.nlmsg_type != NLMSG_ERROR)
		return n < 0 ? -errno : -EPROTO;
	return ((struct nlmsgerr *)NLMSG_DATA(&in.header))->error;
}

static int ask(int fd, const struct message *m, struct err *e, const char *what, const char *name)
{
	int r = send(fd, m, m->header.nlmsg_len, 0) < 0 ? -errno : answer(fd);

	return r < 0 && r != -EEXIST ? err_errno(e, -r, "%s %s", what, name) : 0;
}

static int set_link(int fd, int index, const char *name, uint64_t mtu, bool up, struct err *e, const char *what)
{
	struct message m;
	struct ifinfomsg *i = begin(&m, RTM_NEWLINK, 0, sizeof *i);
	uint32_t number = (uint32_t)mtu;

	i->ifi_index = index;
	i->ifi_flags = up ? IFF_UP : 0;
	i->ifi_change = IFF_UP;
	if (name)
		attribute(&m, IFLA_IFNAME, name, strlen(name) + 1);
	if (mtu)
		attribute(&m, IFLA_MTU, &number, sizeof number);
	return ask(fd, &m, e, "set up interface", what);
}

static int add_address(int fd, int index, const char *text, struct err *e)
{
	struct link_prefix p;
	struct message m;
	int r = link_parse_prefix(text, &p, e);

	if (r < 0)
		return r;
	struct ifaddrmsg *a = begin(&m, RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, sizeof *a);
	*a = (struct ifaddrmsg){ .ifa_family = p.family, .ifa_prefixlen = p.length, .ifa_index = (uint32_t)index };
	if (p.family == AF_INET6)
		a->ifa_flags = IFA_F_NODAD; /* addresses are given out by the host, once */
	size_t length = p.family == AF_INET6 ? 16 : 4;
	attribute(&m, IFA_LOCAL, p.address, length);
	attribute(&m, IFA_ADDRESS, p.address, length);
	return ask(fd, &m, e, "add address", text);
}

static int add_route(int fd, int index, const char *text, struct err *e)
{
	struct link_prefix to, gateway;
	struct message m;
	uint32_t out = (uint32_t)index;
	int r = link_parse_route(text, &to, &gateway, e);

	if (r < 0)
		return r;
	struct rtmsg *route = begin(&m, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, sizeof *route);
	*route = (struct rtmsg){ .rtm_family = to.family, .rtm_dst_len = to.length, .rtm_table = RT_TABLE_MAIN,
				 .rtm_protocol = RTPROT_STATIC, .rtm_scope = gateway.family ? RT_SCOPE_UNIVERSE : RT_SCOPE_LINK,
				 .rtm_type = RTN_UNICAST };
	size_t length = to.family == AF_INET6 ? 16 : 4;
	if (to.length)
		attribute(&m, RTA_DST, to.address, length);
	if (gateway.family) {
		attribute(&m, RTA_GATEWAY, gateway.address, length);
		route->rtm_flags = RTNH_F_ONLINK; /* a gateway outside the address's prefix is the rule for /32 and /128 */
	}
	attribute(&m, RTA_OIF, &out, sizeof out);
	return ask(fd, &m, e, "add route", text);
}

/* An address that an interface has. */
struct held {
	uint8_t family, length, scope;
	bool permanent; /* not by router advertisement */
	uint8_t bytes[16];
};
#define HELD_MOST 64

static bool read_held(const struct nlmsghdr *h, int index, struct held *ret_held)
{
	const struct ifaddrmsg *a = NLMSG_DATA(h);
	uint16_t wanted = a->ifa_family == AF_INET6 ? IFA_ADDRESS : IFA_LOCAL;
	int left = (int)IFA_PAYLOAD(h);

	for (struct rtattr *t = IFA_RTA(a); a->ifa_index == (unsigned)index && RTA_OK(t, left); t = RTA_NEXT(t, left))
		if (t->rta_type == wanted && RTA_PAYLOAD(t) <= sizeof ret_held->bytes) {
			*ret_held = (struct held){
				a->ifa_family, a->ifa_prefixlen, a->ifa_scope, a->ifa_flags & IFA_F_PERMANENT, { 0 }
			};
			memcpy(ret_held->bytes, RTA_DATA(t), RTA_PAYLOAD(t));
			return true;
		}
	return false;
}

/* They are listed first, then removed: a list that changes is told twice. */
static size_t list_addresses(int fd, int index, uint8_t family, struct held found[HELD_MOST])
{
	struct message m;
	union {
		char bytes[16384];
		struct nlmsghdr header;
	} in;
	struct ifaddrmsg *all = begin(&m, RTM_GETADDR, NLM_F_DUMP, sizeof *all);
	size_t count = 0;

	all->ifa_family = family;
	if (send(fd, &m, m.header.nlmsg_len, 0) < 0)
		return 0;
	for (ssize_t n; (n = recv(fd, &in, sizeof in, 0)) > 0;)
		for (struct nlmsghdr *h = &in.header; NLMSG_OK(h, (size_t)n); h = NLMSG_NEXT(h, n)) {
			if (h->nlmsg_type == NLMSG_DONE || h->nlmsg_type == NLMSG_ERROR)
				return count;
			if (count < HELD_MOST && read_held(h, index, &found[count]))
				count++;
		}
	return count;
}

static int remove_address(int fd, int index, const struct held *h, struct err *e)
{
	struct message m;
	struct ifaddrmsg *a = begin(&m, RTM_DELADDR, 0, sizeof *a);

	*a = (struct ifaddrmsg){ .ifa_family = h->family, .ifa_prefixlen = h->length, .ifa_index = (uint32_t)index };
	attribute(&m, IFA_LOCAL, h->bytes, h->family == AF_INET6 ? 16 : 4);
	int r = ask(fd, &m, e, "remove an address of interface", "");
	return r == -EADDRNOTAVAIL ? 0 : r; /* went with its primary */
}

/* Of IPv4: of an interface that is down no others are left. */
static int remove_addresses(int fd, int index, struct err *e)
{
	struct held found[HELD_MOST];
	size_t count = list_addresses(fd, index, AF_INET, found);
	int r = 0;

	for (size_t i = 0; r >= 0 && i < count; i++)
		r = remove_address(fd, index, &found[i], e);
	return r;
}

int link_raise_loopback(struct err *e)
{
	own_fd int fd = open_socket(e);

	return fd < 0 ? fd : set_link(fd, 1, NULL, 0, true, e, "lo");
}

int link_move(const char *name, int network_namespace, struct err *e)
{
	struct message m;
	struct ifinfomsg *i = begin(&m, RTM_NEWLINK, 0, sizeof *i);
	uint32_t number = (uint32_t)network_namespace;
	own_fd int fd = open_socket(e);

	i->ifi_index = (int)if_nametoindex(name);
	attribute(&m, IFLA_NET_NS_FD, &number, sizeof number);
	return fd < 0 ? fd : ask(fd, &m, e, "hand over interface", name);
}

/* The kernel says how a name came to be (Documentation/ABI/testing/sysfs-class-net); udev leaves those alone that were
 * given. */
static bool was_given(const char *name)
{
	own_str char *path = mem_printf("/sys/class/net/%s/name_assign_type", name);
	own_strbuf struct str type = { 0 };

	return fs_read_file(AT_FDCWD, path, 16, &type, NULL) >= 0 && str_eq(str_text(&type), NAME_GIVEN);
}

/* Out of the way of others, under a name that nobody wants. */
static int set_aside(int fd, const struct guest_interface *i, struct err *e)
{
	char now[IFNAMSIZ], aside[IFNAMSIZ];
	int r = *i->name ? device_find_link(i->mac, now, sizeof now, e) : 0;

	if (r < 0 || !*i->name || (str_eq(i->name, now) && was_given(now)))
		return r;
	int index = (int)if_nametoindex(now);
	(void)snprintf(aside, sizeof aside, "aside%d", index);
	return set_link(fd, index, aside, 0, false, e, now);
}

static int add_all(int fd, int index, const struct guest_interface *i, struct err *e)
{
	int r = 0;

	for (size_t n = 0; r >= 0 && n < i->addresses.count; n++)
		r = add_address(fd, index, i->addresses.items[n], e);
	for (size_t n = 0; r >= 0 && n < i->routes.count; n++)
		r = add_route(fd, index, i->routes.items[n], e);
	return r;
}

static int configure(int fd, const struct guest_interface *i, bool afresh, struct err *e)
{
	char now[IFNAMSIZ];
	int r = device_find_link(i->mac, now, sizeof now, e);

	if (r < 0)
		return r;
	int index = (int)if_nametoindex(now);
	const char *name = *i->name && !str_eq(i->name, now) ? i->name : NULL;
	/* down: addresses of IPv6 and routes go */
	if ((name || afresh) && (r = set_link(fd, index, NULL, 0, false, e, now)) < 0)
		return r;
	if (afresh && (r = remove_addresses(fd, index, e)) < 0)
		return r;
	if ((r = set_link(fd, index, name, i->mtu, true, e, now)) < 0)
		return r;
	return add_all(fd, index, i, e);
}

/* --- the interfaces of a clone --- */

static int set_mac(int fd, int index, const uint8_t mac[6], const char *name, struct err *e)
{
	struct message m;
	struct ifinfomsg *info = begin(&m, RTM_NEWLINK, 0, sizeof *info);

	info->ifi_index = index;
	attribute(&m, IFLA_ADDRESS, mac, 6);
	return ask(fd, &m, e, "set the hardware address of", name);
}

/* What the kernel makes of a hardware address when an interface goes up (RFC 4291, appendix A). */
static void make_link_local(const uint8_t mac[6], struct held *ret_held)
{
	*ret_held = (struct held){ AF_INET6,
				   64,
				   RT_SCOPE_LINK,
				   true,
				   { 0xfe, 0x80, [8] = mac[0] ^ 2, mac[1], mac[2], 0xff, 0xfe, mac[3], mac[4], mac[5] } };
}

static bool is_new(const struct held *h, const struct held *link_local, const struct guest_interface *i)
{
	struct link_prefix p;

	if (memcmp(h->bytes, link_local->bytes, sizeof h->bytes) == 0)
		return true;
	for (size_t n = 0; n < i->addresses.count; n++)
		if (link_parse_prefix(i->addresses.items[n], &p, NULL) >= 0 && p.family == AF_INET6 &&
		    memcmp(h->bytes, p.address, sizeof p.address) == 0)
			return true;
	return false;
}

/* The old ones last: an interface that loses its last address loses its routes too. */
static int exchange_ipv6(int fd, int index, const struct guest_interface *i, const struct held *old, size_t count,
			 const uint8_t mac[6], struct err *e)
{
	char text[INET6_ADDRSTRLEN], prefix[INET6_ADDRSTRLEN + 4];
	struct held link_local;
	int r = 0;

	make_link_local(mac, &link_local);
	(void)inet_ntop(AF_INET6, link_local.bytes, text, sizeof text);
	(void)snprintf(prefix, sizeof prefix, "%s/64", text);
	for (size_t n = 0; r >= 0 && n < count; n++)
		if (old[n].scope == RT_SCOPE_LINK) {
			r = add_address(fd, index, prefix, e);
			break;
		}
	if (r >= 0)
		r = add_all(fd, index, i, e);
	for (size_t n = 0; r >= 0 && n < count; n++)
		if (!is_new(&old[n], &link_local, i))
			r = remove_address(fd, index, &old[n], e);
	return r;
}

static bool is_ours(const struct guest_interface *i, const struct held *old, size_t count)
{
	for (size_t n = 0; n < count; n++)
		if (!old[n].permanent)
			return false;
	return i->addresses.count > 0;
}

/* Down and up again would cost a machine under the emulator 0.08 s. 0: it cannot be done so - the driver takes no address while
 * it is up, or others give this interface its addresses, who shall notice. */
static int exchange(int fd, int index, const struct guest_interface *i, const uint8_t mac[6], struct err *e)
{
	struct held old[HELD_MOST];
	size_t count = list_addresses(fd, index, AF_INET6, old);
	struct err busy;

	if (!is_ours(i, old, count) || set_mac(fd, index, mac, i->name, &busy) < 0)
		return 0;
	int r = remove_addresses(fd, index, e);
	if (r >= 0 && i->mtu)
		r = set_link(fd, index, NULL, i->mtu, true, e, i->name);
	if (r >= 0)
		r = exchange_ipv6(fd, index, i, old, count, mac, e);
	return r < 0 ? r : 1;
}

/* if_nametoindex would open a socket of another kind for it. */
static int index_of(int fd, const char *name)
{
	struct ifreq r = { 0 };

	(void)snprintf(r.ifr_name, sizeof r.ifr_name, "%s", name);
	return ioctl(fd, SIOCGIFINDEX, &r) < 0 ? 0 : r.ifr_ifindex;
}

/* virtio_net tells the device, which then filters by it; while the interface is down every driver takes it. */
static int become(int fd, const struct guest_interface *i, struct err *e)
{
	uint8_t mac[6];
	int index = index_of(fd, i->name);

	if (!index || strlen(i->mac) != strlen("02:00:00:00:00:01"))
		return err_set(e, ERR_NOT_FOUND, "the machine has no interface %s", i->name);
	for (size_t k = 0; k < sizeof mac; k++)
		mac[k] = (uint8_t)strtoul(i->mac + 3 * k, NULL, 16);
	int r = exchange(fd, index, i, mac, e);
	if (r != 0)
		return r;
	if ((r = set_link(fd, index, NULL, 0, false, e, i->name)) < 0 || (r = set_mac(fd, index, mac, i->name, e)) < 0)
		return r;
	return configure(fd, i, true, e);
}

int links_become(const struct guest_interface *list, size_t count, struct err *e)
{
	own_fd int fd = count ? open_socket(e) : -1;
	int r = count && fd < 0 ? fd : 0;

	for (size_t n = 0; r >= 0 && n < count; n++)
		r = become(fd, &list[n], e);
	return r < 0 ? r : 0;
}

int links_configure(const struct guest_interface *list, size_t count, bool afresh, struct err *e)
{
	own_fd int fd = count ? open_socket(e) : -1;
	int r = count && fd < 0 ? fd : 0;

	for (size_t n = 0; r >= 0 && n < count; n++)
		r = set_aside(fd, &list[n], e);
	for (size_t n = 0; r >= 0 && n < count; n++)
		r = configure(fd, &list[n], afresh, e);
	return r;
}
