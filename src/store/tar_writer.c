/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Source: POSIX.1-2017, pax, "pax Interchange Format"; GNU tar manual, "Storing Sparse Files" (format 1.0).
 *
 * A pax header stands before an entry only where the old one cannot say it: names past 100 bytes, numbers past their octal
 * digits, times with fractions, attributes, holes. The prefix field is not used. What a record says is 0 or cut in the header
 * behind it, for readers that know no pax. Nothing is remembered between two entries, and sizes are the caller's word: it
 * writes as many bytes as it announced.
 */
#include "store/tar_writer.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"

#define TAR_BLOCK 512
#define OCTAL_7_MOST 07777777U
#define OCTAL_11_MOST 077777777777ULL

struct header {
	char name[100], mode[8], uid[8], gid[8], size[12], mtime[12], checksum[8], type, link[100], magic[6], version[2],
		user[32], group[32], major[8], minor[8], prefix[155], pad[12];
};
_Static_assert(sizeof(struct header) == TAR_BLOCK, "a tar header is one block");

int tar_data(struct tar_writer *w, const void *bytes, size_t length, struct err *e)
{
	return length ? w->sink(w->data, bytes, length, e) : 0;
}

int tar_pad(struct tar_writer *w, uint64_t content_bytes, struct err *e)
{
	static const char zeros[TAR_BLOCK];
	return tar_data(w, zeros, (TAR_BLOCK - content_bytes % TAR_BLOCK) % TAR_BLOCK, e);
}

int tar_end(struct tar_writer *w, struct err *e)
{
	static const char zeros[2 * TAR_BLOCK];
	return tar_data(w, zeros, sizeof zeros, e);
}

/* `digits` octal digits and a NUL; what is larger stands in a pax record, and 0 here. */
static void octal(char *out, int digits, uint64_t most, uint64_t value)
{
	char text[24];

	(void)snprintf(text, sizeof text, "%0*llo", digits, (unsigned long long)(value <= most ? value : 0));
	memcpy(out, text, (size_t)digits + 1);
}

/* A text that fills its field has no NUL. */
static void field(char *out, size_t size, const char *text)
{
	size_t length = strlen(text);
	memcpy(out, text, length < size ? length : size);
}

static void seal(struct header *h)
{
	unsigned sum = 0;

	memcpy(h->magic, "ustar", 6);
	memcpy(h->version, "00", 2);
	memset(h->checksum, ' ', sizeof h->checksum);
	for (size_t i = 0; i < sizeof *h; i++)
		sum += ((const unsigned char *)h)[i];
	octal(h->checksum, 6, OCTAL_7_MOST, sum);
}

/* "LENGTH KEY=VALUE\n", where the length counts itself. */
static void record(struct str *pax, const char *key, const void *value, size_t length)
{
	size_t rest = strlen(key) + length + 3, digits = 1;

	for (size_t limit = 10; rest + digits >= limit; limit *= 10)
		digits++;
	str_printf(pax, "%zu %s=", rest + digits, key);
	str_add(pax, value, length);
	str_putc(pax, '\n');
}

static void record_number(struct str *pax, const char *key, uint64_t value)
{
	char text[24];
	int length = snprintf(text, sizeof text, "%llu", (unsigned long long)value);

	record(pax, key, text, (size_t)length);
}

/* Seconds with a fraction, as the value and not as its parts: half a second before the epoch is -0.5. */
static void record_time(struct str *pax, int64_t seconds, uint32_t nsec)
{
	char text[48];
	bool borrow = seconds < 0 && nsec > 0;
	uint64_t whole = seconds < 0 ? (uint64_t)-(seconds + borrow) : (uint64_t)seconds;
	uint32_t part = borrow ? 1000000000 - nsec : nsec;
	int length = snprintf(text, sizeof text, "%s%llu", seconds < 0 ? "-" : "", (unsigned long long)whole);

	if (part) {
		length += snprintf(text + length, sizeof text - (size_t)length, ".%09u", part);
		while (text[length - 1] == '0')
			length--;
	}
	record(pax, "mtime", text, (size_t)length);
}

/* RFC 3629, without looking for surrogates and overlong forms: those who care read the bytes anyway. */
static bool is_utf8(const char *text)
{
	for (const unsigned char *p = (const unsigned char *)text; *p; p++) {
		int more = *p < 0x80               ? 0 :
			   *p >= 0xc2 && *p < 0xe0 ? 1 :
			   *p >= 0xe0 && *p < 0xf0 ? 2 :
			   *p >= 0xf0 && *p < 0xf5 ? 3 :
						     -1;
		if (more < 0)
			return false;
		for (; more > 0; more--)
			if ((*++p & 0xc0) != 0x80)
				return false;
	}
	return true;
}

static void record_names(struct str *pax, const char *path, const char *link)
{
	bool long_path = path && strlen(path) > sizeof((struct header *)0)->name,
	     long_link = link && strlen(link) > sizeof((struct header *)0)->link;

	if ((long_path && !is_utf8(path)) || (long_link && !is_utf8(link))) /* a short name stands as bytes in its header */
		record(pax, "hdrcharset", "BINARY", 6);
	if (long_path)
		record(pax, "path", path, strlen(path));
	if (long_link)
		record(pax, "linkpath", link, strlen(link));
}

static void record_numbers(struct str *pax, const struct erofs_inode *i, uint64_t size)
{
	if (i->uid > OCTAL_7_MOST)
		record_number(pax, "uid", i->uid);
	if (i->gid > OCTAL_7_MOST)
		record_number(pax, "gid", i->gid);
	if (size > OCTAL_11_MOST)
		record_number(pax, "size", size);
	if (i->mtime < 0 || (uint64_t)i->mtime > OCTAL_11_MOST || i->mtime_nsec)
		record_time(pax, i->mtime, i->mtime_nsec);
}

