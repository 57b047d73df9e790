/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A temporary file is named after the process, so two processes may write the same path and the last rename wins; two threads
 * of one process may not. What a killed process leaves of it ends in ".tmp", and is removed by whoever owns the folder. Reads
 * end at a limit that the caller names, since a file may grow while it is read. A tree is removed by descriptors, one a level,
 * never by a path put together.
 */
#include "base/fs.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/own.h"

int fs_write_all(int fd, const void *bytes, size_t length, struct err *e)
{
	for (const char *p = bytes; length > 0;) {
		ssize_t n = write(fd, p, length);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_errno(e, errno, "write");
		p += n;
		length -= (size_t)n;
	}
	return 0;
}

int fs_pread_all(int fd, void *bytes, size_t length, uint64_t at, const char *what, struct err *e)
{
	uint8_t *to = bytes;

	for (size_t done = 0; done < length;) {
		ssize_t n = pread(fd, to + done, length - done, (off_t)(at + done));
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_errno(e, errno, "read %s", what);
		if (n == 0)
			return err_set(e, ERR_CORRUPT, "%s is cut off at byte %" PRIu64, what, at + done);
		done += (size_t)n;
	}
	return 0;
}

int fs_pwrite_all(int fd, const void *bytes, size_t length, uint64_t at, const char *what, struct err *e)
{
	const uint8_t *from = bytes;

	for (size_t done = 0; done < length;) {
		ssize_t n = pwrite(fd, from + done, length - done, (off_t)(at + done));
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return err_errno(e, n < 0 ? errno : ENOSPC, "write %s", what);
		done += (size_t)n;
	}
	return 0;
}

int fs_read_fd(int fd, size_t limit_bytes, struct str *ret_content, struct err *e)
{
	own_strbuf struct str content = { 0 };

	for (;;) {
		str_reserve(&content, 8192);
		ssize_t n = read(fd, content.bytes + content.length, content.capacity - content.length - 1);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_errno(e, errno, "read");
		if (n == 0)
			break;
		content.length += (size_t)n;
		if (content.length > limit_bytes)
			return err_set(e, ERR_TOO_LARGE, "more than %zu bytes", limit_bytes);
	}
	content.bytes[content.length] = '\0';
	*ret_content = content;
	content = (struct str){ 0 };
	return 0;
}

