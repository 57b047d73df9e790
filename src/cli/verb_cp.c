/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cp with the meaning that users know from docker cp:
 *
 *	destination            a file goes            a folder goes          folder/. goes
 *	is a folder            into it                into it                its content into it
 *	is a file              over it                is refused             is refused
 *	is absent              there, by that name    there, by that name    there, by that name
 *	absent, ends with /    is refused             there, by that name    there, by that name
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"
#include "cli/copy.h"
#include "cli/pipe.h"

/* A path in its parts: "/a/b/." is parent "/a", base "b", content. */
struct place {
	const char *workspace; /* NULL: here */
	char *path;            /* without "/." and "/" at the end; "/" stays */
	char *parent, *base;   /* base of "/" and ".": "." */
	bool content, slash;
};

static void place_done(struct place *p)
{
	free((char *)(uintptr_t)p->workspace);
	free(p->path);
	free(p->parent);
	free(p->base);
}
#define own_place __attribute__((cleanup(place_done)))

static void split(struct place *p, const char *given)
{
	p->path = mem_strdup(given);
	size_t n = strlen(p->path);
	p->content = str_ends(p->path, "/.") || str_eq(p->path, ".");
	if (n > 1 && str_ends(p->path, "/."))
		p->path[n -= 2] = '\0';
	p->slash = n > 1 && p->path[n - 1] == '/';
	while (n > 1 && p->path[n - 1] == '/')
		p->path[--n] = '\0';
	if (n == 0)
		p->path = (free(p->path), mem_strdup("/"));
	const char *slash = strrchr(p->path, '/');
	p->parent = slash ? slash == p->path ? mem_strdup("/") : mem_strndup(p->path, (size_t)(slash - p->path)) :
			    mem_strdup(".");
	p->base = mem_strdup(slash ? slash[1] ? slash + 1 : "." : p->path);
}

static int parse(const char *given, struct place *ret_place, struct err *e)
{
	const char *colon = strchr(given, ':'), *slash = strchr(given, '/');

	if (!colon || (slash && slash < colon) || given[0] == '.') {
		split(ret_place, given);
		return 0;
	}
	if (colon == given || colon[1] != '/')
		return err_set(e, ERR_INVALID, "'%.80s': NAME:/PATH is expected", given);
	ret_place->workspace = mem_strndup(given, (size_t)(colon - given));
	split(ret_place, colon + 1);
	return 0;
}

/* --- into a workspace --- */

/* What is at a destination; a link to a folder is one, as a shell has it: /var/run. */
static int look_at_target(struct cli *cli, const struct place *to, enum copy_kind *ret_kind, struct err *e)
{
	own_str char *behind = mem_printf("%s/.", to->path);
	enum copy_kind kind = COPY_FOLDER;
	int r = str_eq(to->path, "/") ? 0 : copy_look(cli, to->workspace, to->path, &kind, e);

	if (r == 0 && kind == COPY_LINK) {
		struct err ignored;
		if (copy_look(cli, to->workspace, behind, &kind, &ignored) < 0 || kind != COPY_FOLDER)
			kind = COPY_FILE;
	}
	*ret_kind = kind;
	return r;
}

struct target {
	const char *folder, *name; /* in the workspace; the entries' new first part */
};

static int choose_target(const struct place *to, enum copy_kind kind, const struct place *from, bool from_folder,
			 struct target *ret, struct err *e)
{
	if (kind == COPY_FOLDER) {
		*ret = (struct target){ to->path, from->content && from_folder ? "." : from->base };
		return 0;
	}
	if (kind == COPY_FILE && from_folder)
		return err_set(e, ERR_CONFLICT, "a folder cannot be copied over the file %s", to->path);
	if (to->slash && !from_folder)
		return err_set(e, ERR_NOT_FOUND, "there is no folder %s/", to->path);
	*ret = (struct target){ to->parent, to->base };
	return 0;
}

static int copy_to_workspace(struct cli *cli, const struct place *from, const struct place *to, bool owners, struct err *e)
{
	own_pipe struct pipe_child tar = PIPE_NONE;
	own_str char *helper = pipe_helper("carrel-tar");
	struct stat st;
	struct target target = { 0 };
	enum copy_kind kind = COPY_FOLDER;

	if (stat(from->path, &st) < 0)
		return err_errno(e, errno, "%s", from->path);
	int r = look_at_target(cli, to, &kind, e);
	if (r == 0)
		r = choose_target(to, kind, from, S_ISDIR(st.st_mode), &target, e);
	if (r < 0)
		return r;
	const char *const argv[] = { helper, "pack", from->path, target.name, owners ? "owners" : NULL, NULL };
	r = pipe_start(&tar, argv, PIPE_READ_ITS_OUTPUT, e);
	if (r == 0)
		r = copy_in(cli, to->workspace, target.folder, tar.fd, e);
	return r < 0 ? r : pipe_finish(&tar, e);
}

