/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. libarchive does the work, with its own walls on top of those that stand around this process: no "..", no absolute name, no
 * path through a symbolic link. The kernel's file systems are not anybody's files and are left out.
 */
#include "engine/workspace/archive.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"

#define BLOCK 65536

static int archive_error(struct archive *a, const char *what, const char *path, struct err *e)
{
	int number = archive_errno(a);
	const char *why = archive_error_string(a);

	return err_set(e, number == ENOSPC ? ERR_NO_CAPACITY : number == EACCES || number == EPERM ? ERR_DENIED : ERR_INVALID, "%s %s: %s",
		       what, path ? path : "", why ? why : "unknown");
}

static int copy_block(struct archive *from, struct archive *to, bool *ret_more, struct err *e)
{
	const void *bytes;
	size_t length;
	la_int64_t offset;
	int r = archive_read_data_block(from, &bytes, &length, &offset);

	*ret_more = r != ARCHIVE_EOF;
	if (r == ARCHIVE_EOF)
		return 0;
	if (r < ARCHIVE_WARN)
		return archive_error(from, "read", "the archive", e);
	if (archive_write_data_block(to, bytes, length, offset) < ARCHIVE_WARN)
		return archive_error(to, "write", "a file", e);
	return 0;
}

static int unpack_entry(struct archive *from, struct archive *to, struct archive_entry *entry, struct err *e)
{
	const char *name = archive_entry_pathname(entry);

	if (archive_write_header(to, entry) < ARCHIVE_WARN)
		return archive_error(to, "make", name, e);
	for (bool more = archive_entry_size(entry) > 0; more;) {
		int r = copy_block(from, to, &more, e);
		if (r < 0)
			return r;
	}
	return archive_write_finish_entry(to) < ARCHIVE_WARN ? archive_error(to, "finish", name, e) : 0;
}

static int unpack(struct archive *from, struct archive *to, struct err *e)
{
	struct archive_entry *entry;
	int r;

	if (archive_read_support_format_tar(from) < ARCHIVE_OK || archive_read_open_fd(from, STDIN_FILENO, BLOCK) < ARCHIVE_OK)
		return archive_error(from, "read", "the archive", e);
	while ((r = archive_read_next_header(from, &entry)) != ARCHIVE_EOF) {
		if (r < ARCHIVE_WARN)
			return archive_error(from, "read", "the archive", e);
		if ((r = unpack_entry(from, to, entry, e)) < 0)
			return r;
	}
	return 0;
}

/* Names are bytes; where libarchive wants characters, they are UTF-8. */
static void prepare(void)
{
	(void)setlocale(LC_ALL, "C.UTF-8");
	(void)umask(0);
}

int archive_unpack(const char *path, struct err *e)
{
	prepare();
	if (chdir(path) < 0)
		return err_errno(e, errno, "folder %s of the workspace", path);
	struct archive *from = archive_read_new(), *to = archive_write_disk_new();
	if (!from || !to)
		return err_set(e, ERR_NO_CAPACITY, "no memory");
	(void)archive_write_disk_set_options(to, ARCHIVE_EXTRACT_OWNER | ARCHIVE_EXTRACT_PERM | ARCHIVE_EXTRACT_TIME | ARCHIVE_EXTRACT_XATTR |
							 ARCHIVE_EXTRACT_SECURE_NODOTDOT | ARCHIVE_EXTRACT_SECURE_SYMLINKS |
							 ARCHIVE_EXTRACT_SECURE_NOABSOLUTEPATHS);
	int r = unpack(from, to, e);
	if (archive_write_free(to) < ARCHIVE_WARN && r >= 0)
		r = err_set(e, ERR_INTERNAL, "could not finish the last files");
	(void)archive_read_free(from);
	return r;
}

/* --- out --- */

static int write_all(struct archive *to, const char *bytes, size_t length)
{
	while (length > 0) {
		la_ssize_t n = archive_write_data(to, bytes, length);
		if (n <= 0)
			return -1;
		bytes += n;
		length -= (size_t)n;
	}
	return 0;
}

/* Holes become zeros where the archive has no better way. */
static int pack_data(struct archive *from, struct archive *to, const char *name, struct err *e)
{
	static const char zeros[BLOCK];
	la_int64_t at = 0, offset;
	const void *bytes;
	size_t length;
	int r;

	while ((r = archive_read_data_block(from, &bytes, &length, &offset)) != ARCHIVE_EOF) {
		if (r < ARCHIVE_WARN)
			return archive_error(from, "read", name, e);
		while (at < offset) {
			size_t n = offset - at < BLOCK ? (size_t)(offset - at) : BLOCK;
			if (write_all(to, zeros, n) < 0)
				return archive_error(to, "write", name, e);
			at += (la_int64_t)n;
		}
		if (write_all(to, bytes, length) < 0)
			return archive_error(to, "write", name, e);
		at += (la_int64_t)length;
	}
	return 0;
}

/* The kernel's file systems are no one's files. */
static bool is_kernels(const char *name)
{
	return str_eq(name, "./proc") || str_eq(name, "./sys") || str_eq(name, "./dev");
}

static int pack_entry(struct archive *from, struct archive *to, struct archive_entry *entry, struct err *e)
{
	const char *name = archive_entry_pathname(entry);

	if (!is_kernels(name))
		(void)archive_read_disk_descend(from);
	int r = archive_write_header(to, entry);
	if (r == ARCHIVE_FATAL)
		return archive_error(to, "write", name, e);
	if (r < ARCHIVE_WARN)
		return 0; /* a socket: tar has no such thing */
	return archive_entry_size(entry) > 0 ? pack_data(from, to, name, e) : 0;
}

static int pack(struct archive *from, struct archive *to, const char *name, struct err *e)
{
	struct archive_entry *entry = archive_entry_new();
	int r;

	if (archive_write_set_format_pax_restricted(to) < ARCHIVE_WARN || archive_write_set_bytes_in_last_block(to, 1) < ARCHIVE_WARN ||
	    archive_write_open_fd(to, STDOUT_FILENO) < ARCHIVE_WARN)
		return archive_error(to, "write", "the archive", e);
	(void)archive_read_disk_set_symlink_physical(from);
	if (archive_read_disk_open(from, name) < ARCHIVE_WARN)
		return archive_error(from, "read", name, e);
	while ((r = archive_read_next_header2(from, entry)) != ARCHIVE_EOF) {
		if (r < ARCHIVE_WARN)
			return archive_error(from, "read", name, e);
		if ((r = pack_entry(from, to, entry, e)) < 0)
			return r;
	}
	archive_entry_free(entry);
	return 0;
}

int archive_pack(const char *path, struct err *e)
{
	own_str char *copy = mem_strdup(path);
	struct stat st;

	prepare();
	while (strlen(copy) > 1 && str_ends(copy, "/"))
		copy[strlen(copy) - 1] = '\0';
	char *slash = strrchr(copy, '/');
	const char *name = slash && slash[1] ? slash + 1 : ".", *above = slash && slash != copy ? copy : "/";
	if (slash)
		*slash = '\0';
	if (chdir(above) < 0 || lstat(name, &st) < 0)
		return err_errno(e, errno, "%s of the workspace", path);
	struct archive *from = archive_read_disk_new(), *to = archive_write_new();
	if (!from || !to)
		return err_set(e, ERR_NO_CAPACITY, "no memory");
	int r = pack(from, to, name, e);
	(void)archive_read_free(from);
	if (archive_write_close(to) < ARCHIVE_WARN && r >= 0)
		r = archive_error(to, "write", "the archive", e);
	(void)archive_write_free(to);
	return r;
}
