/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. We stand in a scratch tmpfs that only this mount namespace has. /dev, /proc and /sys are made in its folder "aside"
 * and moved into the image as whole trees, so the image has no part in what they contain. The layers are moved into it under
 * short names ("0", "1", ..., "v" for the root volume), the overlay is mounted on "root" with the workspace's own rights, and
 * each step of the plan then works on paths below that root - paths of the image, which may be hostile. So:
 * - every one is opened by openat2 with RESOLVE_IN_ROOT and RESOLVE_NO_MAGICLINKS: a link cannot lead out of the image;
 * - folders that we mount on ourselves (/dev, /proc, /sys, ...) may not be links at all;
 * - a mount is made by moving a descriptor onto a descriptor, so no path is looked up twice;
 * - and all this runs as the workspace's root, which has no rights over the host's files even if it reached one.
 */
#include "engine/workspace/inside.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"

#define FILE_MOST 65536 /* longest file of the image that we look into */

static int open_in(int root, const char *path, uint64_t flags, mode_t mode, uint64_t resolve)
{
	struct open_how how = { .flags = flags | O_CLOEXEC, .mode = mode, .resolve = RESOLVE_NO_MAGICLINKS | resolve };

	while (*path == '/')
		path++;
	return (int)syscall(SYS_openat2, root, *path ? path : ".", &how, sizeof how);
}

static int attach(int mount, int target, const char *path, struct err *e)
{
	if (syscall(SYS_move_mount, mount, "", target, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) < 0)
		return err_errno(e, errno, "mount on %s", path);
	return 0;
}

/* --- layers --- */

static int place(int mount, const char *name, struct err *e)
{
	if (mkdir(name, 0755) < 0)
		return err_errno(e, errno, "make folder %s", name);
	if (syscall(SYS_move_mount, mount, "", AT_FDCWD, name, MOVE_MOUNT_F_EMPTY_PATH) < 0)
		return err_errno(e, errno, "place layer %s", name);
	return 0;
}

/*
 * A volatile overlay leaves a mark that makes each later mount fail (EINVAL), for files may be missing after a crash. Of what
 * is there at a later mount, none are: a run that goes on had its volume frozen or never lost its kernel, and a machine whose
 * start failed had run nothing. After a crash of the host what is thrown away goes.
 */
static void forget_volatile(void)
{
	own_fd int mark = open_in(AT_FDCWD, "v/work/work/incompat/volatile", O_PATH | O_DIRECTORY | O_NOFOLLOW, 0,
				  RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS);
	own_fd int above = mark < 0 ? -1 : openat(mark, "..", O_PATH | O_DIRECTORY | O_CLOEXEC);

	if (above < 0)
		return;
	(void)unlinkat(mark, "dirty", 0);
	(void)unlinkat(above, "volatile", AT_REMOVEDIR);
}

static int mount_overlay(const struct tree *t, struct err *e)
{
	own_strbuf struct str options = { 0 };

	forget_volatile();
	str_puts(&options, "lowerdir=");
	for (size_t i = t->in->layer_count; i-- > 0;)
		str_printf(&options, "%zu%s", i, i ? ":" : "");
	str_printf(&options, ",upperdir=v/upper,workdir=v/work,userxattr,xino=on%s",
		   t->plan->flags & PLAN_THROW_AWAY ? ",volatile" : "");
	if (mkdir("root", 0755) < 0 || mount("overlay", "root", "overlay", 0, str_text(&options)) < 0)
		return err_errno(e, errno, "stack %zu partitions and the root volume", t->in->layer_count);
	return 0;
}

int tree_stack(struct tree *t, struct err *e)
{
	int r = place(t->volumes[0], "v", e);

	for (size_t i = 0; r >= 0 && i < t->in->layer_count; i++) {
		char name[16];
		(void)snprintf(name, sizeof name, "%zu", i);
		r = place(t->in->layers[i], name, e);
	}
	if (r < 0 || (r = mount_overlay(t, e)) < 0)
		return r;
	(void)close(t->root);
	return fs_open_dir(AT_FDCWD, "root", &t->root, e);
}

