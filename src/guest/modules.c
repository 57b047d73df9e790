/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two lives of one program. In the first the agent mounts the partition at /kernel, outside of what the workspace sees, and
 * binds the folder of modules into its root. In the second the kernel starts the same program as its modprobe, in the
 * initramfs's world, as root and without a terminal: it reads modules.dep and modules.alias of /kernel, loads what is named
 * after what that depends on, and ends.
 *
 * The workspace's files are never asked what to load. Its paths are opened with RESOLVE_IN_ROOT, since links in them are its
 * own.
 */
#include "guest/modules.h"

#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"

#define PLACE      "/kernel" /* in the initramfs */
#define INDEX_MOST (16u << 20)

/* --- showing --- */

static int open_in(int root, const char *path, uint64_t flags)
{
	struct open_how how = { .flags = flags | O_CLOEXEC, .resolve = RESOLVE_IN_ROOT };

	return (int)syscall(SYS_openat2, root, path, &how, sizeof how);
}

/* A folder of the workspace, made in the one above it when it is not there. */
static int open_or_make(int root, const char *above, const char *name)
{
	own_str char *path = mem_printf("%s/%s", above, name);
	own_fd int parent = open_in(root, above, O_PATH | O_DIRECTORY);

	if (parent < 0)
		return -1;
	if (mkdirat(parent, name, 0755) < 0 && errno != EEXIST)
		return -1;
	return open_in(root, path, O_RDONLY | O_DIRECTORY);
}

static bool is_empty(int folder)
{
	own_dir DIR *dir = fdopendir(fcntl(folder, F_DUPFD_CLOEXEC, 0));
	size_t count = 0;

	while (dir && count < 3 && readdir(dir))
		count++;
	return count < 3;
}

