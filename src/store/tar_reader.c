/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. libarchive parses; this file decides what an entry means. Names are bytes: a leading '/' is dropped, '..' is refused
 * by the writer. Links are never followed, so nothing can lead out of the tree. Kept: owners, modes, times, hard links, devices
 * (they are inert: a workspace cannot open them), attributes user.*, trusted.*, security.capability, and POSIX access lists.
 * Dropped, because they mean something only to the machine that wrote them: security labels and signatures, file flags. The
 * attributes of overlayfs are dropped too, but for "opaque": others would let a layer point into places of its choice.
 */
#include "store/tar_reader.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"
#include "store/tar_source.h"

#define XATTRS_MOST 256

const struct tar_limits tar_default_limits = { .plain_bytes = UINT64_C(1) << 40 };

struct reader {
	struct tar_source *source;
	struct archive *tar;
	struct erofs_writer *w;
	struct err source_error; /* of the callback, which can only fail */
};

static ssize_t feed(struct archive *a, void *data, const void **ret_bytes)
{
	struct reader *r = data;
	ssize_t n = tar_source_next(r->source, ret_bytes, &r->source_error);

	if (n < 0)
		archive_set_error(a, EIO, "%s", r->source_error.message);
	return n < 0 ? ARCHIVE_FATAL : n;
}

static int failed(struct reader *r, const char *name, struct err *e)
{
	const char *why = archive_error_string(r->tar);

	if (r->source_error.kind) {
		*e = r->source_error;
		return err_wrap(e, "%s", name ? name : "archive");
	}
	if (name)
		return err_set(e, ERR_CORRUPT, "entry '%.200s': %s", name, why ? why : "unknown error");
	(void)err_set(e, ERR_CORRUPT, "the archive cannot be read: %s", why ? why : "unknown error");
	return err_hint(e, "it is neither a tar, packed or not, nor a disk image that is known: carrel image import --help");
}

/* --- attributes --- */

struct attributes {
	struct erofs_attributes base;
	struct erofs_xattr xattrs[XATTRS_MOST];
	struct str acls[2]; /* as the kernel stores them */
	bool opaque;
};

static bool xattr_is_kept(const char *name)
{
	if (str_starts(name, "user.overlay.") || str_starts(name, "trusted.overlay."))
		return false;
	if (str_eq(name, "system.posix_acl_access") || str_eq(name, "system.posix_acl_default"))
		return true; /* as tar_writer.c has them; others write SCHILY.acl records (take_acl) */
	return str_starts(name, "user.") || str_starts(name, "trusted.") || str_eq(name, "security.capability");
}

static int take_xattrs(struct archive_entry *entry, struct attributes *a, struct err *e)
{
	const char *name;
	const void *value;
	size_t length;

	(void)archive_entry_xattr_reset(entry);
	while (archive_entry_xattr_next(entry, &name, &value, &length) == ARCHIVE_OK) {
		if (!name)
			return err_set(e, ERR_CORRUPT, "an extended attribute has no readable name");
		if (str_ends(name, ".overlay.opaque") && length == 1 && memcmp(value, "y", 1) == 0)
			a->opaque = true;
		if (!xattr_is_kept(name))
			continue;
		if (a->base.xattr_count == XATTRS_MOST - 2)
			return err_set(e, ERR_TOO_LARGE, "more than %d extended attributes", XATTRS_MOST - 2);
		a->xattrs[a->base.xattr_count++] = (struct erofs_xattr){ name, value, length };
	}
	return 0;
}

/* include/uapi/linux/posix_acl_xattr.h: version 2, then tag, permissions, id; sorted by tag and id. */
struct acl_row {
	uint16_t tag, permissions;
	uint32_t id;
};

static int compare_rows(const void *left, const void *right)
{
	const struct acl_row *a = left, *b = right;
	if (a->tag != b->tag)
		return a->tag < b->tag ? -1 : 1;
	return a->id < b->id ? -1 : a->id > b->id;
}

static uint16_t acl_tag(int tag)
{
	switch (tag) {
	case ARCHIVE_ENTRY_ACL_USER_OBJ:
		return 0x01;
	case ARCHIVE_ENTRY_ACL_USER:
		return 0x02;
	case ARCHIVE_ENTRY_ACL_GROUP_OBJ:
		return 0x04;
	case ARCHIVE_ENTRY_ACL_GROUP:
		return 0x08;
	case ARCHIVE_ENTRY_ACL_MASK:
		return 0x10;
	default:
		return 0x20; /* others */
	}
}

