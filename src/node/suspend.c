/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. What is the same for all engines: the folder, the manifest, and the order in which they are written.
 *
 *   save     the engine stops the workspace and writes its files
 *   digests  of what is small; they are synced, and so is the folder
 *   commit   the runner renames the manifest and ends. It, and not the agent, because the rename and the end of the processes
 *            must
 *            not come apart: a runner that dies before the rename leaves no state, and one that dies after it leaves no
 *            workspace
 *
 * Until the commit every failure is answered by going on. An agent that dies is noticed by the runner, which goes on as well.
 */
#include "node/suspend.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/fs.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/sparse.h"
#include "base/str.h"
#include "engine/engine.h"
#include "engine/workspace/checkpoint.h"
#include "engine/workspace/checkpoint_ids.h"
#include "node/suspend_facts.h"
#include "node/suspend_pack.h"
#include "node/travel.h"
#include "node/disk.h"
#include "store/volume.h"

#define MANIFEST_MOST (UINT64_C(4) << 20)
#define MANIFEST_NEW MEMORY_MANIFEST ".new"

static const struct suspend_engine *find_engine(const char *name)
{
	for (size_t i = 0; suspend_engines[i]; i++)
		if (str_eq(suspend_engines[i]->name, name))
			return suspend_engines[i];
	return NULL;
}

static int row_of_engine(const struct record *r, const struct suspend_engine **ret_engine, struct err *e)
{
	const struct engine_host plain = { .programs = !isolate_is_machine(&r->wish) };
	const struct engine *engine = NULL;
	const char *name = r->truth.report->engine;
	int chosen = name ? 0 : engine_choose(r->wish.spec, &plain, &engine, e);

	if (chosen < 0)
		return chosen;
	if (!name)
		name = engine->name;
	*ret_engine = find_engine(name);
	if (*ret_engine)
		return 0;
	(void)err_set(e, ERR_UNSUPPORTED, "the engine '%s' cannot put memory on disk", name);
	return err_hint(e, "carrel stop keeps the volumes; carrel pause keeps the memory where it is");
}

/* --- what is there --- */

static char *manifest_path(const struct record *r) { return mem_printf("%s/" MEMORY_FOLDER "/" MEMORY_MANIFEST, r->folder); }

bool suspend_is_there(const struct record *r)
{
	own_str char *path = manifest_path(r);
	return fs_exists(AT_FDCWD, path);
}

int suspend_read(const struct record *r, struct memory_manifest *ret_manifest, struct err *e)
{
	own_str char *path = manifest_path(r);
	own_strbuf struct str text = { 0 };
	int got = fs_read_file(AT_FDCWD, path, MANIFEST_MOST, &text, e);

	if (got == -ENOENT)
		return err_set(e, ERR_NOT_FOUND, "the workspace has no memory state");
	if (got == 0)
		got = memory_manifest_decode(str_text(&text), text.length, "the memory state's manifest", ret_manifest, e);
	return got;
}

static uint64_t bytes_on_disk(const struct record *r, const struct memory_manifest *m)
{
	const struct memory_file *files = m->files.items;
	uint64_t sum = 0;
	struct stat st;

	for (size_t i = 0; i < m->files.count; i++) {
		own_str char *name = memory_file_place(&files[i]),
			     *path = mem_printf("%s/" MEMORY_FOLDER "/%s", r->folder, name);
		uint64_t most = memory_file_stored(&files[i]);
		if (lstat(path, &st) == 0)
			sum += (uint64_t)st.st_blocks * 512 < most ? (uint64_t)st.st_blocks * 512 : most;
	}
	return sum;
}

void suspend_count_bytes(struct record *r)
{
	struct memory_manifest m = { 0 };
	struct err why = { 0 };

	if (suspend_read(r, &m, &why) < 0)
		log_error(&why, "workspace %s", r->id);
	r->truth.report->memory_bytes = bytes_on_disk(r, &m);
	memory_manifest_done(&m);
}

