/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_QEMU_LINK_H
#define ENGINE_QEMU_LINK_H

/*
 * A machine's network interfaces, as QEMU is told of them - on its command line, or later on its control line - and as
 * carrel-init is. Pure. Each has its fixed place on a bus of their own, by the number in its name inside: one that was plugged
 * in while the machine ran is where the next start puts it.
 */

#include <stdbool.h>

#include "base/err.h"
#include "base/str.h"
#include "model/guest_protocol.h"

#define MACHINE_LINKS_MOST 8
#define MACHINE_QUEUES_MOST 8 /* of one link */
#define MACHINE_LINK_BUS "links"

struct machine_link {
	const char *mac;
	unsigned place; /* 0-7 */
};
/* What all links of a machine have in common. */
struct machine_queues {
	unsigned count; /* 1-MACHINE_QUEUES_MOST for each link */
	bool vhost;     /* the host's kernel carries the packets */
	bool e1000;     /* the card of a guest that may know no virtio; then one queue, without vhost */
};

/* More than one queue costs, without a kernel that serves them side by side. */
struct machine_queues machine_queues(bool vhost, unsigned processors);

/* From a plan's `interfaces` (engine/workspace/plan.h): each INTERFACE_TEXTS texts. */
size_t machine_link_count(const char *const *interfaces);
int machine_link_read(const char *const *interface, struct machine_link *ret_link, struct err *e) must_check;
/* struct guest_interface for each: what a namespace gets by netlink from outside. Freed with machine_links_inside_done. */
void machine_links_inside(const char *const *interfaces, struct guest_objects *ret_interfaces);
void machine_links_inside_done(struct guest_objects *interfaces);

/* Values of -netdev and -device. `taps` and `vhosts`: descriptors or names that getfd gave them, separated by ':'. */
void machine_link_words(const struct machine_link *l, struct machine_queues q, const char *taps, const char *vhosts,
			struct str *ret_netdev, struct str *ret_device);
/* The same as arguments of netdev_add and device_add, each one JSON object; and of their opposites. */
void machine_link_plug(const struct machine_link *l, struct machine_queues q, const char *taps, const char *vhosts,
		       struct str *ret_netdev, struct str *ret_device);
void machine_link_unplug(unsigned place, struct str *ret_netdev, struct str *ret_device);

#endif
