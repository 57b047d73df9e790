/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. CRIU writes what is inside a workspace and makes it again. What crosses the workspace's edge is ours, both ways:
 *
 *   mounts of the host     external: left out, and bound again from places that we fill (`mounts`)
 *   standard streams       pipes of carrel-run, known by their inodes; new ones are handed in under the old names
 *   terminal               the same, by device numbers
 *   network                the namespace is CRIU's, empty; interfaces, addresses and routes come from the plan, as at a start
 *   cgroups                CRIU does not touch them: it runs inside the workspace's, and who stood in which subfolder is noted
 *                          here
 *   root                   an overlay made anew in the new user namespace, before CRIU looks for it
 *
 * The record is text, one fact a line; a target or source may hold any byte but newline and NUL.
 */
#include "engine/workspace/checkpoint.h"

#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/own.h"

#define RECORD_HEAD "carrel checkpoint 1\n"
#define GHOST_BYTES (64 << 20) /* longest removed file that a process may still hold open */
#define LOG_LEVEL 2            /* warnings and errors */
enum { CGROUPS_IGNORE = 0, NETWORK_LOCK_SKIP = 3 }; /* rpc.proto */

static const char *const source_names[CHECKPOINT_SOURCES] = {
	[CHECKPOINT_DEVICE] = "device",    [CHECKPOINT_HIDE_FILE] = "hide-file", [CHECKPOINT_HIDE_FOLDER] = "hide-folder",
	[CHECKPOINT_FIRST_FILE] = "first", [CHECKPOINT_HOST] = "host",           [CHECKPOINT_VOLUME] = "volume",
	[CHECKPOINT_CONSOLE] = "console",  [CHECKPOINT_CGROUPS] = "cgroups",     [CHECKPOINT_TUN] = "tun",
};

void checkpoint_done(struct checkpoint *c)
{
	for (size_t i = 0; i < c->mount_count; i++) {
		free(c->mounts[i].target);
		free(c->mounts[i].source);
	}
	free(c->mounts);
	for (size_t i = 0; i < c->cgroup_count; i++) {
		free(c->cgroups[i].path);
		free(c->cgroups[i].subtree);
		free(c->cgroups[i].processes);
	}
	free(c->cgroups);
	*c = (struct checkpoint){ 0 };
}

static void add_mount(struct checkpoint *c, enum checkpoint_source from, const char *target, const char *source)
{
	MEM_PUSH_ROOM(c->mounts, c->mount_count, c->mount_room);
	c->mounts[c->mount_count++] = (struct checkpoint_mount){ from, mem_strdup(target), mem_strdup(source) };
}

struct checkpoint_cgroup *checkpoint_add_cgroup(struct checkpoint *c, const char *path)
{
	MEM_PUSH_ROOM(c->cgroups, c->cgroup_count, c->cgroup_room);
	struct checkpoint_cgroup *g = &c->cgroups[c->cgroup_count++];
	*g = (struct checkpoint_cgroup){ .path = mem_strdup(path), .subtree = mem_strdup("") };
	return g;
}

/* --- mountinfo --- */

/* proc_pid_mountinfo(5): space, tab, newline and backslash are written as octal numbers. */
static char *unescape(const char *word, size_t length)
{
	char *text = mem_strndup(word, length), *to = text;

	for (const char *at = text; *at; at++) {
		if (at[0] == '\\' && at[1] >= '0' && at[1] <= '3' && at[2] >= '0' && at[2] <= '7' && at[3] >= '0' &&
		    at[3] <= '7') {
			*to++ = (char)((at[1] - '0') << 6 | (at[2] - '0') << 3 | (at[3] - '0'));
			at += 3;
		} else {
			*to++ = *at;
		}
	}
	*to = '\0';
	return text;
}

/* Field `n` of a line, counted from 0. */
static char *field(const char *line, unsigned n)
{
	for (; n; n--)
		line += strcspn(line, " \n") + (line[strcspn(line, " \n")] == ' ');
	return unescape(line, strcspn(line, " \n"));
}

/* The root of the topmost mount on `target`, inside its file system; NULL: nothing is mounted there. */
static char *root_of(const char *mountinfo, const char *target)
{
	char *root = NULL;

	for (const char *line = mountinfo; *line; line += strcspn(line, "\n") + (line[strcspn(line, "\n")] == '\n')) {
		own_str char *point = field(line, 4);
		if (!str_eq(point, target))
			continue;
		free(root);
		root = field(line, 3);
	}
	return root;
}

static bool is_cgroups(const struct step *s) { return s->kind == STEP_MOUNT && str_eq(s->source, "cgroup2"); }

