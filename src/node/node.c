/* SPDX-License-Identifier: Apache-2.0 */
#include "node/node.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/fs.h"
#include "base/mem.h"
#include "node/isolate.h"
#include "node/machine.h"
#include "node/network.h"
#include "node/template.h"

/* Folders of others' data are root's only; the run folder itself is everybody's, for carreld's socket is in it. */
static int make_folders(const struct node *n, struct err *e)
{
	const char *const closed[] = { n->workspaces, n->kept, n->blanks, n->runs };
	int r = fs_mkdirs(n->config.state, 0755, e);

	if (r == 0)
		r = fs_mkdirs(n->config.run, 0755, e);
	for (size_t i = 0; i < ARRAY_SIZE(closed) && r == 0; i++)
		r = fs_mkdirs(closed[i], 0700, e);
	return r;
}

int node_init(struct node *n, struct config *config, struct err *e)
{
	struct config empty = { 0 };

	*n = (struct node){ .config = *config };
	*config = empty;
	n->workspaces = mem_printf("%s/node/workspaces", n->config.state);
	n->kept = mem_printf("%s/node/kept", n->config.state);
	n->blanks = mem_printf("%s/node/blanks", n->config.state);
	n->runs = mem_printf("%s/node/workspaces", n->config.run);
	n->partitions = mem_printf("%s/node/partitions", n->config.run);
	n->machines = machines_new(n);
	n->ids = ids_new(n->config.first_id, n->config.id_ranges);
	int r = make_folders(n, e);
	if (r == 0)
		r = mounts_open(n->config.store, n->partitions, (enum mount_how)n->config.mount, &n->mounts, e);
	if (r == 0)
		r = volume_pool_open(n->blanks, (unsigned)n->config.blanks, &n->pool, e);
	if (r == 0)
		r = isolator_new(&n->isolator, e);
	if (r == 0)
		r = networks_new(n, &n->networks, e);
	if (r == 0 && n->config.blank_bytes)
		volume_pool_want(n->pool, VOLUME_ROOT, n->config.blank_bytes);
	if (r < 0)
		return r;
	n->templates = templates_new(n);
	n->ready = ready_new(n->pool, n->blanks, (unsigned)n->config.ahead);
	if (n->config.blank_bytes)
		ready_want(n->ready, n->config.blank_bytes, true);
	return 0;
}

void node_done(struct node *n)
{
	networks_free(n->networks);
	isolator_free(n->isolator);
	templates_free(n->templates);
	machines_free(n->machines);
	ready_free(n->ready);
	volume_pool_free(n->pool);
	mounts_free(n->mounts);
	ids_free(n->ids);
	free(n->workspaces);
	free(n->kept);
	free(n->blanks);
	free(n->runs);
	free(n->partitions);
	config_done(&n->config);
}
