/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. An entry is one header block, with others before it that say more about it: pax records ('x'), GNU's long names ('L',
 * 'K'). `struct pending` gathers those; the header proper (`finish`) takes them. Numbers are checked where they are read:
 * nothing is allocated by a length that the archive claims without having its bytes, within TAR_EXTENDED_MOST.
 *
 * A file with holes has its map in one of four places: GNU's own header and the blocks behind it (type 'S'), pax records (0.0 a
 * pair for each piece, 0.1 one list) or the first blocks of its content (1.0).
 */
#include "engine/workspace/tar.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/mem.h"
#include "base/own.h"

#define NUMBER_MOST INT64_MAX

struct pending {                /* said before the header that it is about */
	struct tar_entry entry; /* xattrs and pieces */
	char *path, *target, *sparse_name;
	uint64_t size, uid, gid, real_size, piece_offset, xattr_bytes;
	bool has_size, has_uid, has_gid, has_time, has_real_size, extended;
	bool map_in_content; /* sparse 1.0 */
};

struct ustar { /* and GNU's, from `prefix` on */
	char name[100], mode[8], uid[8], gid[8], size[12], mtime[12], checksum[8], type, linkname[100], magic[8], uname[32],
		gname[32], devmajor[8], devminor[8], prefix[155], rest[12];
};

struct gnu_piece {
	char offset[12], length[12];
};

#define GNU_PIECES_AT         386
#define GNU_PIECES            4
#define GNU_MORE_AT           482
#define GNU_REAL_SIZE_AT      483
#define GNU_EXTENSION_PIECES  21
#define GNU_EXTENSION_MORE_AT 504

void tar_entry_done(struct tar_entry *entry)
{
	for (size_t i = 0; i < entry->xattr_count; i++)
		free(entry->xattrs[i].name);
	free(entry->xattrs);
	free(entry->pieces);
	free(entry->path);
	free(entry->target);
	*entry = (struct tar_entry){ 0 };
}

void tar_add_xattr(struct tar_entry *entry, const char *name, size_t name_length, const void *value, size_t length)
{
	char *both = mem_alloc(name_length + 1 + length);

	memcpy(both, name, name_length);
	if (length)
		memcpy(both + name_length + 1, value, length);
	MEM_PUSH_ROOM(entry->xattrs, entry->xattr_count, entry->xattr_room);
	entry->xattrs[entry->xattr_count++] = (struct tar_xattr){ .name = both,
								  .length = length,
								  .value = (uint8_t *)both + name_length + 1 };
}

void tar_add_piece(struct tar_entry *entry, uint64_t offset, uint64_t length)
{
	MEM_PUSH_ROOM(entry->pieces, entry->piece_count, entry->piece_room);
	entry->pieces[entry->piece_count++] = (struct tar_piece){ offset, length };
}

static void pending_done(struct pending *p)
{
	tar_entry_done(&p->entry);
	free(p->path);
	free(p->target);
	free(p->sparse_name);
	*p = (struct pending){ 0 };
}
#define own_pending __attribute__((cleanup(pending_done)))

static int damaged(struct err *e, const char *what)
{
	return err_set(e, ERR_INVALID, "the archive is no tar or is damaged: %s", what);
}

/* --- bytes --- */

/* 0: the archive is over, where it may be. */
static int read_all(struct tar_reader *r, void *bytes, size_t length, bool may_end, struct err *e)
{
	size_t done = 0;

	while (done < length) {
		ssize_t n = r->read(r->data, (char *)bytes + done, length - done);
		if (n < 0)
			return err_errno(e, errno, "read the archive");
		if (n == 0 && done == 0 && may_end)
			return 0;
		if (n == 0)
			return damaged(e, "it ends in the middle");
		done += (size_t)n;
	}
	return 1;
}

