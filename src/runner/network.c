/* SPDX-License-Identifier: Apache-2.0 */
#include "runner/network.h"

#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/own.h"
#include "base/str.h"
#include "network/link.h"

static const char *or_null(const char *text) { return *text ? text : NULL; }

static struct link_port read_port(const char *const *at, const char *owner, size_t number)
{
	return (struct link_port){ .port = at[INTERFACE_PORT], .bridge = at[INTERFACE_BRIDGE], .owner = owner,
				   .device = at[INTERFACE_DEVICE], .mac = or_null(at[INTERFACE_MAC]),
				   .index = LINK_INSIDE_FIRST + (uint32_t)number,
				   .mtu = (uint32_t)strtoul(at[INTERFACE_MTU], NULL, 10),
				   .isolated = at[INTERFACE_ISOLATED][0] == '1', .ipv4 = or_null(at[INTERFACE_IPV4]),
				   .ipv6 = or_null(at[INTERFACE_IPV6]), .gateway4 = or_null(at[INTERFACE_GATEWAY4]),
				   .gateway6 = or_null(at[INTERFACE_GATEWAY6]), .pool6 = or_null(at[INTERFACE_POOL6]),
				   .vlan = (uint16_t)strtoul(at[INTERFACE_VLAN], NULL, 10) };
}

static int read_interfaces(const struct plan *p, struct link_port *ports, size_t *ret_count, struct err *e)
{
	size_t count = 0;

	for (const char **at = p->interfaces; *at; at += INTERFACE_TEXTS, count++) {
		for (size_t i = 0; i < INTERFACE_TEXTS; i++)
			if (!at[i] || count == INTERFACES_MOST)
				return err_set(e, ERR_INVALID, "the plan's interfaces are incomplete or too many");
		ports[count] = read_port((const char *const *)at, p->id, count);
	}
	*ret_count = count;
	return 0;
}

static void set_flag(int fd, const char *port, bool up)
{
	struct ifreq q = { 0 };

	(void)snprintf(q.ifr_name, sizeof q.ifr_name, "%s", port);
	if (ioctl(fd, SIOCGIFFLAGS, &q) < 0)
		return;
	q.ifr_flags = (short)(up ? q.ifr_flags | IFF_UP : q.ifr_flags & ~IFF_UP);
	(void)ioctl(fd, SIOCSIFFLAGS, &q);
}

struct holding {
	const char *owner;
	int fd;
	bool hold;
};

static void hold_port(void *data, const struct link_found *link)
{
	const struct holding *h = data;

	if (str_eq(link->owner, h->owner))
		set_flag(h->fd, link->name, !h->hold);
}

/* Also those that were plugged later, which the plan does not know. */
void network_hold(const struct plan *p, bool hold)
{
	own_fd int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct holding h = { p->id, fd, hold };
	struct err ignored;

	if (fd >= 0 && !(p->flags & PLAN_HOST_NETWORK))
		(void)!link_survey(hold_port, &h, &ignored);
}

int network_make(const struct plan *p, pid_t first_process, struct err *e)
{
	struct link_port ports[INTERFACES_MOST];
	size_t count = 0;
	char path[64];
	int r = read_interfaces(p, ports, &count, e);

	if (r < 0 || !count)
		return r;
	(void)snprintf(path, sizeof path, "/proc/%d/ns/net", (int)first_process);
	own_fd int space = open(path, O_RDONLY | O_CLOEXEC);
	if (space < 0)
		return err_errno(e, errno, "open %s", path);
	return link_ports_make(ports, count, space, e);
}

int network_tap_make(const char *const *interface, const char *owner, unsigned queues, bool vhost, int *ret_fds, struct err *e)
{
	const struct link_port port = read_port(interface, owner, 0);
	unsigned made = queues;
	int r = link_tap_make(&port, queues, ret_fds, e);

	for (; r >= 0 && vhost && made < 2 * queues; made++) {
		ret_fds[made] = open("/dev/vhost-net", O_RDWR | O_CLOEXEC);
		if (ret_fds[made] < 0) {
			r = err_errno(e, errno, "open /dev/vhost-net");
			while (made--)
				(void)close(ret_fds[made]);
			return r;
		}
	}
	return r;
}
