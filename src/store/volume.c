/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. mkfs.ext4 runs as a program: ext4's format is e2fsprogs' affair. On an empty sparse file it writes
 * little (320 KiB for 10 GiB) and takes 3 to 6 ms, as the inode tables and the journal of a fresh file are known to be zero.
 * Those milliseconds are paid in the background: finished file systems ("blanks") wait in a folder, named
 * KIND-SIZE-RANDOM.ext4, and a new volume is one rename. Nothing is copied, so each blank has a UUID and a hash seed of its
 * own.
 *
 * A blank is synced before it gets its name, so a blank that is there after a crash of the machine is whole. The rename into a
 * workspace is not synced: it takes part in the next transaction of the host's file system, as does the first fsync that
 * somebody does inside the volume.
 *
 * Unfinished files are called NAME.new, and removed by whoever opens the folder next.
 */
#include "store/volume.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <linux/loop.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/proc.h"
#include "base/str.h"
#include "model/name.h"

#define BLOCK_BYTES 4096
#define UNFINISHED ".new"
#define EXT4_RESIZE _IOW('f', 16, uint64_t) /* EXT4_IOC_RESIZE_FS, fs/ext4/ext4.h */

static const char *const kind_names[] = { [VOLUME_ROOT] = "root", [VOLUME_DATA] = "data" };

struct wanted {
	enum volume_kind kind;
	uint64_t size_bytes, used_at; /* a counter, not a time */
	unsigned have;
};

struct volume_pool {
	char *folder;
	int dir_fd;
	unsigned per_size;
	pthread_mutex_t lock; /* all below */
	struct wanted wanted[VOLUME_POOL_SIZES];
	size_t wanted_count;
	uint64_t clock;
};

/* --- a new file system --- */

/* The journal is written round and round, so in the end all of it takes space on the host. */
static unsigned journal_mib(uint64_t size_bytes)
{
	if (size_bytes < UINT64_C(128) << 20)
		return 4;
	return size_bytes < UINT64_C(4) << 30 ? 16 : 32;
}

/* An empty tree with the folders that a new volume shall hold, for mke2fs -d: kept beside the blanks. */
static int make_template(const char *folder, enum volume_kind kind, char **ret_path, struct err *e)
{
	static const char *const folders[][3] = {
		[VOLUME_ROOT] = { "upper", "work", NULL }, [VOLUME_DATA] = { "data", NULL, NULL }
	};
	own_str char *path = mem_printf("%s/template-%s", folder, kind_names[kind]);

	for (const char *const *name = folders[kind]; *name; name++) {
		own_str char *inner = mem_printf("%s/%s", path, *name);
		int r = fs_mkdirs(inner, 0755, e);
		if (r < 0)
			return r;
		if (chmod(inner, 0755) < 0)
			return err_errno(e, errno, "set the mode of %s", inner);
	}
	*ret_path = TAKE(path);
	return 0;
}

static int make_sparse(const char *path, uint64_t size_bytes, struct err *e)
{
	own_fd int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);

	if (fd < 0)
		return err_errno(e, errno, "create %s", path);
	if (ftruncate(fd, (off_t)size_bytes) == 0)
		return 0;
	if (errno != EFBIG)
		return err_errno(e, errno, "make a volume of %" PRIu64 " bytes", size_bytes);
	(void)err_set(e, ERR_TOO_LARGE, "make a volume of %" PRIu64 " bytes: the host's file system has no files that large",
		      size_bytes);
	return err_hint(e, "ask for less, or put the agent's --state on a file system such as XFS");
}

static int sync_path(const char *path, struct err *e)
{
	own_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fdatasync(fd) < 0)
		return err_errno(e, errno, "sync %s", path);
	return 0;
}

/* Room for descriptors is reserved for growing to 16 times the size; mkfs' own choice, 1024 times, writes 4 MiB of zeros and
 * takes three times as long. Beyond it both kernel and resize2fs go on in another way (meta_bg). */
