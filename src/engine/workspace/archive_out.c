/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. A walk in the order of names (fts(3), which goes from folder to folder and so needs no long paths), so that the same
 * tree gives the same archive. A file with more than one name is written under the first and linked under the others. One with
 * holes is written without them. A file that changes while it is read has the length that it had at first: what is missing is
 * zeros.
 *
 * The kernel's file systems are nobody's files and are left out, and so are sockets.
 */
#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/map.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"
#include "engine/workspace/archive.h"
#include "engine/workspace/tar.h"

#define BLOCK       65536
#define XATTRS_MOST (TAR_EXTENDED_MOST / 2)

struct packer {
	int fd;
	struct str out;   /* not written yet */
	struct map links; /* "device:inode" of files with several names, to where they are in the archive */
	bool whole;       /* all of the workspace: "." is its root */
	char buffer[BLOCK];
};

static int flush(struct packer *p, size_t least, struct err *e)
{
	if (p->out.length <= least)
		return 0;
	int r = fs_write_all(p->fd, p->out.bytes, p->out.length, e);
	str_clear(&p->out);
	return r < 0 ? err_wrap(e, "write the archive") : 0;
}

static int unreadable(const char *path, int number, struct err *e) { return err_errno(e, number, "read %s", path); }

/* --- what is said of a file --- */

static void add_xattr(struct tar_entry *entry, const char *path, const char *name)
{
	own_str char *value = NULL;
	ssize_t length = lgetxattr(path, name, NULL, 0);

	if (length > 0)
		length = lgetxattr(path, name, value = mem_alloc((size_t)length), (size_t)length);
	if (length >= 0 && length <= XATTRS_MOST)
		tar_add_xattr(entry, name, strlen(name), value, (size_t)length);
}

/* Those of file systems without any are none; one that goes in the meantime is none either. */
static void add_xattrs(struct tar_entry *entry, const char *path)
{
	ssize_t length = llistxattr(path, NULL, 0);

	if (length <= 0)
		return;
	own_str char *names = mem_alloc((size_t)length + 1);
	length = llistxattr(path, names, (size_t)length);
	for (ssize_t at = 0; at < length; at += (ssize_t)strlen(names + at) + 1)
		add_xattr(entry, path, names + at);
}

/* Of a file with holes the map; one that ends in a hole has an empty piece at its end. */
static void add_pieces(struct tar_entry *entry, int fd, const struct stat *st)
{
	off_t at = 0;

	if ((uint64_t)st->st_blocks * 512 >= (uint64_t)st->st_size)
		return;
	while (entry->piece_count < TAR_PIECES_MOST - 2) {
		off_t data = lseek(fd, at, SEEK_DATA), end = data < 0 ? -1 : lseek(fd, data, SEEK_HOLE);
		if (data < 0 || data >= st->st_size)
			break;
		if (end < 0)
			return; /* a file system that does not tell */
		at = end < st->st_size ? end : st->st_size;
		tar_add_piece(entry, (uint64_t)data, (uint64_t)(at - data));
	}
	if (entry->piece_count == TAR_PIECES_MOST - 2)
		tar_add_piece(entry, (uint64_t)at, (uint64_t)(st->st_size - at));
	else if (at < st->st_size)
		tar_add_piece(entry, (uint64_t)st->st_size, 0);
	entry->sparse = entry->piece_count != 1 || entry->pieces[0].length != (uint64_t)st->st_size;
}

static int read_target(struct tar_entry *entry, const char *path, const struct stat *st, struct err *e)
{
	size_t room = st->st_size > 0 ? (size_t)st->st_size + 1 : 4096;
	char *target = mem_alloc(room + 1);
	ssize_t n = readlink(path, target, room);

	entry->target = target;
	return n <= 0 ? unreadable(entry->path, errno, e) : 0;
}

/* True: it is in the archive already, and is linked to that. */
static bool is_linked(struct packer *p, struct tar_entry *entry, const struct stat *st)
{
	char key[48];

	if (S_ISDIR(st->st_mode) || st->st_nlink < 2)
		return false;
	(void)snprintf(key, sizeof key, "%" PRIx64 ":%" PRIx64, (uint64_t)st->st_dev, (uint64_t)st->st_ino);
	const char *first = map_get(&p->links, key);
	if (!first) {
		map_put(&p->links, mem_strdup(key), mem_strdup(entry->path));
		return false;
	}
	free(entry->target);
	entry->target = mem_strdup(first);
	entry->hard_link = true;
	return true;
}

static void forget_links(struct packer *p)
{
	for (size_t i = 0; i < p->links.capacity; i++)
		if (p->links.entries[i].key) {
			free((char *)(uintptr_t)p->links.entries[i].key);
			free(p->links.entries[i].value);
		}
	map_done(&p->links);
}

/* --- content --- */

static int pack_piece(struct packer *p, int fd, uint64_t offset, uint64_t length, const char *path, struct err *e)
{
	while (length > 0) {
		size_t n = length < sizeof p->buffer ? (size_t)length : sizeof p->buffer;
		ssize_t got = pread(fd, p->buffer, n, (off_t)offset);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return unreadable(path, errno, e);
		if (got == 0) /* it has become shorter */
			memset(p->buffer, 0, (size_t)(got = (ssize_t)n));
		str_add(&p->out, p->buffer, (size_t)got);
		offset += (uint64_t)got;
		length -= (uint64_t)got;
		int r = flush(p, BLOCK, e);
		if (r < 0)
			return r;
	}
	return 0;
}

