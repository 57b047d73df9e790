/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. The thin half: making, changing, killing and removing groups. Everything is found by name and may be repeated.
 *
 * A write that fails is tried once more after all others: memory.limit and memory.memsw.limit may only be raised in one order
 * and lowered in the other, and two passes serve both. Waiting: v2 tells of changes by POLLPRI on cgroup.events; v1 has no such
 * event, so its files are read again every millisecond, for two seconds at most.
 */
#include "enforce/private.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/loop.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"

#define WAIT_MS 2000

int enforce_layout_read(struct enforce_layout *ret_layout, struct err *e)
{
	own_strbuf struct str mountinfo = { 0 }, controllers = { 0 };
	struct enforce_layout l = { 0 };
	int r = fs_read_file(AT_FDCWD, "/proc/self/mountinfo", 16 << 20, &mountinfo, e);

	if (r == 0)
		r = enforce_layout_parse(mountinfo.bytes, "", &l, e);
	if (r < 0)
		return r;
	if (l.v2) {
		own_str char *path = mem_printf("%s/cgroup.controllers", l.v2);
		r = fs_read_file(AT_FDCWD, path, 65536, &controllers, e);
		enforce_layout_done(&l);
		if (r == 0)
			r = enforce_layout_parse(mountinfo.bytes, controllers.bytes, &l, e);
		if (r < 0)
			return r;
	}
	*ret_layout = l;
	return 0;
}

/* --- applying --- */

int enforce_write_file(const char *path, const char *text)
{
	own_fd int fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	return write(fd, text, strlen(text)) < 0 ? -errno : 0;
}

static int delegate(const char *folder, uint32_t owner, struct err *e)
{
	static const char *const files[] = { ".", "cgroup.procs", "cgroup.threads", "cgroup.subtree_control" };

	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		own_str char *path = mem_printf("%s/%s", folder, files[i]);
		if (chown(path, owner, owner) < 0)
			return err_errno(e, errno, "delegate %s", path);
	}
	return 0;
}

/* A file may be written several times in a row (devices.allow), each of them a message of its own: it stays open for that. */
static int write_next(int *fd, const char *last, const struct enforce_write *w)
{
	if (!last || !str_eq(last, w->path) || *fd < 0) {
		own_close(fd);
		*fd = open(w->path, O_WRONLY | O_CLOEXEC);
	}
	return *fd < 0 || write(*fd, w->text, strlen(w->text)) < 0 ? -errno : 0;
}

int enforce_write_all(const struct enforce_write *writes, size_t count, const struct enforce_write **ret_failed)
{
	own_str char *failed = mem_alloc(count + 1);
	const char *last = NULL;
	own_fd int fd = -1;
	int result = 0;

	for (int pass = 0; pass < 2; pass++) {
		for (size_t i = 0; i < count && result == 0; i++) {
			const struct enforce_write *w = &writes[i];
			if (pass == 1 && !failed[i])
				continue;
			int r = write_next(&fd, last, w);
			last = w->path;
			failed[i] = r < 0 && !(w->optional && r == -ENOENT);
			if (failed[i] && pass == 1) {
				*ret_failed = w;
				result = r;
			}
		}
	}
	return result;
}

static int apply_writes(const struct enforce_plan *p, struct err *e)
{
	const struct enforce_write *failed = NULL;
	int r = enforce_write_all(p->writes, p->write_count, &failed);

	return r < 0 ? err_errno(e, -r, "write %s to %s", failed->text, failed->path) : 0;
}

static int make_folder(const char *path, struct err *e)
{
	if (mkdir(path, 0755) == 0 || errno == EEXIST)
		return 0;
	if (errno == ENOENT) /* PARENT comes to be with the first workspace */
		return fs_mkdirs(path, 0755, e);
	return err_errno(e, errno, "make group %s", path);
}

