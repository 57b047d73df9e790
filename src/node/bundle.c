/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A job owns one open file for each stream of the bundle, in the header's order, and the child that reads or writes them; the
 * agent itself never sees a byte of them. Which stream is which file is decided here, before the child starts; the child has
 * no names.
 *
 * An export opens what is there, volumes locked, and describes it in the prefix that the child sends first. An import opens
 * PATH.new for each stream that this host keeps, and leaves those of the image to the store. Beside them import.json says
 * which bundle they are of: written when the files are, removed last, so that bytes of another bundle are never taken for a
 * beginning of this one.
 *
 * Its end checks everything, syncs everything, and only then renames, in the header's order, in which the manifest of the
 * memory is the last: killed in between, there are volumes and no memory state, and the same import begun again completes it.
 */
#include "node/bundle.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/proc.h"
#include "base/str.h"
#include "model/bundle.h"
#include "model/memory.h"
#include "node/disk.h"
#include "node/suspend.h"
#include "node/suspend_pack.h"
#include "store/bundle.h"
#include "store/check.h"
#include "store/export.h"
#include "store/volume.h"

#define UNFINISHED ".new"
#define MANIFEST_MOST (UINT64_C(4) << 20)
#define HEADER_FILE "import.json" /* the header of the bundle that unfinished files are of */

struct part {
	int fd; /* -1: left out */
	char *path; /* import: where it goes in the end */
	bool kept;  /* import: a kept volume, still unfinished */
	enum { PART_FILE_SYSTEM, PART_DISK, PART_VARIABLES, PART_MEMORY } form; /* import: of its bytes */
	size_t number; /* import, PART_DISK: of the partition below */
};

struct bundle_job {
	bool import, memory;
	bool goes_on; /* import: of the same bundle, and what came of it is there */
	struct bundle_header header;
	struct part *parts; /* one a stream */
	size_t count;
	int pidfd;
};

bool bundle_is_import(const struct bundle_job *j) { return j->import; }

void bundle_job_free(struct bundle_job *j)
{
	int status;

	if (!j)
		return;
	if (j->pidfd >= 0) { /* its socket is closed */
		(void)!proc_wait(j->pidfd, &status, NULL);
		(void)close(j->pidfd);
	}
	for (size_t i = 0; i < j->count; i++) {
		own_close(&j->parts[i].fd);
		if (j->parts[i].kept) { /* outside of the workspace's folder, so nobody else would remove it */
			own_str char *unfinished = mem_printf("%s" UNFINISHED, j->parts[i].path);
			(void)unlink(unfinished);
		}
		free(j->parts[i].path);
	}
	free(j->parts);
	bundle_header_done(&j->header);
	free(j);
}

static struct bundle_job *job_new(bool import)
{
	struct bundle_job *j = mem_alloc(sizeof *j);

	*j = (struct bundle_job){ .import = import, .pidfd = -1 };
	return j;
}

/* --- the program --- */

static char *program(void)
{
	const char *folder = getenv("CARREL_LIBEXEC");
	return folder ? mem_printf("%s/carrel-bundle", folder) : mem_printf("%s/libexec/carrel/carrel-bundle", fs_prefix());
}

static void add_number(struct texts *words, uint64_t number)
{
	own_str char *text = mem_printf("%" PRIu64, number);
	texts_add(words, text);
}

/* With the open files of all parts. `words` become its arguments, and are used up. */
static int start_program(struct bundle_job *j, struct texts *words, int prefix, int *ret_socket, struct err *e)
{
	own_str struct proc_fd *fds = mem_alloc_array(j->count + 5, sizeof *fds);
	size_t fd_count = 0;
	int pair[2];
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) {
		texts_done(words);
		return err_errno(e, errno, "make a socket");
	}
	own_fd int ours = pair[0], theirs = pair[1];
	fds[fd_count++] = (struct proc_fd){ 0, -1 };
	fds[fd_count++] = (struct proc_fd){ 1, -1 };
	fds[fd_count++] = (struct proc_fd){ BUNDLE_SOCKET_FD, theirs };
	fds[fd_count++] = (struct proc_fd){ BUNDLE_PREFIX_FD, prefix };
	for (size_t i = 0, next = BUNDLE_FIRST_FD; i < j->count; i++)
		if (j->parts[i].fd >= 0)
			fds[fd_count++] = (struct proc_fd){ (int)next++, j->parts[i].fd };
	texts_add(words, NULL);
	words->items[words->count - 1] = NULL;
	const struct proc_spawn how = { .argv = (const char *const *)words->items, .fds = fds, .fd_count = fd_count };
	int r = proc_start(&how, &j->pidfd, &pid, e);
	words->count--;
	texts_done(words);
	if (r == 0)
		*ret_socket = TAKE_FD(ours);
	return r;
}