static void take_acl(struct archive_entry *entry, int type, const char *name, struct attributes *a, struct str *out)
{
	struct acl_row rows[64];
	size_t count = 0;
	int got_type, permissions, tag, id;
	const char *who;

	for (size_t i = 0; i < a->base.xattr_count; i++)
		if (str_eq(a->xattrs[i].name, name))
			return;
	if (archive_entry_acl_reset(entry, type) <= (type == ARCHIVE_ENTRY_ACL_TYPE_ACCESS ? 3 : 0))
		return; /* no more than the mode says */
	while (count < ARRAY_SIZE(rows) &&
	       archive_entry_acl_next(entry, type, &got_type, &permissions, &tag, &id, &who) == ARCHIVE_OK) {
		bool named = tag == ARCHIVE_ENTRY_ACL_USER || tag == ARCHIVE_ENTRY_ACL_GROUP;
		rows[count++] = (struct acl_row){ acl_tag(tag), (uint16_t)(permissions & 7),
						  named ? (uint32_t)id : UINT32_MAX };
	}
	qsort(rows, count, sizeof *rows, compare_rows);
	str_add(out, "\2\0\0\0", 4);
	for (size_t i = 0; i < count; i++) {
		uint8_t bytes[8] = { (uint8_t)rows[i].tag, 0, (uint8_t)rows[i].permissions, 0 };
		for (int b = 0; b < 4; b++)
			bytes[4 + b] = (uint8_t)(rows[i].id >> 8 * b);
		str_add(out, bytes, sizeof bytes);
	}
	a->xattrs[a->base.xattr_count++] = (struct erofs_xattr){ name, out->bytes, out->length };
}

static int take_attributes(struct archive_entry *entry, struct attributes *a, struct err *e)
{
	int64_t uid = archive_entry_uid(entry), gid = archive_entry_gid(entry);

	if (uid < 0 || gid < 0 || uid >= UINT32_MAX || gid >= UINT32_MAX)
		return err_set(e, ERR_CORRUPT, "its owner has an impossible number");
	a->base = (struct erofs_attributes){ .mode = archive_entry_mode(entry), .uid = (uint32_t)uid, .gid = (uint32_t)gid,
					     .mtime = archive_entry_mtime(entry),
					     .mtime_nsec = (uint32_t)archive_entry_mtime_nsec(entry), .xattrs = a->xattrs };
	if (a->base.mtime < 0 && a->base.mtime_nsec > 0 && a->base.mtime_nsec <= 999999999) {
		/* libarchive takes the fraction of -1.75 for a positive one */
		a->base.mtime--;
		a->base.mtime_nsec = 1000000000 - a->base.mtime_nsec;
	}
	if (a->base.mtime_nsec > 999999999)
		return err_set(e, ERR_CORRUPT, "its time has more than 999999999 nanoseconds");
	if (archive_entry_filetype(entry) == AE_IFCHR || archive_entry_filetype(entry) == AE_IFBLK) {
		a->base.major = (uint32_t)archive_entry_rdevmajor(entry);
		a->base.minor = (uint32_t)archive_entry_rdevminor(entry);
	}
	int r = take_xattrs(entry, a, e);
	if (r == 0 && archive_entry_filetype(entry) != AE_IFLNK) {
		take_acl(entry, ARCHIVE_ENTRY_ACL_TYPE_ACCESS, "system.posix_acl_access", a, &a->acls[0]);
		take_acl(entry, ARCHIVE_ENTRY_ACL_TYPE_DEFAULT, "system.posix_acl_default", a, &a->acls[1]);
	}
	return r;
}

/* --- entries --- */

/* Whether the map of a sparse file leaves out a whole chunk: whatever else it says, the image has no hole. */
static bool has_hole(struct archive_entry *entry, uint64_t size)
{
	la_int64_t offset, length;
	uint64_t end = 0;

	if (size == 0 || archive_entry_sparse_reset(entry) == 0)
		return false;
	uint64_t chunk = UINT64_C(1) << erofs_chunk_bits(size);
	while (archive_entry_sparse_next(entry, &offset, &length) == ARCHIVE_OK) {
		if (length > 0 && (uint64_t)offset >= (end + chunk - 1) / chunk * chunk + chunk)
			return true;
		if (length > 0)
			end = (uint64_t)offset + (uint64_t)length;
	}
	return size > (end + chunk - 1) / chunk * chunk;
}

static int read_file(struct reader *r, const char *path, struct archive_entry *entry, const struct erofs_attributes *a,
		     struct err *e)
{
	const void *bytes;
	size_t length;
	la_int64_t offset;
	int64_t size = archive_entry_size(entry);
	int status;