static void extended_options(char *out, size_t size, uint64_t size_bytes)
{
	uint64_t blocks = size_bytes / BLOCK_BYTES, most = blocks < (UINT64_C(1) << 27) ? blocks * 16 : 0;

	(void)snprintf(out, size, "root_owner=0:0,lazy_itable_init=0,lazy_journal_init=1,discard");
	if (most)
		(void)snprintf(out + strlen(out), size - strlen(out), ",resize=%" PRIu64, most);
}

static int make_file_system(const char *template, enum volume_kind kind, uint64_t size_bytes, const char *path, struct err *e)
{
	char journal[32], extended[128];
	int r = make_sparse(path, size_bytes, e);

	extended_options(extended, sizeof extended, size_bytes);
	(void)snprintf(journal, sizeof journal, "size=%u", journal_mib(size_bytes));
	const char *argv[] = { "mkfs.ext4", "-q", "-F", "-b", "4096", "-m", "0", "-J", journal, "-E", extended, "-L",
			       kind == VOLUME_ROOT ? "carrel-root" : "carrel-data", "-d", template, path, NULL };
	if (r == 0 && (r = -fault_point("volume-mkfs")) < 0)
		r = err_errno(e, -r, "make a file system");
	if (r == 0)
		r = proc_run(argv, 65536, NULL, e);
	if (r == 0)
		r = sync_path(path, e);
	if (r < 0)
		(void)unlink(path);
	return r;
}

/* Makes `path` in one step, under an unfinished name first. */
static int make_whole(const char *template_folder, enum volume_kind kind, uint64_t size_bytes, const char *path, struct err *e)
{
	own_str char *template = NULL, *unfinished = mem_printf("%s" UNFINISHED, path);
	int r = make_template(template_folder, kind, &template, e);

	if (r == 0)
		r = make_file_system(template, kind, size_bytes, unfinished, e);
	if (r < 0)
		return r;
	if (rename(unfinished, path) < 0)
		return err_errno(e, errno, "rename to %s", path);
	return 0;
}

/* --- the pool --- */

/* "KIND-SIZE-RANDOM.ext4" */
static bool parse_blank(const char *name, enum volume_kind *ret_kind, uint64_t *ret_size)
{
	char kind[8], id[ID_SIZE];
	uint64_t size;
	int end = 0;

	if (sscanf(name, "%7[a-z]-%" SCNu64 "-%16[0-9a-f].ext4%n", kind, &size, id, &end) != 3 || name[end] || !end)
		return false;
	*ret_kind = str_eq(kind, "root") ? VOLUME_ROOT : VOLUME_DATA;
	*ret_size = size;
	return str_eq(kind, kind_names[*ret_kind]);
}

static bool blank_is_whole(const struct volume_pool *p, const char *name, uint64_t size_bytes)
{
	own_str char *path = mem_printf("%s/%s", p->folder, name);
	uint64_t found = 0, inside = 0, used;

	return volume_measure(path, &found, &used, NULL) == 0 && found == size_bytes &&
	       volume_file_system_bytes(path, &inside, NULL) == 0 && inside == size_bytes / BLOCK_BYTES * BLOCK_BYTES;
}

static struct wanted *find_wanted(struct volume_pool *p, enum volume_kind kind, uint64_t size_bytes)
{
	for (size_t i = 0; i < p->wanted_count; i++)
		if (p->wanted[i].kind == kind && p->wanted[i].size_bytes == size_bytes)
			return &p->wanted[i];
	return NULL;
}

static void drop_blanks(struct volume_pool *p, const struct wanted *w);

static struct wanted *want(struct volume_pool *p, enum volume_kind kind, uint64_t size_bytes)
{
	struct wanted *w = find_wanted(p, kind, size_bytes);