int checkpoint_find_mounts(const struct plan *p, const char *mountinfo, struct checkpoint *c, struct err *e)
{
	for (size_t i = 0; i < p->step_count; i++) {
		const struct step *s = &p->steps[i];
		bool ours = s->kind == STEP_DEVICE || s->kind == STEP_HIDE || s->kind == STEP_FIRST || s->kind == STEP_VOLUME ||
			    s->kind == STEP_HOST || s->kind == STEP_CONSOLE || s->kind == STEP_TUN || is_cgroups(s);
		own_str char *root = ours ? root_of(mountinfo, s->target) : NULL;
		if (!root)
			continue;
		if (c->mount_count == CHECKPOINT_MOUNTS_MOST || strchr(s->target, '\n') || strchr(s->source, '\n'))
			return err_set(e, ERR_UNSUPPORTED, "too many mounts, or a strange one: %s", s->target);
		if (s->kind == STEP_DEVICE)
			add_mount(c, CHECKPOINT_DEVICE, s->target, s->target);
		else if (s->kind == STEP_HIDE && (str_eq(root, "/none") || str_eq(root, "/nothing")))
			add_mount(c, str_eq(root, "/none") ? CHECKPOINT_HIDE_FILE : CHECKPOINT_HIDE_FOLDER, s->target, "");
		else if (s->kind == STEP_FIRST)
			add_mount(c, CHECKPOINT_FIRST_FILE, s->target, "");
		else if (s->kind == STEP_VOLUME)
			add_mount(c, CHECKPOINT_VOLUME, s->target, s->source);
		else if (s->kind == STEP_HOST)
			add_mount(c, CHECKPOINT_HOST, s->target, s->source);
		else if (s->kind == STEP_CONSOLE)
			add_mount(c, CHECKPOINT_CONSOLE, s->target, "");
		else if (s->kind == STEP_TUN)
			add_mount(c, CHECKPOINT_TUN, s->target, "");
		else if (is_cgroups(s))
			add_mount(c, CHECKPOINT_CGROUPS, s->target, "");
	}
	return 0;
}

/* --- the record --- */

void checkpoint_encode(const struct checkpoint *c, struct str *out)
{
	str_puts(out, RECORD_HEAD);
	for (size_t i = 0; i < c->mount_count; i++) {
		const struct checkpoint_mount *m = &c->mounts[i];
		str_printf(out, "mount %s %s\n", source_names[m->from], m->target);
		if (*m->source)
			str_printf(out, "source %s\n", m->source);
	}
	for (unsigned i = 0; i < ARRAY_SIZE(c->pipes); i++)
		if (c->pipes[i])
			str_printf(out, "pipe %u %" PRIu64 "\n", i, c->pipes[i]);
	if (c->terminal_file)
		str_printf(out, "terminal %" PRIx64 ":%" PRIx64 "\n", c->terminal_device, c->terminal_file);
	for (size_t i = 0; i < c->cgroup_count; i++) {
		const struct checkpoint_cgroup *g = &c->cgroups[i];
		str_printf(out, "cgroup %o %s %s\n", (unsigned)g->mode, g->theirs ? "theirs" : "ours", g->path);
		if (*g->subtree)
			str_printf(out, "subtree %s\n", g->subtree);
		for (size_t n = 0; n < g->process_count; n++)
			str_printf(out, "process %d\n", (int)g->processes[n]);
	}
}

static int take_mount(struct checkpoint *c, const char *rest)
{
	size_t n = strcspn(rest, " ");

	if (rest[n] != ' ' || rest[n + 1] != '/' || c->mount_count == CHECKPOINT_MOUNTS_MOST)
		return -1;
	for (unsigned i = 0; i < CHECKPOINT_SOURCES; i++)
		if (strlen(source_names[i]) == n && strncmp(rest, source_names[i], n) == 0) {
			add_mount(c, (enum checkpoint_source)i, rest + n + 1, "");
			return 0;
		}
	return -1;
}

/* A path below the workspace's cgroup may not lead out of it. */
static int take_cgroup(struct checkpoint *c, const char *rest)
{
	unsigned mode;
	char who[8];
	int at = 0;

	if (sscanf(rest, "%o %7s%n", &mode, who, &at) != 2 || mode > 0777 || rest[at] != ' ')
		return -1;
	const char *path = rest + at + 1;
	if ((*path && *path != '/') || strstr(path, "/../") || (strlen(path) >= 3 && str_eq(path + strlen(path) - 3, "/..")))
		return -1;
	struct checkpoint_cgroup *g = checkpoint_add_cgroup(c, path);
	g->mode = mode;
	g->theirs = str_eq(who, "theirs");
	return 0;
}

