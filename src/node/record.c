/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The three files are written in an order that makes each state between them one that can be read: the journal's line before a
 * step that may leave something, the truth after it, the journal emptied last. A journal that names a step whose truth is
 * written is harmless: the step is looked at once more. Numbers that only grow (restores) are what may not be forgotten, so
 * they alone are synced.
 *
 * What cannot be read is never removed or written over: the record is marked as lost and the agent asks the service for the
 * wish, or presumes a truth that does no harm. A folder with neither wish nor truth is what a crash left of a first write, and
 * goes if it is empty. Records have no lock: one belongs to whoever works on its workspace, see agent.c.
 */
#include "node/record.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/err_json.h"
#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"

#define T(member) offsetof(struct truth, member)
static const struct field truth_fields[] = {
	{ "report", FIELD_OBJECT, T(report), "what the service was told or will be", .required = true, .shape = &report_shape },
	{ "first-id", FIELD_NUMBER, T(first_id), "first id of its range of 65536; 0: it has none" },
	{ "boot-id", FIELD_TEXT, T(boot_id), "boot of the machine in which it was last started" },
	{ "restart-waits", FIELD_BOOL, T(restart_waits), "the restart policy will start it again after a pause" },
	{ "failed-starts", FIELD_NUMBER, T(failed_starts), "restarts in a row; decides the length of the pause" },
	{ "stands-since", FIELD_NUMBER, T(stands_since_ms),
	  "milliseconds of Unix time; it stands still since, to go on under another engine" },
	{ "gave-up", FIELD_NUMBER, T(gave_up), "generation in which a snapshot, restore, resize, pause or resume failed" },
	{ "sizes", FIELD_TEXT, T(sizes), "limits and sizes of disks that were brought about" },
	{ 0 },
};
static const struct shape truth_shape = { "node-truth", sizeof(struct truth), truth_fields,
					  "The agent's record of one workspace.", .open = true };

#define JSON_MOST (UINT64_C(8) << 20)

uint64_t unix_ms(void)
{
	struct timespec now;
	(void)clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

const char *boot_id(void)
{
	static char id[64]; /* first called before threads start */

	if (!id[0]) {
		own_strbuf struct str text = { 0 };
		const char *path = "/proc/sys/kernel/random/boot_id";
#ifdef CARREL_FAULTS
		if (getenv("CARREL_BOOT_ID_FILE")) /* tests turn the machine off and on */
			path = getenv("CARREL_BOOT_ID_FILE");
#endif
		if (fs_read_file(AT_FDCWD, path, sizeof id - 1, &text, NULL) == 0)
			(void)snprintf(id, sizeof id, "%.36s", str_text(&text));
	}
	return id;
}

char *record_path(const struct record *r, const char *inner) { return mem_printf("%s/%s", r->folder, inner); }

char *record_volume_path(const struct record *r, const char *kept_folder, const struct spec_volume *v)
{
	if (!v) /* of an image that is a disk: node/disk.h */
		return record_path(r, r->wish.image && r->wish.image->machine ? "volumes/root.qcow2" : "volumes/root.ext4");
	if (v->keep)
		return mem_printf("%s/%" PRIu64 "/%s.ext4", kept_folder, r->wish.owner_uid, v->name);
	return mem_printf("%s/volumes/%s.ext4", r->folder, v->name);
}

struct record *record_new(const char *folder, const char *id)
{
	struct record *r = mem_alloc(sizeof *r);

	(void)snprintf(r->id, sizeof r->id, "%s", id);
	r->folder = mem_printf("%s/%s", folder, id);
	r->journal = mem_strdup("");
	r->truth.report = mem_alloc(sizeof *r->truth.report);
	r->truth.report->id = mem_strdup(id);
	r->truth.report->exit_status = FIELD_NO_PRESET;
	return r;
}

void record_free(struct record *r)
{
	if (!r)
		return;
	assignment_done(&r->wish);
	shape_done(&truth_shape, &r->truth);
	free(r->folder);
	free(r->journal);
	free(r->trouble);
	free(r);
}

static int load_json(const struct record *r, const char *name, const struct shape *shape, void *ret_value, struct err *e)
{
	own_str char *path = record_path(r, name);
	own_strbuf struct str text = { 0 };
	int got = fs_read_file(AT_FDCWD, path, JSON_MOST, &text, e);

	if (got < 0)
		return got;
	return decode_text(str_text(&text), text.length, path, shape, ret_value, e);
}

/* Lines "begin STEP"; a torn last line was never acted upon. */
static void load_journal(struct record *r)
{
	own_str char *path = record_path(r, "journal");
	own_strbuf struct str text = { 0 }, steps = { 0 };

	if (fs_read_file(AT_FDCWD, path, 65536, &text, NULL) < 0)
		return;
	for (char *line = text.bytes, *end; line && (end = strchr(line, '\n')); line = end + 1) {
		*end = '\0';
		if (str_starts(line, "begin "))
			str_printf(&steps, "%s%s", steps.length ? " " : "", line + strlen("begin "));
		if (str_starts(line, "begin restore-"))
			(void)!str_to_u64(line + strlen("begin restore-"), UINT64_MAX, &r->restoring);
	}
	free(r->journal);
	r->journal = str_take(&steps);
}

/* Temporary files of an agent that was killed while it wrote. */
static void remove_unfinished(const struct record *r)
{
	own_dir DIR *dir = opendir(r->folder);

	for (struct dirent *entry; dir && (entry = readdir(dir));)
		if (str_ends(entry->d_name, ".tmp"))
			(void)unlinkat(dirfd(dir), entry->d_name, 0);
}

/* Neither wish nor truth: removed when there is nothing else in it. */
static bool is_empty_shell(const struct record *r)
{
	own_str char *wish = record_path(r, "assignment.json"), *truth = record_path(r, "truth.json");
	return !fs_exists(AT_FDCWD, wish) && !fs_exists(AT_FDCWD, truth) && rmdir(r->folder) == 0;
}

/* A truth that is not there was never written: the agent ended after its first write, before there was anything to tell. */
static void load_truth(struct record *r, struct err *trouble)
{
	struct truth truth = { 0 };
	int got = load_json(r, "truth.json", &truth_shape, &truth, trouble);

	r->lost_truth = got < 0 && got != -ENOENT;
	if (got < 0)
		return;
	shape_done(&truth_shape, &r->truth);
	r->truth = truth;
}

int record_load(const char *folder, const char *id, struct record **ret_record, struct err *e)
{
	struct record *r = record_new(folder, id);
	struct err trouble = { 0 };

	remove_unfinished(r);
	if (is_empty_shell(r)) {
		record_free(r);
		return err_set(e, ERR_NOT_FOUND, "record of workspace %s", id);
	}
	load_truth(r, &trouble);
	int got = load_json(r, "assignment.json", &assignment_shape, &r->wish, r->lost_truth ? NULL : &trouble);
	r->lost_wish = got < 0 && !(got == -ENOENT && !r->lost_truth && r->truth.report->state == STATE_REMOVED);
	if (r->lost_wish || r->lost_truth)
		r->trouble = mem_dup(&trouble, sizeof trouble);
	r->on_disk = true;
	load_journal(r);
	*ret_record = r;
	return 0;
}

void record_presume(struct record *r)
{
	struct report *report = r->truth.report;
	own_str char *root = record_volume_path(r, "", NULL);

	report->restore = r->wish.restore;
	if (fs_exists(AT_FDCWD, root)) {
		report->run = r->wish.run;
		report->state = r->wish.run ? STATE_RUNNING : STATE_PREPARED;
	}
	free(r->truth.boot_id);
	r->truth.boot_id = mem_strdup(boot_id());
	r->lost_truth = false;
	r->unsaved = true;
}

static int save_json(struct record *r, const char *name, const struct shape *shape, const void *value, bool durable,
		     struct err *e)
{
	if (!r->on_disk) {
		int made = fs_mkdirs(r->folder, 0700, e);
		if (made < 0)
			return made;
		r->on_disk = true;
	}
	json_t *json = encode(shape, value);
	own_str char *text = json_dumps(json, JSON_COMPACT), *path = record_path(r, name);
	json_decref(json);
	return fs_write_file(AT_FDCWD, path, text, strlen(text), 0600, durable, e);
}

int record_save_wish(struct record *r, struct err *e)
{
	return save_json(r, "assignment.json", &assignment_shape, &r->wish, false, e);
}

int record_save_truth(struct record *r, struct err *e)
{
	int saved = save_json(r, "truth.json", &truth_shape, &r->truth, r->must_sync, e);
	r->unsaved = saved < 0;
	if (saved < 0)
		return saved;
	r->must_sync = false;
	own_str char *path = record_path(r, "journal");
	if (truncate(path, 0) < 0 && errno != ENOENT)
		return err_errno(e, errno, "empty %s", path);
	r->journal[0] = '\0';
	return 0;
}

int record_begin(struct record *r, const char *step, bool durable, struct err *e)
{
	own_str char *path = record_path(r, "journal"), *line = mem_printf("begin %s\n", step);
	own_fd int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);

	if (fd < 0)
		return err_errno(e, errno, "open %s", path);
	int done = fs_write_all(fd, line, strlen(line), e);
	if (done == 0 && durable)
		done = fsync(fd) < 0 ? err_errno(e, errno, "sync %s", path) : fs_sync_folder(r->folder, e);
	return done;
}

