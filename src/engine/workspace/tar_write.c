/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. What fits into the plain header (ustar) stands there, and anything else in pax records before it. Names are bytes:
 * one that is not UTF-8 is announced by hdrcharset=BINARY.
 */
#include "engine/workspace/tar.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/mem.h"
#include "base/own.h"

unsigned tar_padding(uint64_t length) { return (unsigned)(-length & (TAR_BLOCK - 1)); }

static void pad(struct str *out)
{
	static const char zeros[TAR_BLOCK];

	str_add(out, zeros, tar_padding(out->length));
}

/* --- the plain header --- */

static bool fits(uint64_t value, unsigned digits) { return value >> (3 * digits) == 0; }

static void put_octal(char *field, unsigned digits, uint64_t value)
{
	for (unsigned i = digits; i-- > 0; value >>= 3)
		field[i] = (char)('0' + (value & 7));
}

static char type_of(const struct tar_entry *entry)
{
	static const struct {
		mode_t kind;
		char type;
	} types[] = { { S_IFLNK, '2' }, { S_IFCHR, '3' }, { S_IFBLK, '4' }, { S_IFDIR, '5' }, { S_IFIFO, '6' } };

	if (entry->hard_link)
		return '1';
	for (size_t i = 0; i < ARRAY_SIZE(types); i++)
		if (types[i].kind == (entry->mode & S_IFMT))
			return types[i].type;
	return '0';
}

#define NAME_MOST   100
#define PREFIX_MOST 155

/* Where a long name is split into prefix and name, at a slash; 0: nowhere. */
static size_t split_of(const char *path)
{
	size_t length = strlen(path);

	for (const char *slash = strchr(path + (*path != '\0'), '/'); slash; slash = strchr(slash + 1, '/')) {
		size_t at = (size_t)(slash - path), rest = length - at - 1;
		if (at <= PREFIX_MOST && rest <= NAME_MOST && rest > 0)
			return at;
	}
	return 0;
}

static void put_name(char *block, const char *path)
{
	size_t length = strlen(path), at = length > NAME_MOST ? split_of(path) : 0;

	if (at) {
		memcpy(block + 345, path, at);
		path += at + 1;
		length -= at + 1;
	}
	memcpy(block, path, length < NAME_MOST ? length : NAME_MOST);
}

static void put_block(struct str *out, const char *path, const struct tar_entry *entry, char type, uint64_t size)
{
	char block[TAR_BLOCK] = { 0 };
	unsigned sum = 0;

	put_name(block, path);
	put_octal(block + 100, 7, entry->mode & 07777);
	put_octal(block + 108, 7, fits(entry->uid, 7) ? entry->uid : 0);
	put_octal(block + 116, 7, fits(entry->gid, 7) ? entry->gid : 0);
	put_octal(block + 124, 11, fits(size, 11) ? size : 0);
	put_octal(block + 136, 11, entry->seconds >= 0 && fits((uint64_t)entry->seconds, 11) ? (uint64_t)entry->seconds : 0);
	memset(block + 148, ' ', 8);
	block[156] = type;
	if (entry->target && type != 'x')
		memcpy(block + 157, entry->target, strnlen(entry->target, NAME_MOST));
	memcpy(block + 257, "ustar\00000", 8);
	put_octal(block + 329, 7, entry->major);
	put_octal(block + 337, 7, entry->minor);
	for (size_t i = 0; i < sizeof block; i++)
		sum += (uint8_t)block[i];
	put_octal(block + 148, 6, sum);
	block[154] = '\0';
	str_add(out, block, sizeof block);
}

/* --- pax records --- */

/* The length counts its own digits. */
static void put_record(struct str *out, const char *key, const void *value, size_t length)
{
	size_t bare = strlen(key) + length + 3, whole = bare + 1;

	while ((size_t)snprintf(NULL, 0, "%zu", whole) + bare != whole)
		whole = (size_t)snprintf(NULL, 0, "%zu", whole) + bare;
	str_printf(out, "%zu %s=", whole, key);
	str_add(out, value, length);
	str_putc(out, '\n');
}

static void put_text(struct str *out, const char *key, const char *text) { put_record(out, key, text, strlen(text)); }

