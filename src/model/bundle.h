/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MODEL_BUNDLE_H
#define MODEL_BUNDLE_H

/*
 * A bundle: one whole workspace in one file (docs/formats/bundle.md). First what it is, as JSON; then the bytes of its volumes,
 * partitions and memory in chunks, each with its SHA-256; at last a table of all chunks and a footer. Pure: bytes to structs
 * and back.
 */

#include "model/assignment.h"

#define BUNDLE_MAGIC "CARRELB1"
#define BUNDLE_START_BYTES 16         /* magic, version, length of the header */
#define BUNDLE_VERSION 1
#define BUNDLE_HEADER_MOST (4 << 20)
#define BUNDLE_RECORD_BYTES 64
#define BUNDLE_FOOTER_BYTES 64
#define BUNDLE_CHUNK_BYTES (1 << 20)  /* of plain bytes; also what offsets are multiples of */
#define BUNDLE_STREAMS_MOST 4096

enum bundle_kind { BUNDLE_BLOB, BUNDLE_PARTITION, BUNDLE_VOLUME, BUNDLE_SNAPSHOT, BUNDLE_MEMORY };

struct bundle_stream {
	unsigned kind;       /* enum bundle_kind */
	char *name;          /* digest, name of the volume, SNAPSHOT/VOLUME, or name of the file */
	uint64_t size_bytes; /* chunks that are not there are zeros */
	uint64_t changed_ns; /* of the file, so that two exports of the same bytes have the same header; 0: it never changes */
	bool left_out;       /* a partition or blob that the other side has */
};

struct bundle_header {
	char *id, *name;         /* of the workspace */
	unsigned state;          /* enum state: prepared, stopped, suspended, failed */
	char *engine;            /* of the last run; NULL: it never ran */
	uint64_t run;
	struct spec *spec;
	struct image *image;
	struct objects interfaces; /* struct attachment: addresses that it had */
	struct objects snapshots;  /* struct assignment_snapshot: those that are in it */
	struct objects streams;    /* struct bundle_stream; a chunk names one by its number */
};
extern const struct shape bundle_header_shape;

/* Strict, and its parts agree with each other: names that can be used as names, every stream of a kind that the rest speaks
 * of. */
int bundle_header_decode(const char *bytes, size_t length, struct bundle_header *ret_header, struct err *e) must_check;
void bundle_header_done(struct bundle_header *h);
const struct bundle_stream *bundle_stream_find(const struct bundle_header *h, enum bundle_kind kind, const char *name,
					       size_t *ret_number);

/* The first bytes of a file, for a header of this length. */
void bundle_start_encode(uint32_t header_length, uint8_t out[BUNDLE_START_BYTES]);
int bundle_start_decode(const uint8_t in[BUNDLE_START_BYTES], uint32_t *ret_header_length, struct err *e) must_check;

enum bundle_codec { BUNDLE_PLAIN, BUNDLE_ZSTD };
enum bundle_record_kind { BUNDLE_CHUNK, BUNDLE_END };

struct bundle_record {
	enum bundle_record_kind kind;
	uint32_t stream;
	uint64_t offset;          /* in the stream; END: number of chunks before it */
	uint32_t plain_length, stored_length; /* stored bytes follow the record */
	enum bundle_codec codec;
	struct digest digest;     /* of the plain bytes; END: of all records before it */
};
void bundle_record_encode(const struct bundle_record *r, uint8_t out[BUNDLE_RECORD_BYTES]);
/* Lengths within their limits. */
int bundle_record_decode(const uint8_t in[BUNDLE_RECORD_BYTES], struct bundle_record *ret_record, struct err *e) must_check;
/* Whether `r` may follow `before` (NULL: it is the first): streams and offsets only grow, and it lies inside its stream. */
int bundle_record_check(const struct bundle_record *r, const struct bundle_record *before, uint64_t stream_bytes,
			struct err *e) must_check;

struct bundle_footer {
	uint64_t table_at, chunks; /* of the file's end; the table is `chunks` times BUNDLE_ENTRY_BYTES */
	struct digest digest;      /* of header's digest and table */
};
#define BUNDLE_ENTRY_BYTES 72 /* a record, and where it is in the file */
void bundle_entry_encode(const struct bundle_record *r, uint64_t at, uint8_t out[BUNDLE_ENTRY_BYTES]);
int bundle_entry_decode(const uint8_t in[BUNDLE_ENTRY_BYTES], struct bundle_record *ret_record, uint64_t *ret_at,
			struct err *e) must_check;
void bundle_footer_encode(const struct bundle_footer *f, uint8_t out[BUNDLE_FOOTER_BYTES]);
int bundle_footer_decode(const uint8_t in[BUNDLE_FOOTER_BYTES], uint64_t file_bytes, struct bundle_footer *ret_footer,
			 struct err *e) must_check;

#endif