int tar_content(struct tar_reader *r, void *bytes, size_t length, struct err *e)
{
	if (length > r->left)
		return damaged(e, "a file is shorter than it says");
	int n = read_all(r, bytes, length, false, e);
	r->left -= length;
	return n < 0 ? n : 0;
}

static int skip(struct tar_reader *r, uint64_t length, struct err *e)
{
	char bytes[8192];

	while (length > 0) {
		size_t n = length < sizeof bytes ? (size_t)length : sizeof bytes;
		int got = read_all(r, bytes, n, false, e);
		if (got < 0)
			return got;
		length -= n;
	}
	return 0;
}

static int skip_content(struct tar_reader *r, struct err *e)
{
	int n = skip(r, r->left, e);

	if (n >= 0)
		n = skip(r, r->padding, e);
	r->left = r->padding = 0;
	return n;
}

static void expect_content(struct tar_reader *r, uint64_t length)
{
	r->left = length;
	r->padding = tar_padding(length);
}

/* --- numbers --- */

/* Octal digits between spaces, or with the first bit set a binary number (GNU, star); negative ones only where *ret_negative is
 * wanted. */
static int parse_number(const char *field, size_t size, uint64_t *ret, bool *ret_negative)
{
	const uint8_t *at = (const uint8_t *)field, *end = at + size;
	uint64_t value = 0;

	if (ret_negative)
		*ret_negative = false;
	if (*at & 0x80) {
		bool negative = *at & 0x40;
		if (negative && !ret_negative)
			return -EINVAL;
		for (const uint8_t *b = at; b < end; b++) {
			uint8_t byte = b == at ? (uint8_t)(negative ? *b | 0x80 : *b & 0x7f) : *b;
			if (negative)
				byte = (uint8_t)~byte;
			if (value > NUMBER_MOST >> 8)
				return -ERANGE;
			value = value << 8 | byte;
		}
		if (negative) {
			if (value == NUMBER_MOST)
				return -ERANGE;
			value++;
			*ret_negative = true;
		}
		*ret = value;
		return 0;
	}
	while (at < end && (*at == ' ' || *at == '\0'))
		at++;
	for (; at < end && *at >= '0' && *at <= '7'; at++) {
		if (value > NUMBER_MOST >> 3)
			return -ERANGE;
		value = value << 3 | (uint64_t)(*at - '0');
	}
	for (; at < end; at++)
		if (*at != ' ' && *at != '\0')
			return -EINVAL;
	*ret = value;
	return 0;
}
#define NUMBER(field, ret) parse_number(field, sizeof(field), ret, NULL)

/* Decimal digits up to a line end, another end or the end of the text; *ret_end is behind them. */
static int parse_decimal(const char *text, const char *end, uint64_t *ret, const char **ret_end)
{
	uint64_t value = 0;
	const char *at = text;

	for (; at < end && *at >= '0' && *at <= '9'; at++) {
		if (value > (NUMBER_MOST - 9) / 10)
			return -ERANGE;
		value = value * 10 + (uint64_t)(*at - '0');
	}
	if (at == text)
		return -EINVAL;
	*ret = value;
	*ret_end = at;
	return 0;
}

static int whole_decimal(const char *value, size_t length, uint64_t *ret)
{
	const char *end;
	int r = parse_decimal(value, value + length, ret, &end);

	return r < 0 ? r : end == value + length ? 0 : -EINVAL;
}

/* "1700000000.25", "-1.5" */
static int parse_time(const char *value, size_t length, struct tar_entry *entry)
{
	const char *at = value, *end = value + length;
	bool negative = at < end && *at == '-';
	uint64_t seconds;
	uint32_t fraction = 0, place = 100000000;
	int r = parse_decimal(at + negative, end, &seconds, &at);

	if (r < 0)
		return r;
	if (at < end && *at == '.')
		for (at++; at < end && *at >= '0' && *at <= '9'; at++, place /= 10)
			fraction += (uint32_t)(*at - '0') * place;
	if (at != end)
		return -EINVAL;
	entry->seconds = negative ? -(int64_t)seconds - (fraction > 0) : (int64_t)seconds;
	entry->nanoseconds = negative && fraction ? 1000000000 - fraction : fraction;
	return 0;
}

