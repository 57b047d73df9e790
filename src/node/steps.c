/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. A step is a row of the table below. `do` may find that it was done already (after a crash, or because
 * the workspace starts again) and then only fills in what later steps need: open volumes, mount points. `undo` may find nothing
 * to do. So a row needs no memory of its own; the journal only tells a restarted agent that an interrupted action may have left
 * something.
 *
 * What a failed action undoes is what this very action made: a start that fails takes limits and runner away and leaves
 * volumes, which may hold a user's data from earlier runs; a first preparation that fails takes its volumes and ids away too. A
 * workspace that failed is prepared again when it is asked for again: that is no first preparation.
 */
#include "node/steps.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/fs.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"
#include "node/clone.h"
#include "node/disk.h"
#include "node/network.h"
#include "node/refill.h"
#include "store/check.h"

struct step {
	const char *name;
	unsigned actions; /* bits of enum action */
	int (*run)(struct work *w, struct err *e);
	int (*undo)(struct work *w, struct err *e);
	bool undo_on_failed_start;
	const char *undo_text;
	json_t *(*plan)(const struct node *n, const struct assignment *a);
};

#define IN(action) (1U << ACTION_##action)

/* --- stage: partitions on this host, verified and mounted --- */

static void stage_progress(void *data, uint64_t done, uint64_t total)
{
	struct work *w = data;
	w->progress_done = done;
	w->progress_total = total;
	w->tell(w);
}

static void unref_first(struct work *w, size_t count)
{
	const struct image_partition *partitions = w->record->wish.image->partitions.items;
	struct digest d;

	for (size_t i = 0; i < count; i++)
		if (digest_parse(partitions[i].digest, &d, NULL) == 0)
			mount_unref(w->node->mounts, &d);
}

static int stage_kernel(struct work *w, struct err *e)
{
	const struct assignment_kernel *kernel = w->record->wish.kernel;
	struct digest d;

	if (!kernel) /* the launch says so */
		return 0;
	int r = digest_parse(kernel->digest, &d, e);
	if (r == 0)
		r = mount_take_over(w->node->config.store, &d, stage_progress, w, &w->parts.kernel_fd, e);
	if (r < 0)
		return err_wrap(e, "kernel %s", kernel->name);
	w->parts.has_kernel = true;
	return 0;
}

/* A machine gets the files: nothing is mounted for it. */
static int stage_files(struct work *w, struct err *e)
{
	const struct image *image = w->record->wish.image;
	const struct image_partition *partitions = image->partitions.items;
	struct isolate_parts *parts = &w->parts;

	parts->lowers = mem_alloc_array(image->partitions.count + 1, sizeof *parts->lowers);
	parts->partition_fds = mem_alloc_array(image->partitions.count + 1, sizeof *parts->partition_fds);
	for (size_t i = 0; i < image->partitions.count; i++) {
		struct digest d;
		int r = digest_parse(partitions[i].digest, &d, e);
		if (r == 0)
			r = mount_take_over(w->node->config.store, &d, stage_progress, w, &parts->partition_fds[i], e);
		if (r < 0)
			return r;
		parts->lowers[i] = mem_strdup(partitions[i].digest);
		parts->lower_count++;
	}
	return stage_kernel(w, e);
}

static int stage_run(struct work *w, struct err *e)
{
	const struct image *image = w->record->wish.image;
	const struct image_partition *partitions = image->partitions.items;
	struct isolate_parts *parts = &w->parts;

	if (parts->lowers)
		return 0;
	if (isolate_is_machine(&w->record->wish))
		return stage_files(w, e);
	if (disk_is_one(&w->record->wish)) {
		(void)err_set(e, ERR_INVALID, "the image is a disk, which only a machine can boot");
		return err_hint(e, "use engine emulator or kvm, or leave it out");
	}
	parts->lowers = mem_alloc_array(image->partitions.count + 1, sizeof *parts->lowers);
	for (size_t i = 0; i < image->partitions.count; i++) {
		struct digest d;
		int r = digest_parse(partitions[i].digest, &d, e);
		if (r == 0)
			r = mount_ref(w->node->mounts, &d, stage_progress, w, &parts->lowers[i], e);
		if (r < 0) {
			if (!w->record->staged)
				unref_first(w, i);
			return r;
		}
		parts->lower_count++;
	}
	if (w->record->staged) /* held already: only the paths were wanted */
		unref_first(w, image->partitions.count);
	w->record->staged = true;
	return 0;
}

static int stage_undo(struct work *w, struct err *e)
{
	(void)e;
	steps_unstage(w);
	return 0;
}

