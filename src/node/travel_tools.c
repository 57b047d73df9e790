/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. A machine of ours has no C library, so CRIU brings its own: a bundle as tools/get-criu makes it has them beside the
 * program, of another CRIU the loader tells which they are. They go where the loader looks by itself (ld.so(8)).
 */
#include "node/travel_tools.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/proc.h"
#include "base/str.h"
#include "engine/workspace/checkpoint_program.h"
#include "model/travel.h"
#include "store/erofs_reader.h"
#include "store/erofs_writer.h"

#define LOADER "/lib64/ld-linux-x86-64.so.2"
#define FILE_MOST (64u << 20)
#define FORM "carrel tools 2\n"
/* CRIU has tar call it without a level; an emulated processor packs at the lowest in a third of the time. */
#define GZIP "#!/bin/sh\nexec /libexec/gzip -1 \"$@\"\n"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

struct tool {
	char *from, *to; /* a file of the host's; its path on the disk, without a slash in front */
};
struct tools {
	struct tool *items;
	size_t count, room;
};

static void tools_done(struct tools *t)
{
	for (size_t i = 0; i < t->count; i++) {
		free(t->items[i].from);
		free(t->items[i].to);
	}
	free(t->items);
}
#define own_tools __attribute__((cleanup(tools_done)))

static void add(struct tools *t, char *taken_from, char *taken_to)
{
	MEM_PUSH_ROOM(t->items, t->count, t->room);
	t->items[t->count++] = (struct tool){ taken_from, taken_to };
}

/* The first of a name counts: CRIU's own, which may be newer than the host's, are newer for the others too. */
static void add_library(struct tools *t, const char *path)
{
	const char *name = strrchr(path, '/') + 1;
	own_str char *to = mem_printf("%s/%s", str_starts(name, "ld-linux") ? "lib64" : "lib", name);

	for (size_t i = 0; i < t->count; i++)
		if (str_eq(t->items[i].to, to))
			return;
	add(t, mem_strdup(path), TAKE(to));
}

/* --- CRIU --- */

static int add_bundle(struct tools *t, const char *folder, struct err *e)
{
	own_str char *libraries = mem_printf("%s/lib", folder);
	own_dir DIR *dir = opendir(libraries);

	if (!dir)
		return err_errno(e, errno, "read %s", libraries);
	struct dirent *d;
	int r;
	while ((r = fs_next_entry(dir, &d, e)) > 0) {
		own_str char *path = mem_printf("%s/%s", libraries, d->d_name);
		if (d->d_name[0] != '.')
			add_library(t, path);
	}
	add(t, mem_printf("%s/criu.bin", folder), mem_strdup("libexec/carrel/criu/criu"));
	return r < 0 ? err_wrap(e, "%s", libraries) : 0;
}

/* "	libnl-3.so.200 => /lib/x86_64-linux-gnu/libnl-3.so.200 (0x...)" */
static int add_installed(struct tools *t, const char *program, const char *to, struct err *e)
{
	const char *const argv[] = { LOADER, "--list", program, NULL };
	own_strbuf struct str list = { 0 };
	int r = proc_run(argv, 65536, &list, e);

	if (r < 0)
		return err_wrap(e, "the libraries of %s", program);
	for (char *save = NULL, *line = list.length ? strtok_r(list.bytes, "\n", &save) : NULL; line;
	     line = strtok_r(NULL, "\n", &save)) {
		char *path = strstr(line, "=> /");
		if (!path)
			continue;
		path += strlen("=> ");
		path[strcspn(path, " ")] = '\0';
		add_library(t, path);
	}
	add_library(t, LOADER);
	add(t, mem_strdup(program), mem_strdup(to));
	return 0;
}