/* `from` NULL: unpack. */
static int start(struct bundle_job *j, const struct bundle_from *from, int prefix, int *ret_socket, struct err *e)
{
	const struct bundle_stream *streams = j->header.streams.items;
	own_str char *path = program();
	struct texts words = { 0 };

	texts_add(&words, path);
	texts_add(&words, from ? "pack" : "unpack");
	if (from) {
		add_number(&words, from->stream);
		add_number(&words, from->offset);
	}
	for (size_t i = 0; i < j->count; i++)
		if (j->parts[i].fd < 0)
			texts_add(&words, "-");
		else
			add_number(&words, streams[i].size_bytes);
	return start_program(j, &words, prefix, ret_socket, e);
}

/* --- export: what is in it --- */

static struct part *add_stream(struct bundle_job *j, enum bundle_kind kind, const char *name)
{
	struct bundle_stream *streams = mem_grow_array(j->header.streams.items, j->count + 1, sizeof *streams);

	j->parts = mem_grow_array(j->parts, j->count + 1, sizeof *j->parts);
	j->header.streams = (struct objects){ streams, j->count + 1 };
	streams[j->count] = (struct bundle_stream){ .kind = kind, .name = mem_strdup(name) };
	j->parts[j->count] = (struct part){ .fd = -1 };
	return &j->parts[j->count++];
}

/* Opens what a stream is made of; `locks` for volumes. */
static int add_file(struct bundle_job *j, enum bundle_kind kind, const char *name, const char *path, bool locks, struct err *e)
{
	struct part *p = add_stream(j, kind, name);
	struct bundle_stream *s = (struct bundle_stream *)j->header.streams.items + (j->count - 1);
	struct stat st;
	int r = 0;

	if (locks)
		r = volume_open(path, &p->fd, e);
	else if ((p->fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW)) < 0)
		r = err_errno(e, errno, "open %s", path);
	if (r < 0)
		return r;
	if (fstat(p->fd, &st) < 0)
		return err_errno(e, errno, "look at %s", path);
	s->size_bytes = (uint64_t)st.st_size;
	if (kind != BUNDLE_BLOB && kind != BUNDLE_PARTITION)
		s->changed_ns = (uint64_t)st.st_mtim.tv_sec * 1000000000 + (uint64_t)st.st_mtim.tv_nsec;
	return 0;
}

static bool is_left_out(const json_t *request, const char *digest)
{
	const json_t *list = json_object_get(request, "leave-out");

	for (size_t i = 0; i < json_array_size(list); i++)
		if (json_is_string(json_array_get(list, i)) && str_eq(json_string_value(json_array_get(list, i)), digest))
			return true;
	return false;
}

static int add_stored(struct bundle_job *j, const struct work *w, const json_t *request, enum bundle_kind kind,
		      const char *digest, struct err *e)
{
	struct digest d;
	char hex[DIGEST_HEX_SIZE];
	int r = digest_parse(digest, &d, e);

	if (r < 0)
		return r;
	own_str char *path = mem_printf("%s/%s/sha256/%s", w->node->config.store, kind == BUNDLE_BLOB ? "blobs" : "partitions",
					digest_hex(&d, hex));
	r = add_file(j, kind, digest, path, false, e);
	if (r == 0 && kind == BUNDLE_PARTITION && is_left_out(request, digest)) {
		struct bundle_stream *s = (struct bundle_stream *)j->header.streams.items + (j->count - 1);
		s->left_out = true;
		(void)close(TAKE_FD(j->parts[j->count - 1].fd));
	}
	return r;
}

