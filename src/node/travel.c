/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. A machine whose workspace travels has three more disks:
 *
 *   tools    EROFS, one for kernel, CRIU and our programs together: what carrel-init becomes, and what it works with
 *   luggage  ext4, the machine's to write: its workspace's memory when it departs. Read by us only when the machine stands
 *            still, after the check that volumes of guests pass (store/check.h), and only what node/luggage.h says
 *   images   EROFS: the memory that the workspace goes on from; an empty file when it starts. Always there, because a machine
 *            that is suspended as a whole must find the devices that it had
 */
#include "node/travel.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"
#include "engine/qemu/arguments.h"
#include "engine/workspace/checkpoint.h"
#include "model/board.h"
#include "model/travel.h"
#include "node/checkpoint.h"
#include "node/luggage.h"
#include "node/travel_tools.h"
#include "store/check.h"
#include "store/erofs_writer.h"

#define FOLDER "travel"
#define LUGGAGE FOLDER "/luggage.ext4"
#define IMAGES FOLDER "/images.erofs"
#define LUGGAGE_MORE (UINT64_C(256) << 20) /* beside the memory */
#define EMPTY_BYTES (1 << 20)
#define BLOCK (1 << 20)

bool travel_is_wished(const struct assignment *a, bool maintenance)
{
	const struct machine_board *here = machine_board_here(),
				   *board = a->image && a->image->architecture ? machine_board(a->image->architecture) : here;

	return a->spec->travels && !maintenance && board == here && !(a->image && a->image->machine);
}

void travel_features(struct texts *ret_features)
{
	own_str char *flags = checkpoint_features();
	char *save = NULL;

	for (char *word = strtok_r(flags, " ", &save); word; word = strtok_r(NULL, " ", &save))
		if (travel_counts(word))
			texts_add(ret_features, word);
}

int travel_check(struct node *n, const struct record *r, const char *engine, struct err *e)
{
	const struct assignment *a = &r->wish;
	char version[CHECKPOINT_VERSION_SIZE];

	if (n->config.guest_volumes != GUEST_VOLUMES_CHECKED) {
		(void)err_set(e, ERR_DENIED,
			      "this host mounts nothing that a machine wrote (guest-volumes: %s), not even its memory",
			      n->config.guest_volumes == GUEST_VOLUMES_COPIED ? "copied" : "refused");
		return err_hint(e, "leave out --live: it is stopped, and started there");
	}
	if (!a->spec->travels) {
		(void)err_set(e, ERR_UNSUPPORTED, "workspace '%s' was not started to travel",
			      a->spec->name ? a->spec->name : a->id);
		return err_hint(e, "deploy it with --travels (travels: true), or leave out --live: it is stopped, and started "
				   "there");
	}
	if (!travel_is_wished(a, false))
		return err_set(e, ERR_UNSUPPORTED,
			       "what boots a disk, or is for another processor, cannot travel to the engine '%s'", engine);
	return checkpoint_probe(version, e);
}

/* --- the disks --- */

static int add_file(struct erofs_writer *w, int folder, const char *name, char *block, struct err *e)
{
	own_fd int fd = openat(folder, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	struct erofs_attributes a = { .mode = S_IFREG | 0644 };
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return err_errno(e, errno, "open the memory state's file %s", name);
	int r = erofs_begin_file(w, name, &a, (uint64_t)st.st_size, false, e);
	for (uint64_t at = 0; r >= 0 && at < (uint64_t)st.st_size;) {
		ssize_t got = pread(fd, block, BLOCK, (off_t)at);
		if (got <= 0)
			return err_errno(e, got < 0 ? errno : EIO, "read the memory state's file %s", name);
		r = erofs_add_data(w, at, block, (size_t)got, e);
		at += (uint64_t)got;
	}
	return r < 0 ? r : erofs_end_file(w, e);
}

static int make_images(const struct record *r, const struct memory_manifest *m, int fd, struct err *e)
{
	own_str char *path = record_path(r, MEMORY_FOLDER), *block = mem_alloc(BLOCK);
	own_erofs_writer struct erofs_writer *w = erofs_writer_new(fd, 0, &erofs_default_limits);
	const struct memory_file *files = m->files.items;
	own_fd int folder = -1;
	uint64_t size, inodes;
	int done = fs_open_dir(AT_FDCWD, path, &folder, e), fault = fault_point("travel-images");

	if (done == 0 && fault)
		done = err_errno(e, fault, "make the disk of images");
	for (size_t i = 0; done >= 0 && i < m->files.count; i++)
		done = add_file(w, folder, files[i].name, block, e);
	return done < 0 ? done : erofs_finish(w, &size, &inodes, e);
}

static bool arrives(const struct isolate_parts *parts) { return parts->memory && parts->memory->kind == MEMORY_CRIU; }

static int open_images(const struct record *r, const struct isolate_parts *parts, int *ret_fd, struct err *e)
{
	own_str char *path = record_path(r, IMAGES);
	bool goes_on = parts->memory && !arrives(parts);
	own_fd int fd = open(path, O_RDWR | O_CREAT | (goes_on ? 0 : O_TRUNC) | O_NOFOLLOW | O_CLOEXEC, 0600);
	struct stat st;
	int done = fd < 0 ? err_errno(e, errno, "make %s", path) : 0;

	if (done == 0 && arrives(parts))
		done = make_images(r, parts->memory, fd, e);
	if (done >= 0 && (fstat(fd, &st) < 0 || (st.st_size < EMPTY_BYTES && ftruncate(fd, EMPTY_BYTES) < 0)))
		done = err_errno(e, errno, "make %s", path);
	if (done < 0)
		return done;
	*ret_fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC); /* the machine may not write it */
	return *ret_fd < 0 ? err_errno(e, errno, "open %s", path) : 0;
}

