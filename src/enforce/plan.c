/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. The pure half: which layout the host has, and which folders and writes a workspace needs there. Kernel interfaces:
 * Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/ of the kernel.
 *
 * CPU: a quota of milli/10 hundredths per period of 100 ms, so 1500 thousandths are 150 ms of processor time in 100 ms. Without
 * a limit nothing is written. Memory: one limit for memory and swap together, so that a workspace cannot grow into swap (v1
 * memsw; v2 swap.max 0); the group's own out-of-memory killer ends the workspace's processes only (v2 memory.oom.group stays 0:
 * one process dies, not the workspace). Processes: pids.max, as promised.
 *
 * A machine has one more folder for the threads of its virtual processors. A limit of processor time is theirs; the
 * workspace as a whole has HELPERS_MILLI more, for disks, network and control. Without a limit it is there too, so that one
 * can be set while the machine runs. In v2 that folder is threaded
 * (cgroup-v2.rst, "Threads"): memory and all else stay the workspace's. Its weight is that of so many threads as it has
 * processors: a folder beside threads counts as one.
 */
#include "enforce/enforce.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"

#define PERIOD_US 100000
#define HELPERS_MILLI 500
#define PROCESSORS_FOLDER "processors"

static const char *const controller_names[ENFORCE_CONTROLLERS] = {
	[ENFORCE_CPU] = "cpu",   [ENFORCE_CPUACCT] = "cpuacct", [ENFORCE_MEMORY] = "memory",
	[ENFORCE_PIDS] = "pids", [ENFORCE_FREEZER] = "freezer", [ENFORCE_DEVICES] = "devices",
};

const struct enforce_device enforce_devices[] = {
	{ 'c', 1, 3, "rwm" },   /* null */
	{ 'c', 1, 5, "rwm" },   /* zero */
	{ 'c', 1, 7, "rwm" },   /* full */
	{ 'c', 1, 8, "rwm" },   /* random */
	{ 'c', 1, 9, "rwm" },   /* urandom */
	{ 'c', 5, 0, "rwm" },   /* tty */
	{ 'c', 5, 1, "rwm" },   /* console */
	{ 'c', 5, 2, "rwm" },   /* ptmx */
	{ 'c', 136, -1, "rwm" }, /* pts/N */
	{ 'c', 10, 200, "rw" }, /* net/tun: a VPN in the workspace's own network */
	{ 'c', 10, 229, "rw" }, /* fuse */
	{ 0 },
};

const struct enforce_device enforce_kvm = { 'c', 10, 232, "rwm" };

/* --- the layout --- */

static bool has_word(const char *list, const char *word, const char *separators)
{
	size_t length = strlen(word);

	for (const char *p = list; *p;) {
		size_t n = strcspn(p, separators);
		if (n == length && strncmp(p, word, n) == 0)
			return true;
		p += n + strspn(p + n, separators);
	}
	return false;
}

/* "36 35 98:0 /root /mount/point opts - type source superoptions"; spaces in paths are \040, which no cgroup mount has. */
static void take_mount(struct enforce_layout *l, const char *line)
{
	char root[256], point[256], type[32], options[256];
	const char *dash = strstr(line, " - ");

	if (!dash || sscanf(line, "%*s %*s %*s %255s %255s", root, point) != 2 ||
	    sscanf(dash, " - %31s %*s %255s", type, options) != 2)
		return;
	if (!str_eq(root, "/"))
		return;
	if (str_eq(type, "cgroup2") && !l->v2)
		l->v2 = mem_strdup(point);
	for (int c = 0; str_eq(type, "cgroup") && c < ENFORCE_CONTROLLERS; c++)
		if (!l->v1[c] && has_word(options, controller_names[c], ","))
			l->v1[c] = mem_strdup(point);
}

