/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. While a state rests nobody changes its files, so a process packs one of them beside the agent's other
 * work, and may be ended at any moment: what is whole of NAME.packed.new is gone on with, by its first bytes only for the same
 * state. Then
 *
 *   rename   NAME.packed.new, which is synced, becomes NAME.packed: still nothing, for the manifest names NAME
 *   replace  the manifest, by a rename: from now on NAME is nothing
 *   remove   NAME
 *
 * A resume makes NAME again from NAME.packed and leaves that alone; it goes when the workspace runs. Whoever is killed leaves a
 * file too many, which suspend_pack_clean takes away.
 */
#include "node/suspend_pack.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err_json.h"
#include "base/fault.h"
#include "base/fs.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/proc.h"
#include "base/str.h"

#define LEAST_BYTES (UINT64_C(1) << 20) /* smaller files are left alone */
#define ANSWER_MOST 4096
#define UNFINISHED MEMORY_PACKED ".new"

static bool is_plain(const struct memory_file *f) { return !f->packed && f->length >= LEAST_BYTES; }

static const struct memory_file *first_plain(const struct memory_manifest *m)
{
	const struct memory_file *files = m->files.items;

	for (size_t i = 0; i < m->files.count; i++)
		if (is_plain(&files[i]))
			return &files[i];
	return NULL;
}

bool suspend_packs_at_once(const struct node *n) { return n->config.memory != MEMORY_KEPT && n->config.memory_after_ms == 0; }

uint64_t suspend_pack_due(const struct node *n, const struct record *r)
{
	struct memory_manifest m = { 0 };
	uint64_t due = 0;

	if (n->config.memory == MEMORY_KEPT || suspend_read(r, &m, NULL) < 0)
		return 0;
	if (first_plain(&m) && !memory_manifest_file(&m, MEMORY_BASE)) /* of a clone that has not begun: others map it */
		due = m.taken_ms + n->config.memory_after_ms;
	memory_manifest_done(&m);
	return due;
}

static int open_folder(const struct record *r, int *ret_folder, struct err *e)
{
	own_str char *path = record_path(r, MEMORY_FOLDER);
	return fs_open_dir(AT_FDCWD, path, ret_folder, e);
}

/* --- the program --- */

static char *program(void)
{
	const char *folder = getenv("CARREL_LIBEXEC");
	return folder ? mem_printf("%s/carrel-memory", folder) : mem_printf("%s/libexec/carrel/carrel-memory", fs_prefix());
}

struct child {
	int pidfd, answer;
};

/* The files that it gets as descriptors 3, 4 and 5; -1: nothing. */
static int start(const char *verb, const char *first, const char *second, const int files[3], struct child *ret_child,
		 struct err *e)
{
	own_str char *path = program();
	const char *const argv[] = { path, verb, first, second, NULL };
	int pipe_fds[2];
	pid_t pid;

	if (pipe2(pipe_fds, O_CLOEXEC) < 0)
		return err_errno(e, errno, "make a pipe");
	own_fd int ours = pipe_fds[0], theirs = pipe_fds[1];
	const struct proc_fd fds[] = { { 0, -1 }, { 1, theirs }, { 3, files[0] }, { 4, files[1] }, { 5, files[2] } };
	const struct proc_spawn how = { .argv = argv, .fds = fds, .fd_count = files[1] < 0 ? 3 : 5, .die_with_parent = true };
	int r = proc_start(&how, &ret_child->pidfd, &pid, e);
	if (r == 0)
		ret_child->answer = TAKE_FD(ours);
	return r;
}

/* What the process, which has ended or is waited for, has said. */
static int hear(const struct child *c, json_t **ret_answer, struct err *e)
{
	own_strbuf struct str text = { 0 };
	int status, r = fs_read_fd(c->answer, ANSWER_MOST, &text, e);

	if (r == 0)
		r = proc_wait(c->pidfd, &status, e);
	if (r < 0)
		return r;
	json_t *json = json_loadb(text.bytes, text.length, 0, NULL);
	json_t *error = json_object_get(json, "error");
	if (!json)
		r = err_set(e, ERR_INTERNAL, "carrel-memory ended with %d and without an answer", status);
	else if (error)
		r = err_set(e, err_kind_from_name(json_string_value(json_object_get(error, "kind"))), "%s",
			    json_string_value(json_object_get(error, "message")));
	if (r == 0 && ret_answer)
		*ret_answer = json;
	else
		json_decref(json);
	return r;
}

static void close_child(struct child *c)
{
	own_close(&c->pidfd);
	own_close(&c->answer);
	*c = (struct child){ -1, -1 };
}

static void kill_child(struct child *c)
{
	int status;

	if (c->pidfd >= 0) {
		(void)!proc_signal(c->pidfd, SIGKILL, NULL);
		(void)!proc_wait(c->pidfd, &status, NULL);
	}
	close_child(c);
}

