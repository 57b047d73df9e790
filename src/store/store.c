/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. Three locks, all flock, so that a killed process holds none:
 * - tmp/session-ID/lock, exclusively, as long as the session's process lives. Who can take it knows that the session is dead.
 * - lock, shared while a session pins a digest and looks whether it is there; exclusively by the collector. So a digest is
 *   either
 *   pinned before the collector looks at the pins, or its absence is seen after the collector removed it.
 * - tmp/partial-HEX, exclusively by the process that downloads that blob.
 * A new session takes the shared lock too, so that the collector and the cleaner never meet a session folder without its lock.
 */
#include "store/store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"
#include "model/name.h"

#define PARTIAL_AGE_MOST_S (24 * 3600)

struct store {
	char *path;
	int fd;
};

struct store_session {
	struct store *store;
	char *name; /* "session-ID" */
	int fd, lock_fd;
};

static const char *const kind_folders[] = { [STORE_PARTITION] = "partitions/sha256", [STORE_BLOB] = "blobs/sha256" };
static const char *const kind_names[] = { [STORE_PARTITION] = "partition", [STORE_BLOB] = "blob" };

int store_open(const char *path, struct store **ret_store, struct err *e)
{
	static const char *const folders[] = { "partitions/sha256", "blobs/sha256", "layers", "tmp" };

	for (size_t i = 0; i < ARRAY_SIZE(folders); i++) {
		own_str char *folder = mem_printf("%s/%s", path, folders[i]);
		int r = fs_mkdirs(folder, 0755, e);
		if (r < 0)
			return r;
	}
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return err_errno(e, errno, "open the store %s", path);
	struct store *s = mem_alloc(sizeof *s);
	s->path = mem_strdup(path);
	s->fd = fd;
	*ret_store = s;
	return 0;
}

void store_free(struct store *s)
{
	(void)close(s->fd);
	free(s->path);
	free(s);
}

static char *name_of(enum store_kind kind, const struct digest *d)
{
	char hex[DIGEST_HEX_SIZE];
	return mem_printf("%s/%s", kind_folders[kind], digest_hex(d, hex));
}

char *store_path(const struct store *s, enum store_kind kind, const struct digest *d)
{
	own_str char *name = name_of(kind, d);
	return mem_printf("%s/%s", s->path, name);
}

