/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NODE_NODE_H
#define NODE_NODE_H

/* What all parts of the agent share. Set up by main before threads start and constant from then on; the parts lock for
 * themselves. */

#include "node/config.h"
#include "node/ids.h"
#include "node/ready.h"
#include "node/workers.h"
#include "store/mount.h"
#include "store/volume.h"

struct node {
	struct config config;
	struct loop *loop;
	struct workers *workers;
	struct mounts *mounts;
	struct volume_pool *pool;
	struct ready *ready;
	struct ids *ids;
	struct networks *networks;
	struct isolator *isolator;
	struct machines *machines;
	struct templates *templates;
	char *workspaces; /* STATE/node/workspaces */
	char *kept;       /* STATE/node/kept */
	char *runs;       /* RUN/node/workspaces */
	char *partitions; /* RUN/node/partitions */
	char *blanks;     /* STATE/node/blanks */
};

int node_init(struct node *n, struct config *config, struct err *e) must_check; /* takes the config's content */
void node_done(struct node *n);

#endif
