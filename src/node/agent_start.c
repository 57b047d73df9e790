/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The start of the agent: what the one before it left is found and gone on with. For each record, in this order: a restore
 * that was under way is ended or taken back, unfinished files go, partitions are mounted again for it, its runner is looked
 * for, its ids are marked as taken. Only then may the workspace be worked on.
 *
 * A runner counts when it is of this boot and of the run that the record tells of; then it is watched again, and states in
 * between (starting, stopping, suspending) become what it says. Without one the workspace has ended meanwhile, and the first
 * job finds out how. What cannot be read or done is logged and the workspace stays as it was told last: nothing here may keep
 * the agent from the others.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>

#include "base/fs.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"
#include "node/agent_private.h"
#include "node/disk.h"
#include "node/network.h"
#include "node/snapshot.h"
#include "node/suspend.h"
#include "node/suspend_pack.h"
#include "node/task.h"

/* A runner whose record was lost knows its range. */
static uint64_t first_id_of(uint64_t pid)
{
	own_str char *path = mem_printf("/proc/%" PRIu64 "/uid_map", pid);
	own_strbuf struct str text = { 0 };
	unsigned first = 0;

	if (fs_read_file(AT_FDCWD, path, 4096, &text, NULL) < 0 || sscanf(str_text(&text), "%*u %u", &first) != 1)
		return 0;
	return first;
}

static void mark_ids(struct workspace *w)
{
	struct truth *t = &w->record->truth;

	if (!t->first_id && t->report->pid)
		t->first_id = first_id_of(t->report->pid);
	if (t->first_id && !w->marked && !ids_mark(w->agent->node->ids, t->first_id))
		log_err("workspace %s: its id range %" PRIu64 " is not ours, or another's too", w->record->id, t->first_id);
	w->marked = t->first_id != 0;
}

static void clean_unfinished(const struct record *r)
{
	own_str char *volumes = record_path(r, "volumes"), *snapshots = record_path(r, "snapshots");
	own_dir DIR *dir = opendir(snapshots);

	(void)!volume_clean_folder(volumes, NULL);
	for (struct dirent *entry; dir && (entry = readdir(dir));)
		if (str_ends(entry->d_name, ".new"))
			(void)!fs_remove_tree(dirfd(dir), entry->d_name, NULL);
}

static void hold_partitions(struct workspace *w)
{
	struct record *r = w->record;
	enum state s = (enum state)r->truth.report->state;
	const struct image_partition *partitions = r->wish.image ? r->wish.image->partitions.items : NULL;
	struct err e = { 0 };
	struct digest d;
	size_t held = 0;

	/* machines get files; and a disk, which nobody has checked, is never mounted */
	if (isolate_is_machine(&r->wish) || disk_is_one(&r->wish))
		return;
	if (!partitions || !(state_is_live(s) || s == STATE_STAGED || s == STATE_PREPARED))
		return;
	while (held < r->wish.image->partitions.count && digest_parse(partitions[held].digest, &d, &e) == 0 &&
	       mount_ref(w->agent->node->mounts, &d, NULL, NULL, NULL, &e) == 0)
		held++;
	r->staged = held == r->wish.image->partitions.count;
	if (r->staged)
		return;
	log_error(&e, "workspace %s", r->id);
	while (held-- > 0)
		if (digest_parse(partitions[held].digest, &d, &e) == 0)
			mount_unref(w->agent->node->mounts, &d);
}

/* The folder says whether it is suspended. */
static void settle_memory(const struct node *n, struct record *r)
{
	struct report *report = r->truth.report;
	struct err e = { 0 };
	bool there = suspend_is_there(r);

	suspend_pack_clean(r);
	r->pack_due_ms = there ? suspend_pack_due(n, r) : 0;
	if (there == (report->state == STATE_SUSPENDED)) {
		if (!there && suspend_discard(r, &e) < 0) /* what a run left behind */
			log_error(&e, "workspace %s", r->id);
		return;
	}
	if (there && r->wish.origin && !report->run) /* a clone that has its memory */
		report->run = r->wish.run;
	report->state = there ? STATE_SUSPENDED : STATE_STOPPED;
	if (!there) {
		(void)err_set(&e, ERR_CORRUPT, "the memory state is gone");
		record_set_error(r, "resume", &e);
		log_error(&e, "workspace %s", r->id);
	}
}

