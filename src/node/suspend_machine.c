/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. A machine's memory is MEMORY_RAM, a sparse file that QEMU maps shared: what the guest writes is the kernel's to put
 * on disk, now or at the suspend. So a suspend is: write back what is dirty while the guest runs, twice, so that little is
 * left; stop; write the device state; write back the rest; put the manifest in its place. The time in which the guest stands
 * still is that of the little rest.
 *
 * MEMORY_MACHINE is written at each start, with QEMU's version and the layout of the devices: the state fits to these and no
 * others, QEMU says of a wrong one at best that something is wrong, and what is installed may be newer than what runs.
 */
#include "node/suspend_machine.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/fs.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"
#include "engine/engine.h"
#include "engine/qemu/arguments.h"
#include "engine/qemu/size.h"
#include "model/board.h"
#include "engine/runner_client.h"
#include "node/disk.h"
#include "node/private_memory.h"
#include "node/processor.h"
#include "node/suspend.h"
#include "node/suspend_pack.h"
#include "node/template.h"
#include "store/volume.h"

#define ANSWER_MOST 65536

/* --- what this host has --- */

static const char *name_of(const char *program) { return strrchr(program, '/') + 1; }

static int machine_host(struct node *n, const struct memory_manifest *m, struct suspend_host *ret_host, struct err *e)
{
	const struct machine_board *board = machine_board(m->architecture);

	(void)n;
	if (!board)
		return err_set(e, ERR_UNSUPPORTED, "this host makes no machines of architecture %s", m->architecture);
	ret_host->has = (struct memory_host){ .architecture = board->architecture };
	if (!fs_exists(AT_FDCWD, board->program))
		return 0; /* "this host has none" */
	int r = emulator_get(board->program, &ret_host->emulator, e);
	if (r == 0)
		ret_host->has = (struct memory_host){ .architecture = board->architecture, .program = name_of(board->program),
						      .version = ret_host->emulator->version,
						      .machines = ret_host->emulator->machines,
						      .features = processor_here()->features };
	return r;
}

/* --- before a launch --- */

static int check_layout(const struct memory_manifest *m, const char *layout, struct err *e)
{
	if (m->layout && str_eq(m->layout, layout))
		return 0;
	(void)err_set(e, ERR_UNSUPPORTED, "the memory state is of a machine with other devices than this host would make now");
	return err_hint(e, "start without it: carrel stop --discard-memory");
}

static int note_machine(const struct record *r, const struct launch *l, const char *layout, int folder, struct err *e)
{
	const struct launch_machine *host = l->host_machine;
	struct launch_size size = machine_size(l);
	struct memory_file ram = { .name = (char[]){ MEMORY_RAM }, .length = size.memory_bytes };
	own_emulator const struct emulator *q = NULL;
	int done = emulator_get(host->board->program, &q, e);

	if (done < 0)
		return done;
	const struct memory_manifest m = {
		.format = MEMORY_FORMAT,
		.kind = MEMORY_QEMU,
		.engine = host->kvm ? ENGINE_KVM : ENGINE_EMULATOR,
		.workspace = (char *)(uintptr_t)r->id,
		.run = l->run,
		.taken_ms = unix_ms(),
		.architecture = (char *)(uintptr_t)host->board->architecture,
		.program = (char *)(uintptr_t)name_of(host->board->program),
		.version = (char *)(uintptr_t)q->version,
		.machine = (char *)(uintptr_t)host->type,
		.processor = (char *)(uintptr_t)host->processor,
		.features = host->features ? *host->features : (struct texts){ 0 },
		.layout = (char *)(uintptr_t)layout,
		.processors = size.processors,
		.memory_bytes = ram.length,
		.files = { &ram, 1 },
	};
	own_str char *text = memory_manifest_encode(&m);
	return fs_write_file(folder, MEMORY_MACHINE, text, strlen(text), 0600, false, e);
}

static int make_ram(int folder, uint64_t bytes, uid_t owner, struct err *e)
{
	own_fd int fd = openat(folder, MEMORY_RAM, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0 || ftruncate(fd, (off_t)bytes) < 0 || fchown(fd, owner, owner) < 0)
		return err_errno(e, errno, "make the machine's memory");
	return 0;
}

