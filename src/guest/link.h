/* SPDX-License-Identifier: Apache-2.0 */
#ifndef GUEST_LINK_H
#define GUEST_LINK_H

/* The machine's network interfaces, by netlink (rtnetlink(7)): name, MTU, addresses, routes. */

#include "base/err.h"
#include "model/guest_protocol.h"

int link_raise_loopback(struct err *e) must_check;
/* Into another network namespace. */
int link_move(const char *name, int network_namespace, struct err *e) must_check;
/* Each is found by its hardware address and gets its name, whichever of them the kernel gave to another, and whatever naming
 * rules a device manager inside has. With `afresh`, addresses that an interface has (and with them its routes) go first. */
int links_configure(const struct guest_interface *list, size_t count, bool afresh, struct err *e) must_check;

/* Each is found by its name and gets its hardware address, which is another machine's until then, and the rest in place of what
 * it has: while it is up, if that can be. */
int links_become(const struct guest_interface *list, size_t count, struct err *e) must_check;

/* "10.0.0.2/24" or "fd00::2" (a whole address): family, bytes, length of the prefix. */
struct link_prefix {
	uint8_t family, length;
	uint8_t address[16];
};
int link_parse_prefix(const char *text, struct link_prefix *ret_prefix, struct err *e) must_check;
/* "default via A", "P via A", "P"; *ret_gateway.family is 0 without a gateway. */
int link_parse_route(const char *text, struct link_prefix *ret_to, struct link_prefix *ret_gateway, struct err *e) must_check;

#endif