/* The runner of a workspace that was live: connected to again, or gone. */
static void find_runner(struct workspace *w)
{
	struct record *r = w->record;
	struct report *report = r->truth.report;
	struct isolate_status status = { 0 };
	int control = -1;

	if (!state_is_live((enum state)report->state) || r->truth.restart_waits) {
		struct err e = { 0 }; /* the agent may have ended between writing the truth and cleaning up after the run */
		if (isolate_undo(w->agent->node, r->id, &e) < 0 || isolate_limits_undo(w->agent->node, r->id, &e) < 0)
			log_error(&e, "workspace %s", r->id);
		settle_memory(w->agent->node, r);
		return;
	}
	bool here = str_eq(r->truth.boot_id, boot_id()) && isolate_status(w->agent->node, r->id, &status, NULL) == 0 &&
		    status.run == report->run && isolate_connect(w->agent->node, r->id, &control, NULL) == 0;
	if (!here) {
		w->gone = true;
		return;
	}
	/* the runner goes on when its agent goes; if it ends instead, it is reaped as suspended */
	if (report->state == STATE_SUSPENDING)
		report->state = status.paused ? STATE_PAUSED : STATE_RUNNING;
	r->untidy = true; /* what it came from may still be there, if it came from memory */
	agent_watch(w, control);
	report->pid = status.pid;
	networks_adopt(w->agent->node->networks, &r->wish, report);
	(void)!isolate_freeze_volumes(w->agent->node, r, false, NULL); /* a snapshot may have been under way */
	if (report->state == STATE_STARTING || report->state == STATE_STOPPING) /* a stop is then said again */
		report->state = r->wish.wish == WISH_PAUSED && report->state == STATE_STARTING ? STATE_PAUSED : STATE_RUNNING;
}

/* The wish is known: goes on where the last agent ended. */
void agent_settle(struct workspace *w)
{
	struct record *r = w->record;
	struct err e = { 0 };

	if (r->lost_truth) {
		struct isolate_status status;
		record_presume(r);
		if (isolate_status(w->agent->node, r->id, &status, NULL) == 0)
			r->truth.report->run = status.run;
	}
	if (restore_recover(w->agent->node, r, &e) < 0)
		log_error(&e, "workspace %s: restore", r->id);
	clean_unfinished(r);
	if (record_read_snapshots(r, &e) < 0)
		log_error(&e, "workspace %s", r->id);
	hold_partitions(w);
	find_runner(w);
	mark_ids(w);
	if (r->truth.restart_waits)
		agent_restart_later(w);
}

static void load_one(struct agent *a, const char *id)
{
	struct record *r = NULL;
	struct err e = { 0 };

	if (record_load(a->node->workspaces, id, &r, &e) < 0)
		return; /* there was nothing */
	if (r->trouble)
		log_error(r->trouble, "workspace %s: %s", id,
			  r->lost_wish ? "waits for the service's copy of its wish" : "it is as was wished, or has ended");
	struct workspace *w = agent_add(a, r);
	if (r->lost_wish)
		mark_ids(w);
	else
		agent_settle(w);
}

int agent_load(struct agent *a, struct err *e)
{
	own_dir DIR *dir = opendir(a->node->workspaces);

	if (!dir)
		return err_errno(e, errno, "read %s", a->node->workspaces);
	struct dirent *entry;
	int r;
	while ((r = fs_next_entry(dir, &entry, e)) > 0)
		if (id_valid(entry->d_name))
			load_one(a, entry->d_name);
	return r < 0 ? err_wrap(e, "%s", a->node->workspaces) : 0;
}