/* Manifest, then the configuration that it names, then the partitions. */
static int add_image(struct bundle_job *j, const struct work *w, const json_t *request, struct err *e)
{
	const struct image *image = w->record->wish.image;
	const struct image_partition *partitions = image->partitions.items;
	own_strbuf struct str text = { 0 };
	int r = add_stored(j, w, request, BUNDLE_BLOB, image->digest, e);

	if (r == 0)
		r = fs_read_fd(j->parts[j->count - 1].fd, 4 << 20, &text, e);
	if (r < 0)
		return r;
	json_t *manifest = json_loadb(text.bytes, text.length, 0, NULL);
	const char *config = json_string_value(json_object_get(json_object_get(manifest, "config"), "digest"));
	r = config ? add_stored(j, w, request, BUNDLE_BLOB, config, e) :
		     err_set(e, ERR_CORRUPT, "image %s has no configuration", image->digest);
	json_decref(manifest);
	for (size_t i = 0; r == 0 && i < image->partitions.count; i++)
		if (!bundle_stream_find(&j->header, BUNDLE_PARTITION, partitions[i].digest, NULL))
			r = add_stored(j, w, request, BUNDLE_PARTITION, partitions[i].digest, e);
	return r;
}

static int add_volumes(struct bundle_job *j, const struct work *w, struct err *e)
{
	struct disk_volume v = { 0 };
	int r = 0;

	for (size_t i = 0; r == 0 && disk_next_volume(w->record, w->node->kept, i, &v); i++)
		r = add_file(j, BUNDLE_VOLUME, v.name, v.path, true, e);
	free(v.path);
	return r;
}

static int add_snapshot(struct bundle_job *j, const struct work *w, const struct assignment_snapshot *s, struct err *e)
{
	struct assignment_snapshot *list = mem_grow_array(j->header.snapshots.items, j->header.snapshots.count + 1,
							  sizeof *list);
	struct disk_volume v = { 0 };
	int r = 0;

	list[j->header.snapshots.count] = (struct assignment_snapshot){ mem_strdup(s->id), mem_strdup(s->name) };
	j->header.snapshots = (struct objects){ list, j->header.snapshots.count + 1 };
	for (size_t i = 0; r == 0 && disk_next_volume(w->record, w->node->kept, i, &v); i++) {
		own_str char *name = mem_printf("%s/%s", s->id, v.name),
			     *path = mem_printf("%s/snapshots/%s.ext4", w->record->folder, name);
		if (fs_exists(AT_FDCWD, path))
			r = add_file(j, BUNDLE_SNAPSHOT, name, path, false, e);
	}
	free(v.path);
	return r;
}

static int add_snapshots(struct bundle_job *j, const struct work *w, struct err *e)
{
	const struct texts *have = &w->record->truth.report->snapshots;
	const struct assignment_snapshot *wanted = w->record->wish.snapshots.items;
	int r = 0;

	for (size_t i = 0; r == 0 && i < w->record->wish.snapshots.count; i++)
		for (size_t k = 0; r == 0 && k < have->count; k++)
			if (str_eq(wanted[i].id, have->items[k]))
				r = add_snapshot(j, w, &wanted[i], e);
	return r;
}

/* The manifest last: without it the state does not exist. */
static int add_memory(struct bundle_job *j, const struct work *w, struct err *e)
{
	struct memory_manifest m = { 0 };
	int r = suspend_read(w->record, &m, e);
	const struct memory_file *files = m.files.items;

	for (size_t i = 0; r == 0 && i <= m.files.count; i++) {
		own_str char *name = i < m.files.count ? memory_file_place(&files[i]) : mem_strdup(MEMORY_MANIFEST);
		own_str char *path = mem_printf("%s/" MEMORY_FOLDER "/%s", w->record->folder, name);
		r = add_file(j, BUNDLE_MEMORY, name, path, false, e);
	}
	memory_manifest_done(&m);
	return r;
}

