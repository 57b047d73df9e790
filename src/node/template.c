/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. A template's name is a digest over everything that its memory depends on: QEMU's command line, the
 * digests of kernel and initramfs (with carrel-init), the program file of QEMU and its version, and under KVM the host's kernel
 * and processor. What changes makes another name, so none is ever stale; the old one is used no more and goes when room is
 * needed.
 *
 * A folder is a memory state as model/memory.h describes it, of a machine without a workspace. It is made as HEX.new and
 * renamed when it is whole; HEX.new that is found at the start is of an agent that died. Its digests are checked once in the
 * life of an agent, at the first use; then the files are known by inode, length and times, since nobody but root can write to
 * them.
 *
 * A machine gets a hard link of the memory file into its own folder: templates come and go without a look at who uses them.
 */
#include "node/template.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/fs.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/sparse.h"
#include "base/str.h"
#include "engine/qemu/template.h"
#include "model/memory.h"
#include "node/emulator.h"
#include "node/template_private.h"

#define FORMAT "carrel template 1"
#define MANIFEST_MOST (1u << 20)
#define CPUINFO_MOST (4u << 20)

struct templates *templates_new(struct node *n)
{
	struct templates *t = mem_alloc(sizeof *t);

	*t = (struct templates){ .node = n, .folder = mem_printf("%s/node/templates", n->config.state),
				 .shim = mem_printf("%s/libexec/carrel/private-memory.so", fs_prefix()) };
	(void)pthread_mutex_init(&t->lock, NULL);
	(void)pthread_mutex_init(&t->making, NULL);
	templates_clean(t);
	return t;
}

static void checked_free(struct checked *c)
{
	for (struct checked *next; c; c = next) {
		next = c->next;
		free(c);
	}
}

void templates_free(struct templates *t)
{
	if (!t)
		return;
	checked_free(t->checked);
	template_failures_free(&t->failures);
	(void)pthread_mutex_destroy(&t->lock);
	(void)pthread_mutex_destroy(&t->making);
	free(t->folder);
	free(t->shim);
	free(t);
}

const char *templates_shim(const struct templates *t) { return t->shim; }

/* --- names --- */

static void add_text(struct hash *h, const char *text) { hash_add(h, text, strlen(text) + 1); }