void steps_unstage(struct work *w)
{
	if (w->record->staged && w->record->wish.image)
		unref_first(w, w->record->wish.image->partitions.count);
	w->record->staged = false;
}

static json_t *stage_plan(const struct node *n, const struct assignment *a)
{
	const struct image_partition *partitions = a->image->partitions.items;
	json_t *lines = json_array();

	for (size_t i = 0; i < a->image->partitions.count; i++) {
		const char *colon = strchr(partitions[i].digest, ':');
		const char *hex = colon ? colon + 1 : "";
		json_t *line = isolate_is_machine(a) ?
				       json_sprintf("take %s/partitions/sha256/%s as a disk", n->config.store, hex) :
				       json_sprintf("mount %s/partitions/sha256/%s (erofs, read-only) at %s/%s",
						    n->config.store, hex, n->partitions, hex);
		(void)json_array_append_new(lines, line);
	}
	if (isolate_is_machine(a) && a->kernel)
		(void)json_array_append_new(lines, json_sprintf("boot kernel %s (%s)", a->kernel->name, a->kernel->release));
	return lines;
}

/* --- ids: a range of user and group ids of its own --- */

static int ids_run(struct work *w, struct err *e)
{
	if (w->record->truth.first_id)
		return 0;
	return ids_take(w->node->ids, &w->record->truth.first_id, e);
}

static int ids_undo(struct work *w, struct err *e)
{
	(void)e;
	ids_give_back(w->node->ids, w->record->truth.first_id);
	w->record->truth.first_id = 0;
	return 0;
}

static json_t *ids_plan(const struct node *n, const struct assignment *a)
{
	(void)a;
	return json_pack("[o]", json_sprintf("take a free range of 65536 ids from %" PRIu64 " on", n->config.first_id));
}

/* --- volumes: taken from blanks, grown, opened and locked --- */

static uint64_t wanted_bytes(const struct assignment *a, const struct spec_volume *v)
{
	uint64_t bytes = v ? v->size_bytes : spec_resources_or_default(a->spec).disk_bytes;
	return (bytes + 4095) / 4096 * 4096;
}

static int make_kept_folder(const struct work *w, struct err *e)
{
	own_str char *path = mem_printf("%s/%" PRIu64, w->node->kept, w->record->wish.owner_uid);
	return fs_mkdirs(path, 0700, e);
}

/* The kernel lets go of the loop device of a run that just ended a moment after its last process, so that is waited for. */
static int open_volume(const char *path, int *ret_fd, struct err *e)
{
	int r = volume_open(path, ret_fd, e);

	for (int tries = 0; r == -EBUSY && tries < 10000; tries++) {
		(void)poll(NULL, 0, 1);
		r = volume_open(path, ret_fd, e);
	}
	return r;
}

/* Before this host's kernel, or a program of this host, reads what a guest's kernel wrote. */
static int trust_volume(struct work *w, const char *path, const char *name, struct err *e)
{
	unsigned how = w->node->config.guest_volumes;
	own_fd int fd = -1;
	int r = open_volume(path, &fd, e);

	if (r == 0 && how == GUEST_VOLUMES_REFUSED)
		r = err_set(e, ERR_DENIED, "this host mounts none (guest-volumes: refused)");
	if (r == 0) {
		w->step = how == GUEST_VOLUMES_COPIED ? "copy-volume" : "check-volume";
		w->tell(w);
		r = how == GUEST_VOLUMES_COPIED ? refill_volume(w, path, str_eq(name, "root"), e) : check_volume(fd, e);
		w->step = "volumes";
	}
	if (r < 0) {
		(void)err_wrap(e, "a machine wrote volume %s, and it is not mounted here", name);
		return err_hint(e, "its data is untouched: carrel move it back to the engine it ran under, and copy what is "
				   "needed out with carrel cp");
	}
	if (how != GUEST_VOLUMES_COPIED) /* else another file is there now, which no guest has written */
		r = volume_set_of_guest(fd, false, e);
	if (r >= 0) {
		free(w->record->truth.report->notice);
		w->record->truth.report->notice = mem_strdup(how == GUEST_VOLUMES_COPIED ?
			"what its machine had written was copied into a new volume by a helper machine" :
			"what its machine had written was checked (e2fsck) before this host mounted it");
	}
	return r;
}