static int add_criu(struct tools *t, struct err *e)
{
	const char *program = checkpoint_program();

	if (!program) {
		(void)err_set(e, ERR_UNSUPPORTED, "this host has no CRIU, without which nothing travels");
		return err_hint(e, "%s", CHECKPOINT_PROGRAM_HINT);
	}
	own_str char *real = realpath(program, NULL);
	char *slash = real ? strrchr(real, '/') : NULL;
	if (!slash)
		return err_errno(e, errno, "find %s", program);
	own_str char *folder = mem_strndup(real, (size_t)(slash - real)), *bundled = mem_printf("%s/criu.bin", folder);
	return fs_exists(AT_FDCWD, bundled) ? add_bundle(t, folder, e) :
					      add_installed(t, program, "libexec/carrel/criu/criu", e);
}

static int list_tools(struct tools *t, struct err *e)
{
	static const char *const ours[] = { "carrel-inner", "carrel-checkpoint", "carrel-first" };
	/* CRIU packs tmpfs with them */
	static const char *const theirs[][2] = { { "/bin/tar", "bin/tar" },
						 { "/bin/gzip", "libexec/gzip" },
						 { "/bin/sh", "bin/sh" } };

	for (size_t i = 0; i < ARRAY_SIZE(ours); i++)
		add(t, mem_printf("%s/libexec/carrel/%s", fs_prefix(), ours[i]), mem_printf("libexec/carrel/%s", ours[i]));
	int r = add_criu(t, e);
	for (size_t i = 0; r >= 0 && i < ARRAY_SIZE(theirs); i++)
		r = add_installed(t, theirs[i][0], theirs[i][1], e);
	return r;
}

/* --- the file --- */

