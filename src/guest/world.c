/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All of it happens in the machine's only mount namespace, so the order is what counts: disks are mounted as descriptors
 * without a place, the engine's tree code builds the root below /scratch, and the finished root is moved over "/" at the end;
 * chroot is not used, as the kernel makes no user namespaces in one. `volumes` keeps one descriptor a file system for freeze,
 * grow and the end; they are closed before the unmount, which they would hold up.
 *
 * A disk that cannot be unmounted is made read-only: the machine ends in any case, and then its journal is at least closed.
 */
#include "guest/world.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <linux/random.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/own.h"
#include "engine/workspace/inside.h"
#include "guest/device.h"
#include "guest/modules.h"

#define SCRATCH "/scratch"
#define CLONE_FOLDER "/run/carrel" /* of GUEST_CLONE_FILE */

/* --- identity --- */

int world_set_clock(uint64_t clock_ns, struct err *e)
{
	struct timespec t = { .tv_sec = (time_t)(clock_ns / 1000000000), .tv_nsec = (long)(clock_ns % 1000000000) };

	return clock_ns && clock_settime(CLOCK_REALTIME, &t) < 0 ? err_errno(e, errno, "set the clock") : 0;
}

int world_add_seed(const struct guest_bytes *seed, struct err *e)
{
	struct {
		int bits, length;
		char bytes[256];
	} pool = { .bits = (int)seed->length * 8, .length = (int)seed->length };

	static int fd = -1; /* stays open: a clone need not open it */

	if (!seed->length)
		return 0;
	memcpy(pool.bytes, seed->bytes, seed->length < sizeof pool.bytes ? seed->length : sizeof pool.bytes);
	if (fd < 0)
		fd = open("/dev/urandom", O_RDWR | O_CLOEXEC);
	if (fd < 0 || ioctl(fd, RNDADDENTROPY, &pool) < 0 || ioctl(fd, RNDRESEEDCRNG) < 0)
		return err_errno(e, errno, "seed the random generator");
	explicit_bzero(&pool, sizeof pool);
	return 0;
}

static int write_file(struct tree *t, enum write_when when, const char *path, const char *text, struct err *e)
{
	struct step s = { .kind = STEP_WRITE, .number = when, .source = "", .target = path, .text = text };

	return tree_step(t, &s, e);
}

static int rename_host(struct tree *t, const char *name, struct err *e)
{
	own_str char *line = mem_printf("%s\n", name), *hosts = mem_printf(PLAN_HOSTS, name);
	int r = sethostname(name, strlen(name)) < 0 ? err_errno(e, errno, "set the host name %s", name) : 0;

	if (r >= 0)
		r = write_file(t, WRITE_ALWAYS, "/etc/hostname", line, e);
	return r < 0 ? r : write_file(t, WRITE_UNLESS_OWN, "/etc/hosts", hosts, e);
}

int world_identify(const struct world *w, const struct guest_identity *i, struct err *e)
{
	static const struct plan none;
	struct tree t = { .plan = &none, .root = w->root, .terminal = -1, .terminal_peer = -1 };
	int r = world_set_clock(i->clock_ns, e);

	if (r < 0 || (r = world_add_seed(&i->seed, e)) < 0)
		return r;
	if (*i->host_name && (r = rename_host(&t, i->host_name, e)) < 0)
		return r;
	if (!*i->machine_id)
		return 0;
	own_str char *line = mem_printf("%s\n", i->machine_id);
	return write_file(&t, WRITE_IF_THERE, "/etc/machine-id", line, e);
}

/* One that cannot be read is the shell's to complain about. */
static bool has_hooks(int root)
{
	struct open_how how = { .flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC, .resolve = RESOLVE_IN_ROOT };
	int fd = (int)syscall(SYS_openat2, root, GUEST_HOOKS_FOLDER, &how, sizeof how);
	own_dir DIR *dir = fd < 0 ? NULL : fdopendir(fd);

	if (!dir)
		return fd >= 0 || (errno != ENOENT && errno != ENOTDIR);
	struct dirent *entry;
	int r;
	while ((r = fs_next_entry(dir, &entry, NULL)) > 0)
		if (entry->d_name[0] != '.')
			return true;
	return r < 0;
}

