/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Integers are little-endian. A record is
 *	0 "CHNK" or "ENDS" | 4 stream | 8 offset | 16 plain length | 20 stored length | 24 codec | 25 seven zeros | 32 SHA-256
 * and a footer
 *	0 "CARRELBE" | 8 offset of the table | 16 number of chunks | 24 eight zeros | 32 SHA-256
 */
#include "model/bundle.h"

#include <inttypes.h>
#include <stddef.h>
#include <string.h>

#include "base/mem.h"
#include "base/str.h"
#include "model/name.h"

#define FOOTER_MAGIC "CARRELBE"

static const char *const kind_names[] = { "blob", "partition", "volume", "snapshot", "memory", NULL };

#define S(member) offsetof(struct bundle_stream, member)
static const struct field stream_fields[] = {
	{ "kind", FIELD_ENUM, S(kind), "what it is", .required = true, .names = kind_names },
	{ "name", FIELD_TEXT, S(name), "which one", .required = true, .max = 256 },
	{ "bytes", FIELD_NUMBER, S(size_bytes), "length; chunks that are missing are zeros", .required = true,
	  .max = SPEC_DISK_MOST * 2 },
	{ "changed", FIELD_NUMBER, S(changed_ns), "last change of the file, nanoseconds of Unix time" },
	{ "left-out", FIELD_BOOL, S(left_out), "it is not in this file: who imports it has it" },
	{ 0 },
};
static const struct shape stream_shape = { "bundle-stream", sizeof(struct bundle_stream), stream_fields,
					   "A part of a bundle." };

#define N(member) offsetof(struct assignment_snapshot, member)
static const struct field snapshot_fields[] = {
	{ "id", FIELD_TEXT, N(id), "id", .required = true, .max = ID_LENGTH },
	{ "name", FIELD_TEXT, N(name), "name", .required = true, .check = name_check },
	{ 0 },
};
static const struct shape snapshot_shape = { "bundle-snapshot", sizeof(struct assignment_snapshot), snapshot_fields,
					     "A snapshot in a bundle." };

#define H(member) offsetof(struct bundle_header, member)
static const struct field header_fields[] = {
	{ "id", FIELD_TEXT, H(id), "id of the workspace", .required = true, .max = ID_LENGTH },
	{ "name", FIELD_TEXT, H(name), "its name", .required = true, .check = name_check },
	{ "state", FIELD_ENUM, H(state), "where it was", .required = true, .names = state_names },
	{ "engine", FIELD_TEXT, H(engine), "engine of its last run", .max = 64 },
	{ "run", FIELD_NUMBER, H(run), "number of its last run" },
	{ "spec", FIELD_OBJECT, H(spec), "its spec", .required = true, .shape = &spec_shape },
	{ "image", FIELD_OBJECT, H(image), "its image", .required = true, .shape = &image_shape },
	{ "interfaces", FIELD_OBJECTS, H(interfaces), "its interfaces", .max = NETWORK_INTERFACES, .shape = &attachment_shape },
	{ "snapshots", FIELD_OBJECTS, H(snapshots), "snapshots in this file", .max = 100, .shape = &snapshot_shape },
	{ "streams", FIELD_OBJECTS, H(streams), "what the chunks are of", .required = true, .max = BUNDLE_STREAMS_MOST,
	  .shape = &stream_shape },
	{ 0 },
};
const struct shape bundle_header_shape = { "bundle-header", sizeof(struct bundle_header), header_fields,
					   "What a bundle holds." };

/* --- header --- */

const struct bundle_stream *bundle_stream_find(const struct bundle_header *h, enum bundle_kind kind, const char *name,
					       size_t *ret_number)
{
	const struct bundle_stream *streams = h->streams.items;

	for (size_t i = 0; i < h->streams.count; i++) {
		if (streams[i].kind != kind || !str_eq(streams[i].name, name))
			continue;
		if (ret_number)
			*ret_number = i;
		return &streams[i];
	}
	return NULL;
}

/* What there is besides the volumes of the spec; NULL after the last. */
static const char *own_name(const struct bundle_header *h, size_t number)
{
	if (h->image->machine)
		return machine_disk_name(h->spec->machine, h->image->machine, h->image->partitions.count, number);
	return number == 0 ? "root" : NULL;
}

static bool has_volume(const struct bundle_header *h, const char *name)
{
	const struct spec_volume *v = h->spec->volumes.items;
	const char *own;

	for (size_t i = 0; (own = own_name(h, i)); i++)
		if (str_eq(name, own))
			return true;
	for (size_t i = 0; i < h->spec->volumes.count; i++)
		if (str_eq(v[i].name, name))
			return true;
	return false;
}

static bool has_snapshot(const struct bundle_header *h, const char *name)
{
	const struct assignment_snapshot *s = h->snapshots.items;
	const char *slash = strchr(name, '/');

	for (size_t i = 0; slash && i < h->snapshots.count; i++)
		if (strlen(s[i].id) == (size_t)(slash - name) && strncmp(s[i].id, name, (size_t)(slash - name)) == 0)
			return has_volume(h, slash + 1);
	return false;
}

