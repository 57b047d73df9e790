/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NODE_MACHINE_H
#define NODE_MACHINE_H

/*
 * What this host has for virtual machines: QEMU for one processor or another with its newest board, and the files made from
 * kernel partitions in STATE/node/machines. Found at first use. From any thread.
 */

#include "base/hash.h"
#include "engine/launch.h"
#include "node/node.h"

struct machines;

struct machines *machines_new(const struct node *n);
void machines_free(struct machines *m);

struct machine_wanted {
	const char *architecture;   /* of the image */
	const struct digest *kernel; /* its partition; NULL: the machine boots its own disks */
	int kernel_fd;              /* the partition's file; -1: only to be planned */
	bool kvm;
	const char *cpu;            /* processor that is wished; NULL: the pool's baseline */
};

/* For struct launch, but for partition_fds; what it names lives as long as `m`. ERR_UNSUPPORTED says what is missing, and what
 * to do. */
int machines_host(struct machines *m, const struct machine_wanted *wanted, struct launch_machine *ret_host,
		  struct err *e) must_check;
/* Of this host; a machine has no more. */
unsigned machines_processors(void);
/* QEMU for machines of this processor is here, or what to install. */
int machines_check(const struct machine_board *board, struct err *e) must_check;

#endif