static int start_reading(const char *verb, const struct memory_file *f, int from, int to, int whole, struct child *ret_child,
			 struct err *e)
{
	const int files[3] = { from, to, whole };
	char length[32];

	(void)snprintf(length, sizeof length, "%" PRIu64, f->length);
	return start(verb, f->packed, length, files, ret_child, e);
}

static int end_reading(struct child *c, const char *name, struct err *e)
{
	int r = hear(c, NULL, e);

	close_child(c);
	return r < 0 ? err_wrap(e, "the memory state's file %s", name) : 0;
}

static int open_packed(int folder, const struct memory_file *f, int *ret_fd, struct err *e)
{
	own_str char *name = memory_file_place(f);

	*ret_fd = openat(folder, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	return *ret_fd < 0 ? err_errno(e, errno, "open the memory state's file %s", name) : 0;
}

int suspend_pack_check(int folder, const struct memory_file *f, struct err *e)
{
	own_fd int fd = -1;
	int r = open_packed(folder, f, &fd, e);

	struct child c = { -1, -1 };
	if (r == 0)
		r = start_reading("check", f, fd, -1, -1, &c, e);
	return r == 0 ? end_reading(&c, f->name, e) : r;
}

/* --- packing --- */

struct suspend_packing {
	char *name; /* of the file */
	struct child child;
	int go; /* a byte for one that waits; -1: it has begun */
};

void suspend_packing_free(struct suspend_packing *p)
{
	if (!p)
		return;
	kill_child(&p->child);
	own_close(&p->go);
	free(p->name);
	free(p);
}

int suspend_packing_pidfd(const struct suspend_packing *p) { return p->child.pidfd; }

static int begin(int folder, const struct memory_file *f, uint64_t taken_ms, struct child *ret_child, struct err *e)
{
	own_str char *name = mem_printf("%s" UNFINISHED, f->name);
	own_fd int from = openat(folder, f->name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	own_fd int to = openat(folder, name, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
	int fault = fault_point("pack-begin");
	char taken[32];

	if (from < 0 || to < 0 || fault)
		return err_errno(e, fault ? fault : errno, "pack the memory state's file %s", f->name);
	(void)snprintf(taken, sizeof taken, "%" PRIu64, taken_ms);
	return start("pack", taken, NULL, (const int[]){ from, to, -1 }, ret_child, e);
}

int suspend_pack_begin(const struct record *r, struct suspend_packing **ret_packing, struct err *e)
{
	struct memory_manifest m = { 0 };
	struct child child = { -1, -1 };
	own_fd int folder = -1;
	int done = suspend_read(r, &m, e);
	const struct memory_file *f = done == 0 ? first_plain(&m) : NULL;

	if (done == 0 && !f)
		done = err_set(e, ERR_NOT_FOUND, "the memory state is packed");
	if (done == 0)
		done = open_folder(r, &folder, e);
	if (done == 0)
		done = begin(folder, f, m.taken_ms, &child, e);
	if (done == 0) {
		struct suspend_packing *p = mem_alloc(sizeof *p);
		*p = (struct suspend_packing){ mem_strdup(f->name), child, -1 };
		*ret_packing = p;
	}
	memory_manifest_done(&m);
	return done;
}

/* What was packed is what was sealed, where it was. */
static int note_packed(struct memory_file *f, const json_t *answer, struct err *e)
{
	const char *digest = json_string_value(json_object_get(answer, "digest")),
		   *sparse = json_string_value(json_object_get(answer, "sparse"));

	if (!digest || (f->sparse && !sparse))
		return err_set(e, ERR_INTERNAL, "carrel-memory's answer is not whole");
	if (f->sparse && !str_eq(f->sparse, sparse))
		return err_set(e, ERR_CORRUPT,
			       "the memory state's file %s is damaged: its bytes are not those that were written", f->name);
	if (sparse && !f->sparse)
		f->sparse = mem_strdup(sparse);
	f->packed = mem_strdup(digest);
	f->stored = (uint64_t)json_integer_value(json_object_get(answer, "bytes"));
	return 0;
}

int suspend_pack_ready(int folder, const char *name, uint64_t taken_ms, struct suspend_packing **ret_packing, struct err *e)
{
	own_str char *packed = mem_printf("%s" MEMORY_PACKED, name);
	own_fd int from = openat(folder, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	own_fd int to = openat(folder, packed, O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
	int fault = fault_point("pack-now"), pipe_fds[2];
	struct child c = { -1, -1 };
	char taken[32];

	if (from < 0 || to < 0 || fault || pipe2(pipe_fds, O_CLOEXEC) < 0)
		return err_errno(e, fault ? fault : errno, "pack the memory state's file %s", name);
	own_fd int waits = pipe_fds[0], go = pipe_fds[1];
	(void)snprintf(taken, sizeof taken, "%" PRIu64, taken_ms);
	int r = start("pack", taken, "now", (const int[]){ from, to, waits }, &c, e);
	if (r < 0)
		return r;
	*ret_packing = mem_alloc(sizeof **ret_packing);
	**ret_packing = (struct suspend_packing){ mem_strdup(name), c, TAKE_FD(go) };
	return 0;
}

void suspend_pack_go(struct suspend_packing *p)
{
	(void)!write(p->go, "", 1); /* of one that has ended its answer tells */
	own_close(&p->go);
}

int suspend_pack_now(struct suspend_packing *p, struct memory_file *f, struct err *e)
{
	json_t *answer = NULL;
	int r = hear(&p->child, &answer, e);

	own_close(&p->child.pidfd);
	if (r == 0)
		r = note_packed(f, answer, e);
	json_decref(answer);
	return r;
}

static int put_name(int folder, const char *name, struct err *e)
{
	own_str char *from = mem_printf("%s" UNFINISHED, name), *to = mem_printf("%s" MEMORY_PACKED, name);
	int fault = fault_point("pack-rename");

	if (fault || renameat(folder, from, folder, to) < 0)
		return err_errno(e, fault ? fault : errno, "rename %s", from);
	return 0;
}

static int replace(int folder, const char *name, const struct memory_manifest *m, struct err *e)
{
	int fault, r = put_name(folder, name, e);

	if (r == 0)
		r = suspend_write_manifest(folder, m, e);
	if (r == 0 && (fault = fault_point("pack-manifest")))
		r = err_errno(e, fault, "replace the manifest");
	if (r == 0 && (renameat(folder, MEMORY_MANIFEST ".new", folder, MEMORY_MANIFEST) < 0 || fsync(folder) < 0))
		r = err_errno(e, errno, "replace the manifest");
	(void)fault_point("pack-replaced");
	if (r == 0 && unlinkat(folder, name, 0) < 0)
		r = err_errno(e, errno, "remove the plain file %s", name);
	return r;
}

static int finish(const struct record *r, const struct suspend_packing *p, const json_t *answer, struct err *e)
{
	struct memory_manifest m = { 0 };
	own_fd int folder = -1;
	int done = suspend_read(r, &m, e);
	struct memory_file *f = done == 0 ? (struct memory_file *)(uintptr_t)memory_manifest_file(&m, p->name) : NULL;

	if (done == 0 && (!f || f->packed))
		done = err_set(e, ERR_CONFLICT, "the memory state is another one now");
	if (done == 0)
		done = note_packed(f, answer, e);
	if (done == 0)
		done = open_folder(r, &folder, e);
	if (done == 0)
		done = replace(folder, p->name, &m, e);
	memory_manifest_done(&m);
	return done;
}

int suspend_pack_finish(const struct record *r, struct suspend_packing *p, struct err *e)
{
	json_t *answer = NULL;
	int done = hear(&p->child, &answer, e);

	own_close(&p->child.pidfd);
	p->child.pidfd = -1;
	if (done == 0)
		done = finish(r, p, answer, e);
	json_decref(answer);
	if (done < 0) { /* on a full disk it takes room */
		own_str char *unfinished = mem_printf("%s/" MEMORY_FOLDER "/%s" UNFINISHED, r->folder, p->name);
		(void)unlink(unfinished);
	}
	return done;
}

/* --- unpacking --- */

struct suspend_unpacking {
	char *name;
	struct child child;
	int whole; /* where it tells */
};

static int open_plain(int folder, const struct memory_file *f, int *ret_fd, struct err *e)
{
	(void)unlinkat(folder, f->name, 0);
	own_fd int fd = openat(folder, f->name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0 || ftruncate(fd, (off_t)f->length) < 0)
		return err_errno(e, errno, "make the memory state's file %s", f->name);
	*ret_fd = TAKE_FD(fd);
	return 0;
}

static int begin_one(int folder, const struct memory_file *f, struct suspend_unpacking *u, struct err *e)
{
	own_fd int from = -1, to = -1;
	int pipe_fds[2], fault, r = open_packed(folder, f, &from, e);

	if (r == 0)
		r = open_plain(folder, f, &to, e);
	if (r == 0 && ((fault = fault_point("unpack-begin")) || pipe2(pipe_fds, O_CLOEXEC) < 0))
		r = err_errno(e, fault ? fault : errno, "unpack");
	if (r < 0)
		return r;
	u->whole = pipe_fds[0];
	own_fd int tells = pipe_fds[1];
	u->name = mem_strdup(f->name);
	return start_reading("unpack", f, from, to, tells, &u->child, e);
}

static void unpacking_free(struct suspend_unpacking *u)
{
	kill_child(&u->child);
	own_close(&u->whole);
	free(u->name);
	free(u);
}

static struct suspend_unpacking *unpacking_new(void)
{
	struct suspend_unpacking *u = mem_alloc(sizeof *u);

	*u = (struct suspend_unpacking){ .child = { -1, -1 }, .whole = -1 };
	return u;
}

/* `ret_unpacking` NULL: and waits for it. */
static int unpack_one(int folder, const struct memory_file *f, struct suspend_unpacking **ret_unpacking, struct err *e)
{
	struct suspend_unpacking *u = unpacking_new();
	int fault, r = begin_one(folder, f, u, e);

	if (r == 0 && ret_unpacking) {
		*ret_unpacking = u;
		return 0;
	}
	if (r == 0)
		r = end_reading(&u->child, f->name, e);
	unpacking_free(u);
	return r == 0 && (fault = fault_point("unpack-end")) ? err_errno(e, fault, "unpack") : r;
}

static void drop_plain(int folder, const struct memory_manifest *m)
{
	const struct memory_file *files = m->files.items;

	for (size_t i = 0; i < m->files.count; i++)
		if (files[i].packed)
			(void)unlinkat(folder, files[i].name, 0);
}

int suspend_unpack_begin(const struct record *r, const struct memory_manifest *m, struct suspend_unpacking **ret_unpacking,
			 struct err *e)
{
	const struct memory_file *files = m->files.items;
	own_fd int folder = -1;
	int done = open_folder(r, &folder, e);

	*ret_unpacking = NULL;
	for (size_t i = 0; i < m->files.count && done == 0; i++) {
		/* QEMU starts meanwhile */
		bool later = m->kind == MEMORY_QEMU && str_eq(files[i].name, MEMORY_RAM) && !*ret_unpacking;
		if (files[i].packed)
			done = unpack_one(folder, &files[i], later ? ret_unpacking : NULL, e);
	}
	if (done == 0)
		return 0;
	if (*ret_unpacking)
		unpacking_free(TAKE(*ret_unpacking));
	if (folder >= 0)
		drop_plain(folder, m);
	return done;
}

int suspend_unpacking_whole(const struct suspend_unpacking *u) { return u ? u->whole : 0; }

int suspend_unpack_end(struct suspend_unpacking *u, struct err *e)
{
	struct pollfd told = { .fd = u ? u->whole : -1 };
	int r = 0;

	if (!u)
		return 0;
	/* it has nothing more to tell: its answer comes, if it was not heard */
	if (poll(&told, 1, 0) == 1 && told.revents & POLLHUP)
		r = end_reading(&u->child, u->name, e);
	unpacking_free(u);
	(void)fault_point("unpacked");
	return r;
}

/* --- what was left --- */

/* In the form that the manifest says, or about to get the other one. */
static bool is_named(const struct memory_manifest *m, const char *name)
{
	const struct memory_file *files = m->files.items;

	for (size_t i = 0; i < m->files.count; i++) {
		own_str char *place = memory_file_place(&files[i]), *unfinished = mem_printf("%s" UNFINISHED, files[i].name);
		if (str_eq(name, place) || (!files[i].packed && str_eq(name, unfinished)))
			return true;
	}
	return false;
}

static bool is_form(const struct memory_manifest *m, const char *name)
{
	return str_ends(name, MEMORY_PACKED) || str_ends(name, UNFINISHED) || str_ends(name, MEMORY_LEFT) ||
	       memory_manifest_file(m, name);
}

bool suspend_pack_leave(const struct record *r)
{
	struct memory_manifest m = { 0 };
	own_fd int folder = -1;
	bool left = false;

	if (open_folder(r, &folder, NULL) < 0 || suspend_read(r, &m, NULL) < 0)
		return false;
	const struct memory_file *files = m.files.items;
	for (size_t i = 0; i < m.files.count; i++) {
		own_str char *name = mem_printf("%s" MEMORY_LEFT, files[i].name);
		left |= files[i].packed && renameat(folder, files[i].name, folder, name) == 0;
	}
	memory_manifest_done(&m);
	return left;
}

void suspend_pack_clean(const struct record *r)
{
	struct memory_manifest m = { 0 };
	own_fd int folder = -1;

	if (open_folder(r, &folder, NULL) < 0)
		return;
	if (suspend_is_there(r) && suspend_read(r, &m, NULL) < 0)
		return; /* nothing is thrown away for a manifest that cannot be read */
	own_dir DIR *dir = fdopendir(openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
	for (struct dirent *d; dir && (d = readdir(dir));)
		if (is_form(&m, d->d_name) && !is_named(&m, d->d_name))
			(void)unlinkat(folder, d->d_name, 0);
	memory_manifest_done(&m);
}