	if (!w && p->wanted_count < VOLUME_POOL_SIZES) {
		w = &p->wanted[p->wanted_count++];
	} else if (!w) {
		w = &p->wanted[0];
		for (size_t i = 1; i < p->wanted_count; i++)
			if (p->wanted[i].used_at < w->used_at)
				w = &p->wanted[i];
		drop_blanks(p, w);
	}
	if (w->kind != kind || w->size_bytes != size_bytes)
		*w = (struct wanted){ .kind = kind, .size_bytes = size_bytes };
	w->used_at = ++p->clock;
	return w;
}

/* Calls fn for each blank; the folder is small (sizes times per_size). */
static int each_blank(struct volume_pool *p,
		      bool (*fn)(struct volume_pool *, const char *name, enum volume_kind, uint64_t, void *), void *data,
		      struct err *e)
{
	own_dir DIR *dir = opendir(p->folder);
	enum volume_kind kind;
	uint64_t size;

	if (!dir)
		return err_errno(e, errno, "read %s", p->folder);
	struct dirent *entry;
	int r;
	while ((r = fs_next_entry(dir, &entry, e)) > 0)
		if (parse_blank(entry->d_name, &kind, &size) && !fn(p, entry->d_name, kind, size, data))
			break;
	return r < 0 ? r : 0;
}

static bool drop_one(struct volume_pool *p, const char *name, enum volume_kind kind, uint64_t size, void *data)
{
	const struct wanted *w = data;
	if (w->kind == kind && w->size_bytes == size)
		(void)unlinkat(p->dir_fd, name, 0);
	return true;
}

static void drop_blanks(struct volume_pool *p, const struct wanted *w) { (void)!each_blank(p, drop_one, (void *)w, NULL); }

static bool adopt_one(struct volume_pool *p, const char *name, enum volume_kind kind, uint64_t size, void *data)
{
	struct wanted *w = find_wanted(p, kind, size);

	(void)data;
	if (!blank_is_whole(p, name, size) || (!w && p->wanted_count == VOLUME_POOL_SIZES) || (w && w->have >= p->per_size)) {
		(void)unlinkat(p->dir_fd, name, 0);
		return true;
	}
	if (!w)
		w = want(p, kind, size);
	w->have++;
	return true;
}

int volume_pool_open(const char *folder, unsigned per_size, struct volume_pool **ret_pool, struct err *e)
{
	int r = fs_mkdirs(folder, 0700, e);
	if (r == 0)
		r = volume_clean_folder(folder, e);
	if (r < 0)
		return r;
	struct volume_pool *p = mem_alloc(sizeof *p);
	p->folder = mem_strdup(folder);
	p->per_size = per_size;
	p->dir_fd = -1;
	(void)pthread_mutex_init(&p->lock, NULL);
	r = fs_open_dir(AT_FDCWD, folder, &p->dir_fd, e);
	if (r == 0)
		r = each_blank(p, adopt_one, NULL, e);
	if (r < 0) {
		volume_pool_free(p);
		return r;
	}
	*ret_pool = p;
	return 0;
}

void volume_pool_free(struct volume_pool *p)
{
	if (!p)
		return;
	own_close(&p->dir_fd);
	(void)pthread_mutex_destroy(&p->lock);
	free(p->folder);
	free(p);
}

void volume_pool_want(struct volume_pool *p, enum volume_kind kind, uint64_t size_bytes)
{
	(void)pthread_mutex_lock(&p->lock);
	(void)want(p, kind, size_bytes);
	(void)pthread_mutex_unlock(&p->lock);
}

