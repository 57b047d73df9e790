/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. Runners, and volumes of up to READY_KINDS kinds, under one lock. Taking is a matter of microseconds.
 * Filling is done by the agent's idle worker, one thing at a time and outside the lock; only it adds, so what it saw missing is
 * still missing when it is done.
 *
 * A volume's life: made (a blank, attached and mounted) -> ready -> lent -> used -> ready again, or dropped from anywhere.
 * While it is lent the workspace has a second mount of it and we keep the first, so its end unmounts nothing. That is for
 * volumes that are thrown away only; any other is handed over altogether.
 *
 * Used again means: emptied, and nothing of its past can be reached. `upper` and `work` are removed and made anew, and if a
 * single inode is then in use that was not when the file system was new - somebody outside holds a file of the last workspace
 * open, by whatever way it got there - the volume is dropped. So is one that holds much: making a new one is faster than
 * emptying it. Blocks that were freed cannot be read by way of the file system, which is all that a workspace sees.
 *
 * The file is called ready-ID.ext4.new beside the blanks while it is here: whoever opens that folder next removes it, for after
 * a crash of the machine a volume that was mounted without barriers is not worth having.
 */
#include "node/ready.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"
#include "engine/nursery.h"
#include "model/name.h"

#define LENT_MOST 64              /* each keeps three descriptors open */
#define EMPTY_FILES_MOST 1000     /* a used volume with more than that */
#define EMPTY_BYTES_MOST (16 << 20) /* is dropped */
#define EMPTY_TRIES 20            /* calls of ready_refill; the kernel takes the last workspace apart meanwhile */

struct volume {
	char *path; /* where the file is now */
	int fd;
	struct volume_mount mount;
	uint64_t size_bytes, all_bytes, free_files, free_bytes; /* when it was new */
	bool throw_away;
	unsigned tries;
	struct volume *next;
};

struct kind {
	uint64_t size_bytes, used_at; /* a counter, not a time */
	bool throw_away;
	unsigned have;
	struct volume *volumes;
};

struct ready {
	struct volume_pool *pool;
	char *blanks;
	unsigned most;
	pthread_mutex_t lock; /* all below */
	int *runners;
	unsigned runner_count, lent_count;
	struct kind kinds[READY_KINDS];
	size_t kind_count;
	struct volume *lent, *used;
	uint64_t clock;
};

struct ready *ready_new(struct volume_pool *pool, const char *blanks, unsigned most)
{
	struct ready *r = mem_alloc(sizeof *r);

	*r = (struct ready){ .pool = pool, .blanks = mem_strdup(blanks), .most = most };
	r->runners = mem_alloc_array(most + 1, sizeof *r->runners);
	(void)pthread_mutex_init(&r->lock, NULL);
	return r;
}

static char *new_path(const struct ready *r)
{
	char id[ID_SIZE];

	id_new(id);
	return mem_printf("%s/ready-%s.ext4.new", r->blanks, id);
}

/* Closing takes it apart, unless a workspace still has it. */
static void close_volume(struct volume *v)
{
	volume_mount_close(&v->mount);
	own_close(&v->fd);
	free(v->path);
	free(v);
}

static void drop_volumes(struct volume *v)
{
	for (struct volume *next; v; v = next) {
		next = v->next;
		(void)unlink(v->path);
		close_volume(v);
	}
}

void ready_free(struct ready *r)
{
	if (!r)
		return;
	while (r->runner_count)
		own_close(&r->runners[--r->runner_count]);
	while (r->kind_count)
		drop_volumes(r->kinds[--r->kind_count].volumes);
	drop_volumes(r->used);
	for (struct volume *v = r->lent, *next; v; v = next) {
		next = v->next;
		close_volume(v);
	}
	(void)pthread_mutex_destroy(&r->lock);
	free(r->runners);
	free(r->blanks);
	free(r);
}

/* --- under the lock --- */

static struct kind *find(struct ready *r, uint64_t size_bytes, bool throw_away)
{
	for (size_t i = 0; i < r->kind_count; i++)
		if (r->kinds[i].size_bytes == size_bytes && r->kinds[i].throw_away == throw_away)
			return &r->kinds[i];
	return NULL;
}

/* What gives way is handed out, as taking it apart is slow. */
static struct kind *want(struct ready *r, uint64_t size_bytes, bool throw_away, struct volume **ret_old)
{
	struct kind *k = find(r, size_bytes, throw_away);

	*ret_old = NULL;
	if (!k) {
		k = &r->kinds[0];
		for (size_t i = 1; i < r->kind_count; i++)
			if (r->kinds[i].used_at < k->used_at)
				k = &r->kinds[i];
		if (r->kind_count < READY_KINDS)
			k = &r->kinds[r->kind_count++];
		*ret_old = k->volumes;
		*k = (struct kind){ .size_bytes = size_bytes, .throw_away = throw_away };
	}
	k->used_at = ++r->clock;
	return k;
}