/* Of a clone that has not lived yet there is only what it begins from. */
static int take_ram(struct node *n, const struct record *r, int folder, uid_t owner, struct launch_memory *memory,
		    struct err *e)
{
	if (private_memory_is(folder) && !fs_exists(folder, MEMORY_RAM)) {
		memory->path = record_path(r, MEMORY_FOLDER "/" MEMORY_BASE);
		memory->private_shim = templates_shim(n->templates);
		memory->clone = r->wish.origin && r->wish.origin->number ? r->wish.origin->number : 1;
		if (fchmodat(folder, MEMORY_BASE, 0444, 0) < 0) /* for QEMU's user, also where a bundle brought it */
			return err_errno(e, errno, "open %s to QEMU", MEMORY_BASE);
	} else if (unlinkat(folder, MEMORY_BASE, 0) < 0 && errno != ENOENT) { /* of the run before */
		return err_errno(e, errno, "remove %s", MEMORY_BASE);
	}
	if (!memory->clone && fchownat(folder, MEMORY_RAM, owner, owner, AT_SYMLINK_NOFOLLOW) < 0)
		return err_errno(e, errno, "take the machine's memory");
	memory->state_fd = openat(folder, MEMORY_STATE, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	return memory->state_fd < 0 ? err_errno(e, errno, "open the machine's state") : 0;
}

/* A file of its own, or a template's, which stays as it is. */
static int new_memory(struct node *n, const struct launch *l, const char *path, int folder, bool templates,
		      struct launch_memory *memory, char **ret_notice, struct err *e)
{
	own_str char *base = mem_printf("%s/" MEMORY_BASE, path);

	(void)unlinkat(folder, MEMORY_BASE, 0);
	(void)unlinkat(folder, MEMORY_RAM, 0);
	if (templates && templates_take(n->templates, l, base, memory, ret_notice))
		return 0;
	return make_ram(folder, machine_size(l).memory_bytes, l->first_id + LAUNCH_IDS - 1, e);
}

/* What this host's processors cannot be is left to the spec, and then the devices do not fit. */
struct launch_size suspend_machine_size(const struct memory_manifest *m)
{
	return (struct launch_size){ m->processors <= MACHINE_PROCESSORS_MOST ? (unsigned)m->processors : 0, m->memory_bytes };
}

int suspend_machine_prepare(struct node *n, const struct record *r, const struct isolate_parts *parts, struct launch *l,
			    struct launch_machine *host, bool templates, struct launch_memory *ret_memory, char **ret_notice,
			    struct err *e)
{
	const struct memory_manifest *m = parts->memory && parts->memory->kind == MEMORY_QEMU ? parts->memory : NULL;
	own_str char *path = record_path(r, MEMORY_FOLDER);
	uid_t owner = l->first_id + LAUNCH_IDS - 1;
	char layout[DIGEST_TEXT_SIZE] = "";
	own_fd int folder = -1;

	if (l->maintenance || !l->engine->layout)
		return 0;
	if (m && m->machine)
		host->type = m->machine;
	if (m && m->processor) /* what the pool gives others since then does not matter */
		host->processor = m->processor;
	if (m)
		host->size = suspend_machine_size(m);
	int done = fs_mkdirs(path, 0700, e);
	if (done == 0)
		done = fs_open_dir(AT_FDCWD, path, &folder, e);
	if (done == 0)
		done = l->engine->layout(l, layout, e);
	if (done == 0 && m)
		done = check_layout(m, layout, e);
	if (done == 0 && !m)
		done = new_memory(n, l, path, folder, templates, ret_memory, ret_notice, e);
	if (done == 0 && !m)
		done = note_machine(r, l, layout, folder, e);
	if (done == 0 && m)
		done = take_ram(n, r, folder, owner, ret_memory, e);
	if (done < 0)
		return done;
	if (m)
		ret_memory->whole_fd = parts->whole;
	if (!ret_memory->path)
		ret_memory->path = mem_printf("%s/" MEMORY_RAM, path);
	ret_memory->folder_fd = TAKE_FD(folder);
	l->memory = ret_memory;
	return 0;
}

void suspend_machine_prepared(struct launch_memory *m)
{
	own_close(&m->folder_fd);
	own_close(&m->state_fd);
	free((char *)(uintptr_t)m->path);
	*m = (struct launch_memory){ .folder_fd = -1, .state_fd = -1 };
}

/* --- suspend --- */

/* The machine stands still as long as the connection is there. */
struct standing {
	int connection;
	uint64_t begun_ms;
};

static struct standing *standing_new(int connection, uint64_t begun_ms)
{
	struct standing *s = mem_alloc(sizeof *s);

