/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NODE_REFILL_H
#define NODE_REFILL_H

/*
 * The strict way from a machine to namespaces (guest-volumes: copied): this host's kernel never mounts what a guest's kernel
 * wrote. A helper machine mounts a copy of the volume and sends its files; a helper of namespaces, with a volume that this host
 * made, takes them. Only then the new volume takes the old one's place.
 */

#include "node/steps.h"

/* What a helper is: of the workspace's wish its owner, image and kernel, and nothing else; prepared and never started, without
 * networks, with the volume in question, of so many bytes, as its only one. */
int refill_wish(const struct assignment *of, const char *id, bool machine, uint64_t bytes, struct assignment *ret_wish,
		struct err *e) must_check;
/* The volume `path`, which the caller has locked, becomes a new one with the same files; `root`: it is a root volume. After a
 * failure it is as before. */
int refill_volume(struct work *w, const char *path, bool root, struct err *e) must_check;

#endif