int volume_pool_refill(struct volume_pool *p, struct err *e)
{
	struct wanted missing = { 0 };

	(void)pthread_mutex_lock(&p->lock);
	for (size_t i = 0; i < p->wanted_count && !missing.size_bytes; i++)
		if (p->wanted[i].have < p->per_size)
			missing = p->wanted[i];
	(void)pthread_mutex_unlock(&p->lock);
	if (!missing.size_bytes)
		return 0;
	char id[ID_SIZE];
	id_new(id);
	own_str char *path = mem_printf("%s/%s-%" PRIu64 "-%s.ext4", p->folder, kind_names[missing.kind], missing.size_bytes,
					id);
	int r = make_whole(p->folder, missing.kind, missing.size_bytes, path, e);
	if (r < 0)
		return err_wrap(e, "make a blank volume");
	(void)pthread_mutex_lock(&p->lock);
	struct wanted *w = find_wanted(p, missing.kind, missing.size_bytes);
	if (w)
		w->have++;
	else
		(void)unlink(path);
	(void)pthread_mutex_unlock(&p->lock);
	return 1;
}

struct taking {
	enum volume_kind kind;
	uint64_t size_bytes;
	const char *path;
	bool taken;
};

static bool take_one(struct volume_pool *p, const char *name, enum volume_kind kind, uint64_t size, void *data)
{
	struct taking *t = data;

	if (kind != t->kind || size != t->size_bytes)
		return true;
	t->taken = renameat(p->dir_fd, name, AT_FDCWD, t->path) == 0;
	return !t->taken;
}

int volume_make(struct volume_pool *p, enum volume_kind kind, uint64_t size_bytes, const char *path, struct err *e)
{
	struct taking t = { kind, size_bytes, path, false };
	int r = 0;

	if (fs_exists(AT_FDCWD, path))
		return 0;
	(void)pthread_mutex_lock(&p->lock);
	struct wanted *w = want(p, kind, size_bytes);
	if (w->have) {
		r = each_blank(p, take_one, &t, e);
		w->have -= t.taken || r == 0;
	}
	(void)pthread_mutex_unlock(&p->lock);
	if (t.taken)
		return 1;
	r = make_whole(p->folder, kind, size_bytes, path, e);
	return r < 0 ? err_wrap(e, "make volume %s", path) : 0;
}

int volume_clean_folder(const char *folder, struct err *e)
{
	own_dir DIR *dir = opendir(folder);
	if (!dir)
		return errno == ENOENT ? 0 : err_errno(e, errno, "read %s", folder);
	struct dirent *entry;
	int r;
	while ((r = fs_next_entry(dir, &entry, e)) > 0)
		if (str_ends(entry->d_name, UNFINISHED) && unlinkat(dirfd(dir), entry->d_name, 0) < 0)
			return err_errno(e, errno, "remove %s/%s", folder, entry->d_name);
	return r;
}

/* --- using one --- */

int volume_open(const char *path, int *ret_fd, struct err *e)
{
	own_fd int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return err_errno(e, errno, "open volume %s", path);
	if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		if (errno != EWOULDBLOCK)
			return err_errno(e, errno, "lock volume %s", path);
		(void)err_set(e, ERR_CONFLICT, "volume %s is in use", path);
		return err_hint(e, "stop the workspace that uses it");
	}
	*ret_fd = TAKE_FD(fd);
	return 0;
}

int volume_measure(const char *path, uint64_t *ret_size_bytes, uint64_t *ret_used_bytes, struct err *e)
{
	struct stat st;
	if (lstat(path, &st) < 0)
		return err_errno(e, errno, "volume %s", path);
	*ret_size_bytes = (uint64_t)st.st_size;
	*ret_used_bytes = (uint64_t)st.st_blocks * 512;
	return 0;
}

#define GUEST_MARK "trusted.carrel.guest"

bool volume_is_of_guest(const char *path)
{
	char value;
	return lgetxattr(path, GUEST_MARK, &value, 1) > 0 || (errno != ENODATA && errno != ENOENT);
}

int volume_set_of_guest(int fd, bool guest, struct err *e)
{
	char value;
	bool is = fgetxattr(fd, GUEST_MARK, &value, 1) > 0;

	if (is == guest)
		return 0;
	if ((guest ? fsetxattr(fd, GUEST_MARK, "1", 1, 0) : fremovexattr(fd, GUEST_MARK)) < 0)
		return err_errno(e, errno, "note who wrote a volume");
	/* The mark comes before the guest's bytes on the disk, whatever happens to the machine. */
	return guest && fsync(fd) < 0 ? err_errno(e, errno, "sync a volume") : 0;
}