static int check_file(int folder, const struct memory_file *f, bool whole, struct err *e)
{
	own_str char *name = memory_file_place(f);
	own_fd int fd = openat(folder, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	struct stat st;
	struct digest d, wanted;

	if (fd < 0 || fstat(fd, &st) < 0)
		return err_errno(e, errno, "open the memory state's file %s", name);
	if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size != memory_file_stored(f))
		return err_set(e, ERR_CORRUPT, "the memory state's file %s has %lld bytes, not %llu", name,
			       (long long)st.st_size, (unsigned long long)memory_file_stored(f));
	if (f->packed) /* a check reads it all; a resume does it while it unpacks */
		return whole ? suspend_pack_check(folder, f, e) : 0;
	if (!f->digest && !f->sparse)
		return 0;
	int r = f->digest ? hash_fd(fd, &d, e) : sparse_hash_fd(fd, &d, e);
	if (r == 0)
		r = digest_parse(f->digest ? f->digest : f->sparse, &wanted, e);
	if (r == 0 && memcmp(&d, &wanted, sizeof d) != 0)
		r = err_set(e, ERR_CORRUPT, "the memory state's file %s is damaged: its bytes are not those that were written",
			    f->name);
	return r;
}

static int check_files(const struct record *r, const struct memory_manifest *m, bool whole, struct err *e)
{
	own_str char *path = record_path(r, MEMORY_FOLDER);
	const struct memory_file *files = m->files.items;
	own_fd int folder = -1;
	int done = fs_open_dir(AT_FDCWD, path, &folder, e);

	for (size_t i = 0; i < m->files.count && done == 0; i++)
		done = check_file(folder, &files[i], whole, e);
	return done;
}

static void partitions_of(const struct record *r, struct texts *ret_digests)
{
	const struct image_partition *partitions = r->wish.image->partitions.items;

	for (size_t i = 0; i < r->wish.image->partitions.count; i++)
		texts_add(ret_digests, partitions[i].digest);
}

static void host_done(struct suspend_host *h)
{
	emulator_unref(h->emulator);
	free(h->version);
	texts_done(&h->features);
	*h = (struct suspend_host){ 0 };
}

int suspend_verify(struct node *n, const struct record *r, bool whole, struct memory_manifest *ret_manifest, struct err *e)
{
	struct texts partitions = { 0 };
	struct suspend_host host = { 0 };
	struct memory_manifest m = { 0 };
	int done = suspend_read(r, &m, e);

	if (done < 0)
		return done;
	partitions_of(r, &partitions);
	done = memory_check_workspace(&m, r->id, &partitions, r->truth.report->restore, e);
	texts_done(&partitions);
	/* What CRIU wrote is CRIU's to read, whichever engine it comes from. */
	const struct suspend_engine *engine = m.kind == MEMORY_CRIU && r->wish.spec->travels ?
						      &suspend_workspace :
						      find_engine(spec_engine_names[m.engine]);
	if (done == 0 && !engine)
		done = err_set(e, ERR_UNSUPPORTED, "this host cannot resume memory of the engine '%s'",
			       spec_engine_names[m.engine]);
	if (done == 0)
		done = engine->host(n, &m, &host, e);
	if (done == 0)
		done = memory_check(&m, &host.has, e);
	host_done(&host);
	if (done == 0)
		done = check_files(r, &m, whole, e);
	if (done < 0)
		memory_manifest_done(&m);
	else
		*ret_manifest = m;
	return done;
}

/* --- suspend --- */

static int add_volume(const struct record *r, const char *path, const char *name, struct memory_manifest *m, struct err *e)
{
	struct memory_volume *volumes = mem_grow_array(m->volumes.items, m->volumes.count + 1, sizeof *volumes),
			     *v = &volumes[m->volumes.count];
	uint64_t used;

	*v = (struct memory_volume){ .name = mem_strdup(name), .generation = r->truth.report->restore };
	m->volumes = (struct objects){ volumes, m->volumes.count + 1 };
	return volume_measure(path, &v->size_bytes, &used, e);
}

int suspend_begin_manifest(const struct work *w, struct memory_manifest *m, struct err *e)
{
	const struct record *r = w->record;
	const struct spec_volume *specs = r->wish.spec->volumes.items;
	const char *name;
	char *path;
	int done = 0;

	*m = (struct memory_manifest){ .format = MEMORY_FORMAT,
				       .workspace = mem_strdup(r->id),
				       .run = r->truth.report->run,
				       .taken_ms = unix_ms(),
				       .architecture = mem_strdup(r->wish.image->architecture ? r->wish.image->architecture :
												"amd64") };
	partitions_of(r, &m->partitions);
	for (size_t i = 0; i <= r->wish.spec->volumes.count && done == 0; i++) {
		const struct spec_volume *v = i ? &specs[i - 1] : NULL;
		path = record_volume_path(r, w->node->kept, v);
		done = add_volume(r, path, v ? v->name : "root", m, e);
		free(path);
	}
	for (size_t i = 1; done == 0 && (path = disk_file_path(r, i, &name)); i++) {
		done = add_volume(r, path, name, m, e);
		free(path);
	}
	return done;
}