int record_remove_data(struct record *r, struct err *e)
{
	static const char *const parts[] = { "volumes", "snapshots", "log" };
	own_fd int fd = -1;

	if (!r->on_disk)
		return 0;
	int got = fs_open_dir(AT_FDCWD, r->folder, &fd, e);
	if (got == -ENOENT)
		return 0;
	for (size_t i = 0; i < ARRAY_SIZE(parts) && got == 0; i++)
		got = fs_remove_tree(fd, parts[i], e);
	return got < 0 ? err_wrap(e, "remove the data of workspace %s", r->id) : 0;
}

int record_forget(struct record *r, struct err *e)
{
	return r->on_disk ? fs_remove_tree(AT_FDCWD, r->folder, e) : 0;
}

void record_clear_error(struct record *r)
{
	struct report_error *error = TAKE(r->truth.report->error);

	if (!error)
		return;
	free(error->kind);
	free(error->message);
	free(error->hint);
	free(error->step);
	free(error);
}

void record_set_error(struct record *r, const char *step, const struct err *e)
{
	record_clear_error(r);
	struct report_error *error = r->truth.report->error = mem_alloc(sizeof *error);
	error->kind = mem_strdup(err_kind_name(e->kind));
	error->message = utf8_or_replaced(e->message);
	error->hint = e->hint[0] ? utf8_or_replaced(e->hint) : NULL;
	error->step = mem_strdup(step);
}

int record_read_snapshots(struct record *r, struct err *e)
{
	own_str char *path = record_path(r, "snapshots");

	texts_done(&r->truth.report->snapshots);
	own_dir DIR *dir = opendir(path);
	if (!dir)
		return errno == ENOENT ? 0 : err_errno(e, errno, "read %s", path);
	struct dirent *entry;
	int next;
	while ((next = fs_next_entry(dir, &entry, e)) > 0)
		if (id_valid(entry->d_name))
			texts_add(&r->truth.report->snapshots, entry->d_name);
	return next < 0 ? err_wrap(e, "%s", path) : 0;
}