static int take_process(struct checkpoint *c, const char *rest)
{
	uint64_t pid = 0;

	if (!c->cgroup_count || str_to_u64(rest, INT32_MAX, &pid) < 0 || !pid)
		return -1;
	struct checkpoint_cgroup *g = &c->cgroups[c->cgroup_count - 1];
	MEM_PUSH_ROOM(g->processes, g->process_count, g->process_room);
	g->processes[g->process_count++] = (pid_t)pid;
	return 0;
}

static int take_text(char **to, const char *text)
{
	free(*to);
	*to = mem_strdup(text);
	return 0;
}

static int take_line(struct checkpoint *c, const char *line)
{
	unsigned number;
	uint64_t inode;

	if (str_starts(line, "mount "))
		return take_mount(c, line + 6);
	if (str_starts(line, "source "))
		return c->mount_count ? take_text(&c->mounts[c->mount_count - 1].source, line + 7) : -1;
	if (str_starts(line, "cgroup "))
		return take_cgroup(c, line + 7);
	if (str_starts(line, "subtree "))
		return c->cgroup_count ? take_text(&c->cgroups[c->cgroup_count - 1].subtree, line + 8) : -1;
	if (str_starts(line, "process "))
		return take_process(c, line + 8);
	if (sscanf(line, "pipe %u %" SCNu64, &number, &inode) == 2 && number < ARRAY_SIZE(c->pipes)) {
		c->pipes[number] = inode;
		return 0;
	}
	return sscanf(line, "terminal %" SCNx64 ":%" SCNx64, &c->terminal_device, &c->terminal_file) == 2 ? 0 : -1;
}

