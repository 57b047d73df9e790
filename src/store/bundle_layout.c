/* SPDX-License-Identifier: Apache-2.0 */
/* POSIX.1-2017, pax, "ustar Interchange Format"; a length that does not fit eleven octal digits is binary, as GNU tar and
 * libarchive have it. */
#include "store/bundle_layout.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"

#define BLOCK 512

static void put_length(char *at, uint64_t length)
{
	if (length < UINT64_C(1) << 33) {
		(void)snprintf(at, 12, "%011llo", (unsigned long long)length);
		return;
	}
	at[0] = (char)0x80;
	for (int i = 0; i < 11; i++)
		at[11 - i] = i < 8 ? (char)(length >> (8 * i)) : 0;
}

static int put_member(int fd, const char *name, uint64_t length, struct err *e)
{
	char header[BLOCK] = { 0 };
	unsigned sum = 0;

	(void)snprintf(header, 100, "%s", name);
	(void)snprintf(header + 100, 8, "%07o", 0444U);
	(void)snprintf(header + 108, 8, "%07o", 0U);
	(void)snprintf(header + 116, 8, "%07o", 0U);
	put_length(header + 124, length);
	(void)snprintf(header + 136, 12, "%011o", 0U);
	memset(header + 148, ' ', 8);
	header[156] = '0';
	memcpy(header + 257, "ustar\00000", 8);
	for (size_t i = 0; i < BLOCK; i++)
		sum += (unsigned char)header[i];
	(void)snprintf(header + 148, 8, "%06o", sum);
	return fs_write_all(fd, header, sizeof header, e);
}

static int pad(int fd, uint64_t length, struct err *e)
{
	static const char zeros[BLOCK * 2];
	return length % BLOCK ? fs_write_all(fd, zeros, BLOCK - length % BLOCK, e) : 0;
}

static int put_text(int fd, const char *name, const char *text, struct err *e)
{
	int r = put_member(fd, name, strlen(text), e);

	if (r == 0)
		r = fs_write_all(fd, text, strlen(text), e);
	return r == 0 ? pad(fd, strlen(text), e) : r;
}

static int put_stream(int fd, struct bundle_reader *r, size_t stream, const struct bundle_stream *s, struct err *e)
{
	own_str uint8_t *plain = mem_alloc(BUNDLE_CHUNK_BYTES);
	size_t next = bundle_reader_find(r, (uint32_t)stream);
	own_str char *name = mem_printf("blobs/sha256/%s", s->name + strlen("sha256:"));
	own_hash struct hash *h = hash_new();
	struct digest wanted;
	int done = digest_parse(s->name, &wanted, e);

	if (done == 0)
		done = put_member(fd, name, s->size_bytes, e);
	for (uint64_t at = 0; done == 0 && at < s->size_bytes; at += BUNDLE_CHUNK_BYTES) {
		const struct bundle_record *c = next < bundle_reader_chunks(r) ? bundle_reader_chunk(r, next) : NULL;
		uint64_t left = s->size_bytes - at;
		size_t length = left < BUNDLE_CHUNK_BYTES ? (size_t)left : BUNDLE_CHUNK_BYTES;
		if (c && c->stream == stream && c->offset == at)
			done = bundle_reader_plain(r, next++, plain, e);
		else
			memset(plain, 0, length);
		hash_add(h, plain, length);
		if (done == 0)
			done = fs_write_all(fd, plain, length, e);
	}
	struct digest found = hash_end(h);
	if (done == 0 && !digest_eq(&found, &wanted))
		return err_set(e, ERR_CORRUPT, "the bundle has other bytes than %s", s->name);
	return done == 0 ? pad(fd, s->size_bytes, e) : done;
}

int bundle_layout_write(struct bundle_reader *r, int fd, struct err *e)
{
	static const char zeros[2 * BLOCK];
	const struct bundle_header *h = bundle_reader_header(r);
	const struct bundle_stream *s = h->streams.items,
				   *manifest = bundle_stream_find(h, BUNDLE_BLOB, h->image->digest, NULL);
	int done = manifest ? put_text(fd, "oci-layout", "{\"imageLayoutVersion\":\"1.0.0\"}", e) :
			      err_set(e, ERR_CORRUPT, "the bundle lacks its image's manifest");

	if (done < 0)
		return done;
	for (size_t i = 0; done == 0 && i < h->streams.count; i++)
		if ((s[i].kind == BUNDLE_BLOB || s[i].kind == BUNDLE_PARTITION) && !s[i].left_out)
			done = put_stream(fd, r, i, &s[i], e);
	own_str char *index = mem_printf("{\"manifests\":[{\"digest\":\"%s\",\"mediaType\":\"" MEDIA_OCI_MANIFEST
					 "\",\"size\":%llu}],"
					 "\"mediaType\":\"" MEDIA_OCI_INDEX "\",\"schemaVersion\":2}",
					 h->image->digest, (unsigned long long)manifest->size_bytes);
	if (done == 0)
		done = put_text(fd, "index.json", index, e);
	return done == 0 ? fs_write_all(fd, zeros, sizeof zeros, e) : done;
}