/* --- holes --- */

/* Pieces come in order, end within the file, and are no more than we take. */
static int check_pieces(const struct tar_entry *entry, struct err *e)
{
	uint64_t at = 0;

	for (size_t i = 0; i < entry->piece_count; i++) {
		const struct tar_piece *p = &entry->pieces[i];
		if (p->offset < at || p->offset > entry->size || p->length > entry->size - p->offset)
			return damaged(e, "the map of a file with holes");
		at = p->offset + p->length;
	}
	return 0;
}

static int add_piece(struct tar_entry *entry, uint64_t offset, uint64_t length, struct err *e)
{
	if (entry->piece_count >= TAR_PIECES_MOST)
		return err_set(e, ERR_TOO_LARGE, "a file has more than %d pieces between holes", TAR_PIECES_MOST);
	tar_add_piece(entry, offset, length);
	return 0;
}

static int add_gnu_pieces(struct tar_entry *entry, const char *at, int count, struct err *e)
{
	uint64_t offset, length;
	int r = 0;

	for (int i = 0; i < count && r >= 0; i++, at += sizeof(struct gnu_piece)) {
		const struct gnu_piece *p = (const void *)at;
		if (!p->offset[0] && !p->length[0])
			break;
		if (NUMBER(p->offset, &offset) < 0 || NUMBER(p->length, &length) < 0)
			return damaged(e, "the map of a file with holes");
		r = add_piece(entry, offset, length, e);
	}
	return r;
}

static int read_gnu_map(struct tar_reader *r, const char *header, struct tar_entry *entry, struct err *e)
{
	char block[TAR_BLOCK];
	bool more = header[GNU_MORE_AT];
	int n;

	if (parse_number(header + GNU_REAL_SIZE_AT, 12, &entry->size, NULL) < 0)
		return damaged(e, "the size of a file with holes");
	n = add_gnu_pieces(entry, header + GNU_PIECES_AT, GNU_PIECES, e);
	while (n >= 0 && more) {
		if ((n = read_all(r, block, sizeof block, false, e)) < 0)
			break;
		n = add_gnu_pieces(entry, block, GNU_EXTENSION_PIECES, e);
		more = block[GNU_EXTENSION_MORE_AT];
	}
	return n;
}

struct map_text { /* sparse 1.0: decimal numbers, a line each, in the content's first blocks */
	struct tar_reader *reader;
	char block[TAR_BLOCK];
	size_t at;
};

static int map_number(struct map_text *m, uint64_t *ret, struct err *e)
{
	char digits[24];
	size_t length = 0;

	for (;;) {
		if (m->at == TAR_BLOCK) {
			int r = tar_content(m->reader, m->block, TAR_BLOCK, e);
			if (r < 0)
				return r;
			m->at = 0;
		}
		char c = m->block[m->at++];
		if (c == '\n')
			break;
		if (length == sizeof digits)
			return damaged(e, "the map of a file with holes");
		digits[length++] = c;
	}
	return whole_decimal(digits, length, ret) < 0 ? damaged(e, "the map of a file with holes") : 0;
}

static int read_content_map(struct tar_reader *reader, struct tar_entry *entry, struct err *e)
{
	struct map_text m = { .reader = reader, .at = TAR_BLOCK };
	uint64_t count, offset, length;
	int r = map_number(&m, &count, e);

	for (uint64_t i = 0; r >= 0 && i < count; i++) {
		if ((r = map_number(&m, &offset, e)) >= 0 && (r = map_number(&m, &length, e)) >= 0)
			r = add_piece(entry, offset, length, e);
	}
	return r;
}

/* --- pax records --- */

