/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. An entry per partition, under one lock; the thread that mounts one marks it busy and lets the lock go,
 * so different partitions are staged side by side and the same one once. The mount points are the memory: after a restart the
 * table is filled from mountinfo.
 *
 * The verified mark is the attribute trusted.carrel.sha256 on the file. `trusted.` attributes are visible to root only and need
 * CAP_SYS_ADMIN; the owner of the folder may rename or replace files, which is why the mark names the digest and is read from
 * the descriptor that is mounted. On a file system without such attributes a partition is hashed for each mount.
 *
 * The file is mounted by way of /proc/self/fd/N. Kernels before 6.12 want a block device: the loop device clears itself when
 * the mount is gone (LO_FLAGS_AUTOCLEAR), and holds no path either.
 */
#include "store/mount.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <linux/mount.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"

#define MARK "trusted.carrel.sha256"

struct entry {
	struct digest digest;
	unsigned users;
	bool mounted, busy;
	uint64_t idle_since_ms;
	struct entry *next;
};

struct mounts {
	char *store, *folder;
	enum mount_how how;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct entry *entries;
};

static uint64_t now_ms(void)
{
	struct timespec now;
	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* --- taking a partition over --- */

static bool is_marked(int fd, const char *hex)
{
	char mark[DIGEST_HEX_SIZE];
	return fgetxattr(fd, MARK, mark, sizeof mark) == DIGEST_HEX_SIZE - 1 && memcmp(mark, hex, DIGEST_HEX_SIZE - 1) == 0;
}

/* A read lease is given only when nobody has the file open for writing. */
static int refuse_writers(int fd, const char *hex, struct err *e)
{
	if (fcntl(fd, F_SETLEASE, F_RDLCK) < 0) {
		if (errno == EAGAIN)
			return err_set(e, ERR_CONFLICT, "partition %s is still being written", hex);
		return errno == EINVAL ? 0 : err_errno(e, errno, "ask for a lease on partition %s", hex); /* no leases there */
	}
	(void)fcntl(fd, F_SETLEASE, F_UNLCK);
	return 0;
}

static int hash_all(int fd, uint64_t total, void (*progress)(void *, uint64_t, uint64_t), void *data, struct digest *ret_digest,
		    struct err *e)
{
	own_hash struct hash *h = hash_new();
	own_str char *buffer = mem_alloc(1 << 18);

	for (uint64_t at = 0;;) {
		ssize_t n = pread(fd, buffer, 1 << 18, (off_t)at);
		if (n < 0)
			return err_errno(e, errno, "read");
		if (n == 0)
			break;
		hash_add(h, buffer, (size_t)n);
		at += (uint64_t)n;
		if (progress && at % (UINT64_C(4) << 20) < (uint64_t)n)
			progress(data, at, total);
	}
	*ret_digest = hash_end(h);
	return 0;
}

static int verify(int fd, const struct digest *d, void (*progress)(void *, uint64_t, uint64_t), void *data, struct err *e)
{
	struct digest found;
	struct stat st;
	char hex[DIGEST_HEX_SIZE], found_hex[DIGEST_HEX_SIZE];

	(void)digest_hex(d, hex);
	if (fchown(fd, 0, 0) < 0 || fchmod(fd, 0444) < 0 || fstat(fd, &st) < 0)
		return err_errno(e, errno, "take over partition %s", hex);
	int r = refuse_writers(fd, hex, e);
	if (r == 0)
		r = hash_all(fd, (uint64_t)st.st_size, progress, data, &found, e);
	if (r < 0)
		return r;
	if (!digest_eq(&found, d)) {
		(void)err_set(e, ERR_CORRUPT, "partition %s has the content of %s", hex, digest_hex(&found, found_hex));
		return err_hint(e, "the store's file is damaged: remove the image and import it again");
	}
	(void)fsetxattr(fd, MARK, hex, DIGEST_HEX_SIZE - 1, 0);
	return 0;
}

int mount_take_over(const char *store, const struct digest *d, void (*progress)(void *, uint64_t, uint64_t), void *data,
		    int *ret_fd, struct err *e)
{
	char hex[DIGEST_HEX_SIZE];
	own_str char *path = mem_printf("%s/partitions/sha256/%s", store, digest_hex(d, hex));
	own_fd int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	struct stat st;

	if (fd < 0 && errno == ENOENT) {
		(void)err_set(e, ERR_NOT_FOUND, "partition %s is not on this host", hex);
		return err_hint(e, "import the image again");
	}
	if (fd < 0 || fstat(fd, &st) < 0)
		return err_errno(e, errno, "open partition %s", hex);
	if (!S_ISREG(st.st_mode))
		return err_set(e, ERR_CORRUPT, "partition %s is not a file", hex);
	int fault = fault_point("partition-verify");
	if (fault)
		return err_errno(e, fault, "verify partition %s", hex);
	bool known = st.st_uid == 0 && (st.st_mode & 07777) == 0444 && is_marked(fd, hex);
	if (!known) {
		int r = verify(fd, d, progress, data, e);
		if (r < 0)
			return r;
	}
	*ret_fd = TAKE_FD(fd);
	return known;
}

/* --- mounting --- */

/* The new mount API tells the reason in the context's own log; its last line is worth showing. */
static void context_reason(int context, char *out, size_t size)
{
	ssize_t n = read(context, out, size - 1);
	out[n > 0 ? n : 0] = '\0';
}

static int mount_source(const char *source, int *ret_mount, struct err *e)
{
	own_fd int context = (int)syscall(SYS_fsopen, "erofs", FSOPEN_CLOEXEC);
	char reason[256];

	if (context < 0)
		return err_errno(e, errno, "erofs");
	if (syscall(SYS_fsconfig, context, FSCONFIG_SET_STRING, "source", source, 0) < 0 ||
	    syscall(SYS_fsconfig, context, FSCONFIG_SET_FLAG, "ro", NULL, 0) < 0 ||
	    syscall(SYS_fsconfig, context, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0) {
		int number = errno;
		context_reason(context, reason, sizeof reason);
		return err_errno(e, number, "mount erofs%s%s", *reason ? ": " : "", reason);
	}
	int fd = (int)syscall(SYS_fsmount, context, FSMOUNT_CLOEXEC, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOATIME);
	if (fd < 0)
		return err_errno(e, errno, "mount erofs");
	*ret_mount = fd;
	return 0;
}

/* Another process may take the free device between the two calls: ask again. */
static int attach_loop(int file, int *ret_loop, char *path, size_t path_size, struct err *e)
{
	own_fd int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
	struct loop_config config = { .fd = (uint32_t)file, .info = { .lo_flags = LO_FLAGS_READ_ONLY | LO_FLAGS_AUTOCLEAR } };

	if (control < 0)
		return err_errno(e, errno, "open /dev/loop-control");
	for (int attempt = 0; attempt < 100; attempt++) {
		int number = ioctl(control, LOOP_CTL_GET_FREE);
		if (number < 0)
			return err_errno(e, errno, "get a loop device");
		(void)snprintf(path, path_size, "/dev/loop%d", number);
		own_fd int loop = open(path, O_RDONLY | O_CLOEXEC);
		if (loop < 0)
			return err_errno(e, errno, "open %s", path);
		if (ioctl(loop, LOOP_CONFIGURE, &config) == 0) {
			*ret_loop = TAKE_FD(loop);
			return 0;
		}
		if (errno != EBUSY)
			return err_errno(e, errno, "set up %s", path);
	}
	return err_set(e, ERR_NO_CAPACITY, "no loop device stays free");
}

static int mount_file(const char *hex, int file, enum mount_how how, int *ret_mount, struct err *e)
{
	char source[64];
	int r = -ENOTBLK;

	if (how != MOUNT_LOOP) {
		(void)snprintf(source, sizeof source, "/proc/self/fd/%d", file);
		r = mount_source(source, ret_mount, e);
	}
	if (how == MOUNT_LOOP || (how == MOUNT_AUTO && r == -ENOTBLK)) {
		own_fd int loop = -1;
		r = attach_loop(file, &loop, source, sizeof source, e);
		if (r == 0)
			r = mount_source(source, ret_mount, e);
	}
	return r < 0 ? err_wrap(e, "partition %s", hex) : 0;
}

static int mount_entry(struct mounts *m, const struct digest *d, void (*progress)(void *, uint64_t, uint64_t), void *data,
		       struct err *e)
{
	char hex[DIGEST_HEX_SIZE];
	own_str char *target = mem_printf("%s/%s", m->folder, digest_hex(d, hex));
	own_fd int file = -1, mount_fd = -1;
	int fault, r = mount_take_over(m->store, d, progress, data, &file, e);

	if (r >= 0)
		r = mount_file(hex, file, m->how, &mount_fd, e);
	if (r < 0)
		return r;
	if ((fault = fault_point("partition-mount")))
		return err_errno(e, fault, "mount partition %s", hex);
	if (mkdir(target, 0755) < 0 && errno != EEXIST)
		return err_errno(e, errno, "make folder %s", target);
	if (syscall(SYS_move_mount, mount_fd, "", AT_FDCWD, target, MOVE_MOUNT_F_EMPTY_PATH) < 0) {
		int number = errno;
		(void)rmdir(target);
		return err_errno(e, number, "mount partition at %s", target);
	}
	return 0;
}

/* --- the table --- */

static struct entry *find(struct mounts *m, const struct digest *d, bool make)
{
	struct entry *entry;

	for (entry = m->entries; entry && !digest_eq(&entry->digest, d); entry = entry->next)
		;
	if (!entry && make) {
		entry = mem_alloc(sizeof *entry);
		entry->digest = *d;
		entry->next = m->entries;
		m->entries = entry;
	}
	return entry;
}

static void drop(struct mounts *m, struct entry *gone)
{
	struct entry **at = &m->entries;
	while (*at != gone)
		at = &(*at)->next;
	*at = gone->next;
	free(gone);
}

int mount_ref(struct mounts *m, const struct digest *d, void (*progress)(void *, uint64_t, uint64_t), void *data,
	      char **ret_path, struct err *e)
{
	char hex[DIGEST_HEX_SIZE];
	int r = 0;

	(void)pthread_mutex_lock(&m->lock);
	struct entry *entry = find(m, d, true);
	entry->users++;
	while (entry->busy)
		(void)pthread_cond_wait(&m->changed, &m->lock);
	if (!entry->mounted) {
		entry->busy = true;
		(void)pthread_mutex_unlock(&m->lock);
		r = mount_entry(m, d, progress, data, e);
		(void)pthread_mutex_lock(&m->lock);
		entry->busy = false;
		entry->mounted = r == 0;
		(void)pthread_cond_broadcast(&m->changed);
	}
	if (r < 0 && --entry->users == 0)
		drop(m, entry);
	(void)pthread_mutex_unlock(&m->lock);
	if (r == 0 && ret_path)
		*ret_path = mem_printf("%s/%s", m->folder, digest_hex(d, hex));
	return r;
}

void mount_unref(struct mounts *m, const struct digest *d)
{
	(void)pthread_mutex_lock(&m->lock);
	struct entry *entry = find(m, d, false);
	if (entry && entry->users && --entry->users == 0)
		entry->idle_since_ms = now_ms();
	(void)pthread_mutex_unlock(&m->lock);
}

/* Runner namespaces may hold copies; the superblock lives until the last of them is gone, so a lazy unmount is right. */
static void unmount(const char *folder, const char *name)
{
	own_str char *path = mem_printf("%s/%s", folder, name);
	while (umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW) == 0)
		;
	(void)rmdir(path);
}

uint64_t mounts_idle(struct mounts *m, uint64_t idle_ms)
{
	uint64_t now = now_ms(), next = 0;
	char hex[DIGEST_HEX_SIZE];

	(void)pthread_mutex_lock(&m->lock);
	for (struct entry *entry = m->entries, *following; entry; entry = following) {
		following = entry->next;
		if (entry->users || entry->busy)
			continue;
		uint64_t due = entry->idle_since_ms + idle_ms;
		if (due > now) {
			next = !next || due - now < next ? due - now : next;
			continue;
		}
		unmount(m->folder, digest_hex(&entry->digest, hex));
		drop(m, entry);
	}
	(void)pthread_mutex_unlock(&m->lock);
	return next;
}

/* Calls fn for each entry of the folder; `mounted` when its device differs from the folder's. */
static int each_mount(const char *folder, void (*fn)(void *data, const char *name, bool mounted), void *data, struct err *e)
{
	own_dir DIR *dir = opendir(folder);
	struct stat top, st;

	if (!dir)
		return errno == ENOENT ? 0 : err_errno(e, errno, "read %s", folder);
	if (fstat(dirfd(dir), &top) < 0)
		return err_errno(e, errno, "stat %s", folder);
	struct dirent *entry;
	int r;
	while ((r = fs_next_entry(dir, &entry, e)) > 0)
		if (entry->d_name[0] != '.' && fstatat(dirfd(dir), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0)
			fn(data, entry->d_name, st.st_dev != top.st_dev);
	return r;
}

static void adopt(void *data, const char *name, bool mounted)
{
	struct mounts *m = data;
	struct digest d;

	if (!mounted || digest_parse_hex(name, &d) < 0) {
		unmount(m->folder, name);
		return;
	}
	struct entry *entry = find(m, &d, true);
	entry->mounted = true;
	entry->idle_since_ms = now_ms();
}

int mounts_open(const char *store, const char *folder, enum mount_how how, struct mounts **ret_mounts, struct err *e)
{
	struct mounts *m = mem_alloc(sizeof *m);

	m->store = mem_strdup(store);
	m->folder = mem_strdup(folder);
	m->how = how;
	(void)pthread_mutex_init(&m->lock, NULL);
	(void)pthread_cond_init(&m->changed, NULL);
	int r = fs_mkdirs(folder, 0755, e);
	if (r == 0)
		r = each_mount(folder, adopt, m, e);
	if (r < 0) {
		mounts_free(m);
		return r;
	}
	*ret_mounts = m;
	return 0;
}

void mounts_free(struct mounts *m)
{
	if (!m)
		return;
	while (m->entries)
		drop(m, m->entries);
	(void)pthread_mutex_destroy(&m->lock);
	(void)pthread_cond_destroy(&m->changed);
	free(m->store);
	free(m->folder);
	free(m);
}

static void clean_one(void *data, const char *name, bool mounted)
{
	(void)mounted;
	unmount(data, name);
}

int mounts_clean(const char *folder, struct err *e) { return each_mount(folder, clean_one, (void *)folder, e); }