int enforce_layout_parse(const char *mountinfo, const char *v2_controllers, struct enforce_layout *ret_layout, struct err *e)
{
	struct enforce_layout l = { 0 };

	for (const char *p = mountinfo; *p;) {
		size_t n = strcspn(p, "\n");
		own_str char *line = mem_strndup(p, n);
		take_mount(&l, line);
		p += n + (p[n] == '\n');
	}
	if (!l.v2 && !l.v1[ENFORCE_PIDS]) {
		enforce_layout_done(&l);
		(void)err_set(e, ERR_UNSUPPORTED, "no control groups are mounted on this host");
		return err_hint(e, "mount -t cgroup2 none /sys/fs/cgroup");
	}
	for (int c = 0; l.v2 && c < ENFORCE_CONTROLLERS; c++)
		l.v2_has[c] = has_word(v2_controllers, controller_names[c], " \n");
	if (l.v2) {
		l.v2_has[ENFORCE_FREEZER] = true;
		l.v2_has[ENFORCE_CPUACCT] = l.v2_has[ENFORCE_CPU];
		l.v2_has[ENFORCE_DEVICES] = !l.v1[ENFORCE_DEVICES]; /* by a program, not by files */
	}
	*ret_layout = l;
	return 0;
}

void enforce_layout_done(struct enforce_layout *l)
{
	free(l->v2);
	for (int c = 0; c < ENFORCE_CONTROLLERS; c++)
		free(l->v1[c]);
	*l = (struct enforce_layout){ 0 };
}

/* --- the plan --- */

static void add_path(char ***list, char *path)
{
	size_t n = 0;
	while (*list && (*list)[n])
		n++;
	*list = mem_grow_array(*list, n + 2, sizeof **list);
	(*list)[n] = path;
	(*list)[n + 1] = NULL;
}

static void add_write(struct enforce_plan *p, bool optional, const char *folder, const char *file, const char *fmt, ...)
	format_printf(5, 6);
static void add_write(struct enforce_plan *p, bool optional, const char *folder, const char *file, const char *fmt, ...)
{
	struct str text = { 0 };
	va_list args;

	va_start(args, fmt);
	str_vprintf(&text, fmt, args);
	va_end(args);
	p->writes = mem_grow_array(p->writes, p->write_count + 1, sizeof *p->writes);
	p->writes[p->write_count++] =
		(struct enforce_write){ .path = mem_printf("%s/%s", folder, file), .text = str_take(&text),
					.optional = optional };
}

/* `none` is what the file takes for no limit. */
static void add_limit(struct enforce_plan *p, const char *folder, const char *file, uint64_t limit, const char *none)
{
	if (limit)
		add_write(p, false, folder, file, "%" PRIu64, limit);
	else
		add_write(p, false, folder, file, "%s", none);
}

/* Of the whole; 0: no limit. */
static uint64_t quota_us(const struct enforce_limits *limits)
{
	uint64_t helpers = limits->processors ? HELPERS_MILLI : 0;

	return limits->cpu_milli ? (limits->cpu_milli + helpers) * PERIOD_US / 1000 : 0;
}

static void add_cpu_max(struct enforce_plan *p, const char *folder, uint64_t quota)
{
	if (quota)
		add_write(p, false, folder, "cpu.max", "%" PRIu64 " %d", quota, PERIOD_US);
	else
		add_write(p, false, folder, "cpu.max", "max %d", PERIOD_US);
}

static void plan_v1_devices(struct enforce_plan *p, const char *folder, bool kvm)
{
	size_t first = p->write_count;

	add_write(p, false, folder, "devices.deny", "a");
	if (kvm)
		add_write(p, false, folder, "devices.allow", "%c %d:%d %s", enforce_kvm.type, enforce_kvm.major,
			  enforce_kvm.minor, enforce_kvm.access);
	for (const struct enforce_device *d = enforce_devices; d->type; d++) {
		if (d->minor < 0)
			add_write(p, false, folder, "devices.allow", "%c %d:* %s", d->type, d->major, d->access);
		else
			add_write(p, false, folder, "devices.allow", "%c %d:%d %s", d->type, d->major, d->minor, d->access);
	}
	while (first < p->write_count)
		p->writes[first++].once = true;
}

