/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NETWORK_VLAN_H
#define NETWORK_VLAN_H

/*
 * A VLAN of the site that no bridge of its filters: a VLAN device on the site's interface, in a bridge of ours without address,
 * where the ports are. Both are found again by their names; they go by link_remove, the bridge first.
 */

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct vlan {
	const char *device, *bridge; /* ours */
	const char *parent;          /* the site's: a bridge or any other interface */
	const char *owner;           /* alias of both, for people */
	uint16_t id;
	uint32_t number;             /* of the network: the bridge's hardware address is made of it */
	uint32_t mtu;                /* that the network wants */
};

/* Device and bridge; what is there already stays. */
int vlan_make(const struct vlan *v, struct err *e) must_check;
/* Whether the kernel has VLAN devices; loads their module where it is one. */
bool vlan_supported(void);

#endif