/* --- out of one --- */

static int copy_from_workspace(struct cli *cli, const struct place *from, const struct place *to, bool owners, struct err *e)
{
	own_pipe struct pipe_child tar = PIPE_NONE;
	own_str char *helper = pipe_helper("carrel-tar");
	struct stat st;
	bool there = stat(to->path, &st) == 0, folder = there && S_ISDIR(st.st_mode);
	enum copy_kind kind = COPY_ABSENT;
	int r = copy_look(cli, from->workspace, from->path, &kind, e);

	if (r == 0 && kind == COPY_ABSENT)
		r = err_set(e, ERR_NOT_FOUND, "%s: there is no %s", from->workspace, from->path);
	if (r == 0 && there && !folder && kind == COPY_FOLDER)
		r = err_set(e, ERR_CONFLICT, "a folder cannot be copied over the file %s", to->path);
	if (r == 0 && !there && to->slash && kind != COPY_FOLDER)
		r = err_set(e, ERR_NOT_FOUND, "there is no folder %s/", to->path);
	if (r < 0)
		return r;
	const char *into = folder ? to->path : to->parent;
	const char *name = !folder ? to->base : from->content ? "." : from->base;
	const char *const argv[] = { helper, "unpack", into, from->base, name, owners ? "owners" : NULL, NULL };
	r = pipe_start(&tar, argv, PIPE_WRITE_ITS_INPUT, e);
	if (r == 0)
		r = copy_out(cli, from->workspace, from->path, tar.fd, e);
	struct err failure = { 0 };
	bool ran = tar.pidfd >= 0;
	int finished = ran ? pipe_finish(&tar, &failure) : 0;
	if (finished < 0 && (r == 0 || e->number == EPIPE)) { /* its own words say why the pipe broke */
		*e = failure;
		return finished;
	}
	return r;
}

static int cp(struct cli *cli, const struct args *a, struct err *e)
{
	own_place struct place from = { 0 };
	own_place struct place to = { 0 };
	const char *source = args_operand(a, 0), *destination = args_operand(a, 1);
	bool owners = args_flag(a, "archive");
	int r = parse(source, &from, e);

	if (r == 0)
		r = parse(destination, &to, e);
	if (r < 0)
		return r;
	if (!from.workspace == !to.workspace)
		return err_set(e, ERR_INVALID, "exactly one of the two must be in a workspace: NAME:/PATH");
	struct client *client;
	r = cli_client(cli, &client, e);
	if (r == 0)
		r = http_check_upgrade(client_address(client), e);
	if (r < 0)
		return r;
	(void)signal(SIGPIPE, SIG_IGN);
	if (to.workspace)
		return str_eq(source, "-") ? copy_in(cli, to.workspace, to.path, STDIN_FILENO, e) :
					     copy_to_workspace(cli, &from, &to, owners, e);
	return str_eq(destination, "-") ? copy_out(cli, from.workspace, from.path, STDOUT_FILENO, e) :
					  copy_from_workspace(cli, &from, &to, owners, e);
}

static const struct operand operands[] = {
	{ "SOURCE", "file or folder here, or NAME:/PATH; FOLDER/. is its content; - is a tar on standard input",
	  COMPLETE_COPY },
	{ "DESTINATION", "the same; - is a tar on standard output", COMPLETE_COPY },
	{ 0 },
};
static const struct option options[] = {
	{ "archive", 'a', OPTION_FLAG, NULL, "keep numeric owners" },
	{ 0 },
};
static const struct example examples[] = {
	{ "carrel cp site.conf web:/etc/nginx/conf.d/", "into a folder" },
	{ "carrel cp web:/var/log ./logs", "out of a workspace" },
	{ "carrel cp build/. web:/srv/www", "the content of a folder" },
	{ "tar c . | carrel cp - web:/srv", "a tar, unpacked there" },
	{ "carrel cp web:/etc - | tar t", "a tar of what is there" },
	{ 0 },
};
const struct verb verb_cp = {
	"cp", "copy files into or out of a workspace",
	"A folder goes into a destination that is a folder; into one that is absent it goes by that name. Without -a, what is "
	"copied in belongs to root and what is copied out belongs to the caller.",
	operands, options, NULL, examples, cp,
};
