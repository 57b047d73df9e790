/* SPDX-License-Identifier: Apache-2.0 */
#ifndef GUEST_WORLD_H
#define GUEST_WORLD_H

/*
 * The workspace's file systems, made from the machine's disks with the workspace engine's own code (engine/workspace/tree.c),
 * so that the tree and its form on disk are the same in both. The finished root lies over the machine's, where the initramfs
 * stays as the root of processes that were there before.
 */

#include "engine/workspace/plan.h"
#include "model/guest_protocol.h"

#define WORLD_VOLUMES_MOST 64

struct world {
	int root;                        /* folder; -1: not made */
	int volumes[WORLD_VOLUMES_MOST]; /* folders: tops of the root volume's and of each data volume's file system */
	char *serials[WORLD_VOLUMES_MOST];
	size_t volume_count;
};

/* Mounts, identity files and host name. */
int world_make(struct world *w, const struct plan *p, const struct guest_config *c, struct err *e) must_check;
int world_freeze(const struct world *w, bool freeze, struct err *e) must_check;
int world_grow(const struct world *w, const char *serial, uint64_t least_bytes, struct err *e) must_check;
/* All processes of the workspace are dead: writes everything to the disks and lets go of them. */
int world_leave(struct world *w, struct err *e) must_check;

/* A disk as a mount that no namespace has. */
int world_mount_disk(const char *serial, const char *type, bool read_only, int *ret_mount, struct err *e) must_check;
/* NULL: the volume has no disk. */
const char *world_serial_of(const struct guest_config *c, const char *volume);

/* Clock, seed, host name, /etc/hostname, /etc/hosts and /etc/machine-id of a machine that goes on under another identity. */
int world_identify(const struct world *w, const struct guest_identity *i, struct err *e) must_check;
/* Does ahead, in the original and once, what each clone would have to do: the folder of GUEST_CLONE_FILE, in memory. */
int world_expect_clones(const struct world *w, struct err *e) must_check;
/* Programs of a clone can read its number. *ret_told: GUEST_TOLD or GUEST_HOOKS. */
int world_tell_clone(const struct world *w, uint64_t number, enum guest_told *ret_told, struct err *e) must_check;
int world_set_clock(uint64_t clock_ns, struct err *e) must_check; /* 0: nothing */
int world_add_seed(const struct guest_bytes *seed, struct err *e) must_check;

#endif
