/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The engine `workspace`, suspended by CRIU. The runner's helper carrel-checkpoint does it; here is what the agent knows:
 * whether this host can, what the manifest says, and the digests of what was written.
 *
 * A memory state is bound to its processor's features - programs choose their code by them when they start - and to a CRIU that
 * is not older than the one that wrote it. It is not bound to the kernel: CRIU makes everything by system calls.
 */
#include "node/suspend.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/hash.h"
#include "base/mem.h"
#include "base/own.h"
#include "engine/workspace/checkpoint_program.h"
#include "node/checkpoint.h"
#include "node/travel.h"

#define FILES_MOST 100000
#define CHECKPOINT_LOG_NAME "criu.log" /* for people: a resume that fails writes it anew */

static int check(struct node *n, const struct record *r, struct err *e)
{
	char version[CHECKPOINT_VERSION_SIZE];

	(void)n;
	if (r->wish.spec->network == NETWORK_HOST) {
		(void)err_set(e, ERR_UNSUPPORTED,
			      "the workspace has the host's network, whose connections cannot be taken away from it");
		return err_hint(e, "carrel stop keeps the volumes");
	}
	return checkpoint_probe(version, e);
}

/* --- save --- */

static int add_file(int folder, const char *name, struct memory_file *f, struct err *e)
{
	own_fd int fd = openat(folder, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	char text[DIGEST_TEXT_SIZE];
	struct digest digest;
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return err_errno(e, errno, "open %s", name);
	if (!S_ISREG(st.st_mode))
		return err_set(e, ERR_INTERNAL, "%s of the memory state is not a file", name);
	int r = hash_fd(fd, &digest, e);
	if (r == 0)
		*f = (struct memory_file){ mem_strdup(name), (uint64_t)st.st_size, mem_strdup(digest_text(&digest, text)) };
	return r;
}

static int add_files(int folder, struct memory_manifest *m, struct err *e)
{
	own_dir DIR *dir = fdopendir(openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
	struct memory_file *files = NULL;
	size_t room = 0, count = 0;
	int r = dir ? 0 : err_errno(e, errno, "read the memory folder");

	for (struct dirent *d; r == 0 && (r = fs_next_entry(dir, &d, e)) > 0;) {
		r = 0;
		if (d->d_name[0] == '.' || strncmp(d->d_name, MEMORY_MANIFEST, strlen("manifest")) == 0 ||
		    str_eq(d->d_name, CHECKPOINT_LOG_NAME))
			continue;
		MEM_PUSH_ROOM(files, count, room);
		r = count < FILES_MOST ? add_file(folder, d->d_name, &files[count], e)
				       : err_set(e, ERR_TOO_LARGE, "the memory state has more than %d files", FILES_MOST);
		count += r == 0;
	}
	m->files = (struct objects){ files, count };
	return r;
}

static void add_features(bool travels, struct memory_manifest *m)
{
	own_str char *flags = travels ? NULL : checkpoint_features();
	char *save = NULL;

	if (travels) /* the others were kept from its programs */
		travel_features(&m->features);
	for (char *word = flags ? strtok_r(flags, " ", &save) : NULL; word; word = strtok_r(NULL, " ", &save))
		texts_add(&m->features, word);
}

/* What an earlier suspension that did not come to its end has left. */
static int empty(int folder, struct err *e)
{
	own_dir DIR *dir = fdopendir(openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
	int r = dir ? 0 : err_errno(e, errno, "read the memory folder");

	for (struct dirent *d; r == 0 && (r = fs_next_entry(dir, &d, e)) > 0;)
		r = fs_remove_tree(folder, d->d_name, e);
	return r;
}

static int save(struct work *w, int folder, struct memory_manifest *m, void **ret_saved, struct err *e)
{
	char version[CHECKPOINT_VERSION_SIZE];
	own_fd int connection = -1;
	int r = checkpoint_probe(version, e);

	if (r < 0 || (r = empty(folder, e)) < 0 || (r = isolate_suspend(w->node, w->record, folder, &connection, e)) < 0)
		return r;
	m->kind = MEMORY_CRIU;
	m->engine = ENGINE_WORKSPACE;
	m->paused = w->record->wish.wish == WISH_PAUSED;
	m->program = mem_strdup("criu");
	m->version = mem_strdup(version);
	add_features(travel_is_wished(&w->record->wish, false), m);
	if ((r = add_files(folder, m, e)) < 0)
		return r; /* the connection closes: it goes on */
	*ret_saved = suspend_connection(TAKE_FD(connection));
	return 0;
}

void suspend_workspace_needs(const struct record *r, struct memory_manifest *m)
{
	char version[CHECKPOINT_VERSION_SIZE];

	if (checkpoint_probe(version, NULL) < 0)
		return;
	m->architecture = mem_strdup(r->wish.image->architecture ? r->wish.image->architecture : "amd64");
	m->program = mem_strdup("criu");
	m->version = mem_strdup(version);
	add_features(travel_is_wished(&r->wish, false), m);
}

/* --- resume --- */

static int host(struct node *n, const struct memory_manifest *m, struct suspend_host *ret_host, struct err *e)
{
	char version[CHECKPOINT_VERSION_SIZE];
	int r = checkpoint_probe(version, e);

	(void)n;
	if (r < 0)
		return r;
	own_str char *flags = checkpoint_features();
	char *save_at = NULL;
	for (char *word = strtok_r(flags, " ", &save_at); word; word = strtok_r(NULL, " ", &save_at))
		texts_add(&ret_host->features, word);
	texts_add(&ret_host->features, NULL);
	ret_host->version = mem_strdup(checkpoint_reads(version, m->version) ? m->version : version);
	ret_host->has = (struct memory_host){ .architecture = m->architecture, .program = "criu", .version = ret_host->version,
					      .features = (const char *const *)ret_host->features.items };
	return 0;
}

const struct suspend_engine suspend_workspace = {
	.name = "workspace", .check = check, .save = save, .commit = suspend_connection_commit,
	.abort = suspend_connection_abort, .host = host,
};
