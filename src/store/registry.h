/* SPDX-License-Identifier: Apache-2.0 */
#ifndef STORE_REGISTRY_H
#define STORE_REGISTRY_H

/*
 * An OCI registry, read only: documents (manifests, indexes, configurations) and blobs. All that is returned has the digest
 * that was asked for. Broken transfers are tried again, from where they broke.
 */

#include "base/err.h"
#include "base/hash.h"
#include "base/str.h"
#include "model/registry_reference.h"

struct registry;

int registry_open(const struct registry_reference *reference, const char *user, const char *password,
		  struct registry **ret_registry, struct err *e) must_check;
void registry_free(struct registry *r);
static inline void registry_free_at(struct registry **r)
{
	if (*r)
		registry_free(*r);
}
#define own_registry __attribute__((cleanup(registry_free_at)))

/* The manifest or index with this digest; `wanted` NULL: what the reference's tag stands for now. At most 4 MiB. */
int registry_manifest(struct registry *r, const struct digest *wanted, struct str *ret_bytes, struct err *e) must_check;
/* A small blob (a configuration) of exactly `size_bytes`. */
int registry_document(struct registry *r, const struct digest *wanted, uint64_t size_bytes, struct str *ret_bytes,
		      struct err *e) must_check;

/* Called with what the file has: first what was there already (`resumed` bytes of it), then as it grows. */
typedef void registry_progress_fn(void *data, uint64_t done_bytes, uint64_t resumed_bytes);
/* A blob of exactly `size_bytes` into `fd`, going on behind what the file has. On success the file is the blob, verified. After
 * a broken connection the file keeps what came; after a wrong digest it is empty. */
int registry_blob(struct registry *r, const struct digest *wanted, uint64_t size_bytes, int fd, registry_progress_fn *progress,
		  void *data, struct err *e) must_check;

#endif
