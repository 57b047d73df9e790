/* SPDX-License-Identifier: Apache-2.0 */
/* What is in a memory folder and of no use any more: after a resume, after a suspend that failed, after one that packed. */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/fs.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"
#include "engine/workspace/checkpoint.h"
#include "node/suspend.h"
#include "node/suspend_pack.h"

/* What a run has in the folder while it lives. Of namespaces only what CRIU said, for people; of a machine not the state that
 * it was loaded from. */
static bool is_in_use(const char *name, bool machine)
{
	static const char *const of_machine[] = { MEMORY_RAM, MEMORY_BASE, MEMORY_SEED, MEMORY_MACHINE };

	for (size_t i = 0; machine && i < ARRAY_SIZE(of_machine); i++)
		if (str_eq(name, of_machine[i]))
			return true;
	return !machine && str_eq(name, CHECKPOINT_LOG);
}

void suspend_drop_unnamed(const struct record *r, const struct memory_manifest *m)
{
	own_str char *path = record_path(r, MEMORY_FOLDER);
	own_dir DIR *dir = opendir(path);
	struct dirent *d;

	while (dir && fs_next_entry(dir, &d, NULL) > 0)
		if ((is_in_use(d->d_name, true) || str_eq(d->d_name, MEMORY_STATE)) && !memory_manifest_file(m, d->d_name))
			(void)unlinkat(dirfd(dir), d->d_name, 0);
}

/* 1: it has another name, and goes when there is time. */
static int drop(int folder, const char *name, bool brief, struct err *e)
{
	own_str char *left = mem_printf("%s" MEMORY_LEFT, name);

	if (brief && str_ends(name, MEMORY_PACKED) && renameat(folder, name, folder, left) == 0)
		return 1;
	return brief && str_ends(name, MEMORY_LEFT) ? 1 : fs_remove_tree(folder, name, e);
}

static void tidy_run(struct record *r, bool brief)
{
	own_str char *path = record_path(r, MEMORY_FOLDER);
	bool machine = isolate_ran_as_machine(r->truth.report);
	struct err why = { 0 };
	struct dirent *d;
	int more, dropped;

	r->untidy = false;
	r->truth.report->memory_bytes = 0;
	own_dir DIR *dir = opendir(path);
	while (dir && (more = fs_next_entry(dir, &d, NULL)) > 0) {
		if (is_in_use(d->d_name, machine))
			continue;
		if ((dropped = drop(dirfd(dir), d->d_name, brief, &why)) < 0)
			log_error(&why, "workspace %s: what another engine left", r->id);
		r->untidy |= dropped > 0;
	}
}

bool suspend_is_untidy(const struct record *r)
{
	enum state s = (enum state)r->truth.report->state;

	return r->untidy && (s == STATE_SUSPENDED || ((s == STATE_RUNNING || s == STATE_PAUSED) && !suspend_is_there(r)));
}

void suspend_tidy(struct record *r, bool brief)
{
	if (!suspend_is_untidy(r))
		return;
	if (!brief)
		(void)fault_point("tidy");
	if (r->truth.report->state != STATE_SUSPENDED) {
		tidy_run(r, brief);
	} else if (!brief) {
		suspend_pack_clean(r);
		r->untidy = false;
	}
}
