/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. A snapshot is a folder SID with the volumes' copies; it is made as SID.new and gets its name when all
 * copies are whole and synced.
 *
 * A restore copies each volume of the snapshot to PATH.restored, beside the volume. When all are there, synced with their
 * folders, the journal says "begin restore-N": from then on the restore will happen. The copies are renamed over the volumes,
 * the folders synced, and the truth counts the restore, which empties the journal. Before that line a crash leaves files that
 * the next agent removes; after it the next agent renames what is still beside its volume. A full disk can only end the
 * copying, so it changes nothing.
 *
 * A snapshot with memory has a folder as suspend.h describes it, made while the machine stands; a restore puts it beside the
 * workspace's and renames it after the volumes.
 *
 * The volumes are locked from the first copy to the end of renaming: a kept volume may be in use by another workspace of its
 * owner.
 */
#include "node/snapshot.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/fs.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"
#include "node/disk.h"
#include "node/suspend.h"
#include "node/suspend_machine.h"
#include "store/volume.h"

static int copy_progress(void *data, uint64_t done, uint64_t total)
{
	struct work *w = data;
	w->progress_done = done;
	w->progress_total = total;
	w->tell(w);
	return 0;
}

/* --- snapshots --- */

static int copy_all_out(struct work *w, const char *folder, struct err *e)
{
	struct disk_volume v = { 0 };
	int r = 0;

	for (size_t i = 0; r == 0 && disk_next_volume(w->record, w->node->kept, i, &v); i++) {
		own_str char *copy = mem_printf("%s/%s.ext4", folder, v.name);
		r = volume_copy(v.path, copy, copy_progress, w, e);
	}
	free(v.path);
	return r < 0 ? r : fs_sync_folder(folder, e);
}

/* Memory and volumes of one instant; it goes on afterwards, whatever comes of it. */
static int copy_living(struct work *w, const char *folder, bool brief, struct err *e)
{
	own_str char *memory = mem_printf("%s/" MEMORY_FOLDER, folder);
	struct memory_manifest m = { 0 };
	void *standing = NULL;
	int r = fs_mkdirs(memory, 0700, e);

	if (r == 0)
		r = suspend_begin_manifest(w, &m, e);
	if (r == 0)
		r = suspend_machine_copy_ram(w, memory, e);
	uint64_t begun_ms = loop_now_ms();
	if (r == 0)
		r = suspend_machine_stand(w, memory, &m, &standing, e);
	if (r == 0)
		r = copy_all_out(w, folder, e);
	if (r == 0)
		r = suspend_machine_update_ram(w, memory, e);
	suspend_machine_go_on(standing);
	log_info("workspace %s stood still for %llu ms for a snapshot with memory", w->record->id,
		 (unsigned long long)(loop_now_ms() - begun_ms));
	if (r == 0)
		r = suspend_machine_finish_copy(w->record, memory, !brief, &m, e);
	memory_manifest_done(&m);
	return r;
}

static int make_snapshot(struct work *w, const struct assignment_snapshot *wanted, struct err *e)
{
	const char *id = wanted->id;
	bool live = w->record->truth.report->state == STATE_RUNNING || w->record->truth.report->state == STATE_PAUSED;
	own_str char *folder = record_path(w->record, "snapshots");
	own_str char *final = mem_printf("%s/%s", folder, id), *unfinished = mem_printf("%s.new", final);
	/* a machine that stands has written everything that it was told to (QEMU: vm_stop) */
	bool paused = w->record->truth.report->state == STATE_PAUSED && !isolate_is_machine(&w->record->wish) &&
		      !wanted->memory;
	int fault, r = fs_mkdirs(unfinished, 0700, e);

	if (r == 0 && paused)
		r = isolate_freeze_volumes(w->node, w->record, true, e);
	if (r == 0 && wanted->memory)
		r = live ? copy_living(w, unfinished, wanted->brief, e) :
			   err_set(e, ERR_CONFLICT, "the workspace does not run: it has no memory to keep");
	else if (r == 0)
		r = copy_all_out(w, unfinished, e);
	if (paused) {
		struct err ignored;
		int thawed = isolate_freeze_volumes(w->node, w->record, false, r < 0 ? &ignored : e);
		r = r < 0 ? r : thawed;
	}
	if (r == 0 && (fault = fault_point("snapshot-rename")))
		r = err_errno(e, fault, "finish");
	if (r == 0 && rename(unfinished, final) < 0)
		r = err_errno(e, errno, "rename %s", unfinished);
	if (r < 0)
		(void)!fs_remove_tree(AT_FDCWD, unfinished, NULL);
	else
		r = fs_sync_folder(folder, e);
	return r < 0 ? err_wrap(e, "make snapshot %s", id) : 0;
}

static int drop_snapshots(struct work *w, struct err *e)
{
	const struct texts *have = &w->record->truth.report->snapshots;
	own_str char *folder = record_path(w->record, "snapshots");
	own_fd int fd = -1;
	int r = have->count ? fs_open_dir(AT_FDCWD, folder, &fd, e) : 0;

	for (size_t k = 0; k < have->count && r == 0; k++) {
		if (assignment_wants_snapshot(&w->record->wish, have->items[k]))
			continue;
		own_str char *gone = mem_printf("%s.new", have->items[k]);
		if (renameat(fd, have->items[k], fd, gone) < 0)
			return err_errno(e, errno, "remove snapshot %s", have->items[k]);
		r = fs_remove_tree(fd, gone, e);
	}
	return r;
}

int snapshots_do(struct work *w, const struct assignment_snapshot *missing, struct err *e)
{
	int fault = fault_point("snapshot-begin");
	int r = fault ? err_errno(e, fault, "snapshot") : drop_snapshots(w, e);

	if (r == 0 && missing)
		r = make_snapshot(w, missing, e);
	if (r == 0 && (fault = fault_point("snapshot-end")))
		r = err_errno(e, fault, "snapshot");
	return r;
}

