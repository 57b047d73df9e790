/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NODE_READY_H
#define NODE_READY_H

/*
 * What a start would wait for longest, made ahead: runners that were executed and wait for a plan, and root volumes that are
 * attached and mounted. Root volumes of workspaces that are removed when they end come back and are used again, empty.
 *
 * All of it is processes and descriptors of the agent's, so none outlives it; a file has an unfinished name until it is taken,
 * so none is taken for a blank after a crash. All calls may be made from any thread.
 */

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "engine/workspace/volume.h"
#include "store/volume.h"

#define READY_KINDS 4 /* sizes and uses of root volumes that are kept ready; the one wanted longest ago gives way */

struct ready;

/* `most` runners, and as many volumes of each kind; 0: nothing is made ahead. `blanks`: the pool's folder. */
struct ready *ready_new(struct volume_pool *pool, const char *blanks, unsigned most);
void ready_free(struct ready *r);
/* Makes at most one thing that is missing; 1 when it did, 0 when nothing is missing. */
int ready_refill(struct ready *r, struct err *e) must_check;
/* From now on root volumes of this size are kept ready, mounted as volume_mount does. */
void ready_want(struct ready *r, uint64_t size_bytes, bool throw_away);
/* A runner for struct launch, or 0. */
int ready_runner(struct ready *r);

/* A new root volume as `path`, open, locked and mounted; false when none is ready. Wants it, too. One that is thrown away is
 * lent: it stays mounted here until it comes back or is let go. */
bool ready_volume(struct ready *r, uint64_t size_bytes, bool throw_away, const char *path, int *ret_fd,
		  struct volume_mount *ret_mount);
/* The workspace that `path` was lent to is gone: the file goes away from there, to be emptied and used again. False: it was not
 * lent. */
bool ready_take_back(struct ready *r, const char *path);
/* `path` is an ordinary volume from now on. To be called before its file is used in another way than by its first run. */
void ready_let_go(struct ready *r, const char *path);

#endif
