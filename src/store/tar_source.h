/* SPDX-License-Identifier: Apache-2.0 */
#ifndef STORE_TAR_SOURCE_H
#define STORE_TAR_SOURCE_H

/*
 * The plain bytes of an archive stream, whatever it was packed with (nothing, gzip, xz, zstd, bzip2), in large pieces, hashed
 * by a thread of its own while the caller works on them.
 */

#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "base/hash.h"

struct tar_source;

/* `fd` stays the caller's. More than most_bytes plain bytes are an error: ERR_TOO_LARGE. */
int tar_source_new(int fd, uint64_t most_bytes, struct tar_source **ret_source, struct err *e) must_check;
void tar_source_free(struct tar_source *s);
/* The next piece, valid until the next call; 0 at the end. */
ssize_t tar_source_next(struct tar_source *s, const void **ret_bytes, struct err *e) must_check;
/* Reads what is left and gives the digest and number of all plain bytes. */
int tar_source_finish(struct tar_source *s, struct digest *ret_digest, uint64_t *ret_bytes, struct err *e) must_check;

#endif
