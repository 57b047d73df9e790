/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_SPARSE_H
#define BASE_SPARSE_H

/*
 * A digest of a sparse file that costs as much as there is in it, on all processors: SHA-256 over, for each chunk of
 * SPARSE_CHUNK bytes that is not all zeros, in order, its number (8 bytes, little-endian) and its SHA-256, and at last the
 * file's length (8 bytes). The last chunk may be shorter. Holes and zeros are the same.
 */

#include "base/hash.h"

#define SPARSE_CHUNK (1u << 20)

struct sparse_chunk {
	bool data; /* it is not all zeros */
	struct digest digest;
};

int sparse_hash_fd(int fd, struct digest *ret_digest, struct err *e) must_check;
/* The same of chunks that were hashed already, and its parts. */
struct digest sparse_digest(const struct sparse_chunk *chunks, size_t count, uint64_t length);
struct sparse_chunk sparse_chunk_of(const void *bytes, size_t length);
bool sparse_is_zero(const void *bytes, size_t length);
bool sparse_in_hole(int fd, uint64_t at, size_t length); /* what lies in a hole need not be read */

#endif
