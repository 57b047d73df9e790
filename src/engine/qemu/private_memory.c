/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loaded into QEMU (LD_PRELOAD) where its memory file must stay as it is: one file under many machines, each of which writes
 * copies of the pages that it changes. QEMU could map the file so itself (share=off), but then opens it for writing before
 * version 8.2, and carries all of the memory with the devices' state, since it takes memory for safe in its file only when it
 * is shared. So QEMU is told that it is shared, and here the file is opened for reading and mapped privately
 * (docs/decisions/0121).
 *
 * The wall is elsewhere: the file is shown to QEMU read-only (confine.c). Without this module it could not open it at all.
 */
/* Here open and open64 are two functions, and neither is the compiler's. */
#undef _FORTIFY_SOURCE
#undef _FILE_OFFSET_BITS
#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine/qemu/arguments.h"

#define SHOWN __attribute__((visibility("default")))

static int memory_fd = -1;

static int open_file(int folder, const char *path, int flags, mode_t mode)
{
	if (strcmp(path, MACHINE_MEMORY) != 0)
		return (int)syscall(SYS_openat, folder, path, flags, mode);
	memory_fd = (int)syscall(SYS_openat, folder, path, O_RDONLY | O_CLOEXEC, 0);
	return memory_fd;
}

static mode_t mode_of(int flags, va_list args) { return flags & (O_CREAT | __O_TMPFILE) ? (mode_t)va_arg(args, int) : 0; }

#define OPEN(name)                                               \
	SHOWN int name(const char *path, int flags, ...)         \
	{                                                        \
		va_list args;                                    \
		va_start(args, flags);                           \
		mode_t mode = mode_of(flags, args);              \
		va_end(args);                                    \
		return open_file(AT_FDCWD, path, flags, mode);   \
	}
#define OPENAT(name)                                             \
	SHOWN int name(int folder, const char *path, int flags, ...) \
	{                                                        \
		va_list args;                                    \
		va_start(args, flags);                           \
		mode_t mode = mode_of(flags, args);              \
		va_end(args);                                    \
		return open_file(folder, path, flags, mode);     \
	}
OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)

/* What the compiler makes of open() in a program that is built with _FORTIFY_SOURCE. */
SHOWN int __open_2(const char *path, int flags);
SHOWN int __open_2(const char *path, int flags) { return open_file(AT_FDCWD, path, flags, 0); }
SHOWN int __open64_2(const char *path, int flags);
SHOWN int __open64_2(const char *path, int flags) { return open_file(AT_FDCWD, path, flags, 0); }

static void *map(void *at, size_t length, int protection, int flags, int fd, off_t offset)
{
	if (fd >= 0 && fd == memory_fd)
		flags = (flags & ~MAP_TYPE) | MAP_PRIVATE;
	return (void *)syscall(SYS_mmap, at, length, protection, flags, fd, offset);
}

SHOWN void *mmap(void *at, size_t length, int protection, int flags, int fd, off_t offset)
{
	return map(at, length, protection, flags, fd, offset);
}
SHOWN void *mmap64(void *at, size_t length, int protection, int flags, int fd, off64_t offset)
{
	return map(at, length, protection, flags, fd, offset);
}