/* What a machine under KVM sees of the host. */
static void add_host(struct hash *h)
{
	own_strbuf struct str text = { 0 };
	struct utsname kernel;
	char *save = NULL;

	if (uname(&kernel) == 0)
		add_text(h, kernel.release);
	if (fs_read_file(AT_FDCWD, "/proc/cpuinfo", CPUINFO_MOST, &text, NULL) < 0 || !text.length)
		return;
	for (char *line = strtok_r(text.bytes, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		if (str_starts(line, "model name") || str_starts(line, "flags") || str_starts(line, "microcode"))
			add_text(h, line);
		if (str_starts(line, "power management")) /* the end of the first processor */
			break;
	}
}

int template_name(const struct launch *l, char out[DIGEST_HEX_SIZE], struct err *e)
{
	const char *program = l->host_machine->board->program;
	own_emulator const struct emulator *q = NULL;
	own_hash struct hash *h = hash_new();
	char words[DIGEST_TEXT_SIZE];
	struct stat st;
	int r = template_words(l, words, e);

	if (r < 0 || (r = emulator_get(program, &q, e)) < 0)
		return r;
	if (stat(program, &st) < 0)
		return err_errno(e, errno, "%s", program);
	own_str char *file = mem_printf("%s %s %lld %lld.%09ld", program, q->version, (long long)st.st_size,
					(long long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
	add_text(h, FORMAT);
	add_text(h, words);
	add_text(h, file);
	if (l->host_machine->kvm)
		add_host(h);
	struct digest d = hash_end(h);
	(void)digest_hex(&d, out);
	return 0;
}

/* --- what is there --- */

static struct checked *find(struct checked *list, const char *name)
{
	while (list && !str_eq(list->name, name))
		list = list->next;
	return list;
}

static struct checked *add(struct checked **list, const char *name)
{
	struct checked *c = mem_alloc(sizeof *c);

	*c = (struct checked){ .next = *list };
	(void)snprintf(c->name, sizeof c->name, "%s", name);
	return *list = c;
}

static int check_file(const struct memory_manifest *m, const char *name, int fd, struct err *e)
{
	const struct memory_file *file = memory_manifest_file(m, name);
	struct digest is, expected;
	struct stat st;

	if (!file || !file->sparse)
		return err_set(e, ERR_CORRUPT, "its manifest does not tell of %s", name);
	if (fstat(fd, &st) < 0 || (uint64_t)st.st_size != file->length)
		return err_set(e, ERR_CORRUPT, "%s has another length", name);
	int r = digest_parse(file->sparse, &expected, e);
	if (r == 0)
		r = sparse_hash_fd(fd, &is, e);
	if (r == 0 && !digest_eq(&is, &expected))
		r = err_set(e, ERR_CORRUPT, "%s is not as it was written", name);
	return r;
}

static int check_digests(int folder, int ram, int state, struct err *e)
{
	own_strbuf struct str text = { 0 };
	struct memory_manifest m = { 0 };
	int r = fs_read_file(folder, MEMORY_MANIFEST, MANIFEST_MOST, &text, e);

	if (r == 0)
		r = memory_manifest_decode(str_text(&text), text.length, MEMORY_MANIFEST, &m, e);
	if (r < 0)
		return r;
	if ((r = check_file(&m, MEMORY_RAM, ram, e)) == 0)
		r = check_file(&m, MEMORY_STATE, state, e);
	memory_manifest_done(&m);
	return r;
}

/* Whole, as far as is known since this agent looked. */
static int check(struct templates *t, const char *name, int folder, int ram, int state, struct err *e)
{
	struct stat ram_is, state_is;

	if (fstat(ram, &ram_is) < 0 || fstat(state, &state_is) < 0)
		return err_errno(e, errno, "look at its files");
	(void)pthread_mutex_lock(&t->lock);
	const struct checked *c = find(t->checked, name);
	bool known = c && fs_same_file(&c->ram, &ram_is) && fs_same_file(&c->state, &state_is);
	(void)pthread_mutex_unlock(&t->lock);
	if (known)
		return 0;
	int r = check_digests(folder, ram, state, e);
	if (r == 0)
		template_note_whole(t, name, &ram_is, &state_is);
	return r;
}

void template_note_whole(struct templates *t, const char *name, const struct stat *ram, const struct stat *state)
{
	(void)pthread_mutex_lock(&t->lock);
	struct checked *c = find(t->checked, name);
	if (!c)
		c = add(&t->checked, name);
	c->ram = *ram;
	c->state = *state;
	(void)pthread_mutex_unlock(&t->lock);
}

void template_remove(struct templates *t, const char *name)
{
	own_str char *path = mem_printf("%s/%s", t->folder, name), *gone = mem_printf("%s.gone" TEMPLATE_NEW, path);
	struct err e;

	if (rename(path, gone) == 0 && fs_remove_tree(AT_FDCWD, gone, &e) < 0)
		log_error(&e, "remove template %s", name);
}

/* --- use --- */

static int open_files(struct templates *t, const char *name, int *ret_folder, int *ret_ram, int *ret_state, struct err *e)
{
	own_str char *path = mem_printf("%s/%s", t->folder, name);
	own_fd int folder = -1;
	int r = fs_open_dir(AT_FDCWD, path, &folder, e);

	if (r < 0)
		return r;
	own_fd int ram = openat(folder, MEMORY_RAM, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	own_fd int state = openat(folder, MEMORY_STATE, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	if (ram < 0 || state < 0)
		return err_set(e, ERR_CORRUPT, "a file is missing");
	*ret_folder = TAKE_FD(folder);
	*ret_ram = TAKE_FD(ram);
	*ret_state = TAKE_FD(state);
	return 0;
}

int template_look(struct templates *t, const char *name, struct err *e)
{
	own_fd int folder = -1, ram = -1, state = -1;
	int r = open_files(t, name, &folder, &ram, &state, e);

	if (r >= 0 && (r = check(t, name, folder, ram, state, e)) < 0)
		template_remove(t, name);
	return r < 0 ? r : 0;
}

/* 1: taken; 0: there is none. */
static int take(struct templates *t, const char *name, const char *base, struct launch_memory *m, struct err *e)
{
	own_fd int folder = -1, ram = -1, state = -1;
	int r = open_files(t, name, &folder, &ram, &state, e);

	if (r < 0)
		return r == -ENOENT ? 0 : r;
	int fault = fault_point("template-check");
	r = fault ? err_set(e, ERR_CORRUPT, "a fault was asked for") : check(t, name, folder, ram, state, e);
	if (r < 0)
		return r;
	(void)unlink(base);
	if (linkat(folder, MEMORY_RAM, AT_FDCWD, base, 0) < 0)
		return err_errno(e, errno, "link its memory");
	(void)utimensat(folder, MEMORY_MANIFEST, NULL, 0); /* used now */
	m->state_fd = TAKE_FD(state);
	m->path = mem_strdup(base);
	m->private_shim = t->shim;
	m->template = true;
	return 1;
}

bool templates_take(struct templates *t, const struct launch *l, const char *base, struct launch_memory *m, char **ret_notice)
{
	char name[DIGEST_HEX_SIZE];
	struct err e;

	*ret_notice = NULL;
	if (!t->node->config.template_bytes || !template_fits(l) || template_name(l, name, &e) < 0 ||
	    !fs_exists(AT_FDCWD, t->shim))
		return false;
	int r = take(t, name, base, m, &e);
	if (r < 0) {
		log_error(&e, "template %s: it is not used", name);
		*ret_notice = mem_printf("it was booted: the template of such machines was damaged (%s) and has been removed",
					 e.message);
		template_remove(t, name);
	}
	return r > 0;
}

void templates_fail(struct templates *t, const struct launch *l, bool of_no_use)
{
	char name[DIGEST_HEX_SIZE];

	if (template_name(l, name, NULL) < 0)
		return;
	(void)pthread_mutex_lock(&t->lock);
	bool goes = template_failures_add(&t->failures, name, of_no_use, loop_now_ms());
	(void)pthread_mutex_unlock(&t->lock);
	if (!goes) {
		log_warn("template %s: a machine did not go on from it; it is tried once more", name);
		return;
	}
	log_warn("template %s does not work on this host: machines of its kind boot%s", name, of_no_use ? "" : " for a while");
	template_remove(t, name);
}

void templates_work(struct templates *t, const struct launch *l)
{
	char name[DIGEST_HEX_SIZE];

	(void)pthread_mutex_lock(&t->lock);
	bool any = t->failures != NULL;
	(void)pthread_mutex_unlock(&t->lock);
	if (!any || template_name(l, name, NULL) < 0) /* the name is not for nothing */
		return;
	(void)pthread_mutex_lock(&t->lock);
	template_failures_end(t->failures, name);
	(void)pthread_mutex_unlock(&t->lock);
}

void templates_want(struct templates *t, const struct launch *l)
{
	struct template_wish w = { 0 };

	if (!t->node->config.template_bytes || !template_fits(l) || template_name(l, w.name, NULL) < 0)
		return;
	own_str char *path = mem_printf("%s/%s", t->folder, w.name);
	template_wish_fill(&w, l);
	(void)pthread_mutex_lock(&t->lock);
	bool known = !template_failures_allow(t->failures, w.name, loop_now_ms()) || fs_exists(AT_FDCWD, path) ||
		     t->want_count == TEMPLATE_WANTS_MOST;
	for (size_t i = 0; i < t->want_count; i++)
		known |= str_eq(t->wants[i].name, w.name);
	if (!known)
		t->wants[t->want_count++] = w;
	(void)pthread_mutex_unlock(&t->lock);
}

bool templates_wanted(struct templates *t)
{
	(void)pthread_mutex_lock(&t->lock);
	bool any = t->want_count > 0;
	(void)pthread_mutex_unlock(&t->lock);
	return any;
}
