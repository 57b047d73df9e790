/* SPDX-License-Identifier: Apache-2.0 */
#include "runner/network.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/own.h"
#include "network/link.h"

static const char *or_null(const char *text) { return *text ? text : NULL; }

static int read_interfaces(const struct plan *p, struct link_port *ports, size_t *ret_count, struct err *e)
{
	size_t count = 0;

	for (const char **at = p->interfaces; *at; at += INTERFACE_TEXTS, count++) {
		for (size_t i = 0; i < INTERFACE_TEXTS; i++)
			if (!at[i] || count == INTERFACES_MOST)
				return err_set(e, ERR_INVALID, "the plan's interfaces are incomplete or too many");
		ports[count] = (struct link_port){ .port = at[INTERFACE_PORT], .bridge = at[INTERFACE_BRIDGE], .owner = p->id,
						   .device = at[INTERFACE_DEVICE], .mac = or_null(at[INTERFACE_MAC]),
						   .index = LINK_INSIDE_FIRST + (uint32_t)count,
						   .mtu = (uint32_t)strtoul(at[INTERFACE_MTU], NULL, 10),
						   .isolated = at[INTERFACE_ISOLATED][0] == '1',
						   .ipv4 = or_null(at[INTERFACE_IPV4]), .ipv6 = or_null(at[INTERFACE_IPV6]),
						   .gateway4 = or_null(at[INTERFACE_GATEWAY4]),
						   .gateway6 = or_null(at[INTERFACE_GATEWAY6]),
						   .vlan = (uint16_t)strtoul(at[INTERFACE_VLAN], NULL, 10) };
	}
	*ret_count = count;
	return 0;
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