static int set_text(char **text, const char *value, size_t length, struct err *e)
{
	if (memchr(value, '\0', length))
		return damaged(e, "a name has a zero byte");
	free(*text);
	*text = mem_strndup(value, length);
	return 0;
}

/* "0,512,4096,100": offsets and lengths in turn */
static int add_map(struct tar_entry *entry, const char *value, size_t length, struct err *e)
{
	const char *at = value, *end = value + length;
	uint64_t offset, size;
	int r = 0;

	while (at < end && r >= 0) {
		if (parse_decimal(at, end, &offset, &at) < 0 || at == end || *at++ != ',' ||
		    parse_decimal(at, end, &size, &at) < 0 || (at < end && *at++ != ','))
			return damaged(e, "the map of a file with holes");
		r = add_piece(entry, offset, size, e);
	}
	return r;
}

static int take_sparse(struct pending *p, const char *key, const char *value, size_t length, struct err *e)
{
	uint64_t number = 0;

	p->entry.sparse = true;
	if (str_eq(key, "name"))
		return set_text(&p->sparse_name, value, length, e);
	if (str_eq(key, "map"))
		return add_map(&p->entry, value, length, e);
	if (whole_decimal(value, length, &number) < 0)
		return damaged(e, "a record of a file with holes");
	if (str_eq(key, "major"))
		p->map_in_content = number == 1;
	else if (str_eq(key, "offset"))
		p->piece_offset = number;
	else if (str_eq(key, "numbytes"))
		return add_piece(&p->entry, p->piece_offset, number, e);
	else if (str_eq(key, "realsize") || str_eq(key, "size"))
		p->has_real_size = (p->real_size = number, true);
	return 0;
}

static int take_number(const char *value, size_t length, uint64_t *ret, bool *ret_has, struct err *e)
{
	if (whole_decimal(value, length, ret) < 0)
		return damaged(e, "a number of an extended header");
	*ret_has = true;
	return 0;
}

static int take_xattr(struct pending *p, const char *name, const char *value, size_t length, struct err *e)
{
	p->xattr_bytes += sizeof(struct tar_xattr) + strlen(name) + length;
	if (p->xattr_bytes > TAR_XATTRS_MOST)
		return err_set(e, ERR_TOO_LARGE, "a file has more than %u bytes of extended attributes", TAR_XATTRS_MOST);
	tar_add_xattr(&p->entry, name, strlen(name), value, length);
	return 0;
}

/* Keys that we do not know say nothing that a copy keeps. */
static int take_record(struct pending *p, const char *key, const char *value, size_t length, struct err *e)
{
	static const char xattr[] = "SCHILY.xattr.", sparse[] = "GNU.sparse.";

	if (str_eq(key, "path"))
		return set_text(&p->path, value, length, e);
	if (str_eq(key, "linkpath"))
		return set_text(&p->target, value, length, e);
	if (str_eq(key, "size"))
		return take_number(value, length, &p->size, &p->has_size, e);
	if (str_eq(key, "uid"))
		return take_number(value, length, &p->uid, &p->has_uid, e);
	if (str_eq(key, "gid"))
		return take_number(value, length, &p->gid, &p->has_gid, e);
	if (str_eq(key, "mtime")) {
		p->has_time = true;
		return parse_time(value, length, &p->entry) < 0 ? damaged(e, "the time of a file") : 0;
	}
	if (str_starts(key, xattr) && key[sizeof xattr - 1])
		return take_xattr(p, key + sizeof xattr - 1, value, length, e);
	if (str_starts(key, sparse))
		return take_sparse(p, key + sizeof sparse - 1, value, length, e);
	return 0;
}