int enforce_apply(const struct enforce_plan *p, struct err *e)
{
	int r = 0;

	for (char *const *folder = p->folders; folder && *folder && r == 0; folder++)
		r = make_folder(*folder, e);
	if (r == 0 && p->v2 && p->owner_id)
		r = delegate(p->v2, p->owner_id, e);
	if (r == 0)
		r = apply_writes(p, e);
	if (r == 0 && p->device_program)
		r = enforce_devices_attach(p->v2, p->kvm, e);
	return r;
}

/* --- reading --- */

/* `key` NULL: the whole file is the number; else the number behind "key ". */
static int read_number(const char *folder, const char *file, const char *key, uint64_t *ret_number)
{
	own_str char *path = mem_printf("%s/%s", folder, file);
	own_strbuf struct str content = { 0 };
	int r = fs_read_file(AT_FDCWD, path, 1 << 20, &content, NULL);

	if (r < 0)
		return r;
	char *p = content.bytes;
	for (size_t n = key ? strlen(key) : 0; n && !(strncmp(p, key, n) == 0 && p[n] == ' '); p++) {
		p = strchr(p, '\n');
		if (!p)
			return -ENODATA;
	}
	if (key)
		p += strlen(key) + 1;
	p[strspn(p, "0123456789")] = '\0';
	return str_to_u64(p, UINT64_MAX, ret_number);
}

static uint64_t number_or_unknown(const char *folder, const char *file, const char *key)
{
	uint64_t number;
	return !folder || read_number(folder, file, key, &number) < 0 ? UINT64_MAX : number;
}

int enforce_usage(const struct enforce_plan *p, struct enforce_usage *ret_usage, struct err *e)
{
	const char *memory = p->usage.memory;

	if (!p->folders || access(p->folders[0], F_OK) < 0)
		return err_set(e, ERR_NOT_FOUND, "there is no group %s", p->folders ? p->folders[0] : "of this workspace");
	struct enforce_usage u = { .processes = number_or_unknown(p->usage.pids, "pids.current", NULL) };
	u.cpu_us = p->usage.cpu_v2 ? number_or_unknown(p->usage.cpu, "cpu.stat", "usage_usec") :
				     number_or_unknown(p->usage.cpu, "cpuacct.usage", NULL);
	if (!p->usage.cpu_v2 && u.cpu_us != UINT64_MAX)
		u.cpu_us /= 1000;
	u.memory_bytes = number_or_unknown(memory, p->usage.memory_v2 ? "memory.current" : "memory.usage_in_bytes", NULL);
	u.memory_peak_bytes = number_or_unknown(memory, p->usage.memory_v2 ? "memory.peak" : "memory.max_usage_in_bytes", NULL);
	u.out_of_memory_kills = number_or_unknown(memory, p->usage.memory_v2 ? "memory.events" : "memory.oom_control",
						  "oom_kill");
	*ret_usage = u;
	return 0;
}

/* --- waiting --- */

static void one_millisecond(void) { (void)nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL); }

/* Until "key" in cgroup.events has the value. */
static int wait_event(const char *folder, const char *key, uint64_t wanted, struct err *e)
{
	own_str char *path = mem_printf("%s/cgroup.events", folder);
	uint64_t until = loop_now_ms() + WAIT_MS, value, now;
	own_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
	char buffer[256];

	if (fd < 0)
		return err_errno(e, errno, "open %s", path);
	while ((now = loop_now_ms()) < until) {
		if (pread(fd, buffer, sizeof buffer, 0) < 0) /* arms the event */
			return err_errno(e, errno, "read %s", path);
		if (read_number(folder, "cgroup.events", key, &value) == 0 && value == wanted)
			return 0;
		struct pollfd polled = { .fd = fd, .events = POLLPRI };
		(void)poll(&polled, 1, (int)(until - now));
	}
	return err_set(e, ERR_TIMEOUT, "%s did not become %s=%" PRIu64 " within %d ms", folder, key, wanted, WAIT_MS);
}

/* --- killing and removing --- */