static void plan_v1_controller(struct enforce_plan *p, enum enforce_controller c, const char *folder,
			       const struct enforce_limits *limits)
{
	switch (c) {
	case ENFORCE_CPU:
		add_write(p, false, folder, "cpu.cfs_period_us", "%d", PERIOD_US);
		add_limit(p, folder, "cpu.cfs_quota_us", quota_us(limits), "-1");
		break;
	case ENFORCE_CPUACCT:
		p->usage.cpu = mem_strdup(folder);
		break;
	case ENFORCE_MEMORY:
		p->usage.memory = mem_strdup(folder);
		add_limit(p, folder, "memory.limit_in_bytes", limits->memory_bytes, "-1");
		add_limit(p, folder, "memory.memsw.limit_in_bytes", limits->memory_bytes, "-1");
		p->writes[p->write_count - 1].optional = true;
		break;
	case ENFORCE_PIDS:
		p->usage.pids = mem_strdup(folder);
		add_limit(p, folder, "pids.max", limits->processes, "max");
		break;
	case ENFORCE_FREEZER:
		p->freeze_path = mem_printf("%s/freezer.state", folder);
		p->freeze_text = "FROZEN";
		p->thaw_text = "THAWED";
		break;
	default:
		plan_v1_devices(p, folder, limits->kvm);
	}
}

static void plan_v1(struct enforce_plan *p, const struct enforce_layout *l, const char *parent, const char *id,
		    const struct enforce_limits *limits)
{
	for (int c = 0; c < ENFORCE_CONTROLLERS; c++) {
		if (!l->v1[c] || l->v2_has[c])
			continue;
		bool known = false; /* cpu,cpuacct mounted as one */
		for (int before = 0; before < c; before++)
			known |= !l->v2_has[before] && str_eq(l->v1[before], l->v1[c]);
		char *folder = mem_printf("%s/%s/%s", l->v1[c], parent, id);
		plan_v1_controller(p, (enum enforce_controller)c, folder, limits);
		if (known) {
			free(folder);
			continue;
		}
		add_path(&p->folders, folder);
		add_path(&p->v1, mem_strdup(folder));
	}
}

/* Controllers reach a folder only when each folder above hands them down. */
static void plan_v2_handing_down(struct enforce_plan *p, const struct enforce_layout *l, const char *parent)
{
	static const enum enforce_controller handed[] = { ENFORCE_CPU, ENFORCE_MEMORY, ENFORCE_PIDS };
	size_t first = p->write_count;
	own_strbuf struct str list = { 0 };

	for (size_t i = 0; i < ARRAY_SIZE(handed); i++)
		if (l->v2_has[handed[i]])
			str_printf(&list, "%s+%s", list.length ? " " : "", controller_names[handed[i]]);
	if (!list.length)
		return;
	add_write(p, false, l->v2, "cgroup.subtree_control", "%s", list.bytes);
	for (size_t n = 0; n < strlen(parent); n++) {
		n += strcspn(parent + n, "/");
		own_str char *folder = mem_printf("%s/%.*s", l->v2, (int)n, parent);
		add_write(p, false, folder, "cgroup.subtree_control", "%s", list.bytes);
	}
	while (first < p->write_count)
		p->writes[first++].once = true;
}

static void plan_v2(struct enforce_plan *p, const struct enforce_layout *l, const char *parent, const char *id,
		    const struct enforce_limits *limits)
{
	char *folder = mem_printf("%s/%s/%s", l->v2, parent, id);

	p->v2 = folder;
	p->freeze_path = mem_printf("%s/cgroup.freeze", folder);
	p->freeze_text = "1";
	p->thaw_text = "0";
	p->device_program = l->v2_has[ENFORCE_DEVICES];
	add_path(&p->folders, mem_strdup(folder));
	plan_v2_handing_down(p, l, parent);
	if (l->v2_has[ENFORCE_CPU]) {
		p->usage.cpu = mem_strdup(folder);
		p->usage.cpu_v2 = true;
		add_cpu_max(p, folder, quota_us(limits));
	}
	if (l->v2_has[ENFORCE_MEMORY]) {
		p->usage.memory = mem_strdup(folder);
		p->usage.memory_v2 = true;
		add_limit(p, folder, "memory.max", limits->memory_bytes, "max");
		add_write(p, false, folder, "memory.high", "max"); /* enforce_change lowers it for a moment */
		add_write(p, true, folder, "memory.swap.max", "%s", limits->memory_bytes ? "0" : "max");
	}
	if (l->v2_has[ENFORCE_PIDS]) {
		p->usage.pids = mem_strdup(folder);
		add_limit(p, folder, "pids.max", limits->processes, "max");
	}
}

