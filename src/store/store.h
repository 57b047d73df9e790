/* SPDX-License-Identifier: Apache-2.0 */
#ifndef STORE_STORE_H
#define STORE_STORE_H

/*
 * The content-addressed store of one site or host. Invariants:
 * - a file under partitions/ or blobs/ is complete and has the SHA-256 that its name says (it got its name by rename, after
 *   fsync);
 * - layers/HEX holds the digest of the partition that was made from the layer with digest HEX; it is written after the
 *   partition;
 * - everything under construction is in tmp/, in a session folder whose lock file is held (flock) as long as its process lives;
 * - what a session pinned is not collected while the session lives.
 *
 *   partitions/sha256/HEX   partitions, plain EROFS
 *   blobs/sha256/HEX        manifests and configurations of images
 *   layers/HEX              "sha256:HEX\n"
 *   tmp/session-ID/         lock, pin-HEX, files under construction
 *   tmp/partial-HEX         downloads that may be continued, at most a day old
 *   lock                    held shared while something is looked up and pinned, exclusively by the collector
 */

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "base/hash.h"

enum store_kind { STORE_PARTITION, STORE_BLOB };

struct store;
/* Makes the folders that are missing. */
int store_open(const char *path, struct store **ret_store, struct err *e) must_check;
void store_free(struct store *s);
static inline void store_free_at(struct store **s)
{
	if (*s)
		store_free(*s);
}
#define own_store __attribute__((cleanup(store_free_at)))

/* Read-only descriptor; ERR_NOT_FOUND names kind and digest. */
int store_get(struct store *s, enum store_kind kind, const struct digest *d, int *ret_fd, uint64_t *ret_bytes,
	      struct err *e) must_check;
/* Absolute path (the caller frees), whether the file is there or not. */
char *store_path(const struct store *s, enum store_kind kind, const struct digest *d);

/* --- putting things in: always within a session --- */

struct store_session;
int store_session_start(struct store *s, struct store_session **ret_session, struct err *e) must_check;
void store_session_free(struct store_session *n); /* removes its folder: pins and unfinished files */
static inline void store_session_free_at(struct store_session **n)
{
	if (*n)
		store_session_free(*n);
}
#define own_store_session __attribute__((cleanup(store_session_free_at)))

/* Pins a digest against collection while the session lives. 1: it is in the store; 0: it is not (the pin holds for what
 * comes). */
int store_pin(struct store_session *n, enum store_kind kind, const struct digest *d, struct err *e) must_check;
/* A new empty file in the session's folder, mode 0600, for reading and writing. */
int store_session_file(struct store_session *n, const char *name, int *ret_fd, struct err *e) must_check;
/* again, for reading */
int store_session_open(struct store_session *n, const char *name, int *ret_fd, struct err *e) must_check;
/* The session's file `name` whose content has digest `d` (computed by the caller) becomes part of the store: fsync, 0444,
 * rename. When the store has it already, the file is removed and 1 is returned. */
int store_put_file(struct store_session *n, const char *name, int fd, enum store_kind kind, const struct digest *d,
		   struct err *e) must_check;
int store_put_bytes(struct store_session *n, enum store_kind kind, const void *bytes, size_t length, struct digest *ret_digest,
		    struct err *e) must_check;

/* Which partition was made from a layer: 1 and pinned, or 0 (not known, or its partition is gone). */
int store_layer_find(struct store_session *n, const struct digest *layer, struct digest *ret_partition, uint64_t *ret_bytes,
		     struct err *e) must_check;
/* Whether there is such a partition: 1 and pinned, or 0. */
int store_partition_find(struct store_session *n, const struct digest *d, uint64_t *ret_bytes, struct err *e) must_check;
int store_layer_record(struct store_session *n, const struct digest *layer, const struct digest *partition,
		       struct err *e) must_check;

/* The download of a blob, locked. 1: *ret_fd is the file with what there is of it, the caller's; closing it unlocks. 0: another
 * process has it. */
int store_partial_open(struct store *s, const struct digest *d, int *ret_fd, struct err *e) must_check;
int store_partial_remove(struct store *s, const struct digest *d, struct err *e) must_check; /* by who has the lock */
/* The same when nobody has it: its layer is there. */
int store_partial_drop(struct store *s, const struct digest *d, struct err *e) must_check;

/* --- housekeeping --- */

/* Removes what dead sessions left and downloads older than a day. Safe at any time; called at start. */
int store_clean(struct store *s, struct err *e) must_check;
/* Removes what is neither in `keep` nor pinned. *ret_bytes (may be NULL): what was freed. */
int store_collect(struct store *s, const struct digest *keep, size_t keep_count, uint64_t *ret_bytes, struct err *e) must_check;

#endif