static int bind(const char *release, int root, struct err *e)
{
	own_str char *source = mem_printf(PLACE "/lib/modules/%s", release);
	own_fd int library = open_in(root, "lib", O_PATH | O_DIRECTORY);

	if (library < 0) /* no programs of a distribution: nobody asks */
		return 0;
	own_fd int above = open_or_make(root, "lib", "modules"),
		   target = above < 0 ? -1 : open_or_make(root, "lib/modules", release);
	if (target < 0)
		return err_errno(e, errno, "make /lib/modules/%s", release);
	if (!is_empty(target))
		return 0;
	own_fd int mount = (int)syscall(SYS_open_tree, AT_FDCWD, source, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
	if (mount < 0 || syscall(SYS_move_mount, mount, "", target, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) < 0)
		return err_errno(e, errno, "mount /lib/modules/%s", release);
	return 0;
}

/* "tun net/tun c10:200": /dev/net/tun, which loads the module when it is opened. What the kernel has made already stays. */
static void make_device(int root, char *line)
{
	char *save = NULL;
	const char *module = strtok_r(line, " ", &save), *name = strtok_r(NULL, " ", &save),
		   *number = strtok_r(NULL, " ", &save);
	char *colon = number ? strchr(number, ':') : NULL;
	uint64_t major, minor;

	if (!module || *module == '#' || !colon || strstr(name, ".."))
		return;
	*colon = '\0';
	if (str_to_u64(number + 1, 4095, &major) < 0 || str_to_u64(colon + 1, 1048575, &minor) < 0)
		return;
	own_str char *path = mem_printf("dev/%s", name);
	char *slash = strrchr(path, '/');
	*slash = '\0';
	own_fd int folder = open_in(root, path, O_PATH | O_DIRECTORY);
	own_fd int made = folder < 0 && strchr(path, '/') ? open_or_make(root, "dev", strchr(path, '/') + 1) : -1;
	bool open_to_all = str_eq(name, "net/tun") || str_eq(name, "fuse");
	if (folder >= 0 || made >= 0)
		(void)mknodat(folder >= 0 ? folder : made, slash + 1,
			      (*number == 'b' ? S_IFBLK : S_IFCHR) | (open_to_all ? 0666 : 0600), makedev(major, minor));
}

static void make_devices(const char *release, int root)
{
	own_str char *path = mem_printf(PLACE "/lib/modules/%s/modules.devname", release);
	own_strbuf struct str text = { 0 };
	struct err e;
	char *save = NULL;

	if (fs_read_file(AT_FDCWD, path, INDEX_MOST, &text, &e) < 0 || !text.length)
		return;
	for (char *line = strtok_r(text.bytes, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
		make_device(root, line);
}

static int become_modprobe(struct err *e)
{
	static const char program[] = "/init";
	own_fd int fd = open("/proc/sys/kernel/modprobe", O_WRONLY | O_CLOEXEC);

	return fd < 0 || write(fd, program, strlen(program)) < 0 ? err_errno(e, errno, "tell the kernel who loads modules") : 0;
}

int modules_show(int disk, int root, bool system, struct err *e)
{
	own_fd int taken = disk;
	struct utsname kernel;

	if (uname(&kernel) < 0 || (mkdir(PLACE, 0755) < 0 && errno != EEXIST) ||
	    syscall(SYS_move_mount, taken, "", AT_FDCWD, PLACE, MOVE_MOUNT_F_EMPTY_PATH) < 0)
		return err_errno(e, errno, "mount the kernel's partition");
	own_str char *path = mem_printf(PLACE "/lib/modules/%s", kernel.release);
	if (access(path, F_OK) < 0)
		return 0;
	int r = bind(kernel.release, root, e);
	if (r < 0 || system)
		return r;
	make_devices(kernel.release, root);
	return become_modprobe(e);
}

/* --- loading --- */

struct library {
	int folder;         /* /lib/modules/RELEASE */
	struct str depends; /* modules.dep: a line each, NUL-terminated */
};

static bool is_called(const char *path, size_t length, const char *name)
{
	const char *end = path + length, *base = end;

	while (base > path && base[-1] != '/')
		base--;
	for (; base < end && *base != '.' && *name; base++, name++)
		if (*base != *name && !((*base == '-' || *base == '_') && (*name == '-' || *name == '_')))
			return false;
	return !*name && base < end && *base == '.';
}

static int load_file(const struct library *l, const char *path, size_t length)
{
	own_str char *name = mem_strndup(path, length);
	own_fd int fd = openat(l->folder, name, O_RDONLY | O_CLOEXEC);

	return fd < 0 || (syscall(SYS_finit_module, fd, "", 0) < 0 && errno != EEXIST) ? -1 : 0;
}

/* The last of a line first: the nearest stand in front. */
static int load_line(const struct library *l, const char *line)
{
	size_t colon = strcspn(line, ":");
	int r = 0;

	for (const char *end = line + strlen(line); end > line + colon + 1 && r == 0;) {
		const char *at = end;
		while (at[-1] != ' ' && at[-1] != ':')
			at--;
		r = at < end ? load_file(l, at, (size_t)(end - at)) : 0;
		end = at - 1;
	}
	return r < 0 ? r : load_file(l, line, colon);
}

static int load_module(const struct library *l, const char *name)
{
	for (size_t at = 0; at < l->depends.length; at += strlen(l->depends.bytes + at) + 1) {
		const char *line = l->depends.bytes + at;
		if (is_called(line, strcspn(line, ":"), name))
			return load_line(l, line);
	}
	return -1;
}

/* "alias PATTERN MODULE": all that fit. */
static int load_alias(const struct library *l, struct str *aliases, const char *name)
{
	char *save = NULL;
	int r = -1;

	for (char *line = aliases->length ? strtok_r(aliases->bytes, "\n", &save) : NULL; line;
	     line = strtok_r(NULL, "\n", &save)) {
		char *words = NULL;
		const char *kind = strtok_r(line, " ", &words), *pattern = strtok_r(NULL, " ", &words),
			   *module = strtok_r(NULL, " ", &words);
		if (module && str_eq(kind, "alias") && fnmatch(pattern, name, 0) == 0 && load_module(l, module) == 0)
			r = 0;
	}
	return r;
}

int modules_load(const char *name)
{
	struct utsname kernel;
	struct err e;
	struct library l = { .folder = -1 };
	own_strbuf struct str aliases = { 0 };

	if (uname(&kernel) < 0)
		return 1;
	own_str char *path = mem_printf(PLACE "/lib/modules/%s", kernel.release);
	l.folder = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	int r = l.folder < 0 || fs_read_file(l.folder, "modules.dep", INDEX_MOST, &l.depends, &e) < 0 ? -1 : 0;
	for (size_t i = 0; i < l.depends.length; i++)
		if (l.depends.bytes[i] == '\n')
			l.depends.bytes[i] = '\0';
	if (r == 0 && load_module(&l, name) < 0)
		r = fs_read_file(l.folder, "modules.alias", INDEX_MOST, &aliases, &e) < 0 ? -1 : load_alias(&l, &aliases, name);
	str_done(&l.depends);
	own_close(&l.folder);
	return r < 0;
}