static int open_luggage(struct node *n, const struct record *r, int *ret_fd, struct err *e)
{
	own_str char *path = record_path(r, LUGGAGE);
	uint64_t bytes = machine_memory(spec_resources_or_default(r->wish.spec).memory_bytes) + LUGGAGE_MORE;
	int done = volume_make(n->pool, VOLUME_DATA, bytes, path, e);

	if (done < 0 || (done = volume_open(path, ret_fd, e)) < 0)
		return err_wrap(e, "the luggage");
	return volume_set_of_guest(*ret_fd, true, e);
}

int travel_prepare(struct node *n, const struct record *r, const struct isolate_parts *parts, struct travel *ret_travel,
		   struct err *e)
{
	own_str char *folder = record_path(r, FOLDER), *memory = record_path(r, MEMORY_FOLDER);
	struct launch_travel *l = &ret_travel->launch;
	struct digest kernel;
	int done = digest_parse(r->wish.kernel ? r->wish.kernel->digest : "", &kernel, e);

	*ret_travel = (struct travel){ .launch = { .tools_fd = -1, .luggage_fd = -1, .images_fd = -1, .folder_fd = -1 } };
	if (done < 0 || (done = fs_mkdirs(folder, 0700, e)) < 0 ||
	    (done = travel_tools(n, &kernel, parts->kernel_fd, &l->tools_fd, e)) < 0 ||
	    (done = open_luggage(n, r, &l->luggage_fd, e)) < 0 || (done = open_images(r, parts, &l->images_fd, e)) < 0)
		return done;
	if (!arrives(parts))
		return 0;
	l->arrives = true;
	for (size_t i = 0; i < parts->memory->features.count; i++)
		if (travel_counts(parts->memory->features.items[i]))
			texts_add(&ret_travel->features, parts->memory->features.items[i]);
	texts_add(&ret_travel->features, NULL);
	l->features = (const char *const *)ret_travel->features.items;
	return fs_open_dir(AT_FDCWD, memory, &l->folder_fd, e);
}

int travel_ahead(struct work *w, struct err *e)
{
	const struct assignment *a = &w->record->wish;
	own_str char *folder = record_path(w->record, FOLDER);
	own_fd int kernel_fd = -1, tools_fd = -1, luggage_fd = -1;
	struct digest kernel;

	if (!isolate_is_machine(a))
		return 0;
	w->step = "ahead";
	w->tell(w);
	int fault = fault_point("travel-ahead"), r = digest_parse(a->kernel ? a->kernel->digest : "", &kernel, e);
	if (fault)
		r = err_errno(e, fault, "make a machine ready");
	if (r < 0 || (r = mount_take_over(w->node->config.store, &kernel, NULL, NULL, &kernel_fd, e)) < 0 ||
	    (r = fs_mkdirs(folder, 0700, e)) < 0 || (r = travel_tools(w->node, &kernel, kernel_fd, &tools_fd, e)) < 0 ||
	    (r = open_luggage(w->node, w->record, &luggage_fd, e)) < 0)
		return r;
	return isolate_make_template(w->node, w->record, kernel_fd, e);
}

void travel_done(struct travel *t)
{
	own_close(&t->launch.tools_fd);
	own_close(&t->launch.luggage_fd);
	own_close(&t->launch.images_fd);
	own_close(&t->launch.folder_fd);
	texts_done(&t->features);
	*t = (struct travel){ .launch = { .tools_fd = -1, .luggage_fd = -1, .images_fd = -1, .folder_fd = -1 } };
}

/* --- out of the luggage --- */

int travel_unpack(const struct record *r, int folder, struct memory_manifest *m, struct err *e)
{
	own_str char *path = record_path(r, LUGGAGE);
	struct volume_mount mount = { -1, -1 };
	own_fd int fd = open(path, O_RDWR | O_NOFOLLOW | O_CLOEXEC); /* the machine, which stands still, has its lock */
	struct stat st;
	int done = fd < 0 || fstat(fd, &st) < 0 ? err_errno(e, errno, "open the luggage") : 0;

	if (done == 0)
		done = check_volume(fd, e);
	if (done >= 0)
		done = volume_mount(fd, false, &mount, e);
	if (done >= 0) {
		own_fd int top = openat(mount.mount_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		done = top < 0 ? err_errno(e, errno, "open the luggage") :
				 luggage_take(top, folder, (uint64_t)st.st_size, m, e);
	}
	volume_mount_close(&mount);
	return done < 0 ? err_wrap(e, "what the machine wrote") : 0;
}