int world_expect_clones(const struct world *w, struct err *e)
{
	static const struct plan none;
	struct tree t = { .plan = &none, .root = w->root, .terminal = -1, .terminal_peer = -1 };
	const struct step folder = { .kind = STEP_FOLDER, .number = 0755, .source = "", .target = CLONE_FOLDER, .text = "" };
	const struct step mount = { .kind = STEP_MOUNT, .number = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC,
				    .source = "tmpfs", .target = CLONE_FOLDER, .text = "mode=755,size=64k,nr_inodes=64" };
	struct statfs fs;
	int r = tree_step(&t, &folder, e);

	if (r < 0)
		return r;
	own_fd int fd = openat(w->root, &CLONE_FOLDER[1], O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 || fstatfs(fd, &fs) < 0)
		return err_errno(e, errno, "look at %s", CLONE_FOLDER);
	return fs.f_type == TMPFS_MAGIC ? 0 : tree_step(&t, &mount, e);
}

int world_tell_clone(const struct world *w, uint64_t number, enum guest_told *ret_told, struct err *e)
{
	static const struct plan none;
	struct tree t = { .plan = &none, .root = w->root, .terminal = -1, .terminal_peer = -1 };
	char line[24];

	(void)snprintf(line, sizeof line, "%llu\n", (unsigned long long)number);
	int r = write_file(&t, WRITE_ALWAYS, GUEST_CLONE_FILE, line, e);
	if (r >= 0)
		*ret_told = has_hooks(w->root) ? GUEST_HOOKS : GUEST_TOLD;
	return r;
}

/* --- disks --- */