static int name_of(const struct tools *t, const struct digest *kernel, char **ret_name, struct err *e)
{
	own_hash struct hash *h = hash_new();
	char hex[DIGEST_HEX_SIZE];

	hash_add(h, FORM, strlen(FORM));
	hash_add(h, kernel->bytes, sizeof kernel->bytes);
	for (size_t i = 0; i < t->count; i++) {
		struct stat st;
		if (stat(t->items[i].from, &st) < 0)
			return err_errno(e, errno, "look at %s", t->items[i].from);
		own_str char *line = mem_printf("%s %llu %lld.%09ld %llu\n", t->items[i].to, (unsigned long long)st.st_ino,
						(long long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec,
						(unsigned long long)st.st_size);
		hash_add(h, line, strlen(line));
	}
	struct digest d = hash_end(h);
	*ret_name = mem_printf("%s.tools", digest_hex(&d, hex));
	return 0;
}

static int put_bytes(struct erofs_writer *w, const char *path, uint32_t mode, const void *bytes, size_t length, struct err *e)
{
	struct erofs_attributes a = { .mode = S_IFREG | mode };
	int r = erofs_begin_file(w, path, &a, length, false, e);

	if (r >= 0 && length)
		r = erofs_add_data(w, 0, bytes, length, e);
	return r < 0 ? r : erofs_end_file(w, e);
}

static int put_tool(struct erofs_writer *w, const struct tool *t, struct err *e)
{
	own_strbuf struct str bytes = { 0 };
	int r = fs_read_file(AT_FDCWD, t->from, FILE_MOST, &bytes, e);

	return r < 0 ? r : put_bytes(w, t->to, 0755, bytes.bytes, bytes.length, e);
}

struct modules {
	struct erofs_reader *reader;
	struct erofs_writer *out;
	size_t count;
};

static int put_module(void *data, const struct erofs_name *entry, struct err *e)
{
	struct modules *m = data;
	struct erofs_inode inode;
	int r = str_starts(entry->name, "4-") ? erofs_inode(m->reader, entry->nid, &inode, e) : 1;

	if (r != 0)
		return r < 0 ? r : 0;
	if (!S_ISREG(inode.mode) || inode.size_bytes > FILE_MOST)
		return err_set(e, ERR_INVALID, "/modules/%s of the kernel partition is no module", entry->name);
	own_str void *bytes = mem_alloc(inode.size_bytes + 1);
	own_str char *path = mem_printf("modules/%s", entry->name);
	if (inode.size_bytes && (r = erofs_read(m->reader, &inode, 0, bytes, inode.size_bytes, e)) < 0)
		return r;
	m->count++;
	return put_bytes(m->out, path, 0644, bytes, inode.size_bytes, e);
}

static int put_modules(struct erofs_writer *w, int kernel_fd, struct err *e)
{
	own_erofs_reader struct erofs_reader *reader = NULL;
	struct erofs_inode folder;
	int r = erofs_open(kernel_fd, &reader, e);

	if (r < 0 || (r = erofs_find(reader, "modules", &folder, e)) < 0)
		return err_wrap(e, "the kernel partition");
	struct modules m = { .reader = reader, .out = w };
	r = erofs_list(reader, &folder, erofs_root(reader), put_module, &m, e);
	if (r < 0 || m.count)
		return r;
	(void)err_set(e, ERR_UNSUPPORTED, "the site's kernel was imported without the modules that travelling needs");
	return err_hint(e, "import it again: carrel kernel import");
}

static int write_tools(const struct tools *t, int kernel_fd, int fd, struct err *e)
{
	static const char *const folders[] = { "proc",    "sys", "dev",   "tmp", "run",    "cgroup",
					       "scratch", "lib", "lib64", "bin", "modules" };
	own_erofs_writer struct erofs_writer *w = erofs_writer_new(fd, 0, &erofs_default_limits);
	struct erofs_attributes folder = { .mode = S_IFDIR | 0755 };
	uint64_t size, inodes;
	int r = 0;

	for (size_t i = 0; r >= 0 && i < ARRAY_SIZE(folders); i++)
		r = erofs_add_directory(w, folders[i], &folder, e);
	for (size_t i = 0; r >= 0 && i < t->count; i++)
		r = put_tool(w, &t->items[i], e);
	if (r >= 0)
		r = put_bytes(w, "bin/gzip", 0755, GZIP, strlen(GZIP), e);
	if (r >= 0)
		r = put_modules(w, kernel_fd, e);
	return r < 0 ? r : erofs_finish(w, &size, &inodes, e);
}

static int make(const struct tools *t, int kernel_fd, int folder, const char *name, struct err *e)
{
	own_str char *unfinished = mem_printf("%s.new", name);
	own_fd int fd = openat(folder, unfinished, O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0400);
	int r = fd < 0 ? err_errno(e, errno, "make %s", unfinished) : write_tools(t, kernel_fd, fd, e);

	if (r >= 0 && (fsync(fd) < 0 || renameat(folder, unfinished, folder, name) < 0))
		r = err_errno(e, errno, "make %s", name);
	if (r < 0)
		(void)unlinkat(folder, unfinished, 0);
	return r < 0 ? r : 0;
}

int travel_tools(struct node *n, const struct digest *kernel, int kernel_fd, int *ret_fd, struct err *e)
{
	own_str char *path = mem_printf("%s/node/machines", n->config.state), *name = NULL;
	own_tools struct tools t = { 0 };
	own_fd int folder = -1;
	int r = list_tools(&t, e);

	if (r < 0 || (r = name_of(&t, kernel, &name, e)) < 0 || (r = fs_mkdirs(path, 0700, e)) < 0 ||
	    (r = fs_open_dir(AT_FDCWD, path, &folder, e)) < 0)
		return err_wrap(e, "the tools of a machine whose workspace travels");
	(void)pthread_mutex_lock(&lock);
	if (!fs_exists(folder, name))
		r = make(&t, kernel_fd, folder, name, e);
	(void)pthread_mutex_unlock(&lock);
	if (r < 0)
		return err_wrap(e, "the tools of a machine whose workspace travels");
	*ret_fd = openat(folder, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	return *ret_fd < 0 ? err_errno(e, errno, "open %s", name) : 0;
}
