/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. A template is made by a runner like any workspace's, under an id and in groups of its own: the machine boots without
 * disks until carrel-init waits, is suspended by the runner's own conversation, and its memory folder becomes the template. An
 * agent that dies meanwhile leaves a run folder of an id that it does not know, and a folder HEX.new: the next one takes both
 * away.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/fs.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"
#include "engine/engine.h"
#include "engine/qemu/arguments.h"
#include "engine/qemu/template.h"
#include "engine/runner_client.h"
#include "model/memory.h"
#include "model/name.h"
#include "node/emulator.h"
#include "node/isolate.h"
#include "node/suspend.h"
#include "node/template_private.h"

void template_wish_fill(struct template_wish *w, const struct launch *l)
{
	struct spec_resources wanted = spec_resources_or_default(l->spec);

	w->host = *l->host_machine;
	w->host.partition_fds = NULL;
	w->cpu_milli = wanted.cpu_milli;
	w->memory_bytes = wanted.memory_bytes;
	w->system = l->spec->mode == MODE_SYSTEM ||
		    (l->spec->mode != MODE_PROGRAM && l->spec->command.count == 0 && l->image->init);
}

/* A template on its way. */
struct making {
	struct templates *t;
	const struct template_wish *wish;
	char id[ID_SIZE];
	uint64_t first_id;
	char *path;      /* HEX.new */
	int folder;
	struct spec_resources resources;
	struct spec spec;
	struct image image;
	struct assignment of; /* as the limits of a workspace are asked for */
};

static int make_folder(struct making *m, struct err *e)
{
	uid_t owner = (uid_t)(m->first_id + LAUNCH_IDS - 1);
	int r = fs_remove_tree(AT_FDCWD, m->path, e);

	if (r == 0)
		r = fs_mkdirs(m->path, 0700, e);
	if (r == 0)
		r = fs_open_dir(AT_FDCWD, m->path, &m->folder, e);
	if (r < 0)
		return r;
	own_fd int ram = openat(m->folder, MEMORY_RAM, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (ram < 0 || ftruncate(ram, (off_t)machine_memory(m->wish->memory_bytes)) < 0 || fchown(ram, owner, owner) < 0)
		return err_errno(e, errno, "make the memory's file");
	return 0;
}

static int boot(struct making *m, struct err *e)
{
	own_str char *ram = mem_printf("%s/" MEMORY_RAM, m->path), *log = mem_printf("%s/log", m->path);
	const struct launch_memory memory = { .path = ram, .folder_fd = -1, .state_fd = -1 };
	struct launch l = { .engine = m->wish->host.kvm ? &engine_kvm : &engine_emulator, .id = m->id, .name = m->id,
			    .spec = &m->spec, .image = &m->image, .first_id = (uint32_t)m->first_id, .root_fd = -1,
			    .log_path = log, .host_machine = &m->wish->host, .memory = &memory, .run = 1,
			    .makes_template = true };

	return isolate_launch(m->t->node, &m->of, m->first_id, &l, e);
}

static int describe(const struct making *m, struct memory_manifest *manifest, struct err *e)
{
	static const char *const names[] = { MEMORY_STATE, MEMORY_RAM };
	const struct launch_machine *host = &m->wish->host;
	own_emulator const struct emulator *q = NULL;
	int r = emulator_get(host->board->program, &q, e);

	if (r < 0)
		return r;
	*manifest = (struct memory_manifest){ .format = MEMORY_FORMAT, .kind = MEMORY_QEMU,
					      .engine = host->kvm ? ENGINE_KVM : ENGINE_EMULATOR,
					      .workspace = mem_strdup(m->id), .run = 1, .taken_ms = unix_ms(),
					      .architecture = mem_strdup(host->board->architecture),
					      .program = mem_strdup(strrchr(host->board->program, '/') + 1),
					      .version = mem_strdup(q->version), .machine = mem_strdup(host->type),
					      .layout = mem_printf("sha256:%s", m->wish->name),
					      .processors = machine_processors(m->wish->cpu_milli, host->processors),
					      .memory_bytes = machine_memory(m->wish->memory_bytes) };
	manifest->files.items = mem_alloc_array(ARRAY_SIZE(names), sizeof(struct memory_file));
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		struct stat st;
		if (fstatat(m->folder, names[i], &st, AT_SYMLINK_NOFOLLOW) < 0)
			return err_errno(e, errno, "look at %s", names[i]);
		((struct memory_file *)manifest->files.items)[manifest->files.count++] =
			(struct memory_file){ .name = mem_strdup(names[i]), .length = (uint64_t)st.st_size };
	}
	return suspend_add_digests(m->folder, manifest, e);
}

/* The machine stands still, its state is written, and it ends. */
static int keep(struct making *m, struct err *e)
{
	own_str char *run = mem_printf("%s/%s", m->t->node->runs, m->id);
	own_fd int state = openat(m->folder, MEMORY_STATE, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600), connection = -1;
	struct memory_manifest manifest = { 0 };
	int r = state < 0 ? err_errno(e, errno, "make the state's file") :
			    runner_suspend(run, m->folder, state, &connection, e),
	    fault;

	if (r == 0 && (fault = fault_point("template-saved")))
		r = err_errno(e, fault, "keep");
	if (r == 0)
		r = describe(m, &manifest, e);
	if (r == 0)
		r = suspend_write_manifest(m->folder, &manifest, e);
	if (r == 0)
		r = runner_commit(connection, e);
	memory_manifest_done(&manifest);
	return r;
}