static void record_attributes(struct str *pax, const struct erofs_attribute_list *list)
{
	for (size_t n = 0; list && n < list->count; n++) {
		own_str char *key = mem_printf("SCHILY.xattr.%s", list->items[n].name);
		record(pax, key, list->items[n].value, list->items[n].length);
	}
}

static char type_of(const struct tar_entry *entry)
{
	if (entry->hard_link)
		return '1';
	switch (entry->inode->mode & S_IFMT) {
	case S_IFLNK: return '2';
	case S_IFCHR: return '3';
	case S_IFBLK: return '4';
	case S_IFDIR: return '5';
	case S_IFIFO: return '6';
	default: return '0';
	}
}

/* The records and the header that holds them. */
static int put_pax(struct tar_writer *w, const struct str *pax, struct err *e)
{
	struct header h = { .type = 'x' };

	field(h.name, sizeof h.name, "PaxHeaders.0/entry");
	octal(h.mode, 7, OCTAL_7_MOST, 0644);
	octal(h.uid, 7, OCTAL_7_MOST, 0);
	octal(h.gid, 7, OCTAL_7_MOST, 0);
	octal(h.size, 11, OCTAL_11_MOST, pax->length);
	octal(h.mtime, 11, OCTAL_11_MOST, 0);
	seal(&h);
	int r = tar_data(w, &h, sizeof h, e);
	if (r == 0)
		r = tar_data(w, pax->bytes, pax->length, e);
	return r == 0 ? tar_pad(w, pax->length, e) : r;
}

static int put_header(struct tar_writer *w, const struct tar_entry *entry, const char *name, const char *link, uint64_t size,
		      struct err *e)
{
	const struct erofs_inode *i = entry->inode;
	struct header h = { .type = type_of(entry) };

	field(h.name, sizeof h.name, name);
	octal(h.mode, 7, OCTAL_7_MOST, i->mode & 07777);
	octal(h.uid, 7, OCTAL_7_MOST, i->uid);
	octal(h.gid, 7, OCTAL_7_MOST, i->gid);
	octal(h.size, 11, OCTAL_11_MOST, size);
	octal(h.mtime, 11, OCTAL_11_MOST, i->mtime < 0 ? 0 : (uint64_t)i->mtime);
	if (link)
		field(h.link, sizeof h.link, link);
	octal(h.major, 7, OCTAL_7_MOST, i->major);
	octal(h.minor, 7, OCTAL_7_MOST, i->minor);
	seal(&h);
	return tar_data(w, &h, sizeof h, e);
}

/* In front of a sparse file's data: the number of ranges and the ranges, in decimal lines, padded to a block. A last empty
 * range says where the file ends. */
static void make_map(const struct tar_entry *entry, struct str *map)
{
	uint64_t end = entry->inode->size_bytes;
	bool closed = entry->range_count &&
		      entry->ranges[entry->range_count - 1].offset + entry->ranges[entry->range_count - 1].length == end;

	str_printf(map, "%zu\n", entry->range_count + !closed);
	for (size_t i = 0; i < entry->range_count; i++)
		str_printf(map, "%llu\n%llu\n", (unsigned long long)entry->ranges[i].offset,
			   (unsigned long long)entry->ranges[i].length);
	if (!closed)
		str_printf(map, "%llu\n0\n", (unsigned long long)end);
	while (map->length % TAR_BLOCK)
		str_putc(map, '\0');
}

static int put_sparse(struct tar_writer *w, const struct tar_entry *entry, struct str *pax, struct err *e)
{
	own_strbuf struct str map = { 0 };
	make_map(entry, &map);
	uint64_t size = map.length;

	for (size_t i = 0; i < entry->range_count; i++)
		size += entry->ranges[i].length;
	record(pax, "GNU.sparse.major", "1", 1);
	record(pax, "GNU.sparse.minor", "0", 1);
	record(pax, "GNU.sparse.name", entry->path, strlen(entry->path));
	record_number(pax, "GNU.sparse.realsize", entry->inode->size_bytes);
	if (!is_utf8(entry->path))
		record(pax, "hdrcharset", "BINARY", 6);
	record_numbers(pax, entry->inode, size);
	record_attributes(pax, entry->attributes);
	int r = put_pax(w, pax, e);
	if (r == 0)
		r = put_header(w, entry, "GNUSparseFile.0/file", NULL, size, e);
	return r == 0 ? tar_data(w, map.bytes, map.length, e) : r;
}

int tar_header(struct tar_writer *w, const struct tar_entry *entry, struct err *e)
{
	own_strbuf struct str pax = { 0 };
	const char *link = entry->hard_link ? entry->hard_link : entry->link;
	uint64_t size = S_ISREG(entry->inode->mode) && !entry->hard_link ? entry->inode->size_bytes : 0;
	int r = 0;

	if (entry->sparse)
		return put_sparse(w, entry, &pax, e);
	own_str char *name = mem_printf("%s%s", entry->path, S_ISDIR(entry->inode->mode) ? "/" : "");
	record_names(&pax, name, link);
	record_numbers(&pax, entry->inode, size);
	if (!entry->hard_link)
		record_attributes(&pax, entry->attributes);
	if (pax.length)
		r = put_pax(w, &pax, e);
	return r == 0 ? put_header(w, entry, name, link, size, e) : r;
}