static void plan_processors(struct enforce_plan *p, const struct enforce_layout *l, const char *parent, const char *id,
			    const struct enforce_limits *limits)
{
	bool v2 = l->v2 && l->v2_has[ENFORCE_CPU];
	const char *mount = v2 ? l->v2 : l->v1[ENFORCE_CPU];
	uint64_t quota = limits->cpu_milli * PERIOD_US / 1000;

	if (!mount || !limits->processors)
		return;
	own_str char *whole = mem_printf("%s/%s/%s", mount, parent, id);
	char *folder = mem_printf("%s/" PROCESSORS_FOLDER, whole);
	add_path(&p->folders, folder);
	p->processors = mem_printf("%s/%s", folder, v2 ? "cgroup.threads" : "tasks");
	if (v2) {
		add_write(p, false, folder, "cgroup.type", "threaded");
		add_write(p, false, whole, "cgroup.subtree_control", "+cpu");
		p->writes[p->write_count - 2].once = p->writes[p->write_count - 1].once = true;
		add_cpu_max(p, folder, quota);
		add_write(p, false, folder, "cpu.weight", "%u", 100 * limits->processors);
	} else {
		add_write(p, false, folder, "cpu.cfs_period_us", "%d", PERIOD_US);
		add_limit(p, folder, "cpu.cfs_quota_us", quota, "-1");
		add_write(p, false, folder, "cpu.shares", "%u", 1024 * limits->processors);
	}
}

static bool parent_valid(const char *parent)
{
	return *parent && *parent != '/' && !str_ends(parent, "/") && !strstr(parent, "//") && !strstr(parent, "..");
}

int enforce_plan(const struct enforce_layout *l, const char *parent, const char *id, const struct enforce_limits *limits,
		 uint32_t owner_id, struct enforce_plan *ret_plan, struct err *e)
{
	struct enforce_plan p = { .owner_id = owner_id, .kvm = limits->kvm };

	if (!parent_valid(parent) || !*id || strchr(id, '/') || str_starts(id, "."))
		return err_set(e, ERR_INVALID, "'%s/%s' is no name for control groups", parent, id);
	plan_v1(&p, l, parent, id, limits);
	if (l->v2)
		plan_v2(&p, l, parent, id, limits);
	plan_processors(&p, l, parent, id, limits);
	*ret_plan = p;
	return 0;
}

void enforce_plan_print(const struct enforce_plan *p, struct str *out)
{
	for (char *const *folder = p->folders; folder && *folder; folder++)
		str_printf(out, "mkdir %s\n", *folder);
	if (p->v2 && p->owner_id)
		str_printf(out, "delegate %s to %u\n", p->v2, p->owner_id);
	for (size_t i = 0; i < p->write_count; i++)
		str_printf(out, "write %s %s\n", p->writes[i].path, p->writes[i].text);
	if (p->device_program)
		str_printf(out, "device rules on %s%s\n", p->v2, p->kvm ? ", with /dev/kvm" : "");
}

static void free_paths(char **list)
{
	for (char **path = list; path && *path; path++)
		free(*path);
	free(list);
}

void enforce_plan_done(struct enforce_plan *p)
{
	free_paths(p->folders);
	free_paths(p->v1);
	for (size_t i = 0; i < p->write_count; i++) {
		free(p->writes[i].path);
		free(p->writes[i].text);
	}
	free(p->writes);
	free(p->v2);
	free(p->freeze_path);
	free(p->processors);
	free(p->usage.cpu);
	free(p->usage.memory);
	free(p->usage.pids);
	*p = (struct enforce_plan){ 0 };
}
