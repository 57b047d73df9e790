/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NETWORK_LINK_H
#define NETWORK_LINK_H

/*
 * Interfaces: bridges of our own, and the cables from them to workspaces. Everything is found again by its name and may be made
 * twice.
 *
 * A port is made with its other end directly in the workspace's network namespace and dies with that; it is isolated from the
 * other ports of its bridge before it is up, so that frames only go between a workspace and the host, which routes
 * (docs/decisions/0070).
 */

#include <net/if.h>

#include "base/err.h"
#include "base/str.h"

#define LINK_GATEWAY6 "fe80::1" /* of every network of ours */
#define LINK_INSIDE_FIRST 2 /* index of eth0 in a workspace; eth1 is 3, ... */

struct link_bridge {
	const char *name;
	const char *ipv4, *ipv6; /* ADDRESS/LENGTH of the gateway; NULL: none */
	uint32_t number;         /* of the network: its hardware address is made of it */
	uint32_t mtu;
};

struct link_port {
	const char *port, *bridge; /* on the host */
	const char *owner;         /* id of the workspace, the port's alias */
	const char *device, *mac;  /* inside */
	uint32_t index;            /* inside: LINK_INSIDE_FIRST and up */
	uint32_t mtu;
	bool isolated;             /* from other ports: networks of our own; else a bridge of the site, which stays as it is */
	const char *ipv4, *ipv6;         /* ADDRESS/LENGTH; NULL: none */
	const char *gateway4, *gateway6; /* of the default route; NULL: none by this interface */
	const char *pool6;         /* ADDRESS/LENGTH that is reached by fe80::1 here, without a default route; NULL: none */
	uint16_t vlan;             /* on a site's bridge, which must filter VLANs; 0: none */
};

/* Bridge, addresses and settings; what is there already is brought to this. */
int link_bridge_make(const struct link_bridge *b, struct err *e) must_check;
/* A bridge or a port; gone is fine. */
int link_remove(const char *name, struct err *e) must_check;
/* 0: there is none of that name. */
unsigned link_index(const char *name);

/* What the kernel says of an interface; asked, not read from /sys, which shows the network namespace that it was mounted in. */
struct link_found {
	bool there, bridge, filters; /* filters: VLANs */
	uint16_t pvid, vlan;         /* of a bridge; of a VLAN device */
	uint32_t mtu, above;         /* above: index of what a VLAN device is made on, of a cable's other end */
	uint32_t master;             /* index of the bridge that it is a port of; 0: none */
	bool up;                     /* shall be */
	bool card;                   /* of no kind that programs can make */
	char name[IFNAMSIZ], owner[32]; /* owner: as it was made with */
};
struct link_found link_find(const char *name);
/* All of this host, in one question. */
typedef void link_seen(void *data, const struct link_found *link);
int link_survey(link_seen *seen, void *data, struct err *e) must_check;

/* Cables into the namespace, configured and up at both ends; on failure none of them is left. A port of that name from an
 * earlier run, whose namespace the kernel has not taken apart yet, is replaced. */
int link_ports_make(const struct link_port *ports, size_t count, int namespace_fd, struct err *e) must_check;

/* A port that is there, a cable's or a tap, becomes (again) what it was made as: in its bridge, apart from others, up. What is
 * inside does not notice. */
int link_port_join(const struct link_port *p, struct err *e) must_check;

#define LINK_QUEUES_MOST 16
/* A port that is a tap device with this many queues, for a machine; what is inside is not configured. Each descriptor is one
 * queue (with virtio-net headers); the device is gone with the last of them. */
int link_tap_make(const struct link_port *p, unsigned queues, int *ret_fds, struct err *e) must_check;

/* The names of the interfaces here that begin with `prefix`. A negative answer of `each` ends it. */
int link_list(const char *prefix, int (*each)(void *data, const char *name), void *data, struct err *e) must_check;

/* This machine forwards packets; said once, and what made it an IPv6 host stays so. */
int link_forwarding(struct err *e) must_check;

#endif