/* Start, header and its digest: the same for the same content. */
static int make_prefix(const struct bundle_job *j, const struct record *r, int *ret_fd, struct err *e)
{
	uint8_t start_bytes[BUNDLE_START_BYTES];
	struct bundle_header h = j->header;

	h.id = (char *)(uintptr_t)r->id;
	h.name = r->wish.spec->name ? r->wish.spec->name : h.id;
	h.state = r->truth.report->state;
	h.engine = r->truth.report->engine;
	h.run = r->truth.report->run;
	h.spec = r->wish.spec;
	h.image = r->wish.image;
	h.interfaces = r->wish.attachments;
	json_t *json = encode(&bundle_header_shape, &h);
	own_str char *text = json_dumps(json, JSON_COMPACT | JSON_SORT_KEYS);
	json_decref(json);
	if (!text || strlen(text) > BUNDLE_HEADER_MOST)
		return err_set(e, ERR_TOO_LARGE, "the workspace's description is too long for a bundle");
	bundle_start_encode((uint32_t)strlen(text), start_bytes);
	own_hash struct hash *hash = hash_new();
	hash_add(hash, start_bytes, sizeof start_bytes);
	hash_add(hash, text, strlen(text));
	struct digest d = hash_end(hash);
	own_fd int fd = memfd_create("bundle", MFD_CLOEXEC);
	if (fd < 0)
		return err_errno(e, errno, "make a file in memory");
	int done = fs_write_all(fd, start_bytes, sizeof start_bytes, e);
	if (done == 0)
		done = fs_write_all(fd, text, strlen(text), e);
	if (done == 0)
		done = fs_write_all(fd, d.bytes, sizeof d.bytes, e);
	if (done == 0 && lseek(fd, 0, SEEK_SET) < 0)
		done = err_errno(e, errno, "rewind");
	if (done == 0)
		*ret_fd = TAKE_FD(fd);
	return done;
}

/* --- export: disks alone, in a format of others --- */