	*s = (struct standing){ connection, begun_ms };
	return s;
}

static int machine_check(struct node *n, const struct record *r, struct err *e)
{
	own_str char *ram = record_path(r, MEMORY_FOLDER "/" MEMORY_RAM),
		     *machine = record_path(r, MEMORY_FOLDER "/" MEMORY_MACHINE),
		     *base = record_path(r, MEMORY_FOLDER "/" MEMORY_BASE);

	(void)n;
	if (disk_is_one(&r->wish) && machine_choose(r->wish.spec->machine, r->wish.image->machine).disk_bus == BUS_NVME) {
		(void)err_set(e, ERR_UNSUPPORTED, "QEMU cannot put the state of NVMe disks on disk");
		return err_hint(e, "a workspace with machine: {disk-bus: virtio} or sata can be suspended; carrel stop keeps "
				   "what is on the disks");
	}
	if ((fs_exists(AT_FDCWD, ram) || fs_exists(AT_FDCWD, base)) && fs_exists(AT_FDCWD, machine))
		return 0;
	(void)err_set(e, ERR_UNSUPPORTED, "the machine's memory is not in a file: an earlier version started it");
	return err_hint(e, "restart it once");
}

static int add_file(struct memory_manifest *m, int folder, const char *name, bool digest, struct err *e)
{
	struct memory_file *file;
	char text[DIGEST_TEXT_SIZE];
	struct digest d;
	struct stat st;
	own_fd int fd = openat(folder, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);

	if (fd < 0 || fstat(fd, &st) < 0)
		return err_errno(e, errno, "look at the file %s", name);
	int r = digest ? hash_fd(fd, &d, e) : 0;
	if (r < 0)
		return r;
	m->files.items = mem_grow_array(m->files.items, m->files.count + 1, sizeof *file);
	file = (struct memory_file *)m->files.items + m->files.count++;
	*file = (struct memory_file){ mem_strdup(name), (uint64_t)st.st_size,
				      digest ? mem_strdup(digest_text(&d, text)) : NULL };
	return 0;
}

/* Of what is known since the start. */
static int describe(const struct work *w, int folder, struct memory_manifest *m, struct err *e)
{
	own_strbuf struct str text = { 0 };
	struct memory_manifest started = { 0 };
	int done = fs_read_file(folder, MEMORY_MACHINE, ANSWER_MOST, &text, e);

	if (done == 0)
		done = memory_manifest_decode(str_text(&text), text.length, MEMORY_MACHINE, &started, e);
	if (done < 0)
		return done;
	free(m->architecture);
	m->kind = started.kind;
	m->engine = started.engine;
	m->architecture = TAKE(started.architecture);
	m->program = TAKE(started.program);
	m->version = TAKE(started.version);
	m->machine = TAKE(started.machine);
	m->processor = TAKE(started.processor);
	m->features = started.features;
	started.features = (struct texts){ 0 };
	m->layout = TAKE(started.layout);
	m->processors = started.processors;
	m->memory_bytes = started.memory_bytes;
	m->paused = w->record->truth.report->state == STATE_PAUSED;
	memory_manifest_done(&started);
	return 0;
}

static int sync_volume(char *path_taken, const char *name, struct err *e)
{
	own_str char *path = path_taken;
	own_fd int fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);

	return fd < 0 || fdatasync(fd) < 0 ? err_errno(e, errno, "write volume %s", name) : 0;
}

/* What is dirty of memory and volumes goes to the disk; while the guest runs it makes new dirt, but less. `ram` -1: memory that
 * is packed is never written as it is. */
static int write_back(const struct work *w, int ram, struct err *e)
{
	const struct objects *volumes = &w->record->wish.spec->volumes;
	const struct spec_volume *specs = volumes->items;
	const char *name;
	char *path;
	int r = 0;

	if (ram >= 0 && fdatasync(ram) < 0)
		return err_errno(e, errno, "write the machine's memory");
	for (size_t i = 0; i <= volumes->count && r == 0; i++) {
		path = record_volume_path(w->record, w->node->kept, i ? &specs[i - 1] : NULL);
		r = sync_volume(path, i ? specs[i - 1].name : "root", e);
	}
	for (size_t i = 1; r == 0 && (path = disk_file_path(w->record, i, &name)); i++)
		r = sync_volume(path, name, e);
	return r;
}