static void put_number(struct str *out, const char *key, uint64_t value)
{
	char text[24];

	(void)snprintf(text, sizeof text, "%" PRIu64, value);
	put_text(out, key, text);
}

static void put_time(struct str *out, const struct tar_entry *entry)
{
	int64_t seconds = entry->seconds;
	uint32_t fraction = entry->nanoseconds;
	bool negative = seconds < 0;
	char text[48];

	if (negative && fraction) {
		seconds++;
		fraction = 1000000000 - fraction;
	}
	(void)snprintf(text, sizeof text, "%s%" PRIu64 ".%09" PRIu32, negative ? "-" : "",
		       (uint64_t)(negative ? -seconds : seconds), fraction);
	put_text(out, "mtime", text);
}

static bool is_utf8(const char *text)
{
	for (const uint8_t *at = (const uint8_t *)text; *at;) {
		unsigned more = *at < 0x80                  ? 0
				: *at >= 0xc2 && *at < 0xe0 ? 1
				: (*at & 0xf0) == 0xe0      ? 2
				: *at >= 0xf0 && *at < 0xf5 ? 3
							    : 9;
		if (more == 9)
			return false;
		for (at++; more > 0; more--, at++)
			if ((*at & 0xc0) != 0x80)
				return false;
	}
	return true;
}

static bool is_long(const char *path) { return strlen(path) > NAME_MOST && !split_of(path); }

static void put_records(struct str *out, const struct tar_entry *entry, uint64_t size)
{
	bool path = !entry->sparse && is_long(entry->path), target = entry->target && strlen(entry->target) > NAME_MOST;

	if (((path || entry->sparse) && !is_utf8(entry->path)) || (target && !is_utf8(entry->target)))
		put_text(out, "hdrcharset", "BINARY");
	if (path)
		put_text(out, "path", entry->path);
	if (target)
		put_text(out, "linkpath", entry->target);
	if (!fits(size, 11))
		put_number(out, "size", size);
	if (!fits(entry->uid, 7))
		put_number(out, "uid", entry->uid);
	if (!fits(entry->gid, 7))
		put_number(out, "gid", entry->gid);
	if (entry->seconds < 0 || !fits((uint64_t)entry->seconds, 11))
		put_time(out, entry);
	if (entry->sparse) {
		put_text(out, "GNU.sparse.major", "1");
		put_text(out, "GNU.sparse.minor", "0");
		put_text(out, "GNU.sparse.name", entry->path);
		put_number(out, "GNU.sparse.realsize", entry->size);
	}
	for (size_t i = 0; i < entry->xattr_count; i++) {
		own_str char *key = mem_printf("SCHILY.xattr.%s", entry->xattrs[i].name);
		put_record(out, key, entry->xattrs[i].value, entry->xattrs[i].length);
	}
	if (out->length && entry->seconds >= 0 && entry->nanoseconds)
		put_time(out, entry);
}

/* --- an entry --- */

static void put_map(struct str *out, const struct tar_entry *entry)
{
	str_printf(out, "%zu\n", entry->piece_count);
	for (size_t i = 0; i < entry->piece_count; i++)
		str_printf(out, "%" PRIu64 "\n%" PRIu64 "\n", entry->pieces[i].offset, entry->pieces[i].length);
	pad(out);
}

static uint64_t content_of(const struct tar_entry *entry)
{
	uint64_t size = 0;

	if (!S_ISREG(entry->mode) || entry->hard_link)
		return 0;
	if (!entry->sparse)
		return entry->size;
	for (size_t i = 0; i < entry->piece_count; i++)
		size += entry->pieces[i].length;
	return size;
}

void tar_header(const struct tar_entry *entry, struct str *out)
{
	own_strbuf struct str map = { 0 }, records = { 0 };

	if (entry->sparse)
		put_map(&map, entry);
	uint64_t size = map.length + content_of(entry);
	put_records(&records, entry, size);
	if (records.length) {
		static const struct tar_entry plain = { .mode = 0644 };
		put_block(out, "PaxHeader", &plain, 'x', records.length);
		str_add(out, records.bytes, records.length);
		str_add(out, (const char[TAR_BLOCK]){ 0 }, tar_padding(records.length));
	}
	put_block(out, entry->sparse ? "GNUSparseFile.0" : entry->path, entry, type_of(entry), size);
	str_add(out, map.bytes, map.length);
}
