/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NODE_DIRECTORY_H
#define NODE_DIRECTORY_H

/*
 * What this host knows of the site's networks and of every workspace on them, as the service last said it. Kept in
 * STATE/node/networks.json, so that an agent that starts without its service still knows whom a rule names.
 * Not locked: the owner does that.
 */

#include <jansson.h>

#include "base/map.h"
#include "model/network.h"

struct directory {
	struct map networks; /* by name: struct network * */
	struct map members;  /* by id: struct member * */
};

void directory_done(struct directory *d);
/* One message "networks" of the service: {"full", "networks", "members", "gone", "gone-networks"}. All of it or, on failure,
 * nothing. */
int directory_take(struct directory *d, json_t *message, struct err *e) must_check;
/* As a full message; a new reference. */
json_t *directory_encode(const struct directory *d);

int directory_load(struct directory *d, const char *path, struct err *e) must_check; /* no file: empty */
int directory_save(const json_t *encoded, const char *path, struct err *e) must_check;

/* The values as an array of `map.count` pointers in no order; the caller frees the array. */
const void **directory_list(const struct map *m);

#endif