int suspend_write_manifest(int folder, const struct memory_manifest *m, struct err *e)
{
	own_str char *text = memory_manifest_encode(m);
	own_fd int fd = openat(folder, MANIFEST_NEW, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
	int fault = fault_point("suspend-manifest");

	if (fd < 0 || fault)
		return err_errno(e, fault ? fault : errno, "write the manifest");
	int r = fs_write_all(fd, text, strlen(text), e);
	return r == 0 && fsync(fd) < 0 ? err_errno(e, errno, "write the manifest") : r;
}

void *suspend_connection(int fd_taken)
{
	int *saved = mem_alloc(sizeof *saved);

	*saved = fd_taken;
	return saved;
}

void suspend_connection_abort(struct work *w, void *saved)
{
	int *connection = saved;

	(void)w;
	own_close(connection);
	free(connection);
}

int suspend_connection_commit(struct work *w, int folder, void *saved, struct err *e)
{
	const int *connection = saved;
	int r = isolate_commit(w->node, w->record, *connection, e);

	(void)folder;
	suspend_connection_abort(w, saved);
	return r;
}

static int save_and_commit(struct work *w, const struct suspend_engine *engine, int folder, struct memory_manifest *m,
			   struct err *e)
{
	void *saved = NULL;
	int fault, r = engine->save(w, folder, m, &saved, e);

	if (r < 0) {
		suspend_pack_clean(w->record);
		return r;
	}
	r = (fault = fault_point("suspend-saved")) ? err_errno(e, fault, "suspend") : suspend_write_manifest(folder, m, e);
	if (r == 0 && (fault = fault_point("suspend-commit")))
		r = err_errno(e, fault, "suspend");
	if (r == 0)
		/* after a failure nobody knows: nothing that a manifest may name goes */
		return engine->commit(w, folder, saved, e);
	engine->abort(w, saved);
	suspend_pack_clean(w->record);
	return r;
}

int suspend_do(struct work *w, struct err *e)
{
	const struct suspend_engine *engine = NULL;
	own_str char *path = record_path(w->record, MEMORY_FOLDER);
	struct memory_manifest m = { 0 };
	own_fd int folder = -1;
	int r = row_of_engine(w->record, &engine, e);

	if (r == 0 && w->record->wish.wish == WISH_RUNNING && isolate_ran_as_machine(w->record->truth.report))
		engine = &suspend_travel; /* to go on under another engine: the machine stays behind */
	if (r == 0)
		r = engine->check(w->node, w->record, e);
	if (r == 0)
		r = fs_mkdirs(path, 0700, e);
	if (r == 0)
		r = fs_open_dir(AT_FDCWD, path, &folder, e);
	if (r == 0) /* of what it came from */
		suspend_pack_clean(w->record);
	if (r == 0)
		r = suspend_begin_manifest(w, &m, e);
	if (r == 0)
		r = save_and_commit(w, engine, folder, &m, e);
	memory_manifest_done(&m);
	return r;
}

/* A packed file has its own. */
static bool has_digest(const struct memory_file *f) { return f->digest || f->sparse || f->packed; }

static bool is_sealed(const struct memory_manifest *m)
{
	const struct memory_file *files = m->files.items;
	size_t i = 0;

	while (i < m->files.count && has_digest(&files[i]))
		i++;
	return i == m->files.count;
}

int suspend_add_digests(int folder, struct memory_manifest *m, struct err *e)
{
	struct memory_file *files = m->files.items;
	int done = 0;

	for (size_t i = 0; i < m->files.count && done == 0; i++) {
		char text[DIGEST_TEXT_SIZE];
		struct digest d;
		if (has_digest(&files[i]))
			continue;
		own_fd int fd = openat(folder, files[i].name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
		done = fd < 0 ? err_errno(e, errno, "open the memory state's file %s", files[i].name) :
				sparse_hash_fd(fd, &d, e);
		if (done == 0)
			files[i].sparse = mem_strdup(digest_text(&d, text));
	}
	return done;
}

int suspend_seal(const struct record *r, struct err *e)
{
	own_str char *path = record_path(r, MEMORY_FOLDER);
	struct memory_manifest m = { 0 };
	own_fd int folder = -1;
	int done = suspend_read(r, &m, e);

	if (done < 0)
		return done;
	bool sealed = is_sealed(&m);
	done = sealed ? 0 : fs_open_dir(AT_FDCWD, path, &folder, e);
	if (done == 0 && !sealed)
		done = suspend_add_digests(folder, &m, e);
	if (done == 0 && !sealed)
		done = suspend_write_manifest(folder, &m, e);
	if (done == 0 && !sealed && renameat(folder, MANIFEST_NEW, folder, MEMORY_MANIFEST) < 0)
		done = err_errno(e, errno, "replace the manifest");
	memory_manifest_done(&m);
	return done;
}

/* The one file of CRIU's that names ids of the host. */
static int take_over_ids(const struct record *r, struct memory_file *f, struct err *e)
{
	own_str char *path = mem_printf("%s/" MEMORY_FOLDER "/%s", r->folder, f->name);
	own_strbuf struct str was = { 0 }, now = { 0 };
	char text[DIGEST_TEXT_SIZE];
	int done = fs_read_file(AT_FDCWD, path, CHECKPOINT_IDS_MOST, &was, e);

	if (done == 0)
		done = checkpoint_ids_move(&was, (uint32_t)r->truth.first_id, &now, e);
	if (done == 0)
		done = fs_write_file(AT_FDCWD, path, now.bytes, now.length, 0600, true, e);
	if (done < 0)
		return done;
	struct digest d = hash_bytes(now.bytes, now.length);
	free(TAKE(f->sparse));
	free(f->digest);
	f->digest = mem_strdup(digest_text(&d, text));
	f->length = now.length;
	return 0;
}

int suspend_take_over(const struct record *r, const char *manifest, size_t length, char **ret_text, struct err *e)
{
	struct memory_manifest m = { 0 };
	int done = memory_manifest_decode(manifest, length, "the memory state's manifest", &m, e);

	if (done < 0)
		return done;
	struct memory_volume *volumes = m.volumes.items;
	struct memory_file *files = m.files.items;
	for (size_t i = 0; i < m.volumes.count; i++)
		volumes[i].generation = r->truth.report->restore;
	for (size_t i = 0; done == 0 && m.kind == MEMORY_CRIU && i < m.files.count; i++)
		if (str_starts(files[i].name, CHECKPOINT_IDS) && !files[i].packed)
			done = take_over_ids(r, &files[i], e);
	free(m.workspace);
	m.workspace = mem_strdup(r->id);
	own_str char *text = memory_manifest_encode(&m), *machine = record_path(r, MEMORY_FOLDER "/" MEMORY_MACHINE);
	if (done == 0 && m.kind == MEMORY_QEMU) /* the next suspend asks what was started */
		done = fs_write_file(AT_FDCWD, machine, text, strlen(text), 0600, true, e);
	if (done == 0)
		*ret_text = TAKE(text);
	memory_manifest_done(&m);
	return done;
}

int suspend_discard(const struct record *r, struct err *e)
{
	own_str char *path = record_path(r, MEMORY_FOLDER);
	own_fd int folder = -1;
	int done = fs_open_dir(AT_FDCWD, path, &folder, e);

	if (done == -ENOENT)
		return 0;
	if (done < 0)
		return done;
	/* First the manifest, for good: the rest is nothing without it. */
	if (unlinkat(folder, MEMORY_MANIFEST, 0) == 0 && fsync(folder) < 0)
		return err_errno(e, errno, "sync the memory folder");
	(void)fault_point("discard-unlinked");
	return fs_remove_tree(AT_FDCWD, path, e);
}

/* What a state that is written now would need: a machine's is known since its start. */
static void would_need(const struct record *r, const struct suspend_engine *engine, struct memory_manifest *m)
{
	own_str char *path = record_path(r, MEMORY_FOLDER "/" MEMORY_MACHINE);
	own_strbuf struct str text = { 0 };

	if (engine == &suspend_workspace)
		suspend_workspace_needs(r, m);
	else if (fs_read_file(AT_FDCWD, path, MANIFEST_MOST, &text, NULL) == 0)
		(void)!memory_manifest_decode(str_text(&text), text.length, MEMORY_MACHINE, m, NULL);
}

static json_t *list_of(const struct texts *t)
{
	json_t *list = json_array();

	for (size_t i = 0; i < t->count; i++)
		(void)json_array_append_new(list, json_string(t->items[i]));
	return list;
}

/* Of one that is suspended: what its memory can go on under. */
static int check_resting(struct node *n, const struct record *r, const struct assignment *to, struct memory_manifest *m,
			 struct err *e)
{
	int done = suspend_verify(n, r, true, m, e);

	if (done == 0 && to && m->kind != MEMORY_CRIU)
		done = err_set(e, ERR_CONFLICT, "it is suspended with its whole machine, which only the engine '%s' resumes",
			       spec_engine_names[m->engine]);
	return done == 0 && to ? isolate_can_start(n, to, e) : done;
}

/* Of one that lives, and is written by CRIU or by QEMU. */
static int check_living(struct node *n, const struct record *r, const struct assignment *to, struct suspend_facts *facts,
			struct memory_manifest *m, struct err *e)
{
	const struct suspend_engine *engine = NULL;
	int done = row_of_engine(r, &engine, e);

	if (done == 0 && to && isolate_ran_as_machine(r->truth.report))
		engine = &suspend_travel;
	if (done == 0)
		done = engine->check(n, r, e);
	if (done == 0 && to && !r->wish.spec->travels)
		done = travel_check(n, r, spec_engine_names[to->spec->engine], e);
	if (done == 0 && to)
		done = isolate_can_start(n, to, e);
	if (engine && !to)
		would_need(r, engine, m);
	if (engine == &suspend_workspace || engine == &suspend_travel)
		suspend_facts_read(n, r, to && isolate_is_machine(to), facts);
	if (done < 0 || !facts->obstacles.count)
		return done;
	(void)err_set(e, ERR_CONFLICT, "%s", facts->obstacles.items[0]);
	return err_hint(e, facts->obstacles.count > 1 ? "end all that is in the way first" : "end that first");
}

static const char *way(const struct record *r, const struct assignment *to)
{
	bool from_machine = isolate_ran_as_machine(r->truth.report), to_machine = isolate_is_machine(to);

	if (from_machine == to_machine)
		return from_machine ? "from one machine into another" : "it is there";
	return from_machine ? "out of its machine into namespaces: CRIU writes it inside, and makes it again here" :
			      "out of namespaces into a machine that is made ready before: CRIU writes it here, and makes it "
			      "again inside";
}

json_t *suspend_check(struct node *n, const struct record *r, const struct assignment *to)
{
	enum state s = (enum state)r->truth.report->state;
	struct suspend_facts facts = { 0 };
	struct memory_manifest m = { 0 };
	struct err why = { 0 };
	int done = 0;

	if (s == STATE_SUSPENDED)
		done = check_resting(n, r, to, &m, &why);
	else if (s == STATE_RUNNING || (s == STATE_PAUSED && !to))
		done = check_living(n, r, to, &facts, &m, &why);
	else
		done = err_set(&why, ERR_CONFLICT, "the workspace is %s: %s", state_names[s],
			       s == STATE_PAUSED ? "carrel resume it first" : "it has no memory");
	json_t *json = json_pack("{s:s}", "level", done < 0 ? "volumes" : "memory");
	if (done >= 0 && m.program && !to)
		(void)json_object_set_new(json, "needs", memory_needs_encode(&m));
	memory_manifest_done(&m);
	if (r->truth.report->engine)
		(void)json_object_set_new(json, "engine", json_string(r->truth.report->engine));
	if (to) {
		(void)json_object_set_new(json, "to", json_string(spec_engine_names[to->spec->engine]));
		(void)json_object_set_new(json, "way", json_string(way(r, to)));
	}
	if (done < 0)
		(void)json_object_set_new(json, "reason", json_string(why.message));
	if (done < 0 && why.hint[0])
		(void)json_object_set_new(json, "hint", json_string(why.hint));
	if (facts.obstacles.count)
		(void)json_object_set_new(json, "obstacles", list_of(&facts.obstacles));
	if (facts.notes.count)
		(void)json_object_set_new(json, "notes", list_of(&facts.notes));
	suspend_facts_done(&facts);
	return json;
}