static int add_disk(struct bundle_job *j, const struct work *w, size_t number, struct err *e)
{
	const struct image_partition *partitions = w->record->wish.image->partitions.items;
	own_str char *own = disk_file_path(w->record, number, NULL);
	struct digest d;
	char hex[DIGEST_HEX_SIZE];
	int r = digest_parse(partitions[number].digest, &d, e);

	if (r < 0)
		return r;
	own_str char *below = mem_printf("%s/partitions/sha256/%s", w->node->config.store, digest_hex(&d, hex));
	r = add_file(j, BUNDLE_PARTITION, "below", below, false, e);
	if (r == 0)
		r = add_file(j, BUNDLE_VOLUME, "own", own, true, e);
	if (r < 0)
		return r;
	struct part *scratch = add_stream(j, BUNDLE_VOLUME, "scratch");
	scratch->fd = open(w->record->folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	return scratch->fd < 0 ? err_errno(e, errno, "make a scratch file") : 0;
}

static int check_disks(const struct record *r, const char *format, struct err *e)
{
	unsigned number = 0;

	while (export_format_names[number] && !str_eq(export_format_names[number], format))
		number++;
	if (!export_format_names[number] || number < EXPORT_RAW)
		return err_set(e, ERR_INVALID, "a workspace's disk has no format '%.60s': it is qcow2, vmdk, ova or raw",
			       format);
	if (r->truth.report->state == STATE_SUSPENDED) {
		(void)err_set(e, ERR_CONFLICT, "the workspace is suspended: what its disk holds goes with its memory");
		return err_hint(e, "export the whole workspace, or resume and stop it");
	}
	return export_check(r->wish.image, (enum export_format)number, e);
}

static int export_disks(struct bundle_job *j, const struct work *w, const char *format, int *ret_socket, struct err *e)
{
	const struct record *r = w->record;
	own_str char *path = program();
	struct texts words = { 0 };
	int done = check_disks(r, format, e);

	for (size_t i = 0; done == 0 && i < r->wish.image->partitions.count; i++)
		done = add_disk(j, w, i, e);
	if (done < 0)
		return done;
	json_t *machine = encode(&image_machine_shape, r->wish.image->machine);
	own_str char *text = json_dumps(machine, JSON_COMPACT);
	json_decref(machine);
	texts_add(&words, path);
	texts_add(&words, "disk");
	texts_add(&words, format);
	texts_add(&words, r->wish.spec->name ? r->wish.spec->name : r->id);
	texts_add(&words, text ? text : "{}");
	add_number(&words, r->wish.image->partitions.count);
	return start_program(j, &words, -1, ret_socket, e);
}

static int export_bundle(struct bundle_job *j, const struct work *w, const json_t *request, int *ret_socket, struct err *e)
{
	const json_t *from_json = json_object_get(request, "from");
	struct bundle_from from = { (uint32_t)json_integer_value(json_object_get(from_json, "stream")),
				    (uint64_t)json_integer_value(json_object_get(from_json, "offset")) };
	own_fd int prefix = -1;
	int r = add_image(j, w, request, e);

	if (r == 0)
		r = add_volumes(j, w, e);
	if (r == 0 && json_is_true(json_object_get(request, "snapshots")))
		r = add_snapshots(j, w, e);
	if (r == 0 && w->record->truth.report->state == STATE_SUSPENDED)
		r = add_memory(j, w, e);
	if (r == 0)
		r = make_prefix(j, w->record, &prefix, e);
	return r == 0 ? start(j, &from, prefix, ret_socket, e) : r;
}

int bundle_export(struct work *w, const json_t *request, int *ret_socket, struct bundle_job **ret_job, struct err *e)
{
	const char *format = json_string_value(json_object_get(request, "format"));
	struct bundle_job *j = job_new(false);
	int fault = fault_point("export-begin"), r;

	if (fault)
		r = err_errno(e, fault, "export");
	else
		r = format ? export_disks(j, w, format, ret_socket, e) : export_bundle(j, w, request, ret_socket, e);
	if (r < 0) {
		bundle_job_free(j);
		return r;
	}
	*ret_job = j;
	return 0;
}

/* --- import: where it goes --- */

/* Its superblock tells when it was mounted first (s_mtime): a kept volume that holds something already is not written over. */
static int check_kept(const char *path, const char *name, struct err *e)
{
	own_fd int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	uint8_t mounted[4] = { 0 };

	if (fd < 0 || pread(fd, mounted, sizeof mounted, 1024 + 0x2c) != sizeof mounted ||
	    (mounted[0] | mounted[1] | mounted[2] | mounted[3]) == 0)
		return 0;
	(void)err_set(e, ERR_CONFLICT, "the kept volume %s holds data already", name);
	return err_hint(e, "carrel volume rm %s, or import it as another user", name);
}

static const char *volume_name(const struct bundle_stream *s)
{
	const char *slash = s->kind == BUNDLE_SNAPSHOT ? strchr(s->name, '/') : NULL;
	return slash ? slash + 1 : s->name;
}

static int find_volume(const struct work *w, const struct bundle_stream *s, struct part *p, struct err *e)
{
	struct disk_volume v = { 0 };
	size_t i = 0;

	while (disk_next_volume(w->record, w->node->kept, i, &v) && !str_eq(v.name, volume_name(s)))
		i++;
	if (!v.path)
		return err_set(e, ERR_INVALID, "the workspace has no volume %s", volume_name(s));
	if (!v.spec && disk_is_one(&w->record->wish)) {
		p->form = str_eq(v.name, MACHINE_VARIABLES) ? PART_VARIABLES : PART_DISK;
		p->number = v.number;
	}
	p->path = v.path;
	p->kept = s->kind == BUNDLE_VOLUME && v.spec && v.spec->keep;
	return p->kept ? check_kept(p->path, v.name, e) : 0;
}

static int place_of(const struct work *w, const struct bundle_stream *s, struct part *p, struct err *e)
{
	const struct record *r = w->record;

	if (s->kind == BUNDLE_MEMORY) {
		own_str char *folder = record_path(r, MEMORY_FOLDER);
		p->form = PART_MEMORY;
		p->path = mem_printf("%s/" MEMORY_FOLDER "/%s", r->folder, s->name);
		return fs_mkdirs(folder, 0700, e);
	}
	int done = find_volume(w, s, p, e);
	if (done < 0 || s->kind == BUNDLE_VOLUME)
		return done;
	own_str char *folder = mem_printf("%s/snapshots/%.*s", r->folder, (int)strcspn(s->name, "/"), s->name);
	free(p->path);
	p->path = mem_printf("%s/snapshots/%s.ext4", r->folder, s->name);
	return fs_mkdirs(folder, 0700, e);
}

static int open_part(const struct work *w, const struct bundle_stream *s, bool goes_on, struct part *p, struct err *e)
{
	int done = place_of(w, s, p, e);

	if (done < 0)
		return done;
	own_str char *unfinished = mem_printf("%s" UNFINISHED, p->path);
	p->fd = open(unfinished, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (p->fd < 0)
		return err_errno(e, errno, "create %s", unfinished);
	if ((!goes_on && (ftruncate(p->fd, 0) < 0 || fdatasync(p->fd) < 0)) || ftruncate(p->fd, (off_t)s->size_bytes) < 0)
		return err_errno(e, errno, "make %s", unfinished);
	return p->form == PART_FILE_SYSTEM ? volume_set_of_guest(p->fd, true, e) : 0; /* somebody else's bytes */
}

static int open_parts(struct work *w, struct bundle_job *j, struct err *e)
{
	const struct bundle_stream *streams = j->header.streams.items;
	int r = 0;

	j->parts = mem_alloc_array(j->header.streams.count + 1, sizeof *j->parts);
	for (size_t i = 0; i < j->header.streams.count; i++)
		j->parts[i].fd = -1;
	j->count = j->header.streams.count;
	for (size_t i = 0; r == 0 && i < j->count; i++) {
		if (streams[i].kind == BUNDLE_BLOB || streams[i].kind == BUNDLE_PARTITION)
			continue;
		j->memory |= streams[i].kind == BUNDLE_MEMORY;
		r = open_part(w, &streams[i], j->goes_on, &j->parts[i], e);
	}
	return r;
}

/* Only a workspace that never ran is filled, so nothing is lost by it. */
static int check_target(const struct record *r, struct err *e)
{
	if (r->truth.report->state == STATE_PREPARED && r->truth.report->run == 0)
		return 0;
	return err_set(e, ERR_CONFLICT, "a bundle is imported into a new workspace, and this one is %s",
		       state_names[r->truth.report->state]);
}

/* Whether the files that are there are of this very bundle; else they are begun anew, and from then on they are. */
static int note_header(const struct work *w, struct bundle_job *j, const char *text, bool begin, struct err *e)
{
	own_str char *path = record_path(w->record, HEADER_FILE);
	own_strbuf struct str before = { 0 };

	if (begin)
		return j->goes_on ? 0 : fs_write_file(AT_FDCWD, path, text, strlen(text), 0600, true, e);
	j->goes_on = fs_read_file(AT_FDCWD, path, BUNDLE_HEADER_MOST * 2, &before, NULL) == 0 &&
		     str_eq(str_text(&before), text);
	if (!j->goes_on && unlink(path) < 0 && errno != ENOENT)
		return err_errno(e, errno, "remove %s", path);
	return 0;
}

int bundle_import(struct work *w, const json_t *request, int *ret_socket, struct bundle_job **ret_job, struct err *e)
{
	own_str char *text = json_dumps(json_object_get(request, "header"), JSON_COMPACT | JSON_SORT_KEYS);
	struct bundle_job *j = job_new(true);
	int fault, r = check_target(w->record, e);

	if (r == 0 && !text)
		r = err_set(e, ERR_INVALID, "an import begins with the bundle's header");
	if (r == 0 && (fault = fault_point("import-begin")))
		r = err_errno(e, fault, "import");
	if (r == 0)
		r = bundle_header_decode(text, strlen(text), &j->header, e);
	if (r == 0)
		r = note_header(w, j, text, false, e);
	if (r == 0)
		r = open_parts(w, j, e);
	if (r == 0)
		r = note_header(w, j, text, true, e);
	if (r == 0)
		r = start(j, NULL, -1, ret_socket, e);
	if (r < 0) {
		bundle_job_free(j);
		return r;
	}
	*ret_job = j;
	return 0;
}

/* Before QEMU may open it. File systems are looked at when this host's kernel is to mount them. */
static int check_part(const struct work *w, const struct bundle_stream *s, const struct part *p, struct err *e)
{
	const struct image_partition *partitions = w->record->wish.image->partitions.items;
	int r = 0;

	if (p->form == PART_DISK)
		r = check_disk(p->fd, partitions[p->number].size_bytes, e);
	else if (p->form == PART_VARIABLES)
		r = disk_check_variables(s->size_bytes, e);
	return r < 0 ? err_wrap(e, "the bundle's part %s", s->name) : 0;
}

/* An import that is ended between two of these sends the first ones again when it goes on. */
static int place_part(struct part *p, struct err *e)
{
	own_str char *unfinished = mem_printf("%s" UNFINISHED, p->path);
	int fault = fault_point("import-place");

	if (fault || rename(unfinished, p->path) < 0)
		return err_errno(e, fault ? fault : errno, "rename to %s", p->path);
	bool kept = p->kept;
	p->kept = false; /* nothing is left to clean */
	if (!kept) /* its folder is synced with all the others */
		return 0;
	own_str char *folder = mem_strndup(p->path, (size_t)(strrchr(p->path, '/') - p->path));
	return fs_sync_folder(folder, e);
}

/* The memory state's manifest, unfinished yet: what it says of where it comes from is made true here. */
static int take_over(const struct work *w, const struct part *p, struct err *e)
{
	own_str char *unfinished = mem_printf("%s" UNFINISHED, p->path), *text = NULL;
	own_strbuf struct str was = { 0 };
	int r = fs_read_file(AT_FDCWD, unfinished, MANIFEST_MOST, &was, e);

	if (r == 0)
		r = suspend_take_over(w->record, str_text(&was), was.length, &text, e);
	return r == 0 ? fs_write_file(AT_FDCWD, unfinished, text, strlen(text), 0600, true, e) : r;
}

static bool is_manifest(const struct bundle_stream *s)
{
	return s->kind == BUNDLE_MEMORY && str_eq(s->name, MEMORY_MANIFEST);
}

static int become_suspended(struct work *w, struct err *e)
{
	struct memory_manifest m = { 0 };
	struct report *report = w->record->truth.report;
	int r = suspend_read(w->record, &m, e);

	if (r < 0)
		return r;
	if (m.kind == MEMORY_CRIU && w->record->wish.owner_uid != 0) { /* a restore makes processes with the host's rights */
		memory_manifest_done(&m);
		(void)!suspend_discard(w->record, NULL);
		(void)err_set(e, ERR_DENIED, "the memory of processes is taken from an administrator only");
		return err_hint(e, "import it without memory, or ask the administrator to import it");
	}
	report->state = STATE_SUSPENDED;
	report->run = m.run;
	report->memory_bytes = memory_manifest_bytes(&m);
	report->machine_processors = m.kind == MEMORY_QEMU ? m.processors : 0;
	report->machine_memory_bytes = m.kind == MEMORY_QEMU ? m.memory_bytes : 0;
	w->record->pack_due_ms = suspend_pack_due(w->node, w->record);
	free(report->engine);
	report->engine = mem_strdup(spec_engine_names[m.engine]);
	memory_manifest_done(&m);
	return record_save_truth(w->record, e);
}

int bundle_import_finish(struct work *w, struct bundle_job *j, struct err *e)
{
	const struct bundle_stream *streams = j->header.streams.items;
	int r = 0;

	for (size_t i = 0; r == 0 && i < j->count; i++)
		r = check_part(w, &streams[i], &j->parts[i], e);
	for (size_t i = 0; r == 0 && i < j->count; i++)
		if (j->parts[i].fd >= 0 && fsync(j->parts[i].fd) < 0)
			r = err_errno(e, errno, "sync %s", streams[i].name);
	for (size_t i = 0; r == 0 && i < j->count; i++) { /* the manifest of a memory state is its last stream */
		if (j->parts[i].fd >= 0 && is_manifest(&streams[i]))
			r = take_over(w, &j->parts[i], e);
		if (r == 0 && j->parts[i].fd >= 0)
			r = place_part(&j->parts[i], e);
	}
	static const char *const folders[] = { "volumes", "snapshots", MEMORY_FOLDER };
	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(folders); i++) {
		own_str char *path = record_path(w->record, folders[i]);
		if (fs_exists(AT_FDCWD, path))
			r = fs_sync_folder(path, e);
	}
	if (r == 0 && j->memory)
		r = become_suspended(w, e);
	own_str char *header = record_path(w->record, HEADER_FILE);
	if (r == 0 && unlink(header) < 0)
		r = err_errno(e, errno, "remove %s", header);
	return r;
}