/* A volume that is there, for the host: whole, and of the right size. */
static int ready_for_host(struct work *w, const char *path, const char *name, uint64_t wanted, struct err *e)
{
	uint64_t size = 0, used, inside = 0;
	int r = volume_is_of_guest(path) ? trust_volume(w, path, name, e) : 0;

	if (r >= 0)
		r = volume_measure(path, &size, &used, e);
	if (r >= 0)
		r = volume_file_system_bytes(path, &inside, e);
	if (r >= 0 && (size < wanted || inside < size))
		r = volume_grow(path, size < wanted ? wanted : size, e);
	return r;
}

/* For a machine: what its guest wrote, no program of the host's reads; its guest grows it. From here on it is the guest's. */
static int ready_for_guest(struct work *w, const char *path, const char *name, uint64_t wanted, struct err *e)
{
	uint64_t size = 0, used;
	own_fd int fd = -1;
	int r = volume_is_of_guest(path) ? volume_measure(path, &size, &used, e) : ready_for_host(w, path, name, wanted, e);

	if (r >= 0 && size && size < wanted)
		r = volume_grow_file(path, wanted, e);
	if (r >= 0)
		r = open_volume(path, &fd, e);
	return r < 0 ? r : volume_set_of_guest(fd, true, e);
}

static int volume_run(struct work *w, const struct spec_volume *v, struct isolate_volume *out, struct err *e)
{
	const struct assignment *a = &w->record->wish;
	const char *name = v ? v->name : "root";
	uint64_t wanted = wanted_bytes(a, v);
	bool machine = isolate_is_machine(a);

	out->spec = v;
	out->fd = -1;
	out->mount = (struct volume_mount){ -1, -1 };
	out->path = record_volume_path(w->record, w->node->kept, v);
	own_str char *copy = clone_volume(w->node, w->record, out->path, name);
	if (!v && !machine && !copy && !fs_exists(AT_FDCWD, out->path) &&
	    ready_volume(w->node->ready, wanted, a->spec->remove_on_exit, out->path, &out->fd, &out->mount))
		return 0;
	int r = v && v->keep ? make_kept_folder(w, e) : 0;
	if (r == 0 && copy)
		r = volume_copy(copy, out->path, NULL, NULL, e);
	else if (r == 0)
		r = volume_make(w->node->pool, v ? VOLUME_DATA : VOLUME_ROOT, wanted, out->path, e);
	if (r >= 0)
		r = machine ? ready_for_guest(w, out->path, name, wanted, e) : ready_for_host(w, out->path, name, wanted, e);
	if (r >= 0)
		r = open_volume(out->path, &out->fd, e);
	return r < 0 ? err_wrap(e, "volume %s", name) : 0;
}

/* In place of the root volume: the workspace's own disk above its image's, with what belongs to it. */
static int disk_run(struct work *w, struct isolate_volume *out, struct err *e)
{
	int r = disk_make(w->record, wanted_bytes(&w->record->wish, NULL), e);

	out->fd = -1;
	out->mount = (struct volume_mount){ -1, -1 };
	out->path = record_volume_path(w->record, w->node->kept, NULL);
	if (r >= 0)
		r = open_volume(out->path, &out->fd, e);
	if (r >= 0)
		r = disk_open_files(w->record, &w->parts.disk, e);
	return r < 0 ? err_wrap(e, "the disk") : 0;
}

static int volumes_run(struct work *w, struct err *e)
{
	const struct objects *wanted = &w->record->wish.spec->volumes;
	const struct spec_volume *specs = wanted->items;
	own_str char *folder = record_path(w->record, "volumes");
	int r = fs_mkdirs(folder, 0700, e);

	if (w->parts.volume_count || r < 0)
		return r;
	w->parts.volumes = mem_alloc_array(wanted->count + 1, sizeof *w->parts.volumes);
	for (size_t i = 0; i <= wanted->count && r == 0; i++, w->parts.volume_count++)
		r = i == 0 && disk_is_one(&w->record->wish) ?
			    disk_run(w, &w->parts.volumes[i], e) :
			    volume_run(w, i == 0 ? NULL : &specs[i - 1], &w->parts.volumes[i], e);
	return r;
}

static int volumes_undo(struct work *w, struct err *e)
{
	own_fd int fd = -1;

	own_str char *root = record_volume_path(w->record, w->node->kept, NULL);
	isolate_parts_done(&w->parts);
	(void)ready_take_back(w->node->ready, root);
	int r = fs_open_dir(AT_FDCWD, w->record->folder, &fd, e);
	if (r == -ENOENT)
		return 0;
	return r < 0 ? r : fs_remove_tree(fd, "volumes", e);
}

