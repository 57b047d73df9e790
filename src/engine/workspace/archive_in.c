/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. Names are taken below the folder alone, whatever the archive says: an absolute one or one with ".." is refused, and
 * the kernel resolves the folders on the way without links (openat2). What is in the way goes, but for a folder that is not
 * empty; folders stay and get what the archive says of them. A folder's time is set at the end, when nothing is made in it any
 * more.
 *
 * What the workspace may not have (an owner it has no number for, an attribute of a namespace it may not write) is left out, as
 * tar does; what cannot be made is an error.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/openat2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"
#include "engine/workspace/archive.h"
#include "engine/workspace/tar.h"

#define BLOCK 65536

struct input {
	int fd;
	size_t at, length;
	char bytes[BLOCK];
};

struct folder_time {
	char *path;
	struct timespec time;
};

struct unpacker {
	struct tar_reader reader;
	int top;
	struct folder_time *folders;
	size_t folder_count, folder_room;
	char buffer[BLOCK];
};

static ssize_t take_input(void *data, void *bytes, size_t most)
{
	struct input *in = data;

	if (in->at == in->length) {
		ssize_t n;
		do
			n = read(in->fd, in->bytes, sizeof in->bytes);
		while (n < 0 && errno == EINTR);
		if (n <= 0)
			return n;
		in->at = 0;
		in->length = (size_t)n;
	}
	size_t n = in->length - in->at < most ? in->length - in->at : most;
	memcpy(bytes, in->bytes + in->at, n);
	in->at += n;
	return (ssize_t)n;
}

static int cannot(const char *what, const char *path, struct err *e)
{
	int number = errno;
	enum err_kind kind = number == ENOSPC || number == EDQUOT                     ? ERR_NO_CAPACITY
			     : number == EACCES || number == EPERM || number == EROFS ? ERR_DENIED
										      : ERR_INVALID;
	const char *why = number == ELOOP     ? "it goes through a symbolic link"
			  : number == ENOTDIR ? "a part of its path is no folder"
					      : strerrordesc_np(number);

	return err_set(e, kind, "%s %s: %s", what, path, why);
}

/* --- names --- */

/* "./a//b/" becomes "a/b", the folder itself ".". */
static int clean_name(char *path, struct err *e)
{
	char *to = path;

	if (*path == '/')
		return err_set(e, ERR_DENIED, "%s: the name is absolute", path);
	for (char *at = path, *next; *at; at = next) {
		size_t n = strcspn(at, "/");
		next = at + n + (at[n] == '/');
		if (n == 2 && at[0] == '.' && at[1] == '.')
			return err_set(e, ERR_DENIED, "%s: the name leads out of the folder", path);
		if (n == 0 || (n == 1 && *at == '.'))
			continue;
		if (to != path)
			*to++ = '/';
		memmove(to, at, n);
		to += n;
	}
	if (to == path)
		*to++ = '.';
	*to = '\0';
	return 0;
}

static int open_below(const struct unpacker *u, const char *path, uint64_t flags)
{
	struct open_how how = { .flags = flags | O_CLOEXEC, .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS };

	return (int)syscall(SYS_openat2, u->top, path, &how, sizeof how);
}

/* Folders that the archive does not name, on the way to what it names. */
static int make_folders(const struct unpacker *u, char *path)
{
	for (char *slash = strchr(path, '/');; slash = strchr(slash + 1, '/')) {
		if (slash)
			*slash = '\0';
		int fd = open_below(u, path, O_PATH | O_DIRECTORY);
		if (fd < 0 && errno == ENOENT) {
			char *last = strrchr(path, '/');
			own_str char *above = last ? mem_strndup(path, (size_t)(last - path)) : mem_strdup(".");
			own_fd int parent = open_below(u, above, O_PATH | O_DIRECTORY);
			if (parent >= 0 && mkdirat(parent, last ? last + 1 : path, 0755) == 0)
				fd = open_below(u, path, O_PATH | O_DIRECTORY);
		}
		if (slash)
			*slash = '/';
		if (fd < 0 || !slash)
			return fd;
		(void)close(fd);
	}
}