/* v1 has no cgroup.kill: signals until the list of processes is empty. A frozen process dies once it is thawed. */
static int kill_listed(const char *folder, struct err *e)
{
	own_str char *path = mem_printf("%s/cgroup.procs", folder);
	uint64_t until = loop_now_ms() + WAIT_MS;

	do {
		own_strbuf struct str list = { 0 };
		if (fs_read_file(AT_FDCWD, path, 16 << 20, &list, NULL) < 0 || list.length == 0)
			return 0;
		char *rest = list.bytes;
		for (char *line; (line = strsep(&rest, "\n"));) {
			uint64_t pid;
			if (str_to_u64(line, INT32_MAX, &pid) == 0 && pid > 0)
				(void)kill((pid_t)pid, SIGKILL);
		}
		one_millisecond();
	} while (loop_now_ms() < until);
	return err_set(e, ERR_TIMEOUT, "processes in %s did not die within %d ms", folder, WAIT_MS);
}

int enforce_kill(const struct enforce_plan *p, struct err *e)
{
	int r = 0;

	if (p->v2 && access(p->v2, F_OK) == 0) {
		own_str char *path = mem_printf("%s/cgroup.kill", p->v2);
		r = enforce_write_file(path, "1");
		r = r == 0       ? wait_event(p->v2, "populated", 0, e) :
		    r == -ENOENT ? kill_listed(p->v2, e) :
				   err_errno(e, -r, "write %s", path);
	}
	for (char *const *folder = p->v1; folder && *folder && r == 0; folder++) {
		if (!p->v2 && p->freeze_path && str_starts(p->freeze_path, *folder))
			(void)!enforce_write_file(p->freeze_path, p->thaw_text);
		r = kill_listed(*folder, e);
	}
	return r;
}

/* Groups below first; a group whose last process is being reaped is busy for a moment. */
static int remove_group(const char *folder, struct err *e)
{
	own_dir DIR *dir = opendir(folder);
	uint64_t until = loop_now_ms() + WAIT_MS;

	if (!dir)
		return errno == ENOENT ? 0 : err_errno(e, errno, "open group %s", folder);
	struct dirent *entry;
	int r = 0;
	while (r == 0 && (r = fs_next_entry(dir, &entry, e)) > 0) {
		own_str char *below = mem_printf("%s/%s", folder, entry->d_name);
		r = entry->d_type == DT_DIR ? remove_group(below, e) : 0;
	}
	if (r < 0)
		return r;
	while (rmdir(folder) < 0 && errno != ENOENT) {
		if (errno != EBUSY || loop_now_ms() >= until)
			return err_errno(e, errno, "remove group %s", folder);
		one_millisecond();
	}
	return 0;
}

int enforce_remove(const struct enforce_plan *p, struct err *e)
{
	int r = enforce_kill(p, e);

	for (char *const *folder = p->folders; folder && *folder && r == 0; folder++)
		r = remove_group(*folder, e);
	return r;
}

static int list_folder(const char *mount, const char *parent, struct texts *ids, struct err *e)
{
	own_str char *folder = mem_printf("%s/%s", mount, parent);
	own_dir DIR *dir = opendir(folder);

	if (!dir)
		return errno == ENOENT ? 0 : err_errno(e, errno, "open group %s", folder);
	struct dirent *entry;
	int r;
	while ((r = fs_next_entry(dir, &entry, e)) > 0) {
		bool known = entry->d_type != DT_DIR || entry->d_name[0] == '.';
		for (size_t i = 0; i < ids->count && !known; i++)
			known = str_eq(ids->items[i], entry->d_name);
		if (!known)
			texts_add(ids, entry->d_name);
	}
	return r;
}

int enforce_list(const struct enforce_layout *l, const char *parent, struct texts *ret_ids, struct err *e)
{
	struct texts ids = { 0 };
	int r = l->v2 ? list_folder(l->v2, parent, &ids, e) : 0;

	for (int c = 0; c < ENFORCE_CONTROLLERS && r == 0; c++)
		if (l->v1[c])
			r = list_folder(l->v1[c], parent, &ids, e);
	if (r < 0) {
		texts_done(&ids);
		return r;
	}
	*ret_ids = ids;
	return 0;
}