static int mount_disk(const char *serial, const char *type, bool read_only, const char *option, int *ret_mount, struct err *e)
{
	char path[80];
	int r = device_find_disk(serial, path, sizeof path, e);

	if (r < 0)
		return r;
	own_fd int fs = (int)syscall(SYS_fsopen, type, FSOPEN_CLOEXEC);
	if (fs < 0)
		return err_errno(e, errno, "open file system %s", type);
	if (syscall(SYS_fsconfig, fs, FSCONFIG_SET_STRING, "source", path, 0) < 0 ||
	    (read_only && syscall(SYS_fsconfig, fs, FSCONFIG_SET_FLAG, "ro", NULL, 0) < 0) ||
	    (option && syscall(SYS_fsconfig, fs, FSCONFIG_SET_FLAG, option, NULL, 0) < 0) ||
	    syscall(SYS_fsconfig, fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
		return err_errno(e, errno, "mount disk %s (%s, %s)", serial, path, type);
	int mount = (int)syscall(SYS_fsmount, fs, FSMOUNT_CLOEXEC, read_only ? MOUNT_ATTR_RDONLY : 0);
	if (mount < 0)
		return err_errno(e, errno, "mount disk %s", serial);
	*ret_mount = mount;
	return 0;
}

static int mount_volume(struct world *w, struct tree *t, const char *serial, struct err *e)
{
	int mount = -1;
	int r = w->volume_count == BIRTH_VOLUMES_MOST ? err_set(e, ERR_INVALID, "more than %d volumes", BIRTH_VOLUMES_MOST) :
							mount_disk(serial, "ext4", false, "discard", &mount, e);

	if (r < 0)
		return r;
	t->volumes[t->volume_count++] = mount;
	w->volumes[w->volume_count] = openat(mount, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	w->serials[w->volume_count++] = mem_strdup(serial);
	return 0;
}

int world_mount_disk(const char *serial, const char *type, bool read_only, int *ret_mount, struct err *e)
{
	return mount_disk(serial, type, read_only, read_only ? NULL : "discard", ret_mount, e);
}

/* In the order of the plan, which knows names. */
const char *world_serial_of(const struct guest_config *c, const char *name)
{
	const struct guest_volume *v = c->volumes.items;

	for (size_t i = 0; i < c->volumes.count; i++)
		if (str_eq(v[i].name, name))
			return v[i].serial;
	return NULL;
}

static int mount_disks(struct world *w, struct tree *t, struct inside *in, const struct guest_config *c, struct err *e)
{
	int r = mount_volume(w, t, c->root, e);

	in->layers = mem_alloc_array(c->partitions.count + 1, sizeof *in->layers);
	for (size_t i = 0; r >= 0 && i < c->partitions.count; i++)
		if ((r = mount_disk(c->partitions.items[i], "erofs", true, NULL, &in->layers[i], e)) >= 0)
			in->layer_count++;
	for (size_t i = 0; r >= 0 && t->plan->volumes[i]; i++) {
		const char *serial = world_serial_of(c, t->plan->volumes[i]);
		r = serial ? mount_volume(w, t, serial, e) :
			     err_set(e, ERR_INVALID, "volume %s has no disk", t->plan->volumes[i]);
	}
	return r;
}

static int go_to_scratch(struct err *e)
{
	if ((mkdir(SCRATCH, 0700) < 0 && errno != EEXIST) ||
	    mount("carrel", SCRATCH, "tmpfs", MS_NOSUID | MS_NODEV, "mode=755,size=64k") < 0 || chdir(SCRATCH) < 0)
		return err_errno(e, errno, "make a scratch folder");
	return 0;
}

/* The new root over the old one: whoever enters it is then in no chroot, in which the kernel makes no user namespaces. */
static int cover_root(int root, struct err *e)
{
	if (fchdir(root) < 0 || mount(".", "/", NULL, MS_MOVE, NULL) < 0)
		return err_errno(e, errno, "put the workspace's root in its place");
	return chdir("/") < 0 ? err_errno(e, errno, "go to the root") : 0;
}

/* What is missing here is missed by few: the workspace runs all the same. */
static void show_modules(const struct plan *p, const struct guest_config *c, int root)
{
	struct err e;
	int disk = -1, r = *c->kernel ? mount_disk(c->kernel, "erofs", true, NULL, &disk, &e) : 0;

	if (r >= 0 && disk >= 0)
		r = modules_show(disk, root, p->flags & PLAN_SYSTEM, &e);
	if (r < 0)
		log_error(&e, "the kernel's modules");
}

int world_make(struct world *w, const struct plan *p, const struct guest_config *c, struct err *e)
{
	struct inside in = { .plan = p, .sync = -1, .foreign = -1 };
	struct tree t = { .plan = p, .in = &in, .root = -1, .terminal = -1, .terminal_peer = -1 };
	int r = sethostname(p->host_name, strlen(p->host_name)) < 0 ?
			err_errno(e, errno, "set the host name %s", p->host_name) :
			0;

	w->root = -1;
	if (r >= 0)
		r = go_to_scratch(e);
	if (r >= 0 && (r = mount_disks(w, &t, &in, c, e)) >= 0 && (r = tree_begin(&t, e)) >= 0)
		r = tree_complete(&t, e);
	for (size_t i = 0; i < in.layer_count; i++)
		(void)close(in.layers[i]);
	free(in.layers);
	for (size_t i = 0; i < t.volume_count; i++)
		(void)close(t.volumes[i]);
	if (r >= 0) {
		show_modules(p, c, t.root);
		r = cover_root(t.root, e);
	}
	if (r >= 0)
		w->root = t.root;
	return r;
}

/* --- while it runs --- */

int world_freeze(const struct world *w, bool freeze, struct err *e)
{
	for (size_t i = 0; i < w->volume_count; i++) {
		size_t which = freeze ? w->volume_count - 1 - i : i; /* the root volume last and first */
		if (ioctl(w->volumes[which], freeze ? FIFREEZE : FITHAW, 0) < 0 && errno != (freeze ? EBUSY : EINVAL)) {
			int r = err_errno(e, errno, "%s volume %s", freeze ? "freeze" : "thaw", w->serials[which]);
			if (freeze)
				(void)!world_freeze(w, false, NULL);
			return r;
		}
	}
	return 0;
}

/* ext4's own ioctl (Documentation/filesystems/ext4, "EXT4_IOC_RESIZE_FS"): the new number of blocks. */
#define GROW_EXT4 _IOW('f', 16, uint64_t)

#define RESIZE_POLLS 200 /* of 10 ms */

/* A disk's length, once it is as long as that. */
static int wait_for_size(const char *path, uint64_t bytes, uint64_t *ret_bytes, struct err *e)
{
	own_fd int disk = open(path, O_RDONLY | O_CLOEXEC);

	for (int i = 0; disk >= 0 && i < RESIZE_POLLS; i++) {
		if (ioctl(disk, BLKGETSIZE64, ret_bytes) < 0)
			break;
		if (*ret_bytes >= bytes)
			return 0;
		(void)poll(NULL, 0, 10);
	}
	if (disk < 0 || !*ret_bytes)
		return err_errno(e, errno, "look at disk %s", path);
	return err_set(e, ERR_TIMEOUT, "disk %s has still %llu bytes", path, (unsigned long long)*ret_bytes);
}

int world_grow(const struct world *w, const char *serial, uint64_t least_bytes, struct err *e)
{
	char path[80];
	struct statfs fs;
	uint64_t bytes = 0;
	size_t i = 0;

	while (i < w->volume_count && !str_eq(w->serials[i], serial))
		i++;
	if (i == w->volume_count)
		return err_set(e, ERR_NOT_FOUND, "no volume %s", serial);
	int r = device_find_disk(serial, path, sizeof path, e);
	if (r < 0 || (r = wait_for_size(path, least_bytes, &bytes, e)) < 0)
		return r;
	if (fstatfs(w->volumes[i], &fs) < 0)
		return err_errno(e, errno, "look at volume %s", serial);
	uint64_t blocks = bytes / (uint64_t)fs.f_bsize;
	return ioctl(w->volumes[i], GROW_EXT4, &blocks) < 0 ?
		       err_errno(e, errno, "grow volume %s to %llu bytes", serial, (unsigned long long)bytes) :
		       0;
}

/* --- the end --- */

static int unmount_volume(const char *path, struct err *e)
{
	for (int i = 0; i < 100; i++) { /* the kernel lets go of the dead a moment later */
		if (umount2(path, 0) == 0)
			return 0;
		(void)poll(NULL, 0, 10);
	}
	log_warn("%s is still in use: it is made read-only", path);
	return mount(NULL, path, NULL, MS_REMOUNT | MS_RDONLY, NULL) < 0 ? err_errno(e, errno, "unmount %s", path) : 0;
}

int world_leave(struct world *w, struct err *e)
{
	char path[64];
	int r = 0;

	if (w->root < 0)
		return 0;
	(void)snprintf(path, sizeof path, "/proc/self/fd/%d", w->root);
	(void)umount2(path, MNT_DETACH);
	(void)close(w->root);
	w->root = -1;
	for (size_t i = 0; i < w->volume_count; i++)
		(void)close(w->volumes[i]);
	for (size_t i = w->volume_count; i-- > 0;) {
		if (i)
			(void)snprintf(path, sizeof path, SCRATCH "/d%zu", i - 1);
		else
			(void)snprintf(path, sizeof path, SCRATCH "/v");
		int one = unmount_volume(path, r < 0 ? NULL : e);
		r = one < 0 ? one : r;
	}
	w->volume_count = 0;
	sync();
	return r;
}