int fs_read_file(int dir_fd, const char *path, size_t limit_bytes, struct str *ret_content, struct err *e)
{
	own_fd int fd = openat(dir_fd, path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	if (fd < 0)
		return err_errno(e, errno, "open %s", path);
	int r = fs_read_fd(fd, limit_bytes, ret_content, e);
	return r < 0 ? err_wrap(e, "read %s", path) : 0;
}

static int sync_parent(int dir_fd, const char *path, struct err *e)
{
	own_str char *copy = mem_strdup(path);
	own_fd int parent = openat(dir_fd, dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (parent < 0 || fsync(parent) < 0)
		return err_errno(e, errno, "sync the folder of %s", path);
	return 0;
}

int fs_write_file(int dir_fd, const char *path, const void *bytes, size_t length, mode_t mode, bool durable, struct err *e)
{
	own_str char *temporary = mem_printf("%s.%d.tmp", path, (int)getpid());
	own_fd int fd = openat(dir_fd, temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, mode);
	if (fd < 0)
		return err_errno(e, errno, "create %s", temporary);
	int r = fs_write_all(fd, bytes, length, e);
	if (r == 0 && durable && fsync(fd) < 0)
		r = err_errno(e, errno, "sync");
	if (r == 0 && renameat(dir_fd, temporary, dir_fd, path) < 0)
		r = err_errno(e, errno, "rename");
	if (r < 0) {
		(void)unlinkat(dir_fd, temporary, 0);
		return err_wrap(e, "write %s", path);
	}
	return durable ? sync_parent(dir_fd, path, e) : 0;
}

int fs_sync_folder(const char *path, struct err *e)
{
	own_fd int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || fsync(fd) < 0)
		return err_errno(e, errno, "sync the folder %s", path);
	return 0;
}

int fs_mkdirs(const char *path, mode_t mode, struct err *e)
{
	own_str char *copy = mem_strdup(path);

	for (char *slash = copy + 1;; slash++) {
		if (*slash && *slash != '/')
			continue;
		char kept = *slash;
		*slash = '\0';
		if (mkdir(copy, mode) < 0 && errno != EEXIST)
			return err_errno(e, errno, "make folder %s", copy);
		*slash = kept;
		if (!kept)
			return 0;
	}
}

bool fs_same_file(const struct stat *a, const struct stat *b)
{
	return a->st_ino == b->st_ino && a->st_dev == b->st_dev && a->st_size == b->st_size &&
	       a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

int fs_next_entry(DIR *dir, struct dirent **ret_entry, struct err *e)
{
	struct dirent *entry;

	do {
		errno = 0;
		entry = readdir(dir);
	} while (entry && (str_eq(entry->d_name, ".") || str_eq(entry->d_name, "..")));
	if (!entry)
		return errno ? err_errno(e, errno, "read a folder") : 0;
	*ret_entry = entry;
	return 1;
}

static int remove_entries(int fd, dev_t device, struct err *e)
{
	int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	own_dir DIR *dir = copy < 0 ? NULL : fdopendir(copy);
	if (!dir) {
		if (copy >= 0)
			(void)close(copy);
		return err_errno(e, errno, "read folder");
	}
	struct dirent *entry;
	int r;
	while ((r = fs_next_entry(dir, &entry, e)) > 0) {
		struct stat st;
		if (fstatat(fd, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
			continue;
		if (st.st_dev != device)
			return err_set(e, ERR_CONFLICT, "%s is a mount", entry->d_name);
		r = fs_remove_tree(fd, entry->d_name, e);
		if (r < 0)
			return r;
	}
	return r;
}

int fs_remove_tree(int dir_fd, const char *name, struct err *e)
{
	if (unlinkat(dir_fd, name, 0) == 0 || errno == ENOENT)
		return 0;
	if (errno != EISDIR && errno != EPERM)
		return err_errno(e, errno, "remove %s", name);
	own_fd int fd = -1;
	struct stat st;
	int r = fs_open_dir(dir_fd, name, &fd, e);
	if (r == 0)
		r = fstat(fd, &st) < 0 ? err_errno(e, errno, "stat") : remove_entries(fd, st.st_dev, e);
	if (r == 0 && unlinkat(dir_fd, name, AT_REMOVEDIR) < 0)
		r = err_errno(e, errno, "remove folder");
	return r < 0 ? err_wrap(e, "%s", name) : 0;
}

int fs_open_dir(int dir_fd, const char *path, int *ret_fd, struct err *e)
{
	int fd = openat(dir_fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return err_errno(e, errno, "open folder %s", path);
	*ret_fd = fd;
	return 0;
}

bool fs_exists(int dir_fd, const char *path) { return faccessat(dir_fd, path, F_OK, AT_SYMLINK_NOFOLLOW) == 0; }

int fs_set_blocking(int fd, bool blocking, struct err *e)
{
	int flags = fcntl(fd, F_GETFL);
	if (flags < 0 || fcntl(fd, F_SETFL, blocking ? flags & ~O_NONBLOCK : flags | O_NONBLOCK) < 0)
		return err_errno(e, errno, "set the blocking mode of descriptor %d", fd);
	return 0;
}

const char *fs_prefix(void)
{
	static char prefix[PATH_MAX];

	if (prefix[0])
		return prefix;
	const char *set = getenv("CARREL_PREFIX");
	if (set) {
		(void)snprintf(prefix, sizeof prefix, "%s", set);
		return prefix;
	}
	ssize_t n = readlink("/proc/self/exe", prefix, sizeof prefix - 1);
	prefix[n > 0 ? n : 0] = '\0';
	for (int up = 0; up < 2; up++) {
		char *slash = strrchr(prefix, '/');
		if (slash)
			*slash = '\0';
	}
	if (str_ends(prefix, "/libexec"))
		prefix[strlen(prefix) - strlen("/libexec")] = '\0';
	return prefix;
}