static struct volume *take_lent(struct ready *r, const char *path)
{
	for (struct volume **at = &r->lent; *at; at = &(*at)->next)
		if (str_eq((*at)->path, path)) {
			struct volume *v = *at;
			*at = v->next;
			v->next = NULL;
			r->lent_count--;
			return v;
		}
	return NULL;
}

/* --- taking --- */

void ready_want(struct ready *r, uint64_t size_bytes, bool throw_away)
{
	struct volume *old;

	(void)pthread_mutex_lock(&r->lock);
	(void)want(r, size_bytes, throw_away, &old);
	(void)pthread_mutex_unlock(&r->lock);
	drop_volumes(old);
}

int ready_runner(struct ready *r)
{
	(void)pthread_mutex_lock(&r->lock);
	int runner = r->runner_count ? r->runners[--r->runner_count] : 0;
	(void)pthread_mutex_unlock(&r->lock);
	return runner;
}

static bool lend(struct ready *r, struct volume *v, int *ret_fd, struct volume_mount *ret_mount)
{
	own_fd int fd = fcntl(v->fd, F_DUPFD_CLOEXEC, 0);

	if (fd < 0 || volume_mount_again(&v->mount, ret_mount, NULL) < 0)
		return false;
	*ret_fd = TAKE_FD(fd);
	(void)pthread_mutex_lock(&r->lock);
	v->next = r->lent;
	r->lent = v;
	r->lent_count++;
	(void)pthread_mutex_unlock(&r->lock);
	return true;
}

static void give(struct volume *v, int *ret_fd, struct volume_mount *ret_mount)
{
	*ret_fd = v->fd;
	*ret_mount = v->mount;
	v->fd = -1;
	v->mount = (struct volume_mount){ -1, -1 };
	close_volume(v);
}

bool ready_volume(struct ready *r, uint64_t size_bytes, bool throw_away, const char *path, int *ret_fd,
		  struct volume_mount *ret_mount)
{
	struct volume *old;

	(void)pthread_mutex_lock(&r->lock);
	struct kind *k = want(r, size_bytes, throw_away, &old);
	struct volume *v = k->volumes;
	bool lends = throw_away && r->lent_count < LENT_MOST;
	if (v) {
		k->volumes = v->next;
		k->have--;
		v->next = NULL;
	}
	(void)pthread_mutex_unlock(&r->lock);
	drop_volumes(old);
	if (!v)
		return false;
	if (rename(v->path, path) < 0) {
		drop_volumes(v);
		return false;
	}
	free(v->path);
	v->path = mem_strdup(path);
	if (fault_point("ready-taken")) {
		drop_volumes(v);
		return false;
	}
	if (!lends || !lend(r, v, ret_fd, ret_mount))
		give(v, ret_fd, ret_mount);
	return true;
}

bool ready_take_back(struct ready *r, const char *path)
{
	(void)pthread_mutex_lock(&r->lock);
	struct volume *v = take_lent(r, path);
	(void)pthread_mutex_unlock(&r->lock);
	if (!v)
		return false;
	own_str char *there = new_path(r);
	if (rename(v->path, there) < 0) {
		close_volume(v);
		return false;
	}
	free(v->path);
	v->path = TAKE(there);
	v->tries = 0;
	(void)fault_point("ready-taken-back");
	(void)pthread_mutex_lock(&r->lock);
	v->next = r->used;
	r->used = v;
	(void)pthread_mutex_unlock(&r->lock);
	return true;
}

void ready_let_go(struct ready *r, const char *path)
{
	(void)pthread_mutex_lock(&r->lock);
	struct volume *v = take_lent(r, path);
	(void)pthread_mutex_unlock(&r->lock);
	if (v)
		close_volume(v);
}

/* --- filling --- */

static bool count(const struct volume *v, uint64_t *ret_all, uint64_t *ret_files, uint64_t *ret_bytes)
{
	struct statvfs fs;

	if (fstatvfs(v->mount.mount_fd, &fs) < 0 || fs.f_flag & ST_RDONLY)
		return false;
	*ret_all = (uint64_t)fs.f_blocks * fs.f_frsize;
	*ret_files = fs.f_ffree;
	*ret_bytes = (uint64_t)fs.f_bfree * fs.f_frsize;
	return true;
}

/* What a new root volume holds. */
static int make_empty(int top, struct err *e)
{
	static const char *const folders[] = { "upper", "work" };

	for (size_t i = 0; i < ARRAY_SIZE(folders); i++) {
		int r = fs_remove_tree(top, folders[i], e);
		if (r < 0)
			return r;
		if (mkdirat(top, folders[i], 0755) < 0 || fchmodat(top, folders[i], 0755, 0) < 0)
			return err_errno(e, errno, "make %s", folders[i]);
	}
	return 0;
}