/* What STEP_HIDE puts over others, as read-only mounts that can be copied. */
int tree_make_nothing(const char *name, bool folder, struct err *e)
{
	own_fd int file = -1;
	struct mount_attr a = { .attr_set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC };

	if (folder ? mkdir(name, 0) < 0 : (file = open(name, O_CREAT | O_CLOEXEC | O_WRONLY, 0)) < 0)
		return err_errno(e, errno, "make %s", name);
	own_fd int mount = (int)syscall(SYS_open_tree, AT_FDCWD, name, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
	if (mount < 0 || syscall(SYS_mount_setattr, mount, "", AT_EMPTY_PATH, &a, sizeof a) < 0 ||
	    syscall(SYS_move_mount, mount, "", AT_FDCWD, name, MOVE_MOUNT_F_EMPTY_PATH) < 0)
		return err_errno(e, errno, "make %s", name);
	return 0;
}

/* --- targets --- */

/* The folder above `path`, made when it is not there; *ret_name points at the last part. */
static int open_parent(struct tree *t, const char *path, uint64_t resolve, int *ret_fd, const char **ret_name, struct err *e)
{
	const char *slash = strrchr(path, '/');
	own_str char *above = mem_strndup(path, slash ? (size_t)(slash - path) : 0);
	int fd = open_in(t->root, above, O_PATH | O_DIRECTORY, 0, resolve);

	if (fd < 0 && errno == ENOENT && *above) {
		own_fd int upper = -1;
		const char *name;
		int r = open_parent(t, above, resolve, &upper, &name, e);
		if (r < 0)
			return r;
		if (mkdirat(upper, name, 0755) < 0 && errno != EEXIST)
			return err_errno(e, errno, "make %s", above);
		fd = open_in(t->root, above, O_PATH | O_DIRECTORY, 0, resolve);
	}
	if (fd < 0)
		return err_errno(e, errno, "open %s in the image", above);
	*ret_fd = fd;
	*ret_name = slash ? slash + 1 : path;
	return 0;
}

/* A folder to mount on, made when it is not there. */
static int open_target_folder(struct tree *t, const char *path, uint64_t resolve, int *ret_fd, struct err *e)
{
	int fd = open_in(t->root, path, O_PATH | O_DIRECTORY, 0, resolve);

	if (fd < 0 && errno == ENOENT) {
		own_fd int parent = -1;
		const char *name;
		int r = open_parent(t, path, resolve, &parent, &name, e);
		if (r < 0)
			return r;
		if (mkdirat(parent, name, 0755) < 0 && errno != EEXIST)
			return err_errno(e, errno, "make %s in the image", path);
		fd = open_in(t->root, path, O_PATH | O_DIRECTORY, 0, resolve);
	}
	if (fd < 0 && errno == ELOOP)
		return err_set(e, ERR_INVALID, "%s of the image is a symbolic link", path);
	if (fd < 0)
		return err_errno(e, errno, "open folder %s in the image", path);
	*ret_fd = fd;
	return 0;
}

/* Our own folders are never links; a data volume's place may lie behind one of the image. */
#define OURS (RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS)
#define THEIRS RESOLVE_IN_ROOT

/* --- steps --- */

static int set_mount_options(int fs, const char *options, struct err *e)
{
	own_str char *copy = mem_strdup(options);
	char *save = NULL;

	for (char *key = strtok_r(copy, ",", &save); key; key = strtok_r(NULL, ",", &save)) {
		char *value = strchr(key, '=');
		if (value)
			*value++ = '\0';
		if (syscall(SYS_fsconfig, fs, value ? FSCONFIG_SET_STRING : FSCONFIG_SET_FLAG, key, value, 0) < 0)
			return err_errno(e, errno, "option %s", key);
	}
	return 0;
}

static int step_mount(struct tree *t, const struct step *s, struct err *e)
{
	own_fd int target = -1;
	int r = open_target_folder(t, s->target, OURS, &target, e);
	if (r < 0)
		return r;
	own_fd int fs = (int)syscall(SYS_fsopen, s->source, FSOPEN_CLOEXEC);
	if (fs < 0)
		return err_errno(e, errno, "open file system %s", s->source);
	if ((r = set_mount_options(fs, s->text, e)) < 0)
		return r;
	if (syscall(SYS_fsconfig, fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
		return err_errno(e, errno, "make file system %s", s->source);
	own_fd int mount = (int)syscall(SYS_fsmount, fs, FSMOUNT_CLOEXEC, (unsigned)s->number);
	if (mount < 0)
		return err_errno(e, errno, "make mount %s", s->source);
	return attach(mount, target, s->target, e);
}

/* A data volume holds one folder, so that a program finds its place empty. A root volume that is taken as one - for its files
 * to be copied - has them in another. */
int tree_take_volume(struct tree *t, const struct step *s, int *ret_mount, struct err *e)
{
	size_t i = 0;
	struct mount_attr a = { .attr_set = s->number };

	while (t->plan->volumes[i] && !str_eq(t->plan->volumes[i], s->source))
		i++;
	if (!t->plan->volumes[i] || i + 1 >= t->volume_count)
		return err_set(e, ERR_INTERNAL, "volume %s did not come with the plan", s->source);
	char name[16];
	(void)snprintf(name, sizeof name, "d%zu", i);
	int r = place(t->volumes[i + 1], name, e);
	if (r < 0)
		return r;
	own_fd int top = -1;
	if ((r = fs_open_dir(AT_FDCWD, name, &top, e)) < 0)
		return r;
	own_fd int data = open_in(top, "data", O_PATH | O_DIRECTORY, 0, OURS | RESOLVE_NO_XDEV);
	if (data < 0 && errno == ENOENT)
		data = open_in(top, "upper", O_PATH | O_DIRECTORY, 0, OURS | RESOLVE_NO_XDEV);
	if (data < 0)
		return err_errno(e, errno, "open data/ of volume %s", s->source);
	own_fd int mount = (int)syscall(SYS_open_tree, data, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH);
	if (mount < 0 || syscall(SYS_mount_setattr, mount, "", AT_EMPTY_PATH, &a, sizeof a) < 0)
		return err_errno(e, errno, "take volume %s", s->source);
	*ret_mount = TAKE_FD(mount);
	return 0;
}

static int step_volume(struct tree *t, const struct step *s, struct err *e)
{
	own_fd int target = -1, mount = -1;
	int r = tree_take_volume(t, s, &mount, e);

	if (r < 0 || (r = open_target_folder(t, s->target, THEIRS, &target, e)) < 0)
		return r;
	return attach(mount, target, s->target, e);
}

/* Puts a mount over a new empty file in a folder of ours. */
static int mount_on_new_file(struct tree *t, int mount, const char *path, struct err *e)
{
	own_fd int file = open_in(t->root, path, O_CREAT | O_EXCL | O_WRONLY, 0600, OURS);

	if (file < 0)
		return err_errno(e, errno, "make %s", path);
	own_fd int target = open_in(t->root, path, O_PATH, 0, OURS);
	return target < 0 ? err_errno(e, errno, "open %s", path) : attach(mount, target, path, e);
}

static int step_device(struct tree *t, const struct step *s, struct err *e)
{
	struct mount_attr a = { .attr_set = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC };
	own_fd int mount = (int)syscall(SYS_open_tree, AT_FDCWD, s->target, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);

	if (mount < 0)
		return err_errno(e, errno, "open %s of the host", s->target);
	/* Not what this host's /dev happens to have: on another host it would not be allowed to have less. */
	if (syscall(SYS_mount_setattr, mount, "", AT_EMPTY_PATH, &a, sizeof a) < 0)
		return err_errno(e, errno, "mount %s", s->target);
	return mount_on_new_file(t, mount, s->target, e);
}

static int step_host(struct tree *t, const struct step *s, struct err *e)
{
	bool file = s->number == 1;
	struct mount_attr a = { .attr_set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV };
	own_fd int target = -1;
	own_fd int mount = (int)syscall(SYS_open_tree, AT_FDCWD, s->source, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE);

	if (mount < 0)
		return err_errno(e, errno, "open %s of the host", s->source);
	if (syscall(SYS_mount_setattr, mount, "", AT_EMPTY_PATH | AT_RECURSIVE, &a, sizeof a) < 0)
		return err_errno(e, errno, "make %s read-only", s->source);
	if (file) {
		target = open_in(t->root, s->target, O_PATH | O_NOFOLLOW, 0, OURS);
		if (target < 0)
			return 0; /* the image has its own way (a link) or none */
		return attach(mount, target, s->target, e);
	}
	int r = open_target_folder(t, s->target, OURS, &target, e);
	return r < 0 ? r : attach(mount, target, s->target, e);
}

static int step_link(struct tree *t, const struct step *s, struct err *e)
{
	own_fd int parent = -1;
	const char *name;
	int r = open_parent(t, s->target, OURS, &parent, &name, e);

	if (r >= 0 && symlinkat(s->text, parent, name) < 0)
		r = err_errno(e, errno, "make link %s", s->target);
	return r;
}

static int step_folder(struct tree *t, const struct step *s, struct err *e)
{
	own_fd int parent = -1;
	const char *name;
	int r = open_parent(t, s->target, OURS, &parent, &name, e);

	if (r >= 0 && mkdirat(parent, name, (mode_t)s->number) < 0 && errno != EEXIST)
		r = err_errno(e, errno, "make folder %s", s->target);
	return r;
}

static int step_hide(struct tree *t, const struct step *s, struct err *e)
{
	struct stat st;
	own_fd int target = open_in(t->root, s->target, O_PATH | O_NOFOLLOW, 0, OURS);

	if (target < 0 && errno == ENOENT)
		return 0;
	if (target < 0 || fstat(target, &st) < 0)
		return err_errno(e, errno, "look at %s", s->target);
	own_fd int mount = (int)syscall(SYS_open_tree, AT_FDCWD, S_ISDIR(st.st_mode) ? "nothing" : "none",
					OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
	if (mount < 0)
		return err_errno(e, errno, "hide %s", s->target);
	return attach(mount, target, s->target, e);
}

static int step_read_only(struct tree *t, const struct step *s, struct err *e)
{
	struct mount_attr a = { .attr_set = MOUNT_ATTR_RDONLY };
	own_fd int target = open_in(t->root, s->target, O_PATH | O_NOFOLLOW, 0, OURS);

	if (target < 0 && errno == ENOENT)
		return 0;
	if (target < 0)
		return err_errno(e, errno, "look at %s", s->target);
	own_fd int kept = *s->text ? (int)syscall(SYS_open_tree, target, s->text, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC) : -1;
	own_fd int mount = (int)syscall(SYS_open_tree, target, "",
					OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH | AT_RECURSIVE);
	if (mount < 0 || syscall(SYS_mount_setattr, mount, "", AT_EMPTY_PATH | AT_RECURSIVE, &a, sizeof a) < 0)
		return err_errno(e, errno, "make %s read-only", s->target);
	int r = attach(mount, target, s->target, e);
	if (r < 0 || kept < 0)
		return r;
	own_fd int hole = open_in(mount, s->text, O_PATH | O_DIRECTORY, 0, OURS);
	return hole < 0 ? err_errno(e, errno, "open %s/%s", s->target, s->text) : attach(kept, hole, s->target, e);
}

/* What a regular file says now; empty when it is not there. False: leave it alone, it is something else. */
static bool present_text(struct tree *t, const char *path, struct str *ret_text, bool *ret_there)
{
	struct stat st;
	own_fd int fd = open_in(t->root, path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0, THEIRS);

	*ret_there = fd >= 0;
	if (fd < 0)
		return errno == ENOENT;
	return fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && fs_read_fd(fd, FILE_MOST, ret_text, NULL) >= 0;
}

/* In place: a file that is made anew, or emptied first, is a transaction and a write to the disk more, and in a machine much
 * code. */
static int write_over(int fd, const struct str *now, const char *text, struct err *e)
{
	size_t length = strlen(text);
	int r = fs_write_all(fd, text, length, e);

	return r >= 0 && now->length > length && ftruncate(fd, (off_t)length) < 0 ? err_errno(e, errno, "shorten the file") : r;
}

static int step_write(struct tree *t, const struct step *s, struct err *e)
{
	own_strbuf struct str now = { 0 };
	bool there;

	if (!present_text(t, s->target, &now, &there) || (!there && s->number == WRITE_IF_THERE) ||
	    str_eq(str_text(&now), s->text))
		return 0;
	if (s->number == WRITE_UNLESS_OWN && now.length && !str_starts(now.bytes, WRITE_MARK))
		return 0;
	own_fd int parent = -1;
	const char *name;
	int r = there ? 0 : open_parent(t, s->target, THEIRS, &parent, &name, e);
	if (r < 0)
		return r;
	own_fd int fd = open_in(t->root, s->target, O_WRONLY | O_CREAT | O_NOFOLLOW | O_NONBLOCK, 0644, THEIRS);
	if (fd < 0)
		return err_errno(e, errno, "write %s of the workspace", s->target);
	return write_over(fd, &now, s->text, e);
}

/* In a devpts of its own that nothing but this terminal is in: its other side is ours, so it is no part of what a workspace is
 * (decision 111). */
int tree_make_terminal(int *ret_master, int *ret_mount, struct err *e)
{
	char name[32];
	int number, unlock = 0;
	own_fd int fs = (int)syscall(SYS_fsopen, "devpts", FSOPEN_CLOEXEC);

	if (fs < 0)
		return err_errno(e, errno, "open file system devpts");
	int r = set_mount_options(fs, TREE_DEVPTS, e);
	if (r < 0)
		return r;
	if (syscall(SYS_fsconfig, fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
		return err_errno(e, errno, "make file system devpts");
	own_fd int all = (int)syscall(SYS_fsmount, fs, FSMOUNT_CLOEXEC, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC);
	own_fd int master = all < 0 ? -1 : openat(all, "ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (master < 0 || ioctl(master, TIOCSPTLCK, &unlock) < 0 || ioctl(master, TIOCGPTN, &number) < 0)
		return err_errno(e, errno, "make a terminal");
	(void)snprintf(name, sizeof name, "terminal/%d", number);
	/* Older kernels (6.1) copy mounts only where they are placed. */
	if (mkdir("terminal", 0755) < 0 || syscall(SYS_move_mount, all, "", AT_FDCWD, "terminal", MOVE_MOUNT_F_EMPTY_PATH) < 0)
		return err_errno(e, errno, "place the terminal's file system");
	*ret_mount = (int)syscall(SYS_open_tree, AT_FDCWD, name, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
	if (*ret_mount < 0 || umount2("terminal", MNT_DETACH) < 0)
		return err_errno(e, errno, "take the terminal");
	*ret_master = TAKE_FD(master);
	return 0;
}

static int step_console(struct tree *t, const struct step *s, struct err *e)
{
	own_fd int mount = -1;
	int r = tree_make_terminal(&t->terminal, &mount, e);

	if (r < 0 || (r = mount_on_new_file(t, mount, s->target, e)) < 0)
		return r;
	t->terminal_peer = open_in(t->root, s->target, O_RDWR | O_NOCTTY, 0, OURS);
	return t->terminal_peer < 0 ? err_errno(e, errno, "open %s", s->target) : 0;
}

static int step_first(struct tree *t, const struct step *s, struct err *e)
{
	struct mount_attr a = { .attr_set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV };

	if (t->in->first < 0)
		return err_set(e, ERR_INTERNAL, "%s was not opened", s->source);
	if (syscall(SYS_mount_setattr, t->in->first, "", AT_EMPTY_PATH, &a, sizeof a) < 0)
		return err_errno(e, errno, "make %s read-only", s->source);
	return mount_on_new_file(t, t->in->first, s->target, e);
}

static int step_tun(struct tree *t, const struct step *s, struct err *e)
{
	own_fd int target = -1;

	if (t->in->tun < 0)
		return err_set(e, ERR_INTERNAL, "%s was not made", s->target);
	int r = open_target_folder(t, s->target, OURS, &target, e);
	return r < 0 ? r : attach(t->in->tun, target, s->target, e);
}

/* The kernel opens the program at once (flag F) and keeps it: it need not be in the image. Its name is that of our
 * descriptor in the /proc that was just made. */
static int register_program(int mount, int program, const char *what, struct err *e)
{
	own_fd int file = openat(mount, "register", O_WRONLY | O_CLOEXEC);
	own_str char *line = mem_printf("%s:aside/proc/self/fd/%d:F", what, program);

	if (file < 0 || write(file, line, strlen(line)) < 0)
		return err_errno(e, errno, "register programs of another processor");
	return 0;
}

static int step_foreign(struct tree *t, const struct step *s, struct err *e)
{
	own_fd int target = -1;

	if (t->in->foreign < 0)
		return err_set(e, ERR_UNSUPPORTED,
			       "%s was not opened: a restored workspace cannot run programs of another processor", s->source);
	own_fd int fs = (int)syscall(SYS_fsopen, "binfmt_misc", FSOPEN_CLOEXEC);
	if (fs < 0 || syscall(SYS_fsconfig, fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
		return err_errno(e, errno, "make a binfmt_misc for the workspace");
	own_fd int mount = (int)syscall(SYS_fsmount, fs, FSMOUNT_CLOEXEC,
					MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC | MOUNT_ATTR_NODEV);
	if (mount < 0)
		return err_errno(e, errno, "mount binfmt_misc");
	int r = register_program(mount, t->in->foreign, s->text, e);
	if (r >= 0)
		r = open_target_folder(t, s->target, OURS, &target, e);
	return r < 0 ? r : attach(mount, target, s->target, e);
}

typedef int step_fn(struct tree *t, const struct step *s, struct err *e);

static step_fn *const step_calls[] = {
	[STEP_MOUNT] = step_mount,     [STEP_VOLUME] = step_volume,       [STEP_DEVICE] = step_device,
	[STEP_HOST] = step_host,       [STEP_LINK] = step_link,           [STEP_FOLDER] = step_folder,
	[STEP_HIDE] = step_hide,       [STEP_READ_ONLY] = step_read_only, [STEP_WRITE] = step_write,
	[STEP_CONSOLE] = step_console, [STEP_FIRST] = step_first,         [STEP_TUN] = step_tun,
	[STEP_FOREIGN] = step_foreign,
};

/* File systems of our own, which are made before the image is there. */
static const char *const aside[] = { "/dev", "/proc", "/sys" };

static bool is_aside(const struct step *s)
{
	for (size_t i = 0; i < ARRAY_SIZE(aside); i++) {
		size_t n = strlen(aside[i]);
		if (strncmp(s->target, aside[i], n) == 0 && (s->target[n] == '\0' || s->target[n] == '/'))
			return s->kind != STEP_VOLUME;
	}
	return false;
}

int tree_step(struct tree *t, const struct step *s, struct err *e)
{
	if (s->kind == 0 || s->kind >= ARRAY_SIZE(step_calls))
		return err_set(e, ERR_INVALID, "plan has a step of kind %u", s->kind);
	return step_calls[s->kind](t, s, e);
}

static int do_steps(struct tree *t, bool those_aside, struct err *e)
{
	for (size_t i = 0; i < t->plan->step_count; i++) {
		const struct step *s = &t->plan->steps[i];
		int r = is_aside(s) == those_aside ? tree_step(t, s, e) : 0;
		if (r < 0)
			return r;
	}
	return 0;
}

int tree_begin(struct tree *t, struct err *e)
{
	int r = tree_make_nothing("nothing", true, e);

	if (r < 0 || (r = tree_make_nothing("none", false, e)) < 0)
		return r;
	if (mkdir("aside", 0755) < 0)
		return err_errno(e, errno, "make a scratch folder");
	if ((r = fs_open_dir(AT_FDCWD, "aside", &t->root, e)) < 0)
		return r;
	return do_steps(t, true, e);
}

static int put_in_place(struct tree *t, const char *path, struct err *e)
{
	own_str char *from = mem_printf("aside%s", path);
	own_fd int target = -1;

	if (access(from, F_OK) < 0)
		return 0;
	int r = open_target_folder(t, path, OURS, &target, e);
	if (r >= 0 && syscall(SYS_move_mount, AT_FDCWD, from, target, "", MOVE_MOUNT_T_EMPTY_PATH) < 0)
		r = err_errno(e, errno, "put %s in its place", path);
	return r;
}

int tree_complete(struct tree *t, struct err *e)
{
	int r = tree_stack(t, e);

	for (size_t i = 0; r >= 0 && i < ARRAY_SIZE(aside); i++)
		r = put_in_place(t, aside[i], e);
	return r < 0 ? r : do_steps(t, false, e);
}