/* A name that becomes a path somewhere is a plain one. */
static bool is_plain(const char *name)
{
	size_t n = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-");
	return n && !name[n] && name[0] != '.' && n < 128;
}

static int check_stream(const struct bundle_header *h, const struct bundle_stream *s, struct err *e)
{
	struct digest d;
	bool good = false;

	switch ((enum bundle_kind)s->kind) {
	case BUNDLE_BLOB:
		good = digest_parse(s->name, &d, NULL) == 0 && s->size_bytes <= 4 << 20;
		break;
	case BUNDLE_PARTITION:
		good = digest_parse(s->name, &d, NULL) == 0;
		break;
	case BUNDLE_VOLUME:
		good = has_volume(h, s->name) && !s->left_out;
		break;
	case BUNDLE_SNAPSHOT:
		good = has_snapshot(h, s->name) && !s->left_out;
		break;
	case BUNDLE_MEMORY:
		good = is_plain(s->name) && h->state == STATE_SUSPENDED && !s->left_out;
		break;
	}
	return good ? 0 :
		      err_set(e, ERR_CORRUPT, "the bundle's header has a part that it does not explain (%s)",
			      kind_names[s->kind]);
}

static int check_header(const struct bundle_header *h, struct err *e)
{
	const struct bundle_stream *s = h->streams.items;
	const struct spec_volume *v = h->spec->volumes.items;
	int r = 0;

	if (!id_valid(h->id))
		return err_set(e, ERR_CORRUPT, "the bundle's workspace has no id");
	for (size_t i = 0; i < h->snapshots.count; i++)
		if (!id_valid(((const struct assignment_snapshot *)h->snapshots.items)[i].id))
			return err_set(e, ERR_CORRUPT, "the bundle has a snapshot without id");
	for (size_t i = 0; r == 0 && i < h->streams.count; i++) {
		size_t first = 0;
		r = check_stream(h, &s[i], e);
		if (r == 0 && bundle_stream_find(h, (enum bundle_kind)s[i].kind, s[i].name, &first) && first != i)
			r = err_set(e, ERR_CORRUPT, "the bundle has a part twice (%s)", kind_names[s[i].kind]);
	}
	bool whole = true;
	for (size_t i = 0; own_name(h, i); i++)
		whole = whole && bundle_stream_find(h, BUNDLE_VOLUME, own_name(h, i), NULL);
	for (size_t i = 0; i < h->spec->volumes.count; i++)
		whole = whole && bundle_stream_find(h, BUNDLE_VOLUME, v[i].name, NULL);
	if (r == 0 && !whole)
		r = err_set(e, ERR_CORRUPT, "the bundle lacks a volume");
	return r;
}

int bundle_header_decode(const char *bytes, size_t length, struct bundle_header *ret_header, struct err *e)
{
	struct bundle_header h = { 0 };
	int r = decode_text(bytes, length, "bundle", &bundle_header_shape, &h, e);

	if (r < 0)
		return r;
	r = check_header(&h, e);
	if (r < 0) {
		bundle_header_done(&h);
		return r;
	}
	*ret_header = h;
	return 0;
}

void bundle_header_done(struct bundle_header *h) { shape_done(&bundle_header_shape, h); }

/* --- bytes --- */

static void put32(uint8_t *at, uint32_t value)
{
	for (int i = 0; i < 4; i++)
		at[i] = (uint8_t)(value >> (8 * i));
}

static void put64(uint8_t *at, uint64_t value)
{
	for (int i = 0; i < 8; i++)
		at[i] = (uint8_t)(value >> (8 * i));
}

