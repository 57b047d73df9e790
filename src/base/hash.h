/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_HASH_H
#define BASE_HASH_H

/* SHA-256 (FIPS 180-4) by libcrypto, and digests as OCI writes them: "sha256:" and 64 lower-case hex digits. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct digest {
	uint8_t bytes[32];
};
#define DIGEST_HEX_SIZE 65                          /* 64 digits and NUL */
#define DIGEST_TEXT_SIZE (7 + DIGEST_HEX_SIZE)      /* "sha256:" before them */

struct hash; /* a running SHA-256 */
struct hash *hash_new(void);
void hash_free(struct hash *h);
void hash_add(struct hash *h, const void *bytes, size_t length);
struct digest hash_end(struct hash *h); /* afterwards it may start anew */
static inline void hash_free_at(struct hash **h)
{
	if (*h)
		hash_free(*h);
}
#define own_hash __attribute__((cleanup(hash_free_at)))

struct digest hash_bytes(const void *bytes, size_t length);
/* The whole file from offset 0, by pread: the file offset is left alone. */
int hash_fd(int fd, struct digest *ret_digest, struct err *e) must_check;

bool digest_eq(const struct digest *a, const struct digest *b);
char *digest_hex(const struct digest *d, char out[DIGEST_HEX_SIZE]);
char *digest_text(const struct digest *d, char out[DIGEST_TEXT_SIZE]);
/* "sha256:HEX", strict; any other algorithm is unsupported. */
int digest_parse(const char *text, struct digest *ret_digest, struct err *e) must_check;
int digest_parse_hex(const char *hex, struct digest *ret_digest) must_check; /* -EINVAL */

#endif