/* Superblock at 1024: s_blocks_count_lo at 4, s_log_block_size at 24, s_magic at 56, s_blocks_count_hi at 336 (kernel's
 * Documentation/filesystems/ext4/super.rst). */
int volume_file_system_bytes(const char *path, uint64_t *ret_bytes, struct err *e)
{
	own_fd int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	uint8_t block[1024];
	uint32_t low, high, log_size;

	if (fd < 0)
		return err_errno(e, errno, "open volume %s", path);
	if (pread(fd, block, sizeof block, 1024) != sizeof block || block[56] != 0x53 || block[57] != 0xef)
		return err_set(e, ERR_CORRUPT, "volume %s holds no ext4 file system", path);
	memcpy(&low, block + 4, 4);
	memcpy(&log_size, block + 24, 4);
	memcpy(&high, block + 336, 4);
	if (log_size > 6)
		return err_set(e, ERR_CORRUPT, "volume %s: block size 2^%u", path, log_size + 10);
	*ret_bytes = ((uint64_t)high << 32 | low) << (10 + log_size);
	return 0;
}

/* --- growing --- */

static int grow_file(int fd, const char *path, uint64_t size_bytes, struct err *e)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return err_errno(e, errno, "volume %s", path);
	if ((uint64_t)st.st_size > size_bytes)
		return err_set(e, ERR_INVALID, "volume %s has %jd bytes and cannot shrink to %" PRIu64, path,
			       (intmax_t)st.st_size, size_bytes);
	int fault = fault_point("volume-grow-file");
	if (fault || ((uint64_t)st.st_size < size_bytes && ftruncate(fd, (off_t)size_bytes) < 0))
		return err_errno(e, fault ? fault : errno, "grow volume %s", path);
	return 0;
}

int volume_grow_file(const char *path, uint64_t size_bytes, struct err *e)
{
	own_fd int fd = -1;
	int r = volume_open(path, &fd, e);

	return r < 0 ? r : grow_file(fd, path, size_bytes, e);
}

int volume_grow(const char *path, uint64_t size_bytes, struct err *e)
{
	own_fd int fd = -1;
	uint64_t inside = 0;
	int r = volume_open(path, &fd, e);

	if (r == 0)
		r = grow_file(fd, path, size_bytes, e);
	if (r == 0)
		r = volume_file_system_bytes(path, &inside, e);
	if (r < 0 || inside >= size_bytes / BLOCK_BYTES * BLOCK_BYTES)
		return r;
	/* A journal left by a crash is replayed first: resize2fs refuses without. */
	const char *check[] = { "e2fsck", "-f", "-p", path, NULL }, *resize[] = { "resize2fs", path, NULL };
	struct err why = { 0 };
	r = proc_run(resize, 65536, NULL, &why);
	if (r < 0) {
		(void)!proc_run(check, 65536, NULL, NULL);
		r = proc_run(resize, 65536, NULL, e);
	}
	return r < 0 ? err_wrap(e, "grow volume %s", path) : 0;
}

int volume_grow_mounted(const char *path, uint64_t size_bytes, int loop_fd, int mount_fd, struct err *e)
{
	own_fd int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	uint64_t blocks = size_bytes / BLOCK_BYTES;

	if (fd < 0)
		return err_errno(e, errno, "open volume %s", path);
	int r = grow_file(fd, path, size_bytes, e);
	if (r < 0)
		return r;
	if (ioctl(loop_fd, LOOP_SET_CAPACITY, 0) < 0)
		return err_errno(e, errno, "grow the loop device of volume %s", path);
	int fault = fault_point("volume-grow-mounted");
	if (fault || ioctl(mount_fd, EXT4_RESIZE, &blocks) < 0)
		return err_errno(e, fault ? fault : errno, "grow the mounted file system of volume %s", path);
	return 0;
}