static uint32_t get32(const uint8_t *at)
{
	return at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static uint64_t get64(const uint8_t *at) { return get32(at) | (uint64_t)get32(at + 4) << 32; }

void bundle_start_encode(uint32_t header_length, uint8_t out[BUNDLE_START_BYTES])
{
	memcpy(out, BUNDLE_MAGIC, 8);
	put32(out + 8, BUNDLE_VERSION);
	put32(out + 12, header_length);
}

int bundle_start_decode(const uint8_t in[BUNDLE_START_BYTES], uint32_t *ret_header_length, struct err *e)
{
	uint32_t length = get32(in + 12);

	if (memcmp(in, BUNDLE_MAGIC, 8) != 0)
		return err_set(e, ERR_CORRUPT, "it is no bundle of a workspace");
	if (get32(in + 8) != BUNDLE_VERSION)
		return err_set(e, ERR_UNSUPPORTED, "the bundle has format %" PRIu32 ", and this version knows %d",
			       get32(in + 8), BUNDLE_VERSION);
	if (length < 2 || length > BUNDLE_HEADER_MOST)
		return err_set(e, ERR_CORRUPT, "the bundle's header has %" PRIu32 " bytes", length);
	*ret_header_length = length;
	return 0;
}

void bundle_record_encode(const struct bundle_record *r, uint8_t out[BUNDLE_RECORD_BYTES])
{
	memset(out, 0, BUNDLE_RECORD_BYTES);
	memcpy(out, r->kind == BUNDLE_END ? "ENDS" : "CHNK", 4);
	put32(out + 4, r->stream);
	put64(out + 8, r->offset);
	put32(out + 16, r->plain_length);
	put32(out + 20, r->stored_length);
	out[24] = (uint8_t)r->codec;
	memcpy(out + 32, r->digest.bytes, 32);
}

int bundle_record_decode(const uint8_t in[BUNDLE_RECORD_BYTES], struct bundle_record *ret_record, struct err *e)
{
	static const uint8_t zeros[7];
	bool end = memcmp(in, "ENDS", 4) == 0;
	struct bundle_record r = { .kind = end ? BUNDLE_END : BUNDLE_CHUNK, .stream = get32(in + 4), .offset = get64(in + 8),
				   .plain_length = get32(in + 16), .stored_length = get32(in + 20),
				   .codec = (enum bundle_codec)in[24] };

	memcpy(r.digest.bytes, in + 32, 32);
	if ((!end && memcmp(in, "CHNK", 4) != 0) || in[24] > BUNDLE_ZSTD || memcmp(in + 25, zeros, 7) != 0)
		return err_set(e, ERR_CORRUPT, "the bundle has something else where a chunk begins");
	bool lengths = end ? !r.plain_length && !r.stored_length && !r.codec && !r.stream :
			     r.plain_length && r.plain_length <= BUNDLE_CHUNK_BYTES && r.stored_length &&
				       r.stored_length <= r.plain_length &&
				       (r.codec == BUNDLE_ZSTD || r.stored_length == r.plain_length);
	if (!lengths)
		return err_set(e, ERR_CORRUPT, "the bundle has a chunk of %" PRIu32 " bytes in %" PRIu32, r.plain_length,
			       r.stored_length);
	*ret_record = r;
	return 0;
}

int bundle_record_check(const struct bundle_record *r, const struct bundle_record *before, uint64_t stream_bytes, struct err *e)
{
	bool first = !before || before->stream != r->stream;

	if (r->offset % BUNDLE_CHUNK_BYTES || r->offset >= stream_bytes || r->plain_length > stream_bytes - r->offset)
		return err_set(e, ERR_CORRUPT, "the bundle has a chunk that lies outside of its part %" PRIu32, r->stream);
	if (r->plain_length < BUNDLE_CHUNK_BYTES && r->offset + r->plain_length != stream_bytes)
		return err_set(e, ERR_CORRUPT, "the bundle has a chunk with a gap after it in part %" PRIu32, r->stream);
	if (before && (before->stream > r->stream || (!first && before->offset >= r->offset)))
		return err_set(e, ERR_CORRUPT, "the bundle's chunks are not in order");
	return 0;
}

void bundle_entry_encode(const struct bundle_record *r, uint64_t at, uint8_t out[BUNDLE_ENTRY_BYTES])
{
	bundle_record_encode(r, out);
	put64(out + BUNDLE_RECORD_BYTES, at);
}

int bundle_entry_decode(const uint8_t in[BUNDLE_ENTRY_BYTES], struct bundle_record *ret_record, uint64_t *ret_at, struct err *e)
{
	int r = bundle_record_decode(in, ret_record, e);

	*ret_at = get64(in + BUNDLE_RECORD_BYTES);
	return r;
}

void bundle_footer_encode(const struct bundle_footer *f, uint8_t out[BUNDLE_FOOTER_BYTES])
{
	memset(out, 0, BUNDLE_FOOTER_BYTES);
	memcpy(out, FOOTER_MAGIC, 8);
	put64(out + 8, f->table_at);
	put64(out + 16, f->chunks);
	memcpy(out + 32, f->digest.bytes, 32);
}

int bundle_footer_decode(const uint8_t in[BUNDLE_FOOTER_BYTES], uint64_t file_bytes, struct bundle_footer *ret_footer,
			 struct err *e)
{
	struct bundle_footer f = { .table_at = get64(in + 8), .chunks = get64(in + 16) };

	memcpy(f.digest.bytes, in + 32, 32);
	if (memcmp(in, FOOTER_MAGIC, 8) != 0) {
		(void)err_set(e, ERR_CORRUPT, "the bundle is cut off: it has no end");
		return err_hint(e, "export it again; an unfinished FILE.part is continued");
	}
	if (file_bytes < BUNDLE_FOOTER_BYTES || f.chunks > file_bytes / BUNDLE_ENTRY_BYTES ||
	    f.table_at > file_bytes - BUNDLE_FOOTER_BYTES ||
	    file_bytes - BUNDLE_FOOTER_BYTES - f.table_at != f.chunks * BUNDLE_ENTRY_BYTES)
		return err_set(e, ERR_CORRUPT, "the bundle's end does not fit its length");
	*ret_footer = f;
	return 0;
}
