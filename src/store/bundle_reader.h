/* SPDX-License-Identifier: Apache-2.0 */
#ifndef STORE_BUNDLE_READER_H
#define STORE_BUNDLE_READER_H

/*
 * A bundle's file, whole or unfinished, read strictly (docs/formats/bundle.md). For processes without rights: a file may be
 * anything.
 */

#include "model/bundle.h"

struct bundle_reader;

/* Reads and checks header, and of a whole file also table and footer. `fd` stays the caller's. */
int bundle_reader_open(int fd, bool whole, struct bundle_reader **ret_reader, struct err *e) must_check;
void bundle_reader_free(struct bundle_reader *r);
static inline void bundle_reader_free_at(struct bundle_reader **r)
{
	if (*r)
		bundle_reader_free(*r);
}
#define own_bundle_reader __attribute__((cleanup(bundle_reader_free_at)))

const struct bundle_header *bundle_reader_header(const struct bundle_reader *r);
const char *bundle_reader_digest(const struct bundle_reader *r, char hex[DIGEST_HEX_SIZE]); /* of the header */
uint64_t bundle_reader_start_bytes(const struct bundle_reader *r); /* up to the first chunk */
size_t bundle_reader_chunks(const struct bundle_reader *r);
const struct bundle_record *bundle_reader_chunk(const struct bundle_reader *r, size_t number);
/* The first chunk of a stream, or of one after it. */
size_t bundle_reader_find(const struct bundle_reader *r, uint32_t stream);

/* Stored bytes, and the plain ones with their checksum compared; of BUNDLE_CHUNK_BYTES at least. */
int bundle_reader_stored(struct bundle_reader *r, size_t number, void *stored, struct err *e) must_check;
int bundle_reader_plain(struct bundle_reader *r, size_t number, void *plain, struct err *e) must_check;

/* Of an unfinished file: the chunks that came whole; the file is cut after the last one, and reading begins there. */
int bundle_reader_recover(struct bundle_reader *r, uint64_t *ret_length, struct err *e) must_check;
/* Writes table and footer behind the chunks, which just came or were recovered, and must fill the file. */
int bundle_reader_finish(struct bundle_reader *r, struct err *e) must_check;

#endif
