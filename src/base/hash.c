/* SPDX-License-Identifier: Apache-2.0 */
#include "base/hash.h"

#include <errno.h>
#include <openssl/evp.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"

struct hash {
	EVP_MD_CTX *context;
};

/* libcrypto fails here only without memory. */
static void need(int ok)
{
	if (ok != 1)
		abort();
}

struct hash *hash_new(void)
{
	struct hash *h = mem_alloc(sizeof *h);
	h->context = EVP_MD_CTX_new();
	need(h->context != NULL);
	need(EVP_DigestInit_ex(h->context, EVP_sha256(), NULL));
	return h;
}

void hash_free(struct hash *h)
{
	EVP_MD_CTX_free(h->context);
	free(h);
}

void hash_add(struct hash *h, const void *bytes, size_t length) { need(EVP_DigestUpdate(h->context, bytes, length)); }

struct digest hash_end(struct hash *h)
{
	struct digest d;
	need(EVP_DigestFinal_ex(h->context, d.bytes, NULL));
	need(EVP_DigestInit_ex(h->context, NULL, NULL));
	return d;
}

struct digest hash_bytes(const void *bytes, size_t length)
{
	struct digest d;
	need(EVP_Digest(bytes, length, d.bytes, NULL, EVP_sha256(), NULL));
	return d;
}

int hash_fd(int fd, struct digest *ret_digest, struct err *e)
{
	enum { block = 1 << 18 };
	own_hash struct hash *h = hash_new();
	own_str char *buffer = mem_alloc(block);

	for (off_t at = 0;;) {
		ssize_t n = pread(fd, buffer, block, at);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_errno(e, errno, "read to hash");
		if (n == 0)
			break;
		hash_add(h, buffer, (size_t)n);
		at += n;
	}
	*ret_digest = hash_end(h);
	return 0;
}

bool digest_eq(const struct digest *a, const struct digest *b) { return memcmp(a, b, sizeof *a) == 0; }

char *digest_hex(const struct digest *d, char out[DIGEST_HEX_SIZE])
{
	static const char digits[] = "0123456789abcdef";
	for (size_t i = 0; i < sizeof d->bytes; i++) {
		out[2 * i] = digits[d->bytes[i] >> 4];
		out[2 * i + 1] = digits[d->bytes[i] & 15];
	}
	out[64] = '\0';
	return out;
}

char *digest_text(const struct digest *d, char out[DIGEST_TEXT_SIZE])
{
	memcpy(out, "sha256:", sizeof "sha256:");
	(void)digest_hex(d, out + 7);
	return out;
}

static int hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

int digest_parse_hex(const char *hex, struct digest *ret_digest)
{
	struct digest d;

	if (strnlen(hex, 65) != 64)
		return -EINVAL;
	for (size_t i = 0; i < sizeof d.bytes; i++) {
		int high = hex_value(hex[2 * i]), low = hex_value(hex[2 * i + 1]);
		if (high < 0 || low < 0)
			return -EINVAL;
		d.bytes[i] = (uint8_t)(high << 4 | low);
	}
	*ret_digest = d;
	return 0;
}

int digest_parse(const char *text, struct digest *ret_digest, struct err *e)
{
	if (!str_starts(text, "sha256:"))
		return err_set(e, ERR_UNSUPPORTED, "digest '%.80s' is not a sha256 digest", text);
	if (digest_parse_hex(text + 7, ret_digest) < 0)
		return err_set(e, ERR_INVALID, "digest '%.80s' must be sha256: and 64 lower-case hex digits", text);
	return 0;
}