	if (size < 0)
		return err_set(e, ERR_CORRUPT, "entry '%.200s' has a negative size", path);
	int result = erofs_begin_file(r->w, path, a, (uint64_t)size, has_hole(entry, (uint64_t)size), e);
	while (result == 0 && (status = archive_read_data_block(r->tar, &bytes, &length, &offset)) != ARCHIVE_EOF) {
		if (status != ARCHIVE_OK)
			return failed(r, path, e);
		if (length)
			result = erofs_add_data(r->w, (uint64_t)offset, bytes, length, e);
	}
	return result < 0 ? result : erofs_end_file(r->w, e);
}

/* "a/.wh.b" hides b of the layers below, "a/.wh..wh..opq" all of a. */
static int read_whiteout(struct reader *r, const char *path, const char *base, struct err *e)
{
	own_str char *folder = mem_strndup(path, (size_t)(base - path));

	if (str_eq(base, ".wh..wh..opq"))
		return erofs_set_opaque(r->w, folder, e);
	if (str_starts(base, ".wh..wh."))
		return 0; /* notes of the aufs driver */
	if (str_eq(base, ".wh.") || str_eq(base, ".wh..") || str_eq(base, ".wh..."))
		return err_set(e, ERR_CORRUPT, "entry '%.200s' hides nothing that can be named", path);
	own_str char *hidden = mem_printf("%s%s", folder, base + strlen(".wh."));
	return erofs_add_whiteout(r->w, hidden, e);
}

static int add_typed(struct reader *r, const char *path, struct archive_entry *entry, const struct attributes *a, struct err *e)
{
	const char *target;

	switch (archive_entry_filetype(entry)) {
	case AE_IFREG:
		return read_file(r, path, entry, &a->base, e);
	case AE_IFDIR: {
		int result = erofs_add_directory(r->w, path, &a->base, e);
		return result == 0 && a->opaque ? erofs_set_opaque(r->w, path, e) : result;
	}
	case AE_IFLNK:
		target = archive_entry_symlink(entry);
		return erofs_add_symlink(r->w, path, &a->base, target ? target : "", e);
	default:
		return erofs_add_special(r->w, path, &a->base, e);
	}
}

static int read_entry(struct reader *r, struct archive_entry *entry, struct err *e)
{
	const char *path = archive_entry_pathname(entry), *target = archive_entry_hardlink(entry);
	struct attributes a = { 0 };

	if (!path)
		return err_set(e, ERR_CORRUPT, "an entry of the archive has no readable name");
	while (*path == '/')
		path++;
	const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path;
	if (str_starts(base, ".wh."))
		return read_whiteout(r, path, base, e);
	if (target)
		return erofs_add_hard_link(r->w, path, target + strspn(target, "/"), e);
	int result = take_attributes(entry, &a, e);
	if (result < 0)
		(void)err_wrap(e, "entry '%.200s'", path);
	else
		result = add_typed(r, path, entry, &a, e);
	str_done(&a.acls[0]);
	str_done(&a.acls[1]);
	return result;
}

static int read_entries(struct reader *r, struct err *e)
{
	struct archive_entry *entry;

	(void)archive_read_support_format_tar(r->tar);
	if (archive_read_open(r->tar, r, NULL, feed, NULL) != ARCHIVE_OK)
		return failed(r, NULL, e);
	for (int status; (status = archive_read_next_header(r->tar, &entry)) != ARCHIVE_EOF;) {
		if (status != ARCHIVE_OK && status != ARCHIVE_WARN)
			return failed(r, NULL, e);
		int result = read_entry(r, entry, e);
		if (result < 0)
			return result;
	}
	return 0;
}

int tar_read(int fd, const struct tar_limits *limits, struct erofs_writer *w, struct tar_summary *ret_summary, struct err *e)
{
	struct err scratch = { 0 };
	struct reader r = { .w = w };

	e = e ? e : &scratch;
	(void)setlocale(LC_CTYPE, "C.UTF-8"); /* pax headers are UTF-8, and must come out as they went in */
	int result = tar_source_new(fd, limits->plain_bytes, &r.source, e);
	if (result < 0)
		return result;
	r.tar = archive_read_new();
	result = read_entries(&r, e);
	(void)archive_read_free(r.tar);
	if (result == 0)
		result = tar_source_finish(r.source, &ret_summary->plain, &ret_summary->plain_bytes, e);
	tar_source_free(r.source);
	return result;
}
