/* SPDX-License-Identifier: Apache-2.0 */
#include "node/luggage.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/hash.h"
#include "base/mem.h"
#include "base/own.h"
#include "engine/workspace/checkpoint.h"
#include "model/travel.h"

#define FILES_MOST 100000
#define BLOCK (1 << 20)

static int open_beneath(int folder, const char *name, uint64_t flags)
{
	struct open_how how = { .flags = flags | O_NOFOLLOW | O_CLOEXEC,
				.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV | RESOLVE_NO_MAGICLINKS };

	return (int)syscall(SYS_openat2, folder, name, &how, sizeof how);
}

static bool is_sane(const char *name)
{
	for (const char *at = name; *at; at++)
		if (!((*at >= 'a' && *at <= 'z') || (*at >= '0' && *at <= '9') || *at == '-' || *at == '_' || *at == '.'))
			return false;
	return name[0] != '.' && strlen(name) < 128 && !str_starts(name, "manifest") && !str_eq(name, MEMORY_RAM) &&
	       !str_eq(name, MEMORY_STATE) && !str_eq(name, MEMORY_MACHINE);
}

/* *left: bytes that may still come; a guest's file may be one long hole. */
static int copy_file(int from, int to, const char *name, char *block, uint64_t *left, struct memory_file *ret_file,
		     struct err *e)
{
	own_fd int in = open_beneath(from, name, O_RDONLY | O_NONBLOCK);
	struct stat st;
	char text[DIGEST_TEXT_SIZE];

	if (in < 0 || fstat(in, &st) < 0)
		return err_errno(e, errno, "open %s in the luggage", name);
	if (!S_ISREG(st.st_mode))
		return err_set(e, ERR_CORRUPT, "%s in the luggage is no file", name);
	if ((uint64_t)st.st_size > *left)
		return err_set(e, ERR_CORRUPT, "%s in the luggage is longer than all of it", name);
	*left -= (uint64_t)st.st_size;
	(void)unlinkat(to, name, 0);
	own_fd int out = openat(to, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	own_hash struct hash *h = hash_new();
	ssize_t got;
	if (out < 0)
		return err_errno(e, errno, "make %s", name);
	while ((got = read(in, block, BLOCK)) > 0) {
		int r = fs_write_all(out, block, (size_t)got, e);
		if (r < 0)
			return r;
		hash_add(h, block, (size_t)got);
	}
	struct digest d = hash_end(h);
	if (got < 0 || fstat(out, &st) < 0 || fsync(out) < 0)
		return err_errno(e, errno, "copy %s out of the luggage", name);
	*ret_file = (struct memory_file){ mem_strdup(name), (uint64_t)st.st_size, mem_strdup(digest_text(&d, text)) };
	return 0;
}

int luggage_take(int top, int folder, uint64_t bytes_most, struct memory_manifest *m, struct err *e)
{
	own_fd int from = open_beneath(top, TRAVEL_FOLDER, O_RDONLY | O_DIRECTORY);
	own_dir DIR *dir = from < 0 ? NULL : fdopendir(fcntl(from, F_DUPFD_CLOEXEC, 0));
	own_str char *block = mem_alloc(BLOCK);
	struct memory_file *files = NULL;
	size_t room = 0, count = 0;
	int r = dir ? 0 : err_errno(e, errno, "read the luggage");

	for (struct dirent *d; r == 0 && (r = fs_next_entry(dir, &d, e)) > 0;) {
		r = 0;
		if (str_eq(d->d_name, CHECKPOINT_LOG))
			continue;
		if (!is_sane(d->d_name) || count == FILES_MOST) {
			r = err_set(e, ERR_CORRUPT, "the luggage holds %s",
				    count == FILES_MOST ? "too many files" : "something of a strange name");
			break;
		}
		MEM_PUSH_ROOM(files, count, room);
		r = copy_file(from, folder, d->d_name, block, &bytes_most, &files[count], e);
		count += r == 0;
	}
	m->files = (struct objects){ files, count };
	return r;
}