/* The folder that the last name of `path` is in; *ret_name points into `path`. */
static int open_parent(const struct unpacker *u, char *path, const char **ret_name)
{
	char *slash = strrchr(path, '/');

	*ret_name = slash ? slash + 1 : path;
	if (!slash)
		return open_below(u, ".", O_PATH | O_DIRECTORY);
	*slash = '\0';
	int fd = open_below(u, path, O_PATH | O_DIRECTORY);
	if (fd < 0 && errno == ENOENT)
		fd = make_folders(u, path);
	*slash = '/';
	return fd;
}

/* --- what an entry says of its file --- */

static bool may_be_left_out(int number)
{
	return number == EPERM || number == EACCES || number == EINVAL || number == EOPNOTSUPP;
}

static struct timespec time_of(const struct tar_entry *entry)
{
	return (struct timespec){ .tv_sec = entry->seconds, .tv_nsec = entry->nanoseconds };
}

/* By its last name, in its folder: no call takes a folder and a name. */
static int set_xattrs(int parent, const char *name, const struct tar_entry *entry, struct err *e)
{
	if (entry->xattr_count && fchdir(parent) < 0)
		return cannot("enter the folder of", entry->path, e);
	for (size_t i = 0; i < entry->xattr_count; i++) {
		const struct tar_xattr *x = &entry->xattrs[i];
		if (lsetxattr(name, x->name, x->value, x->length, 0) < 0 && !may_be_left_out(errno))
			return cannot("write an extended attribute of", entry->path, e);
	}
	return 0;
}

/* In the order in which one does not undo another: a change of owner takes rights away. Symbolic links have no mode. */
static int set_attributes(int parent, const char *name, const struct tar_entry *entry, bool with_time, struct err *e)
{
	struct timespec times[2] = { { .tv_nsec = UTIME_OMIT }, time_of(entry) };
	mode_t mode = entry->mode & 07777;

	if (entry->uid >= UINT32_MAX || entry->gid >= UINT32_MAX ||
	    fchownat(parent, name, (uid_t)entry->uid, (gid_t)entry->gid, AT_SYMLINK_NOFOLLOW) < 0) {
		if (entry->uid < UINT32_MAX && entry->gid < UINT32_MAX && !may_be_left_out(errno))
			return cannot("set the owner of", entry->path, e);
		mode &= (mode_t) ~(S_ISUID | S_ISGID); /* they were meant for another owner */
	}
	if (!S_ISLNK(entry->mode) && fchmodat(parent, name, mode, 0) < 0)
		return cannot("set the mode of", entry->path, e);
	int r = set_xattrs(parent, name, entry, e);
	if (r < 0)
		return r;
	return with_time && utimensat(parent, name, times, AT_SYMLINK_NOFOLLOW) < 0 ? cannot("set the time of", entry->path, e)
										    : 0;
}

/* --- content --- */

static int write_piece(struct unpacker *u, int fd, uint64_t offset, uint64_t length, const char *path, struct err *e)
{
	while (length > 0) {
		size_t n = length < sizeof u->buffer ? (size_t)length : sizeof u->buffer;
		int r = tar_content(&u->reader, u->buffer, n, e);
		if (r < 0)
			return r;
		for (size_t done = 0; done < n;) {
			ssize_t written = pwrite(fd, u->buffer + done, n - done, (off_t)(offset + done));
			if (written < 0 && errno != EINTR)
				return cannot("write", path, e);
			done += written > 0 ? (size_t)written : 0;
		}
		offset += n;
		length -= n;
	}
	return 0;
}

static int write_content(struct unpacker *u, int fd, const struct tar_entry *entry, struct err *e)
{
	int r = 0;

	if (!entry->sparse)
		return write_piece(u, fd, 0, entry->size, entry->path, e);
	for (size_t i = 0; i < entry->piece_count && r >= 0; i++)
		r = write_piece(u, fd, entry->pieces[i].offset, entry->pieces[i].length, entry->path, e);
	return r >= 0 && ftruncate(fd, (off_t)entry->size) < 0 ? cannot("write", entry->path, e) : r;
}

/* --- making --- */

static int make_file(struct unpacker *u, int parent, const char *name, const struct tar_entry *entry, struct err *e)
{
	own_fd int fd = openat(parent, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);

	return fd < 0 ? cannot("make", entry->path, e) : write_content(u, fd, entry, e);
}