static json_t *volumes_plan(const struct node *n, const struct assignment *a)
{
	const struct spec_volume *volumes = a->spec->volumes.items;
	json_t *lines = json_array();
	char size[16];

	(void)json_array_append_new(lines,
				    json_sprintf("root volume of %s", str_bytes(size, sizeof size, wanted_bytes(a, NULL))));
	for (size_t i = 0; i < a->spec->volumes.count; i++)
		(void)json_array_append_new(lines, json_sprintf("%s volume %s of %s for %s%s", volumes[i].keep ? "kept" : "new",
								volumes[i].name,
								str_bytes(size, sizeof size, wanted_bytes(a, &volumes[i])),
								volumes[i].mount, volumes[i].read_only ? ", read-only" : ""));
	(void)n;
	return lines;
}

/* --- network: bridges, rules and names; the ports themselves are made with the namespace --- */

static int network_run(struct work *w, struct err *e)
{
	if (!w->record->wish.attachments.count || w->parts.interfaces)
		return 0;
	return networks_attach(w->node->networks, &w->record->wish, &w->parts, e);
}

/* What is on its way to another engine keeps its connections. */
static int network_undo(struct work *w, struct err *e)
{
	if (w->record->truth.stands_since_ms)
		return networks_leave(w->node->networks, w->record->id, e);
	return networks_detach(w->node->networks, w->record->id, e);
}

/* --- limits and launch --- */

static int limits_run(struct work *w, struct err *e) { return isolate_limits(w->node, w->record, &w->parts, e); }
static int limits_undo(struct work *w, struct err *e) { return isolate_limits_undo(w->node, w->record->id, e); }

static int launch_run(struct work *w, struct err *e)
{
	bool paused = w->record->wish.wish == WISH_PAUSED;
	uint64_t *pid = &w->record->truth.report->pid;
	int r = isolate_start(w->node, w->record, &w->parts, paused, false, pid, e);

	return r < 0 ? r : networks_running(w->node->networks, w->record->id, *pid, e);
}

static int launch_undo(struct work *w, struct err *e) { return isolate_undo(w->node, w->record->id, e); }

/* --- the one table --- */

static const struct step steps[] = {
	{ "stage", IN(STAGE) | IN(START), stage_run, stage_undo, true, "unmount partitions that nobody uses", stage_plan },
	{ "ids", IN(PREPARE) | IN(START), ids_run, ids_undo, false, "give the range back", ids_plan },
	{ "volumes", IN(PREPARE) | IN(START), volumes_run, volumes_undo, false, "remove volumes that are not kept",
	  volumes_plan },
	{ "network", IN(START), network_run, network_undo, true, "take rules and names away; the ports go with the namespace",
	  networks_plan },
	{ "limits", IN(START), limits_run, limits_undo, true, "remove the cgroups", isolate_limits_plan },
	{ "launch", IN(START), launch_run, launch_undo, true, "kill runner and processes", isolate_plan },
};

static int run_step(struct work *w, const struct step *s, struct err *e)
{
	own_str char *before = mem_printf("%s-begin", s->name), *after = mem_printf("%s-end", s->name);
	int r = record_begin(w->record, s->name, false, e), fault;

	if (r < 0)
		return r;
	w->step = s->name;
	if ((fault = fault_point(before)))
		return err_errno(e, fault, "%s", s->name);
	r = s->run(w, e);
	if (r >= 0 && (fault = fault_point(after)))
		r = err_errno(e, fault, "%s", s->name);
	return r < 0 ? r : 0;
}

int steps_do(struct work *w, enum action action, const char **ret_step, struct err *e)
{
	own_str char *volumes = record_path(w->record, "volumes");
	/* else they may hold a user's data, whatever state it is in */
	bool first = action != ACTION_START && !fs_exists(AT_FDCWD, volumes);
	size_t at;
	int r = 0;

	for (at = 0; at < ARRAY_SIZE(steps) && r == 0; at++)
		if (steps[at].actions & (1U << action))
			r = run_step(w, &steps[at], e);
	if (r == 0) {
		w->step = NULL;
		return 0;
	}
	*ret_step = steps[at - 1].name;
	while (at-- > 0) {
		struct err ignored = { 0 };
		bool ours = (steps[at].actions & (1U << action)) && (first || steps[at].undo_on_failed_start);
		if (ours && steps[at].undo(w, &ignored) < 0)
			(void)err_wrap(e, "%s (and undoing %s: %s)", *ret_step, steps[at].name, ignored.message);
	}
	isolate_parts_done(&w->parts);
	w->step = NULL;
	return r;
}

int steps_undo_start(struct work *w, struct err *e)
{
	int r = 0;

	for (size_t at = ARRAY_SIZE(steps); at-- > 0 && r == 0;)
		if (steps[at].undo_on_failed_start)
			r = steps[at].undo(w, e);
	return r;
}