/* State and memory, and the seed of a machine that boots a disk. */
static int add_files(struct memory_manifest *m, const struct record *r, int folder, struct err *e)
{
	int done = add_file(m, folder, MEMORY_STATE, true, e);

	if (done == 0 && disk_is_one(&r->wish))
		done = add_file(m, folder, MEMORY_SEED, true, e);
	return done == 0 ? add_file(m, folder, MEMORY_RAM, false, e) : done;
}

/* Memory that is in QEMU's process comes to the file: all of it while the guest runs, and then what it has changed since. */
static int gather(const struct work *w, int folder, int *ret_ram, struct err *e)
{
	own_str char *path = record_path(w->record, MEMORY_FOLDER);
	own_str char *base = mem_printf("%s/" MEMORY_BASE, path), *ram = mem_printf("%s/" MEMORY_RAM, path);
	int r = 0;

	if (private_memory_is(folder) && (r = volume_copy(base, ram, NULL, NULL, e)) < 0)
		return r;
	own_fd int fd = openat(folder, MEMORY_RAM, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return err_errno(e, errno, "open the memory's file");
	if ((r = private_memory_update(folder, (pid_t)w->record->truth.report->pid, fd, e)) == 0)
		*ret_ram = TAKE_FD(fd);
	return r;
}

static struct memory_file *last_file(const struct memory_manifest *m)
{
	return (struct memory_file *)m->files.items + m->files.count - 1;
}

/* It stands still: nothing changes its files any more. What is packed is packed while the rest is written. */
static int finish_files(const struct work *w, int folder, int ram, int state, struct suspend_packing *packing,
			struct memory_manifest *m, struct err *e)
{
	int r = private_memory_update(folder, (pid_t)w->record->truth.report->pid, ram, e);

	if (r == 0 && packing)
		suspend_pack_go(packing);
	if (r == 0)
		r = write_back(w, packing ? -1 : ram, e);
	if (r == 0 && fdatasync(state) < 0)
		r = err_errno(e, errno, "write the machine's state");
	if (r == 0)
		r = add_files(m, w->record, folder, e);
	return r == 0 && packing ? suspend_pack_now(packing, last_file(m), e) : r;
}

/* So that little is left when it stands still. Who packs stands still for longer than that takes. */
static int write_ahead(const struct work *w, int ram, struct err *e)
{
	int r = 0;

	for (int i = 0; i < 2 && r == 0; i++)
		r = write_back(w, ram, e);
	return r;
}

static int machine_save(struct work *w, int folder, struct memory_manifest *m, void **ret_saved, struct err *e)
{
	own_str char *run = mem_printf("%s/%s", w->node->runs, w->record->id);
	own_fd int state = openat(folder, MEMORY_STATE, O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
	own_fd int connection = -1, ram = -1;
	struct suspend_packing *packing = NULL;

	if (state < 0)
		return err_errno(e, errno, "open the state's file");
	int r = gather(w, folder, &ram, e);
	if (r == 0)
		r = describe(w, folder, m, e);
	if (r == 0)
		r = suspend_packs_at_once(w->node) ? suspend_pack_ready(folder, MEMORY_RAM, m->taken_ms, &packing, e) :
						     write_ahead(w, ram, e);
	uint64_t begun_ms = loop_now_ms();
	if (r == 0)
		r = runner_suspend(run, folder, state, &connection, e);
	if (r == 0)
		r = finish_files(w, folder, ram, state, packing, m, e);
	suspend_packing_free(packing);
	if (r < 0)
		return r; /* the connection closes: it goes on */
	*ret_saved = standing_new(TAKE_FD(connection), begun_ms);
	return 0;
}

static void machine_abort(struct work *w, void *saved)
{
	struct standing *s = saved;

	(void)w;
	own_close(&s->connection);
	free(s);
}

static int machine_commit(struct work *w, int folder, void *saved, struct err *e)
{
	struct standing *s = saved;
	int r = runner_commit(s->connection, e);

	(void)folder;
	if (r == 0)
		log_info("workspace %s is suspended; it stood still for %llu ms before", w->record->id,
			 (unsigned long long)(loop_now_ms() - s->begun_ms));
	machine_abort(w, saved);
	return r;
}

/* --- snapshots --- */

int suspend_machine_stand(struct work *w, const char *folder, struct memory_manifest *m, void **ret_standing, struct err *e)
{
	own_str char *run = mem_printf("%s/%s", w->node->runs, w->record->id), *own = record_path(w->record, MEMORY_FOLDER);
	own_fd int to = -1, from = -1, state = -1, connection = -1;
	int r = machine_check(w->node, w->record, e);

	if (r == 0)
		r = fs_open_dir(AT_FDCWD, own, &from, e);
	if (r == 0)
		r = fs_open_dir(AT_FDCWD, folder, &to, e);
	if (r == 0)
		r = describe(w, from, m, e);
	if (r < 0)
		return r;
	state = openat(to, MEMORY_STATE, O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (state < 0)
		return err_errno(e, errno, "make the file for the machine's state");
	if ((r = runner_suspend(run, to, state, &connection, e)) < 0)
		return r;
	*ret_standing = standing_new(TAKE_FD(connection), loop_now_ms());
	return 0;
}

void suspend_machine_go_on(void *standing)
{
	if (standing)
		machine_abort(NULL, standing);
}

int suspend_machine_copy_ram(struct work *w, const char *folder, struct err *e)
{
	own_str char *own = record_path(w->record, MEMORY_FOLDER), *to = mem_printf("%s/" MEMORY_RAM, folder);
	own_str char *seed = mem_printf("%s/" MEMORY_SEED, own), *seed_to = mem_printf("%s/" MEMORY_SEED, folder);
	own_fd int fd = -1;
	int fault = fault_point("snapshot-memory"),
	    r = fault ? err_errno(e, fault, "copy the memory") : fs_open_dir(AT_FDCWD, own, &fd, e);

	if (r < 0)
		return r;
	own_str char *from = mem_printf("%s/%s", own, private_memory_is(fd) ? MEMORY_BASE : MEMORY_RAM);
	r = volume_copy(from, to, NULL, NULL, e);
	if (r == 0 && disk_is_one(&w->record->wish))
		r = volume_copy(seed, seed_to, NULL, NULL, e);
	return r < 0 ? r : suspend_machine_update_ram(w, folder, e);
}

int suspend_machine_update_ram(struct work *w, const char *folder, struct err *e)
{
	own_str char *own = record_path(w->record, MEMORY_FOLDER), *path = mem_printf("%s/" MEMORY_RAM, folder);
	own_fd int to = open(path, O_RDWR | O_NOFOLLOW | O_CLOEXEC), fd = -1;
	int r = to < 0 ? err_errno(e, errno, "open %s", path) : fs_open_dir(AT_FDCWD, own, &fd, e);

	if (r < 0 || private_memory_is(fd))
		return r < 0 ? r : private_memory_update(fd, (pid_t)w->record->truth.report->pid, to, e);
	own_fd int from = openat(fd, MEMORY_RAM, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	return from < 0 ? err_errno(e, errno, "open the memory's file") : shared_memory_update(from, to, e);
}

static int put_manifest(int folder, const struct memory_manifest *m, struct err *e)
{
	int r = suspend_write_manifest(folder, m, e);

	if (r == 0 && renameat(folder, MEMORY_MANIFEST ".new", folder, MEMORY_MANIFEST) < 0)
		r = err_errno(e, errno, "put the manifest in its place");
	return r == 0 && fsync(folder) < 0 ? err_errno(e, errno, "sync the memory folder") : r;
}

int suspend_machine_finish_copy(const struct record *of, const char *folder, bool digests, struct memory_manifest *m,
				struct err *e)
{
	own_fd int fd = -1;
	int r = fs_open_dir(AT_FDCWD, folder, &fd, e);

	if (r == 0)
		r = sync_volume(mem_printf("%s/" MEMORY_RAM, folder), MEMORY_RAM, e);
	if (r == 0)
		r = add_files(m, of, fd, e);
	if (r == 0 && digests)
		r = suspend_add_digests(fd, m, e);
	return r == 0 ? put_manifest(fd, m, e) : r;
}

static int read_manifest(const char *folder, struct memory_manifest *ret_manifest, struct err *e)
{
	own_str char *path = mem_printf("%s/" MEMORY_MANIFEST, folder);
	own_strbuf struct str text = { 0 };
	int r = fs_read_file(AT_FDCWD, path, ANSWER_MOST, &text, e);

	return r < 0 ? r : memory_manifest_decode(str_text(&text), text.length, path, ret_manifest, e);
}

/* The manifest as it is, but bound to this workspace after this restore. */
static int adopt_manifest(const struct work *w, const char *from, int to, struct err *e)
{
	struct memory_manifest m = { 0 };
	int r = read_manifest(from, &m, e);

	if (r < 0)
		return r;
	struct memory_volume *volumes = m.volumes.items;
	for (size_t i = 0; i < m.volumes.count; i++)
		volumes[i].generation = w->record->wish.restore;
	free(m.workspace);
	m.workspace = mem_strdup(w->record->id);
	m.run = w->record->wish.run;
	r = put_manifest(to, &m, e);
	memory_manifest_done(&m);
	return r;
}

/* Kept for the next suspend: what the devices are does not change. */
static int adopt_machine(const struct work *w, const char *from, int to, struct err *e)
{
	own_str char *path = mem_printf("%s/" MEMORY_MANIFEST, from);
	own_strbuf struct str text = { 0 };
	int r = fs_read_file(AT_FDCWD, path, ANSWER_MOST, &text, e);

	(void)w;
	return r < 0 ? r : fs_write_file(to, MEMORY_MACHINE, text.bytes, text.length, 0600, false, e);
}

/* As adopt_manifest, with the memory where the clone finds it. Nobody reads it all before it is used: it was just written
 * here. */
static int adopt_as_clone(const struct work *w, const char *from, int to, struct err *e)
{
	struct memory_manifest m = { 0 };
	int r = read_manifest(from, &m, e);

	if (r < 0)
		return r;
	struct memory_volume *volumes = m.volumes.items;
	struct memory_file *files = m.files.items;
	for (size_t i = 0; i < m.volumes.count; i++)
		volumes[i].generation = w->record->truth.report->restore;
	for (size_t i = 0; i < m.files.count; i++) {
		if (!str_eq(files[i].name, MEMORY_RAM))
			continue;
		free(files[i].name);
		files[i].name = mem_strdup(MEMORY_BASE);
		free(TAKE(files[i].digest));
		free(TAKE(files[i].sparse));
	}
	free(m.workspace);
	m.workspace = mem_strdup(w->record->id);
	m.run = w->record->wish.run;
	r = put_manifest(to, &m, e);
	memory_manifest_done(&m);
	return r;
}

int suspend_machine_clone_state(struct work *w, const char *from, const char *to, struct err *e)
{
	own_str char *state = mem_printf("%s/" MEMORY_STATE, from), *state_to = mem_printf("%s/" MEMORY_STATE, to);
	own_str char *ram = mem_printf("%s/" MEMORY_RAM, from), *base = mem_printf("%s/" MEMORY_BASE, to);
	own_fd int fd = -1;
	int r = fs_mkdirs(to, 0700, e);

	if (r == 0)
		r = volume_copy(state, state_to, NULL, NULL, e);
	if (r == 0 && (chmod(ram, 0444) < 0 || link(ram, base) < 0))
		r = err_errno(e, errno, "link the memory %s", ram);
	if (r == 0)
		r = fs_open_dir(AT_FDCWD, to, &fd, e);
	if (r == 0)
		r = adopt_machine(w, from, fd, e);
	return r == 0 ? adopt_as_clone(w, from, fd, e) : r;
}

int suspend_machine_copy_state(struct work *w, const char *from, const char *to, struct err *e)
{
	static const char *const files[] = { MEMORY_STATE, MEMORY_RAM, MEMORY_SEED };
	size_t count = disk_is_one(&w->record->wish) ? 3 : 2;
	own_fd int fd = -1;
	int r = fs_mkdirs(to, 0700, e);

	for (size_t i = 0; i < count && r == 0; i++) {
		own_str char *source = mem_printf("%s/%s", from, files[i]), *target = mem_printf("%s/%s", to, files[i]);
		r = volume_copy(source, target, NULL, NULL, e);
	}
	if (r == 0)
		r = fs_open_dir(AT_FDCWD, to, &fd, e);
	if (r == 0)
		r = adopt_machine(w, from, fd, e);
	return r == 0 ? adopt_manifest(w, from, fd, e) : r;
}

const struct suspend_engine suspend_emulator = { "emulator",     machine_check, machine_save,
						 machine_commit, machine_abort, machine_host };
const struct suspend_engine suspend_kvm = { "kvm", machine_check, machine_save, machine_commit, machine_abort, machine_host };