static int make_hard_link(const struct unpacker *u, int parent, const char *name, struct tar_entry *entry, struct err *e)
{
	const char *target;
	own_fd int from = open_parent(u, entry->target, &target);

	if (from < 0 || linkat(from, target, parent, name, 0) < 0)
		return cannot("make the hard link", entry->path, e);
	return 0;
}

static int make_other(int parent, const char *name, const struct tar_entry *entry, struct err *e)
{
	dev_t device = makedev(entry->major, entry->minor);
	int n = S_ISLNK(entry->mode) ? symlinkat(entry->target, parent, name)
		: S_ISDIR(entry->mode)
			? mkdirat(parent, name, 0700)
			: mknodat(parent, name, (entry->mode & S_IFMT) | 0600, S_ISFIFO(entry->mode) ? 0 : device);

	return n < 0 ? cannot("make", entry->path, e) : 0;
}

/* 1: a folder that is wanted is there already. */
static int clear_way(int parent, const char *name, const struct tar_entry *entry, struct err *e)
{
	struct stat st;

	if (fstatat(parent, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? 0 : cannot("look at", entry->path, e);
	if (S_ISDIR(st.st_mode) && S_ISDIR(entry->mode))
		return 1;
	return unlinkat(parent, name, S_ISDIR(st.st_mode) ? AT_REMOVEDIR : 0) < 0 ? cannot("replace", entry->path, e) : 0;
}

static void remember_time(struct unpacker *u, const struct tar_entry *entry)
{
	MEM_PUSH_ROOM(u->folders, u->folder_count, u->folder_room);
	u->folders[u->folder_count++] = (struct folder_time){ .path = mem_strdup(entry->path), .time = time_of(entry) };
}

static int unpack_entry(struct unpacker *u, struct tar_entry *entry, struct err *e)
{
	const char *name;
	int r = clean_name(entry->path, e);

	if (r < 0)
		return r;
	if (!S_ISDIR(entry->mode) && str_eq(entry->path, "."))
		return err_set(e, ERR_INVALID, "the archive has a file without a name");
	own_fd int parent = open_parent(u, entry->path, &name);
	if (parent < 0)
		return cannot("make", entry->path, e);
	if (entry->hard_link && (r = clean_name(entry->target, e)) < 0)
		return r;
	if (entry->hard_link && str_eq(entry->path, entry->target))
		return 0;
	if ((r = clear_way(parent, name, entry, e)) < 0)
		return r;
	if (entry->hard_link)
		return make_hard_link(u, parent, name, entry, e);
	if (r == 0)
		r = S_ISREG(entry->mode) ? make_file(u, parent, name, entry, e) : make_other(parent, name, entry, e);
	if (r < 0)
		return r;
	if (S_ISDIR(entry->mode))
		remember_time(u, entry);
	return set_attributes(parent, name, entry, !S_ISDIR(entry->mode), e);
}

/* The last first, so that those above come after what is in them. One that is gone again has no time. */
static void set_folder_times(struct unpacker *u)
{
	while (u->folder_count > 0) {
		struct folder_time *f = &u->folders[--u->folder_count];
		struct timespec times[2] = { { .tv_nsec = UTIME_OMIT }, f->time };
		own_fd int fd = open_below(u, f->path, O_RDONLY | O_DIRECTORY);
		if (fd >= 0)
			(void)futimens(fd, times);
		free(f->path);
	}
}

static int unpack_all(struct unpacker *u, struct err *e)
{
	struct tar_entry entry;
	int r;

	while ((r = tar_next(&u->reader, &entry, e)) > 0) {
		r = unpack_entry(u, &entry, e);
		tar_entry_done(&entry);
		if (r < 0)
			break;
	}
	set_folder_times(u);
	return r;
}

int archive_unpack(const char *path, int fd, struct err *e)
{
	own_fd int top = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (top < 0)
		return err_errno(e, errno, "folder %s of the workspace", path);
	(void)umask(0);
	struct input *in = mem_alloc(sizeof *in);
	struct unpacker *u = mem_alloc(sizeof *u);
	in->fd = fd;
	u->reader = (struct tar_reader){ .read = take_input, .data = in };
	u->top = top;
	int r = unpack_all(u, e);
	free(u->folders);
	free(u);
	free(in);
	return r;
}
