/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NODE_MACHINE_H
#define NODE_MACHINE_H

/*
 * What this host has for virtual machines: QEMU and its newest machine type, a kernel partition (STATE/node/kernel.erofs, made by
 * carrel-kernel), and the files made from it in STATE/node/machines. Found at first use. From any thread.
 */

#include "engine/launch.h"
#include "node/node.h"

struct machines;

struct machines *machines_new(const struct node *n);
void machines_free(struct machines *m);

/* For struct launch, but for partition_fds; what it names lives as long as `m`. ERR_UNSUPPORTED says what is missing, and what to do. */
int machines_host(struct machines *m, bool kvm, struct launch_machine *ret_host, struct err *e) must_check;

#endif
