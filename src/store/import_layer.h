/* SPDX-License-Identifier: Apache-2.0 */
#ifndef STORE_IMPORT_LAYER_H
#define STORE_IMPORT_LAYER_H

/*
 * One layer becomes one partition, in children without rights. A layer that is a partition already is not believed: its content
 * is written anew by our own writer, and since the writer is deterministic the bytes must be the same. So the kernel never
 * mounts a file-system image that somebody else formed.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/hash.h"
#include "store/import.h"
#include "store/store.h"

struct layer_conversion;

struct layer_result {
	struct digest plain; /* of the plain tar: the diff_id */
	struct digest partition;
	uint64_t partition_bytes;
};

/* Reads `input_fd` (the caller's, who may close it now) to its end; the partition becomes the session's file `name`. */
int layer_conversion_start(struct store_session *session, const char *name, int input_fd, bool is_partition,
			   const struct import_limits *limits, struct layer_conversion **ret_conversion,
			   struct err *e) must_check;
int layer_conversion_fd(const struct layer_conversion *c); /* readable when it has ended */
int layer_conversion_finish(struct layer_conversion *c, struct layer_result *ret_result, struct err *e) must_check;
int layer_conversion_put(struct layer_conversion *c, struct store_session *session, const struct layer_result *result,
			 struct err *e) must_check;
void layer_conversion_free(struct layer_conversion *c); /* ends it when it still runs */

/* Whether a stack of partitions (lowest first) has the init of a full system; upper layers and whiteouts count. */
int layer_stack_has_init(const int *fds, size_t count, bool *ret_init, struct err *e) must_check;

#endif