/* Each record: "LENGTH KEY=VALUE\n", the length being that of all of it. */
static int take_records(struct pending *p, char *at, const char *end, struct err *e)
{
	int r = 0;

	p->extended = true;
	while (at < end && *at && r >= 0) {
		const char *behind;
		uint64_t length;
		if (parse_decimal(at, end, &length, &behind) < 0 || length > (uint64_t)(end - at) || *behind != ' ')
			return damaged(e, "an extended header");
		char *key = at + (behind - at) + 1, *last = at + length - 1;
		char *equals = key < last ? memchr(key, '=', (size_t)(last - key)) : NULL;
		if (!equals || *last != '\n' || equals == key || memchr(key, '\0', (size_t)(equals - key)))
			return damaged(e, "an extended header");
		*equals = '\0';
		r = take_record(p, key, equals + 1, (size_t)(last - equals - 1), e);
		at = last + 1;
	}
	return r;
}

static int read_extended(struct tar_reader *r, char type, struct pending *p, struct err *e)
{
	size_t length = r->left;
	int n;

	if (r->left > TAR_EXTENDED_MOST)
		return err_set(e, ERR_TOO_LARGE, "an extended header of the archive has more than %u bytes", TAR_EXTENDED_MOST);
	own_str char *bytes = mem_alloc(length + 1);
	if ((n = tar_content(r, bytes, length, e)) < 0)
		return n;
	if (type == 'x')
		return take_records(p, bytes, bytes + length, e);
	return set_text(type == 'L' ? &p->path : &p->target, bytes, strlen(bytes), e);
}

/* --- the header proper --- */

static bool is_zeros(const char *block)
{
	for (size_t i = 0; i < TAR_BLOCK; i++)
		if (block[i])
			return false;
	return true;
}

static bool checksum_fits(const struct ustar *h)
{
	const char *bytes = (const char *)h;
	uint64_t wanted;
	int64_t plain = 0, with_sign = 0;

	if (NUMBER(h->checksum, &wanted) < 0)
		return false;
	for (size_t i = 0; i < TAR_BLOCK; i++) {
		bool counts = i < offsetof(struct ustar, checksum) || i >= offsetof(struct ustar, type);
		plain += counts ? (uint8_t)bytes[i] : ' ';
		with_sign += counts ? (int8_t)bytes[i] : ' ';
	}
	return (int64_t)wanted == plain || (int64_t)wanted == with_sign;
}

static char *name_of(const struct ustar *h)
{
	size_t n = strnlen(h->name, sizeof h->name), before = strnlen(h->prefix, sizeof h->prefix);
	bool ustar = memcmp(h->magic, "ustar\0", 6) == 0; /* GNU's "ustar  " has other things in the prefix's place */

	return ustar && before ? mem_printf("%.*s/%.*s", (int)before, h->prefix, (int)n, h->name) : mem_strndup(h->name, n);
}

static mode_t kind_of(char type, const char *path)
{
	switch (type) {
	case '2':
		return S_IFLNK;
	case '3':
		return S_IFCHR;
	case '4':
		return S_IFBLK;
	case '5':
	case 'D': /* of an incremental archive */
		return S_IFDIR;
	case '6':
		return S_IFIFO;
	case '\0':
	case '0':
		return str_ends(path, "/") ? S_IFDIR : S_IFREG;
	default: /* POSIX: what is not known is a file */
		return S_IFREG;
	}
}

static int read_numbers(const struct ustar *h, const struct pending *p, struct tar_entry *entry, struct err *e)
{
	uint64_t mode, major = 0, minor = 0, seconds;
	bool before_epoch;

	if (NUMBER(h->mode, &mode) < 0 || NUMBER(h->uid, &entry->uid) < 0 || NUMBER(h->gid, &entry->gid) < 0 ||
	    parse_number(h->mtime, sizeof h->mtime, &seconds, &before_epoch) < 0)
		return damaged(e, "a number of a header");
	if ((h->type == '3' || h->type == '4') &&
	    (NUMBER(h->devmajor, &major) < 0 || NUMBER(h->devminor, &minor) < 0 || major > UINT32_MAX || minor > UINT32_MAX))
		return damaged(e, "the number of a device");
	entry->mode = (mode_t)(mode & 07777);
	entry->major = (uint32_t)major;
	entry->minor = (uint32_t)minor;
	if (p->has_uid)
		entry->uid = p->uid;
	if (p->has_gid)
		entry->gid = p->gid;
	if (!p->has_time)
		entry->seconds = before_epoch ? -(int64_t)seconds : (int64_t)seconds;
	return 0;
}

