/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. A path is looked up in a stack as overlayfs does it: from the upmost partition down, until one has it; a whiteout or
 * an opaque folder on the way ends the search. Symbolic links are followed here, within the image. All in a child without
 * rights: the partitions came of bytes from outside.
 */
#include "store/import_layer.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"
#include "store/child.h"
#include "store/erofs_reader.h"

#define LINKS_MOST 40
#define PATH_MOST  4096

struct stack {
	const int *fds; /* lowest first */
	size_t count;
	int answer_fd;
	struct erofs_reader **readers;
};

enum sight { SIGHT_NONE, SIGHT_FOUND, SIGHT_HIDDEN };

static int is_opaque(struct erofs_reader *r, const struct erofs_inode *inode, bool *ret_opaque, struct err *e)
{
	own_erofs_attributes struct erofs_attribute_list attributes = { 0 };
	int result = erofs_read_attributes(r, inode, &attributes, e);

	if (result == 0)
		*ret_opaque = erofs_is_opaque(&attributes);
	return result;
}

/* One partition's say about a path without links: it has it, it hides what is below, or it knows nothing. */
static int look(struct erofs_reader *r, const char *path, struct erofs_inode *ret_inode, enum sight *ret_sight, struct err *e)
{
	own_str char *prefix = mem_strdup(path);
	enum sight otherwise = SIGHT_NONE;
	struct erofs_inode inode;

	for (char *slash = prefix;;) {
		slash = strchr(slash + 1, '/');
		if (slash)
			*slash = '\0';
		int result = erofs_find(r, prefix, &inode, e);
		if (result == -ENOENT) {
			*ret_sight = otherwise;
			return 0;
		}
		if (result < 0)
			return result;
		if (erofs_is_whiteout(&inode) || (slash && !S_ISDIR(inode.mode))) {
			*ret_sight = SIGHT_HIDDEN;
			return 0;
		}
		if (!slash)
			break;
		bool opaque = false;
		result = is_opaque(r, &inode, &opaque, e);
		if (result < 0)
			return result;
		if (opaque)
			otherwise = SIGHT_HIDDEN;
		*slash = '/';
	}
	*ret_inode = inode;
	*ret_sight = SIGHT_FOUND;
	return 0;
}

/* 1: found, in *ret_reader. */
static int look_down(const struct stack *s, const char *path, struct erofs_reader **ret_reader, struct erofs_inode *ret_inode,
		     struct err *e)
{
	enum sight sight = SIGHT_NONE;

	for (size_t i = s->count; i > 0 && sight == SIGHT_NONE; i--) {
		int r = look(s->readers[i - 1], path, ret_inode, &sight, e);
		if (r < 0)
			return r;
		*ret_reader = s->readers[i - 1];
	}
	return sight == SIGHT_FOUND ? 1 : 0;
}

/* Takes the first component off *rest; NULL at the end. */
static char *next_component(char **rest)
{
	*rest += strspn(*rest, "/");
	if (!**rest)
		return NULL;
	size_t length = strcspn(*rest, "/");
	char *component = mem_strndup(*rest, length);
	*rest += length;
	return component;
}

/* Follows the link at `at`: its target goes in front of what is left of the path. */
static int follow(struct erofs_reader *r, const struct erofs_inode *inode, char *at, char **path, char **rest, struct err *e)
{
	own_str char *target = NULL;
	int result = erofs_read_link(r, inode, &target, e);

	if (result < 0)
		return result;
	*(target[0] == '/' ? at : strrchr(at, '/')) = '\0';
	char *whole = mem_printf("%s/%s", target, *rest);
	free(*path);
	*rest = *path = whole;
	return 0;
}

/* 1: the path leads to a regular file, whose place without links is in `at` (PATH_MOST bytes). */
static int resolve(const struct stack *s, const char *start, char *at, struct erofs_inode *ret_inode, struct err *e)
{
	char *path = mem_strdup(start), *rest = path, *component;
	struct erofs_reader *reader = NULL;
	int links = 0, r = 1;

	at[0] = '\0';
	for (; r == 1 && (component = next_component(&rest)); free(component)) {
		char *slash = strrchr(at, '/');
		if (str_eq(component, ".."))
			*(slash ? slash : at) = '\0';
		if (str_eq(component, "..") || str_eq(component, "."))
			continue;
		size_t length = strlen(at);
		r = snprintf(at + length, PATH_MOST - length, "/%s", component) < (int)(PATH_MOST - length);
		if (r == 1)
			r = look_down(s, at, &reader, ret_inode, e);
		if (r == 1 && S_ISLNK(ret_inode->mode))
			r = ++links > LINKS_MOST ? 0 : follow(reader, ret_inode, at, &path, &rest, e) < 0 ? -EBADMSG : 1;
	}
	free(path);
	return r == 1 ? reader && S_ISREG(ret_inode->mode) : r;
}

/* A busybox that is called init needs an inittab and services, which small images with a link have not: the caller may say that
 * it has. */
static int stack_has_init(const struct stack *s, bool *ret_init, struct err *e)
{
	static const char *const places[] = { "/sbin/init", "/usr/lib/systemd/systemd", "/lib/systemd/systemd" };
	own_str char *at = mem_alloc(PATH_MOST);
	struct erofs_inode inode;

	*ret_init = false;
	for (size_t i = 0; i < ARRAY_SIZE(places) && !*ret_init; i++) {
		int r = resolve(s, places[i], at, &inode, e);
		if (r < 0)
			return r;
		*ret_init = r == 1 && (inode.mode & 0111) && !str_ends(at, "/busybox");
	}
	return 0;
}

static int run(void *data, struct err *e)
{
	struct stack *s = data;
	bool init;
	int r = 0;

	s->readers = mem_alloc_array(s->count, sizeof(struct erofs_reader *));
	for (size_t i = 0; r == 0 && i < s->count; i++)
		r = erofs_open(s->fds[i], &s->readers[i], e);
	if (r == 0)
		r = stack_has_init(s, &init, e);
	return r == 0 ? fs_write_all(s->answer_fd, init ? "y" : "n", 1, e) : r;
}

int layer_stack_has_init(const int *fds, size_t count, bool *ret_init, struct err *e)
{
	own_str int *given = mem_alloc_array(count + 1, sizeof *given);
	struct child c;
	int pair[2];
	char answer;

	if (pipe2(pair, O_CLOEXEC) < 0)
		return err_errno(e, errno, "pipe");
	own_fd int reading = pair[0], writing = pair[1];
	memcpy(given, fds, count * sizeof *fds);
	given[count] = writing;
	struct stack s = { .fds = fds, .count = count, .answer_fd = writing };
	int r = child_start("the reader of partitions", CHILD_PARSES, run, &s, given, count + 1, &c, e);
	if (r == 0)
		r = child_finish(&c, e);
	if (r < 0)
		return r;
	if (read(reading, &answer, 1) != 1)
		return err_set(e, ERR_INTERNAL, "the reader of partitions did not answer");
	*ret_init = answer == 'y';
	return 0;
}