/* --- copies --- */

struct copy {
	int from, to;
	uint64_t done_bytes, total_bytes;
	volume_progress_fn *progress;
	void *data;
};

#define PIECE_BYTES (UINT64_C(16) << 20)

static int copy_range(struct copy *c, off_t at, off_t end, struct err *e)
{
	while (at < end) {
		uint64_t most = (uint64_t)(end - at) < PIECE_BYTES ? (uint64_t)(end - at) : PIECE_BYTES;
		off_t in = at, out = at;
		int fault = fault_point("volume-copy");
		ssize_t n = fault ? -1 : copy_file_range(c->from, &in, c->to, &out, most, 0);
		if (n <= 0)
			return err_errno(e, fault ? fault : n < 0 ? errno : EIO, "copy");
		at += n;
		c->done_bytes += (uint64_t)n;
		if (c->progress && c->progress(c->data, c->done_bytes, c->total_bytes) < 0)
			return err_set(e, ERR_CANCELLED, "cancelled");
	}
	return 0;
}

/* SEEK_DATA skips holes; both files have the same size already, so holes stay holes. */
static int copy_sparse(struct copy *c, off_t size, struct err *e)
{
	for (off_t at = 0; at < size;) {
		off_t data = lseek(c->from, at, SEEK_DATA);
		if (data < 0 && errno == ENXIO)
			return 0;
		off_t hole = data < 0 ? -1 : lseek(c->from, data, SEEK_HOLE);
		if (hole < 0)
			return err_errno(e, errno, "find data");
		int r = copy_range(c, data, hole, e);
		if (r < 0)
			return r;
		at = hole;
	}
	return 0;
}

static int check_room(const struct copy *c, struct err *e)
{
	struct statvfs fs;
	char need[16], have[16];

	if (fstatvfs(c->to, &fs) < 0)
		return err_errno(e, errno, "free space");
	uint64_t free_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
	if (c->total_bytes <= free_bytes)
		return 0;
	(void)err_set(e, ERR_NO_CAPACITY, "%s are needed and %s are free", str_bytes(need, sizeof need, c->total_bytes),
		      str_bytes(have, sizeof have, free_bytes));
	return err_hint(e, "remove snapshots or workspaces, or enlarge the host's file system");
}

static int copy_content(struct copy *c, struct err *e)
{
	struct stat st;

	if (fstat(c->from, &st) < 0)
		return err_errno(e, errno, "stat");
	if (ioctl(c->to, FICLONE, c->from) < 0) {
		c->total_bytes = (uint64_t)st.st_blocks * 512;
		int r = check_room(c, e);
		if (r == 0 && ftruncate(c->to, st.st_size) < 0)
			r = err_errno(e, errno, "set the size");
		if (r == 0)
			r = copy_sparse(c, st.st_size, e);
		if (r < 0)
			return r;
	}
	if (fsync(c->to) < 0)
		return err_errno(e, errno, "sync");
	return 0;
}

int volume_copy(const char *from, const char *to, volume_progress_fn *progress, void *data, struct err *e)
{
	own_str char *unfinished = mem_printf("%s" UNFINISHED, to);
	own_fd int in = open(from, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	own_fd int out = in < 0 ? -1 : open(unfinished, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);

	if (out < 0)
		return err_errno(e, errno, "copy volume %s", from);
	struct copy c = { .from = in, .to = out, .progress = progress, .data = data };
	int r = volume_is_of_guest(from) ? volume_set_of_guest(out, true, e) : 0;
	if (r == 0)
		r = copy_content(&c, e);
	if (r == 0 && rename(unfinished, to) < 0)
		r = err_errno(e, errno, "rename");
	if (r < 0) {
		(void)unlink(unfinished);
		return err_wrap(e, "copy volume %s to %s", from, to);
	}
	return 0;
}