int checkpoint_decode(const char *text, size_t length, struct checkpoint *ret_checkpoint, struct err *e)
{
	struct checkpoint c = { 0 };
	own_str char *copy = mem_strndup(text, length);
	char *save = NULL;

	if (strlen(copy) != length || !str_starts(copy, RECORD_HEAD))
		return err_set(e, ERR_CORRUPT, "the record of a checkpoint does not begin as one");
	for (char *line = strtok_r(copy + strlen(RECORD_HEAD), "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		if (take_line(&c, line) == 0)
			continue;
		checkpoint_done(&c);
		return err_set(e, ERR_CORRUPT, "the record of a checkpoint has a line that means nothing: %.80s", line);
	}
	*ret_checkpoint = c;
	return 0;
}

const struct step *checkpoint_step(const struct checkpoint_mount *m, const struct plan *p)
{
	static const uint32_t kinds[CHECKPOINT_SOURCES] = {
		[CHECKPOINT_DEVICE] = STEP_DEVICE, [CHECKPOINT_HIDE_FILE] = STEP_HIDE,	 [CHECKPOINT_HIDE_FOLDER] = STEP_HIDE,
		[CHECKPOINT_FIRST_FILE] = STEP_FIRST, [CHECKPOINT_HOST] = STEP_HOST, [CHECKPOINT_VOLUME] = STEP_VOLUME,
		[CHECKPOINT_CONSOLE] = STEP_CONSOLE,  [CHECKPOINT_CGROUPS] = STEP_MOUNT,   [CHECKPOINT_TUN] = STEP_TUN,
	};

	for (size_t i = 0; i < p->step_count; i++)
		if (p->steps[i].kind == kinds[m->from] && str_eq(p->steps[i].target, m->target) &&
		    ((m->from != CHECKPOINT_HOST && m->from != CHECKPOINT_VOLUME) || str_eq(p->steps[i].source, m->source)))
			return &p->steps[i];
	return NULL;
}

int checkpoint_check(const struct checkpoint *c, const struct plan *p, struct err *e)
{
	for (size_t i = 0; i < c->mount_count; i++)
		if (!checkpoint_step(&c->mounts[i], p))
			return err_set(e, ERR_CONFLICT,
				       "%s was mounted when the workspace was suspended, and is not given to it any more",
				       c->mounts[i].target);
	for (unsigned i = 0; i < ARRAY_SIZE(c->pipes); i++)
		if (c->pipes[i] && (p->flags & PLAN_TERMINAL))
			return err_set(e, ERR_CONFLICT,
				       "the workspace had pipes when it was suspended, and is to have a terminal now");
	if (c->terminal_file && !(p->flags & PLAN_TERMINAL))
		return err_set(e, ERR_CONFLICT, "the workspace had a terminal when it was suspended, and is to have pipes now");
	return 0;
}

/* --- options --- */

void checkpoint_options_number(struct checkpoint_options *o, const char *name, int64_t n)
{
	MEM_PUSH_ROOM(o->items, o->count, o->room);
	o->items[o->count++] = (struct checkpoint_option){ .name = name, .number = n };
}

void checkpoint_options_text(struct checkpoint_options *o, const char *name, char *taken, int64_t n)
{
	MEM_PUSH_ROOM(o->items, o->count, o->room);
	o->items[o->count++] = (struct checkpoint_option){ name, taken, n };
}

/* The same for both ways: what is written one way must be read that way. */
static void common(const struct checkpoint_how *how, struct checkpoint_options *o)
{
	checkpoint_options_number(o, "images_dir_fd", how->folder_fd);
	if (how->work_fd)
		checkpoint_options_number(o, "work_dir_fd", how->work_fd);
	checkpoint_options_number(o, "log_level", LOG_LEVEL);
	checkpoint_options_text(o, "log_file", mem_strdup(CHECKPOINT_LOG), 0);
	checkpoint_options_number(o, "tcp_established", 1);
	checkpoint_options_number(o, "ext_unix_sk", 1);
	checkpoint_options_number(o, "file_locks", 1);
	checkpoint_options_number(o, "link_remap", 1);
	checkpoint_options_number(o, "ghost_limit", GHOST_BYTES);
	checkpoint_options_number(o, "manage_cgroups_mode", CGROUPS_IGNORE);
	checkpoint_options_number(o, "empty_ns", CLONE_NEWNET);
	checkpoint_options_number(o, "network_lock", NETWORK_LOCK_SKIP);
	checkpoint_options_number(o, "timeout", how->seconds);
	checkpoint_options_number(o, "orphan_pts_master", 1);
}

static char *terminal_key(const struct checkpoint *c)
{
	return mem_printf("tty[%" PRIx64 ":%" PRIx64 "]", c->terminal_device, c->terminal_file);
}

void checkpoint_dump_options(const struct checkpoint *c, const struct checkpoint_how *how,
			     struct checkpoint_options *ret_options)
{
	/* inotify knows inodes, not paths */
	static const char *const watched[] = { "/usr", "/etc", "/var", "/home", "/root", "/run" };

	*ret_options = (struct checkpoint_options){ 0 };
	common(how, ret_options);
	checkpoint_options_number(ret_options, "pid", how->pid);
	checkpoint_options_number(ret_options, "leave_running", 1); /* it is frozen, and stays so */
	if (how->freeze_folder)
		checkpoint_options_text(ret_options, "freeze_cgroup", mem_strdup(how->freeze_folder), 0);
	for (size_t i = 0; i < ARRAY_SIZE(watched); i++)
		checkpoint_options_text(ret_options, "irmap_scan_paths", mem_strdup(watched[i]), 0);
	for (size_t i = 0; i < c->mount_count; i++)
		checkpoint_options_text(ret_options, "external", mem_printf("mnt[%s]:carrel-%zu", c->mounts[i].target, i), 0);
	if (c->terminal_file)
		checkpoint_options_text(ret_options, "external", terminal_key(c), 0);
}

void checkpoint_restore_options(const struct checkpoint *c, const struct checkpoint_how *how,
				struct checkpoint_options *ret_options)
{
	*ret_options = (struct checkpoint_options){ 0 };
	common(how, ret_options);
	checkpoint_options_number(ret_options, "rst_sibling", 1);
	checkpoint_options_number(ret_options, "notify_scripts", 1);
	checkpoint_options_text(ret_options, "root", mem_printf("%s/root", how->scratch), 0);
	for (size_t i = 0; i < c->mount_count; i++)
		if (c->mounts[i].from == CHECKPOINT_DEVICE)
			checkpoint_options_text(ret_options, "external",
						mem_printf("mnt[carrel-%zu]:%s", i, c->mounts[i].target), 0);
		else
			checkpoint_options_text(ret_options, "external",
						mem_printf("mnt[carrel-%zu]:%s/%zu", i, how->scratch, i), 0);
	for (size_t i = 0; i < ARRAY_SIZE(c->pipes); i++)
		if (c->pipes[i] && how->streams[i] >= 0)
			checkpoint_options_text(ret_options, "inherit_fd", mem_printf("pipe:[%" PRIu64 "]", c->pipes[i]),
						how->streams[i]);
	if (c->terminal_file && how->terminal >= 0)
		checkpoint_options_text(ret_options, "inherit_fd", terminal_key(c), how->terminal);
}

void checkpoint_options_done(struct checkpoint_options *o)
{
	for (size_t i = 0; i < o->count; i++)
		free(o->items[i].text);
	free(o->items);
	*o = (struct checkpoint_options){ 0 };
}