/* Nobody's any more, and in its place. */
static int finish(struct making *m, struct err *e)
{
	own_str char *final = mem_printf("%s/%s", m->t->folder, m->wish->name);
	static const char *const files[] = { MEMORY_RAM, MEMORY_STATE };
	struct stat stats[ARRAY_SIZE(files)];
	int fault = fault_point("template-finish");

	if (fault)
		return err_errno(e, fault, "finish");
	for (size_t i = 0; i < ARRAY_SIZE(files); i++)
		if (fchownat(m->folder, files[i], 0, 0, AT_SYMLINK_NOFOLLOW) < 0 ||
		    fchmodat(m->folder, files[i], 0444, 0) < 0 ||
		    fstatat(m->folder, files[i], &stats[i], AT_SYMLINK_NOFOLLOW) < 0)
			return err_errno(e, errno, "close %s", files[i]);
	int r = fs_remove_tree(m->folder, "log", e);
	if (r == 0 && rename(m->path, final) < 0)
		r = err_errno(e, errno, "rename %s", m->path);
	if (r == 0)
		template_note_whole(m->t, m->wish->name, &stats[0], &stats[1]);
	return r;
}

static int make(struct making *m, struct err *e)
{
	struct node *n = m->t->node;
	struct err ignored;
	int r = ids_take(n->ids, &m->first_id, e);

	if (r < 0)
		return r;
	id_new(m->id);
	if ((r = make_folder(m, e)) == 0 && (r = boot(m, e)) == 0)
		r = keep(m, e);
	if (isolate_undo(n, m->id, &ignored) < 0 || isolate_limits_undo(n, m->id, &ignored) < 0)
		log_error(&ignored, "take away what made template %s", m->wish->name);
	if (r == 0)
		r = finish(m, e);
	if (r < 0)
		(void)!fs_remove_tree(AT_FDCWD, m->path, NULL);
	ids_give_back(n->ids, m->first_id);
	own_close(&m->folder);
	return r;
}

static bool next_wish(struct templates *t, struct template_wish *ret_wish)
{
	(void)pthread_mutex_lock(&t->lock);
	bool any = t->want_count > 0;
	if (any)
		*ret_wish = t->wants[0];
	(void)pthread_mutex_unlock(&t->lock);
	return any;
}

static void drop_wish(struct templates *t)
{
	(void)pthread_mutex_lock(&t->lock);
	memmove(t->wants, t->wants + 1, --t->want_count * sizeof *t->wants);
	(void)pthread_mutex_unlock(&t->lock);
}

/* Nobody else makes one. */
static int make_one(struct templates *t, const struct template_wish *wish, struct err *e)
{
	uint64_t begun_ms = loop_now_ms();
	own_str char *path = mem_printf("%s/%s" TEMPLATE_NEW, t->folder, wish->name);
	struct making m = { .t = t, .wish = wish, .folder = -1, .path = path,
			    .resources = { .cpu_milli = wish->cpu_milli, .memory_bytes = wish->memory_bytes } };
	m.spec = (struct spec){ .engine = wish->host.kvm ? ENGINE_KVM : ENGINE_EMULATOR,
				.mode = wish->system ? MODE_SYSTEM : MODE_PROGRAM, .resources = &m.resources };
	m.image.architecture = (char *)(uintptr_t)wish->host.board->architecture;
	m.of = (struct assignment){ .id = m.id, .spec = &m.spec, .image = &m.image, .run = 1 };
	int r = make(&m, e);
	if (r < 0)
		return err_wrap(e, "make template %s", wish->name);
	log_info("template %s is made, in %llu ms: machines of %llu MiB and %u processors start from it", wish->name,
		 (unsigned long long)(loop_now_ms() - begun_ms), (unsigned long long)(machine_memory(wish->memory_bytes) >> 20),
		 machine_processors(wish->cpu_milli, wish->host.processors));
	templates_prune(t);
	return 0;
}

static int make_unless_there(struct templates *t, const struct template_wish *wish, struct err *e)
{
	own_str char *path = mem_printf("%s/%s", t->folder, wish->name);

	(void)pthread_mutex_lock(&t->making);
	int r = fs_exists(AT_FDCWD, path) ? 0 : make_one(t, wish, e);
	(void)pthread_mutex_unlock(&t->making);
	return r;
}

int templates_make(struct templates *t, struct err *e)
{
	struct template_wish wish;

	if (!next_wish(t, &wish))
		return 0;
	int r = make_unless_there(t, &wish, e);
	drop_wish(t);
	return r < 0 ? r : 1;
}

int templates_ready(struct templates *t, const struct launch *l, struct err *e)
{
	struct template_wish wish = { 0 };

	if (!t->node->config.template_bytes || !template_fits(l))
		return 0;
	int r = template_name(l, wish.name, e);
	if (r < 0)
		return r;
	(void)pthread_mutex_lock(&t->lock);
	bool allowed = template_failures_allow(t->failures, wish.name, loop_now_ms());
	(void)pthread_mutex_unlock(&t->lock);
	if (!allowed)
		return 0;
	template_wish_fill(&wish, l);
	if ((r = make_unless_there(t, &wish, e)) < 0)
		return r;
	return template_look(t, wish.name, e);
}
