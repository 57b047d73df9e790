/* SPDX-License-Identifier: Apache-2.0 */
#include "store/bundle.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zstd.h>

#include "base/hash.h"
#include "base/mem.h"
#include "base/own.h"
#include "model/bundle.h"

struct unpack {
	const struct bundle_file *files;
	size_t count;
	bundle_receive_fn *receive;
	void *data;
	ZSTD_DCtx *context;
	uint8_t *stored, *plain;
};

static int write_all(int fd, const uint8_t *bytes, size_t length, uint64_t offset, struct err *e)
{
	for (size_t done = 0; done < length;) {
		ssize_t n = pwrite(fd, bytes + done, length - done, (off_t)(offset + done));
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return err_errno(e, n < 0 ? errno : ENOSPC, "write what the bundle holds");
		done += (size_t)n;
	}
	return 0;
}

static int take_chunk(struct unpack *u, const struct bundle_record *record, struct err *e)
{
	const struct bundle_file *f = &u->files[record->stream];
	const uint8_t *plain = u->stored;
	int r = u->receive(u->data, u->stored, record->stored_length, e);

	if (r < 0)
		return r;
	if (record->codec == BUNDLE_ZSTD) {
		size_t n = ZSTD_decompressDCtx(u->context, u->plain, BUNDLE_CHUNK_BYTES, u->stored, record->stored_length);
		if (ZSTD_isError(n) || n != record->plain_length)
			return err_set(e, ERR_CORRUPT, "the bundle's part %" PRIu32 " cannot be unpacked at %" PRIu64, record->stream, record->offset);
		plain = u->plain;
	}
	struct digest d = hash_bytes(plain, record->plain_length);
	if (!digest_eq(&d, &record->digest))
		return err_set(e, ERR_CORRUPT, "the bundle's part %" PRIu32 " has other bytes than its checksum at %" PRIu64, record->stream,
			       record->offset);
	return write_all(f->fd, plain, record->plain_length, record->offset, e);
}

static int check_end(const struct bundle_record *end, uint64_t chunks, struct hash *records, struct err *e)
{
	struct digest d = hash_end(records);

	if (end->offset == chunks && digest_eq(&d, &end->digest))
		return 0;
	return err_set(e, ERR_CORRUPT, "the bundle came with %" PRIu64 " chunks, and not as it was sent", chunks);
}

static int take_all(struct unpack *u, struct hash *records, struct err *e)
{
	struct bundle_record before = { 0 }, record;
	uint8_t bytes[BUNDLE_RECORD_BYTES];

	for (uint64_t chunks = 0;; chunks++, before = record) {
		int r = u->receive(u->data, bytes, sizeof bytes, e);
		if (r >= 0)
			r = bundle_record_decode(bytes, &record, e);
		if (r < 0)
			return r;
		if (record.kind == BUNDLE_END)
			return check_end(&record, chunks, records, e);
		if (record.stream >= u->count || u->files[record.stream].fd < 0)
			return err_set(e, ERR_CORRUPT, "the bundle has a chunk of a part that was not asked for (%" PRIu32 ")", record.stream);
		r = bundle_record_check(&record, chunks ? &before : NULL, u->files[record.stream].size_bytes, e);
		if (r >= 0)
			r = take_chunk(u, &record, e);
		if (r < 0)
			return r;
		hash_add(records, bytes, sizeof bytes);
	}
}

int bundle_unpack(const struct bundle_file *files, size_t count, bundle_receive_fn *receive, void *data, struct err *e)
{
	struct unpack u = { .files = files, .count = count, .receive = receive, .data = data, .context = ZSTD_createDCtx() };
	own_hash struct hash *records = hash_new();

	u.stored = mem_alloc(BUNDLE_CHUNK_BYTES);
	u.plain = mem_alloc(BUNDLE_CHUNK_BYTES);
	int r = take_all(&u, records, e);
	free(u.stored);
	free(u.plain);
	(void)ZSTD_freeDCtx(u.context);
	return r;
}