int steps_undo_all(struct work *w, struct err *e)
{
	int r = 0, fault;

	for (size_t at = ARRAY_SIZE(steps); at-- > 0 && r == 0;) {
		own_str char *before = mem_printf("%s-undo-begin", steps[at].name),
			     *after = mem_printf("%s-undo-end", steps[at].name);
		w->step = steps[at].name;
		if ((fault = fault_point(before)))
			return err_errno(e, fault, "undo %s", steps[at].name);
		r = steps[at].undo(w, e);
		if (r == 0 && (fault = fault_point(after)))
			return err_errno(e, fault, "undo %s", steps[at].name);
	}
	w->step = NULL;
	return r;
}

int steps_maintain(struct work *w, struct err *e)
{
	uint64_t pid = 0;

	if (disk_is_one(&w->record->wish)) {
		(void)err_set(e, ERR_UNSUPPORTED, "the workspace boots a disk as it is, whose files nobody reads from outside");
		return err_hint(e, "start it, and copy over its network");
	}
	int r = stage_run(w, e);
	if (r == 0)
		r = ids_run(w, e);
	if (r == 0)
		r = volumes_run(w, e);
	if (r == 0)
		r = limits_run(w, e);
	if (r == 0)
		r = isolate_start(w->node, w->record, &w->parts, false, true, &pid, e);
	isolate_parts_done(&w->parts);
	if (r < 0) {
		struct err ignored = { 0 };
		(void)!steps_undo_start(w, &ignored);
	}
	return r;
}

/* A kernel of its own grows what it has mounted. What it cannot, the next start does: the file has its size then. */
static int grow_machine(struct work *w, size_t number, uint64_t bytes)
{
	struct err why = { 0 };

	if (isolate_grow_machine(w->node, w->record, number, bytes, &why) >= 0)
		return 0;
	log_error(&why, "workspace %s: disk %zu grows at the next start", w->record->id, number);
	return 1;
}

static int grow_root_disk(struct work *w, bool live, struct err *e)
{
	uint64_t wanted = wanted_bytes(&w->record->wish, NULL);
	int r = disk_grow(w->record, wanted, live, e);

	if (r < 0)
		return err_wrap(e, "the disk");
	return r > 0 ? grow_machine(w, 0, disk_root_bytes(w->record, wanted)) : 0;
}

static int grow_volume(struct work *w, const struct spec_volume *v, size_t number, bool live, struct err *e)
{
	own_str char *path = record_volume_path(w->record, w->node->kept, v);
	struct isolate_volume volume = { .spec = v, .path = path, .fd = -1 };
	uint64_t size, used, bytes = wanted_bytes(&w->record->wish, v);
	int r = volume_measure(path, &size, &used, e);

	if (r == -ENOENT || (r == 0 && size >= bytes))
		return 0;
	if (r == 0 && live && isolate_ran_as_machine(w->record->truth.report))
		return grow_machine(w, number, bytes);
	if (r == 0 && !live && (isolate_is_machine(&w->record->wish) || volume_is_of_guest(path)))
		r = volume_grow_file(path, bytes, e); /* who mounts it next grows the file system */
	else if (r == 0)
		r = live ? isolate_grow_volume(w->node, w->record, &volume, bytes, e) : volume_grow(path, bytes, e);
	if (r == -EPERM || r == -EACCES)
		return 1;
	return r < 0 ? err_wrap(e, "volume %s", v ? v->name : "root") : 0;
}

int steps_grow(struct work *w, bool live, struct err *e)
{
	const struct objects *wanted = &w->record->wish.spec->volumes;
	const struct spec_volume *specs = wanted->items;
	bool disk = disk_is_one(&w->record->wish);
	int waits = 0, r = disk ? grow_root_disk(w, live, e) : grow_volume(w, NULL, 0, live, e);

	for (size_t i = 0; i < wanted->count && r >= 0; i++) {
		waits |= r;
		r = grow_volume(w, &specs[i], i + 1, live, e);
	}
	return r < 0 ? r : waits | r;
}

json_t *steps_plan(const struct node *n, const struct assignment *a)
{
	json_t *list = json_array();

	for (size_t at = 0; at < ARRAY_SIZE(steps); at++)
		(void)json_array_append_new(list, json_pack("{s:s, s:o, s:s}", "step", steps[at].name, "do",
							    steps[at].plan(n, a), "undo", steps[at].undo_text));
	return json_pack("{s:o}", "steps", list);
}