static int read_content_size(struct tar_reader *r, const char *header, struct pending *p, struct tar_entry *entry,
			     struct err *e)
{
	const struct ustar *h = (const void *)header;
	int n = 0;

	if (!S_ISREG(entry->mode) || entry->hard_link) {
		/* Only pax gives a hard link its content once more; others leave in its size what the file has. */
		entry->size = 0;
		if (!entry->hard_link ? h->type != 'D' : !p->extended)
			expect_content(r, 0);
		return 0;
	}
	entry->size = r->left;
	if (h->type == 'S') {
		entry->sparse = true;
		n = read_gnu_map(r, header, entry, e);
	} else if (entry->sparse) {
		if (p->map_in_content)
			n = read_content_map(r, entry, e);
		entry->size = p->has_real_size ? p->real_size : entry->size;
	}
	return n < 0 ? n : check_pieces(entry, e);
}

static int finish(struct tar_reader *r, const char *header, struct pending *p, struct tar_entry *entry, struct err *e)
{
	const struct ustar *h = (const void *)header;

	*entry = p->entry;
	p->entry = (struct tar_entry){ 0 };
	entry->path = p->sparse_name ? TAKE(p->sparse_name) : p->path ? TAKE(p->path) : name_of(h);
	if (!*entry->path)
		return damaged(e, "an entry has no name");
	int n = read_numbers(h, p, entry, e);
	if (n < 0)
		return n;
	entry->mode |= kind_of(h->type, entry->path);
	entry->hard_link = h->type == '1';
	if (S_ISLNK(entry->mode) || entry->hard_link) {
		entry->target = p->target ? TAKE(p->target)
					  : mem_strndup(h->linkname, strnlen(h->linkname, sizeof h->linkname));
		if (!*entry->target)
			return damaged(e, "a link leads nowhere");
	}
	return read_content_size(r, header, p, entry, e);
}

static int read_header(struct tar_reader *r, char *block, struct pending *p, struct err *e)
{
	const struct ustar *h = (const void *)block;
	uint64_t size;
	int n = skip_content(r, e);

	if (n < 0 || (n = read_all(r, block, TAR_BLOCK, true, e)) <= 0)
		return n;
	if (is_zeros(block))
		return 0;
	if (!checksum_fits(h) || NUMBER(h->size, &size) < 0)
		return damaged(e, "a header");
	expect_content(r, p->has_size && h->type != 'x' && h->type != 'L' && h->type != 'K' ? p->size : size);
	return 1;
}

int tar_next(struct tar_reader *r, struct tar_entry *entry, struct err *e)
{
	own_pending struct pending p = { 0 };
	char block[TAR_BLOCK] __attribute__((aligned(8)));

	for (;;) {
		int n = read_header(r, block, &p, e);
		if (n == 0 && !r->begun)
			return damaged(e, "it is empty");
		if (n == 0 && (p.extended || p.path || p.target))
			return damaged(e, "it ends in the middle");
		if (n <= 0)
			return n;
		r->begun = true;
		char type = ((const struct ustar *)(const void *)block)->type;
		if (type == 'x' || type == 'L' || type == 'K') {
			if ((n = read_extended(r, type, &p, e)) < 0)
				return n;
			continue;
		}
		if (type == 'g' || type == 'V' || type == 'A' ||
		    type == 'X') /* about the archive, or what a copy does not keep */
			continue;
		*entry = (struct tar_entry){ 0 };
		if ((n = finish(r, block, &p, entry, e)) < 0)
			tar_entry_done(entry);
		return n < 0 ? n : 1;
	}
}