static int pack_content(struct packer *p, int fd, const struct tar_entry *entry, struct err *e)
{
	static const char zeros[TAR_BLOCK];
	uint64_t length = entry->sparse ? 0 : entry->size;
	int r = entry->sparse ? 0 : pack_piece(p, fd, 0, entry->size, entry->path, e);

	for (size_t i = 0; entry->sparse && i < entry->piece_count && r >= 0; i++) {
		r = pack_piece(p, fd, entry->pieces[i].offset, entry->pieces[i].length, entry->path, e);
		length += entry->pieces[i].length;
	}
	str_add(&p->out, zeros, tar_padding(length));
	return r;
}

static int pack_file(struct packer *p, struct tar_entry *entry, const char *path, const struct stat *st, struct err *e)
{
	own_fd int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);

	if (fd < 0)
		return unreadable(entry->path, errno, e);
	entry->size = (uint64_t)st->st_size;
	add_pieces(entry, fd, st);
	tar_header(entry, &p->out);
	return pack_content(p, fd, entry, e);
}

/* --- the walk --- */

static int pack_entry(struct packer *p, const FTSENT *file, struct err *e)
{
	const struct stat *st = file->fts_statp;
	struct tar_entry entry = { .mode = st->st_mode,
				   .path = mem_printf("%s%s", file->fts_path, S_ISDIR(st->st_mode) ? "/" : ""),
				   .seconds = st->st_mtim.tv_sec,
				   .nanoseconds = (uint32_t)st->st_mtim.tv_nsec,
				   .uid = st->st_uid,
				   .gid = st->st_gid };
	int r = 0;

	if (S_ISCHR(st->st_mode) || S_ISBLK(st->st_mode)) {
		entry.major = major(st->st_rdev);
		entry.minor = minor(st->st_rdev);
	}
	if (!is_linked(p, &entry, st)) {
		add_xattrs(&entry, file->fts_accpath);
		if (S_ISLNK(st->st_mode))
			r = read_target(&entry, file->fts_accpath, st, e);
	}
	if (r >= 0 && S_ISREG(st->st_mode) && !entry.hard_link)
		r = pack_file(p, &entry, file->fts_accpath, st, e);
	else if (r >= 0)
		tar_header(&entry, &p->out);
	tar_entry_done(&entry);
	return r < 0 ? r : flush(p, BLOCK, e);
}

static int compare(const FTSENT **a, const FTSENT **b) { return strcmp((*a)->fts_name, (*b)->fts_name); }

/* Below "/" alone: mounts of the kernel's. */
static bool is_kernels(const struct packer *p, const FTSENT *file)
{
	if (!p->whole)
		return false;
	return str_eq(file->fts_path, "./proc") || str_eq(file->fts_path, "./sys") || str_eq(file->fts_path, "./dev");
}

static int pack_tree(struct packer *p, FTS *walk, struct err *e)
{
	static const char end[2 * TAR_BLOCK];
	int r = 0;

	for (FTSENT *file; r >= 0 && (errno = 0, file = fts_read(walk));) {
		if (file->fts_info == FTS_DNR || file->fts_info == FTS_ERR || file->fts_info == FTS_NS)
			r = unreadable(file->fts_path, file->fts_errno, e);
		else if (file->fts_info != FTS_DP && file->fts_info != FTS_DC && !S_ISSOCK(file->fts_statp->st_mode))
			r = pack_entry(p, file, e);
		if (file->fts_info == FTS_D && is_kernels(p, file))
			(void)fts_set(walk, file, FTS_SKIP);
	}
	if (r >= 0 && errno)
		r = unreadable("the folder", errno, e);
	if (r < 0)
		return r;
	str_add(&p->out, end, sizeof end);
	return flush(p, 0, e);
}

static int pack(const char *name, bool whole, int fd, struct err *e)
{
	char *paths[] = { (char *)(uintptr_t)name, NULL };
	FTS *walk = fts_open(paths, FTS_PHYSICAL, compare);

	if (!walk)
		return unreadable(name, errno, e);
	struct packer *p = mem_alloc(sizeof *p);
	p->fd = fd;
	p->whole = whole;
	int r = pack_tree(p, walk, e);
	(void)fts_close(walk);
	forget_links(p);
	str_done(&p->out);
	free(p);
	return r;
}

int archive_pack(const char *path, int fd, struct err *e)
{
	own_str char *copy = mem_strdup(path);
	struct stat st;

	while (strlen(copy) > 1 && str_ends(copy, "/"))
		copy[strlen(copy) - 1] = '\0';
	char *slash = strrchr(copy, '/');
	const char *name = slash && slash[1] ? slash + 1 : ".", *above = slash && slash != copy ? copy : "/";
	if (slash)
		*slash = '\0';
	if (chdir(above) < 0 || lstat(name, &st) < 0)
		return err_errno(e, errno, "%s of the workspace", path);
	return pack(name, str_eq(above, "/") && str_eq(name, "."), fd, e);
}