int store_get(struct store *s, enum store_kind kind, const struct digest *d, int *ret_fd, uint64_t *ret_bytes, struct err *e)
{
	own_str char *name = name_of(kind, d);
	own_fd int fd = openat(s->fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	struct stat st;

	if (fd < 0 && errno == ENOENT)
		return err_set(e, ERR_NOT_FOUND, "%s sha256:%s is not in the store", kind_names[kind], strrchr(name, '/') + 1);
	if (fd < 0 || fstat(fd, &st) < 0)
		return err_errno(e, errno, "open %s/%s", s->path, name);
	if (ret_bytes)
		*ret_bytes = (uint64_t)st.st_size;
	*ret_fd = TAKE_FD(fd);
	return 0;
}

/* --- locks --- */

static int lock_open(int dir_fd, const char *name, int how, int *ret_fd, struct err *e)
{
	own_fd int fd = openat(dir_fd, name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);

	if (fd < 0)
		return err_errno(e, errno, "open lock %s", name);
	while (flock(fd, how) < 0)
		if (errno != EINTR)
			return err_errno(e, errno, "lock %s", name);
	*ret_fd = TAKE_FD(fd);
	return 0;
}

static int sync_folder(struct store *s, const char *name, struct err *e)
{
	own_fd int fd = openat(s->fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || fsync(fd) < 0)
		return err_errno(e, errno, "sync %s/%s", s->path, name);
	return 0;
}

/* --- sessions --- */

int store_session_start(struct store *s, struct store_session **ret_session, struct err *e)
{
	own_fd int lock = -1;
	char id[ID_SIZE];
	int r = lock_open(s->fd, "lock", LOCK_SH, &lock, e);

	if (r < 0)
		return err_wrap(e, "store %s", s->path);
	id_new(id);
	own_store_session struct store_session *n = mem_alloc(sizeof *n);
	*n = (struct store_session){ .store = s, .name = mem_printf("session-%s", id), .fd = -1, .lock_fd = -1 };
	own_str char *folder = mem_printf("tmp/%s", n->name);
	if (mkdirat(s->fd, folder, 0700) < 0)
		return err_errno(e, errno, "make %s/%s", s->path, folder);
	if ((n->fd = openat(s->fd, folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0)
		return err_errno(e, errno, "open %s/%s", s->path, folder);
	r = lock_open(n->fd, "lock", LOCK_EX | LOCK_NB, &n->lock_fd, e);
	if (r < 0)
		return r;
	*ret_session = TAKE(n);
	return 0;
}

void store_session_free(struct store_session *n)
{
	own_fd int tmp = openat(n->store->fd, "tmp", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	/* what cannot be removed here is removed by store_clean once the lock is gone */
	if (tmp >= 0 && fs_remove_tree(tmp, n->name, NULL) < 0)
		errno = 0;
	if (n->fd >= 0)
		(void)close(n->fd);
	if (n->lock_fd >= 0)
		(void)close(n->lock_fd);
	free(n->name);
	free(n);
}

int store_pin(struct store_session *n, enum store_kind kind, const struct digest *d, struct err *e)
{
	own_fd int lock = -1, pin = -1;
	char hex[DIGEST_HEX_SIZE];
	int r = lock_open(n->store->fd, "lock", LOCK_SH, &lock, e);

	if (r < 0)
		return r;
	own_str char *name = mem_printf("pin-%s", digest_hex(d, hex));
	pin = openat(n->fd, name, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (pin < 0)
		return err_errno(e, errno, "pin sha256:%s", hex);
	own_str char *there = name_of(kind, d);
	return fs_exists(n->store->fd, there) ? 1 : 0;
}

int store_session_file(struct store_session *n, const char *name, int *ret_fd, struct err *e)
{
	int fd = openat(n->fd, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return err_errno(e, errno, "create %s/tmp/%s/%s", n->store->path, n->name, name);
	*ret_fd = fd;
	return 0;
}

int store_session_open(struct store_session *n, const char *name, int *ret_fd, struct err *e)
{
	int fd = openat(n->fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return err_errno(e, errno, "open %s/tmp/%s/%s", n->store->path, n->name, name);
	*ret_fd = fd;
	return 0;
}

static int injected(const char *point, struct err *e)
{
	int number = fault_point(point);
	return number ? err_errno(e, number, "%s", point) : 0;
}

/* fsync before rename: a name in the store never stands for less than its content, whatever crashes. */
static int publish(struct store_session *n, const char *name, int fd, const char *target, struct err *e)
{
	int r = injected("store-before-sync", e);
	if (r == 0 && (fchmod(fd, 0444) < 0 || fsync(fd) < 0))
		r = err_errno(e, errno, "sync %s", name);
	if (r == 0)
		r = injected("store-before-rename", e);
	if (r == 0 && renameat(n->fd, name, n->store->fd, target) < 0)
		r = err_errno(e, errno, "put %s into the store", target);
	if (r == 0)
		r = injected("store-after-rename", e);
	return r;
}

int store_put_file(struct store_session *n, const char *name, int fd, enum store_kind kind, const struct digest *d,
		   struct err *e)
{
	int r = store_pin(n, kind, d, e);

	if (r < 0)
		return r;
	if (r == 1) {
		(void)unlinkat(n->fd, name, 0);
		return 1;
	}
	own_str char *target = name_of(kind, d);
	r = publish(n, name, fd, target, e);
	return r < 0 ? r : sync_folder(n->store, kind_folders[kind], e);
}

int store_put_bytes(struct store_session *n, enum store_kind kind, const void *bytes, size_t length, struct digest *ret_digest,
		    struct err *e)
{
	struct digest d = hash_bytes(bytes, length);
	char hex[DIGEST_HEX_SIZE];
	own_str char *name = mem_printf("new-%s", digest_hex(&d, hex));
	own_fd int fd = -1;

	(void)unlinkat(n->fd, name, 0);
	int r = store_session_file(n, name, &fd, e);
	if (r == 0)
		r = fs_write_all(fd, bytes, length, e);
	if (r == 0)
		r = store_put_file(n, name, fd, kind, &d, e);
	if (r < 0)
		return r;
	*ret_digest = d;
	return 0;
}

/* --- layers --- */

static int read_layer(struct store *s, const char *hex, struct digest *ret_partition)
{
	own_str char *name = mem_printf("layers/%s", hex);
	own_strbuf struct str text = { 0 };

	if (fs_read_file(s->fd, name, DIGEST_TEXT_SIZE, &text, NULL) < 0 || text.length != DIGEST_TEXT_SIZE)
		return 0;
	text.bytes[text.length - 1] = '\0';
	return digest_parse(text.bytes, ret_partition, NULL) == 0 ? 1 : 0;
}

int store_layer_find(struct store_session *n, const struct digest *layer, struct digest *ret_partition, uint64_t *ret_bytes,
		     struct err *e)
{
	char hex[DIGEST_HEX_SIZE];
	struct digest partition;
	struct stat st;

	if (!read_layer(n->store, digest_hex(layer, hex), &partition))
		return 0;
	int r = store_pin(n, STORE_PARTITION, &partition, e);
	if (r <= 0)
		return r;
	own_str char *name = name_of(STORE_PARTITION, &partition);
	if (fstatat(n->store->fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return err_errno(e, errno, "look at %s", name);
	*ret_partition = partition;
	if (ret_bytes)
		*ret_bytes = (uint64_t)st.st_size;
	return 1;
}

int store_partition_find(struct store_session *n, const struct digest *d, uint64_t *ret_bytes, struct err *e)
{
	own_fd int fd = -1;
	int r = store_pin(n, STORE_PARTITION, d, e);

	if (r > 0)
		r = store_get(n->store, STORE_PARTITION, d, &fd, ret_bytes, e) < 0 ? -e->number : 1;
	return r;
}

int store_layer_record(struct store_session *n, const struct digest *layer, const struct digest *partition, struct err *e)
{
	char hex[DIGEST_HEX_SIZE], text[DIGEST_TEXT_SIZE];
	own_str char *line = mem_printf("%s\n", digest_text(partition, text));
	own_str char *name = mem_printf("layer-%s", digest_hex(layer, hex));
	own_str char *target = mem_printf("layers/%s", hex);
	own_fd int fd = -1;

	(void)unlinkat(n->fd, name, 0);
	int r = store_session_file(n, name, &fd, e);
	if (r == 0)
		r = fs_write_all(fd, line, strlen(line), e);
	return r == 0 ? publish(n, name, fd, target, e) : r;
}

/* --- downloads that may be continued --- */

int store_partial_open(struct store *s, const struct digest *d, int *ret_fd, struct err *e)
{
	char hex[DIGEST_HEX_SIZE];
	own_str char *name = mem_printf("tmp/partial-%s", digest_hex(d, hex));

	for (;;) {
		own_fd int fd = openat(s->fd, name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
		struct stat ours, named;
		if (fd < 0)
			return err_errno(e, errno, "open %s/%s", s->path, name);
		if (flock(fd, LOCK_EX | LOCK_NB) < 0)
			return errno == EWOULDBLOCK ? 0 : err_errno(e, errno, "lock %s", name);
		/* who had the lock before us may have finished and removed the file */
		if (fstat(fd, &ours) < 0 || fstatat(s->fd, name, &named, AT_SYMLINK_NOFOLLOW) < 0 ||
		    ours.st_ino != named.st_ino)
			continue;
		*ret_fd = TAKE_FD(fd);
		return 1;
	}
}

int store_partial_remove(struct store *s, const struct digest *d, struct err *e)
{
	char hex[DIGEST_HEX_SIZE];
	own_str char *name = mem_printf("tmp/partial-%s", digest_hex(d, hex));

	if (unlinkat(s->fd, name, 0) < 0 && errno != ENOENT)
		return err_errno(e, errno, "remove %s/%s", s->path, name);
	return 0;
}

int store_partial_drop(struct store *s, const struct digest *d, struct err *e)
{
	char hex[DIGEST_HEX_SIZE];
	own_str char *name = mem_printf("tmp/partial-%s", digest_hex(d, hex));
	own_fd int fd = openat(s->fd, name, O_RDWR | O_CLOEXEC | O_NOFOLLOW);

	if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) < 0)
		return 0;
	return store_partial_remove(s, d, e);
}

/* --- housekeeping --- */

typedef int entry_fn(struct store *s, int dir_fd, const char *name, void *data, struct err *e);

static int each_entry(struct store *s, const char *folder, entry_fn *fn, void *data, struct err *e)
{
	int fd = openat(s->fd, folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	own_dir DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	int r = 0;

	if (!dir)
		return err_errno(e, errno, "read %s/%s", s->path, folder);
	for (struct dirent *entry; r == 0 && (r = fs_next_entry(dir, &entry, e)) > 0;)
		r = fn(s, fd, entry->d_name, data, e);
	return r;
}

/* 1: the session's process lives. */
static int session_alive(int tmp_fd, const char *name)
{
	own_str char *lock_name = mem_printf("%s/lock", name);
	own_fd int lock = openat(tmp_fd, lock_name, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	return lock >= 0 && flock(lock, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK;
}

static int clean_partial(int tmp_fd, const char *name, struct err *e)
{
	own_fd int fd = openat(tmp_fd, name, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	struct stat st;

	if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) < 0 || fstat(fd, &st) < 0)
		return 0;
	if (st.st_size > 0 && st.st_mtime > time(NULL) - PARTIAL_AGE_MOST_S)
		return 0;
	if (unlinkat(tmp_fd, name, 0) < 0 && errno != ENOENT)
		return err_errno(e, errno, "remove %s", name);
	return 0;
}

static int clean_entry(struct store *s, int tmp_fd, const char *name, void *data, struct err *e)
{
	(void)s;
	(void)data;
	if (str_starts(name, "partial-"))
		return clean_partial(tmp_fd, name, e);
	if (str_starts(name, "session-") && session_alive(tmp_fd, name))
		return 0;
	return fs_remove_tree(tmp_fd, name, e);
}

int store_clean(struct store *s, struct err *e)
{
	own_fd int lock = -1;
	int r = lock_open(s->fd, "lock", LOCK_EX, &lock, e);

	if (r == 0)
		r = each_entry(s, "tmp", clean_entry, NULL, e);
	return r < 0 ? err_wrap(e, "clean the store") : 0;
}

struct keep {
	struct digest *items;
	size_t count, capacity;
	uint64_t freed_bytes;
};

static int compare_digests(const void *a, const void *b) { return memcmp(a, b, sizeof(struct digest)); }

static bool kept(const struct keep *k, const struct digest *d)
{
	return k->count && bsearch(d, k->items, k->count, sizeof *k->items, compare_digests);
}

static void keep_add(struct keep *k, const char *hex)
{
	struct digest d;
	if (digest_parse_hex(hex, &d) < 0)
		return;
	MEM_PUSH_ROOM(k->items, k->count, k->capacity);
	k->items[k->count++] = d;
}

static int keep_pins(struct store *s, int tmp_fd, const char *name, void *data, struct err *e)
{
	(void)s;
	if (!str_starts(name, "session-") || !session_alive(tmp_fd, name))
		return 0;
	int fd = openat(tmp_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	own_dir DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	if (!dir)
		return errno == ENOENT ? 0 : err_errno(e, errno, "read the pins of %s", name);
	struct dirent *entry;
	int r;
	while ((r = fs_next_entry(dir, &entry, e)) > 0)
		if (str_starts(entry->d_name, "pin-"))
			keep_add(data, entry->d_name + 4);
	return r;
}

static int collect_entry(struct store *s, int dir_fd, const char *name, void *data, struct err *e)
{
	struct keep *k = data;
	struct digest d;
	struct stat st = { 0 };

	(void)s;
	if (digest_parse_hex(name, &d) == 0 && kept(k, &d))
		return 0;
	(void)fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW);
	if (unlinkat(dir_fd, name, 0) < 0 && errno != ENOENT)
		return err_errno(e, errno, "remove %s", name);
	k->freed_bytes += (uint64_t)st.st_size;
	return 0;
}

/* A layer whose partition is gone (or that is damaged) is forgotten. */
static int collect_layer(struct store *s, int dir_fd, const char *name, void *data, struct err *e)
{
	struct digest partition;

	(void)data;
	if (read_layer(s, name, &partition)) {
		own_str char *target = name_of(STORE_PARTITION, &partition);
		if (fs_exists(s->fd, target))
			return 0;
	}
	if (unlinkat(dir_fd, name, 0) < 0 && errno != ENOENT)
		return err_errno(e, errno, "forget layer %s", name);
	return 0;
}

int store_collect(struct store *s, const struct digest *keep, size_t keep_count, uint64_t *ret_bytes, struct err *e)
{
	struct keep k = { 0 };
	own_fd int lock = -1;

	int r = lock_open(s->fd, "lock", LOCK_EX, &lock, e);
	for (size_t i = 0; i < keep_count; i++) {
		MEM_PUSH_ROOM(k.items, k.count, k.capacity);
		k.items[k.count++] = keep[i];
	}
	if (r == 0)
		r = each_entry(s, "tmp", keep_pins, &k, e);
	if (k.count)
		qsort(k.items, k.count, sizeof *k.items, compare_digests);
	if (r == 0)
		r = each_entry(s, kind_folders[STORE_BLOB], collect_entry, &k, e);
	if (r == 0)
		r = each_entry(s, kind_folders[STORE_PARTITION], collect_entry, &k, e);
	if (r == 0)
		r = each_entry(s, "layers", collect_layer, &k, e);
	free(k.items);
	if (r < 0)
		return err_wrap(e, "collect what no image needs");
	if (ret_bytes)
		*ret_bytes = k.freed_bytes;
	return 0;
}
