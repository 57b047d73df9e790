/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_FS_H
#define BASE_FS_H

/* Files. Nothing here overwrites in place: a new content is a temporary file, fsync, rename, fsync of the folder. */

#include <dirent.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "base/err.h"
#include "base/str.h"

int fs_write_all(int fd, const void *bytes, size_t length, struct err *e) must_check;
/* All of it at this place of a file, which errors call `what`. A file that ends before: ERR_CORRUPT. */
int fs_pread_all(int fd, void *bytes, size_t length, uint64_t at, const char *what, struct err *e) must_check;
int fs_pwrite_all(int fd, const void *bytes, size_t length, uint64_t at, const char *what, struct err *e) must_check;
/* Reads until end of file; more than `limit_bytes` is ERR_TOO_LARGE. */
int fs_read_fd(int fd, size_t limit_bytes, struct str *ret_content, struct err *e) must_check;
int fs_read_file(int dir_fd, const char *path, size_t limit_bytes, struct str *ret_content, struct err *e) must_check;
/* Atomic replacement. `durable` adds the two fsyncs; without it the content survives a crash of any process, not of the
 * machine. */
int fs_write_file(int dir_fd, const char *path, const void *bytes, size_t length, mode_t mode, bool durable,
		  struct err *e) must_check;
/* The names in a folder survive a crash of the machine. */
int fs_sync_folder(const char *path, struct err *e) must_check;
/* Existing folders are fine; parents are made with the same mode. */
int fs_mkdirs(const char *path, mode_t mode, struct err *e) must_check;
/* Removes a file or a whole tree below dir_fd without following links or crossing into other mounts. Absent is fine. */
int fs_remove_tree(int dir_fd, const char *name, struct err *e) must_check;
int fs_open_dir(int dir_fd, const char *path, int *ret_fd, struct err *e) must_check; /* O_DIRECTORY|O_CLOEXEC|O_NOFOLLOW */
/* The next entry but "." and "..": 1, *ret_entry is good until the next call; 0: the end. A folder that cannot be read to its
 * end is an error, which readdir alone makes look like the end. */
int fs_next_entry(DIR *dir, struct dirent **ret_entry, struct err *e) must_check;
bool fs_exists(int dir_fd, const char *path);
/* The same inode, not written to in between as far as length and time tell. */
bool fs_same_file(const struct stat *a, const struct stat *b);
int fs_set_blocking(int fd, bool blocking, struct err *e) must_check;
/* Folder of the running executable's installation, e.g. "/usr/local": from CARREL_PREFIX or /proc/self/exe/../.. */
const char *fs_prefix(void);

#endif