/* --- restores --- */

static char *restored_path(const char *volume) { return mem_printf("%s.restored", volume); }

static int sync_parent(const char *path, struct err *e)
{
	own_str char *folder = mem_printf("%.*s", (int)(strrchr(path, '/') - path), path);
	return fs_sync_folder(folder, e);
}

static void forget_copies(const struct node *n, const struct record *r)
{
	own_str char *memory = record_path(r, MEMORY_RESTORED);
	struct disk_volume v = { 0 };

	if (fs_exists(AT_FDCWD, memory))
		(void)!fs_remove_tree(AT_FDCWD, memory, NULL);

	for (size_t i = 0; disk_next_volume(r, n->kept, i, &v); i++) {
		own_str char *restored = restored_path(v.path);
		(void)unlink(restored);
	}
}

/* A volume that was added since the snapshot stays as it is. */
static int copy_all_in(struct work *w, const char *folder, int *locks, struct err *e)
{
	struct disk_volume v = { 0 };
	int fault, r = 0;

	for (size_t i = 0; r == 0 && disk_next_volume(w->record, w->node->kept, i, &v); i++) {
		own_str char *copy = mem_printf("%s/%s.ext4", folder, v.name), *restored = restored_path(v.path);
		if (!fs_exists(AT_FDCWD, copy))
			continue;
		if (fs_exists(AT_FDCWD, v.path))
			r = volume_open(v.path, &locks[i], e);
		if (r == 0)
			r = volume_copy(copy, restored, copy_progress, w, e);
		if (r == 0)
			r = sync_parent(restored, e);
		if (r == 0 && (fault = fault_point("restore-copied")))
			r = err_errno(e, fault, "restore volume %s", v.name);
	}
	free(v.path);
	return r;
}

/* The memory that goes with the volumes, bound to the restore that brings both back. */
static int copy_memory_in(struct work *w, const char *folder, struct err *e)
{
	own_str char *from = mem_printf("%s/" MEMORY_FOLDER, folder), *to = record_path(w->record, MEMORY_RESTORED);

	if (!fs_exists(AT_FDCWD, from))
		return 0;
	if (fs_exists(AT_FDCWD, to)) {
		int r = fs_remove_tree(AT_FDCWD, to, e);
		if (r < 0)
			return r;
	}
	return suspend_machine_copy_state(w, from, to, e);
}

/* In place of what there is: the memory of a stopped workspace is nothing. */
static int take_memory(const struct record *r, struct err *e)
{
	own_str char *from = record_path(r, MEMORY_RESTORED), *to = record_path(r, MEMORY_FOLDER);

	if (!fs_exists(AT_FDCWD, from))
		return 0;
	int done = suspend_discard(r, e);
	if (done == 0 && rename(from, to) < 0)
		done = err_errno(e, errno, "rename %s", from);
	return done < 0 ? done : fs_sync_folder(r->folder, e);
}

static int begin_renaming(struct record *r, struct err *e)
{
	own_str char *step = mem_printf("restore-%" PRIu64, r->wish.restore);
	int begun = record_begin(r, step, true, e);

	if (begun == 0)
		r->restoring = r->wish.restore;
	return begun;
}

int restore_do(struct work *w, struct err *e)
{
	struct record *r = w->record;
	const char *from = r->wish.restore_from ? r->wish.restore_from : "";
	own_str char *folder = mem_printf("%s/snapshots/%s", r->folder, from);
	size_t count = r->wish.spec->volumes.count + 2 + r->wish.image->partitions.count;
	own_str int *locks = mem_alloc_array(count, sizeof *locks);
	int fault = fault_point("restore-begin"), done = fault ? err_errno(e, fault, "restore") : 0;

	memset(locks, 0xff, count * sizeof *locks);
	if (done == 0 && (!*from || !fs_exists(AT_FDCWD, folder)))
		done = err_set(e, ERR_NOT_FOUND, "snapshot %s is not on this host", from);
	if (done == 0)
		done = copy_all_in(w, folder, locks, e);
	if (done == 0)
		done = copy_memory_in(w, folder, e);
	if (done == 0 && (fault = fault_point("restore-commit")))
		done = err_errno(e, fault, "restore");
	if (done == 0)
		done = begin_renaming(r, e);
	if (done < 0)
		forget_copies(w->node, r);
	else
		done = restore_finish(w->node, r, e);
	for (size_t i = 0; i < count; i++)
		own_close(&locks[i]);
	return done;
}

int restore_finish(const struct node *n, struct record *r, struct err *e)
{
	struct disk_volume v = { 0 };
	int fault, done = 0;

	for (size_t i = 0; done == 0 && disk_next_volume(r, n->kept, i, &v); i++) {
		own_str char *restored = restored_path(v.path);
		if (rename(restored, v.path) < 0) {
			if (errno != ENOENT)
				done = err_errno(e, errno, "rename %s", restored);
			continue;
		}
		done = sync_parent(v.path, e);
		if (done == 0 && (fault = fault_point("restore-renamed")))
			done = err_errno(e, fault, "restore %s", v.path);
	}
	free(v.path);
	if (done == 0)
		done = take_memory(r, e);
	if (done < 0)
		return done;
	if (r->truth.report->restore < r->restoring)
		r->truth.report->restore = r->restoring;
	r->restoring = 0;
	r->unsaved = r->must_sync = true;
	return 0;
}

int restore_recover(const struct node *n, struct record *r, struct err *e)
{
	if (r->restoring)
		return restore_finish(n, r, e);
	if (r->wish.spec)
		forget_copies(n, r);
	return 0;
}