/* 1: as new; 0: something still uses it; negative: not worth having. */
static int empty(const struct volume *v, struct err *e)
{
	uint64_t all = 0, files = 0, bytes = 0;

	if (!count(v, &all, &files, &bytes))
		return err_set(e, ERR_CORRUPT, "cannot be written");
	if (all != v->all_bytes || files + EMPTY_FILES_MOST < v->free_files || bytes + EMPTY_BYTES_MOST < v->free_bytes)
		return -EFBIG; /* it grew, or holds much */
	own_fd int top = openat(v->mount.mount_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (top < 0)
		return err_errno(e, errno, "open");
	int r = make_empty(top, e);
	if (r < 0)
		return r;
	return count(v, &all, &files, &bytes) && files == v->free_files;
}

/* Only if it is still wanted; otherwise, or when `v` may not be used, it is dropped. */
static void put_on_shelf(struct ready *r, struct volume *v, bool good)
{
	(void)pthread_mutex_lock(&r->lock);
	struct kind *k = good ? find(r, v->size_bytes, v->throw_away) : NULL;
	if (k && k->have < r->most) {
		v->next = k->volumes;
		k->volumes = TAKE(v);
		k->have++;
	}
	(void)pthread_mutex_unlock(&r->lock);
	drop_volumes(v);
}

/* Those that something still uses wait for the next call. */
static int empty_used(struct ready *r)
{
	struct volume *waiting = NULL;
	int emptied = 0;

	(void)pthread_mutex_lock(&r->lock);
	struct volume *used = TAKE(r->used);
	(void)pthread_mutex_unlock(&r->lock);
	for (struct volume *v = used, *next; v; v = next) {
		next = v->next;
		v->next = NULL;
		int done = empty(v, NULL);
		if (done == 0 && ++v->tries < EMPTY_TRIES) {
			v->next = waiting;
			waiting = v;
			continue;
		}
		put_on_shelf(r, v, done > 0);
		emptied++;
	}
	(void)pthread_mutex_lock(&r->lock);
	while (waiting) {
		struct volume *v = waiting;
		waiting = v->next;
		v->next = r->used;
		r->used = v;
	}
	(void)pthread_mutex_unlock(&r->lock);
	return emptied;
}

static int add_runner(struct ready *r, struct err *e)
{
	int runner = -1, done = nursery_runner(&runner, e);

	if (done < 0)
		return done;
	(void)pthread_mutex_lock(&r->lock);
	r->runners[r->runner_count++] = runner;
	(void)pthread_mutex_unlock(&r->lock);
	return 1;
}

static int add_volume(struct ready *r, const struct kind *k, struct err *e)
{
	struct volume *v = mem_alloc(sizeof *v);

	*v = (struct volume){ .path = new_path(r), .fd = -1, .mount = { -1, -1 }, .size_bytes = k->size_bytes,
			      .throw_away = k->throw_away };
	int done = volume_make(r->pool, VOLUME_ROOT, k->size_bytes, v->path, e);
	if (done >= 0)
		done = volume_open(v->path, &v->fd, e);
	if (done >= 0)
		done = volume_mount(v->fd, k->throw_away, &v->mount, e);
	put_on_shelf(r, v, done >= 0 && count(v, &v->all_bytes, &v->free_files, &v->free_bytes));
	return done < 0 ? err_wrap(e, "make a root volume ready") : 1;
}

static unsigned count_kind(const struct volume *v, const struct kind *k)
{
	unsigned n = 0;

	for (; v; v = v->next)
		n += v->size_bytes == k->size_bytes && v->throw_away == k->throw_away;
	return n;
}

/* What is lent will come back, but perhaps late: half of the shelf does not wait for it. */
static bool is_missing(const struct ready *r, const struct kind *k)
{
	return k->have < (r->most + 1) / 2 || k->have + count_kind(r->lent, k) + count_kind(r->used, k) < r->most;
}

int ready_refill(struct ready *r, struct err *e)
{
	struct kind missing = { 0 };

	if (empty_used(r))
		return 1;
	(void)pthread_mutex_lock(&r->lock);
	bool runner = r->runner_count < r->most;
	for (size_t i = 0; i < r->kind_count && !missing.size_bytes; i++)
		if (is_missing(r, &r->kinds[i]))
			missing = r->kinds[i];
	(void)pthread_mutex_unlock(&r->lock);
	if (runner)
		return add_runner(r, e);
	return missing.size_bytes ? add_volume(r, &missing, e) : 0;
}
