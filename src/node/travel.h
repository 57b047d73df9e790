/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NODE_TRAVEL_H
#define NODE_TRAVEL_H

/*
 * The host's part of a workspace that changes its engine with its memory (model/travel.h, docs/decisions/0126): the disks that
 * its machine gets beside the usual ones, and the way of its memory out of a disk that the machine wrote.
 */

#include "engine/launch.h"
#include "model/memory.h"
#include "node/steps.h"

struct travel {
	struct launch_travel launch;
	struct texts features; /* NULL-terminated */
};

/* Whether this workspace, as a machine, lives in namespaces inside: it may travel, and is not only started for copies. */
bool travel_is_wished(const struct assignment *a, bool maintenance);
/* What a machine needs to be arrived at, while the workspace still runs where it is: tools, the luggage's disk, a template to
 * start from. Nothing for a move out of one. A template that cannot be made is no failure: the machine boots. */
int travel_ahead(struct work *w, struct err *e) must_check;
/* The disks, open; made when they are not there. With `parts->memory` of CRIU the workspace arrives. Always to be ended with
 * travel_done. */
int travel_prepare(struct node *n, const struct record *r, const struct isolate_parts *parts, struct travel *ret_travel,
		   struct err *e) must_check;
void travel_done(struct travel *t);

/* What can never travel, whatever it does: for a check ahead. */
int travel_check(struct node *n, const struct record *r, const char *engine, struct err *e) must_check;

/* The machine stands still and has written its workspace to its luggage: the files come into `folder`, and their names into
 * `m`. */
int travel_unpack(const struct record *r, int folder, struct memory_manifest *m, struct err *e) must_check;
/* Words of this host's processor that count for what travels. */
void travel_features(struct texts *ret_features);

#endif
