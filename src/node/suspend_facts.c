/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. Processes of a workspace in namespaces are found by its range of user ids, which nobody else has. Of a machine the
 * host sees what its runner knows: the visitors. What is inside is looked at there, by the same CRIU, when it is moved.
 */
#include "node/suspend_facts.h"

#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"
#include "engine/launch.h"
#include "engine/runner_client.h"
#include "model/interfaces_of_kernel.h"
#include "model/network.h"
#include "model/travel.h"
#include "node/isolate.h"

#define TOLD_MOST 20 /* of a kind: who has hundreds of connections wants to know that, not each */
#define TABLE_MOST (4u << 20)
#define ENVIRONMENT_MOST (4u << 20)
#define FORKS_MOST 16 /* parents that are asked for a process */

struct look {
	const struct record *record;
	struct suspend_facts *facts;
	bool into_machine;
	char pid[16]; /* of the process that is looked at */
	char name[64];
};

static void add(struct texts *list, char *taken)
{
	own_str char *text = taken;
	texts_add(list, text);
}

static void visitors(struct node *n, const struct record *r, struct suspend_facts *f)
{
	own_str char *run = mem_printf("%s/%s", n->runs, r->id);
	struct runner_status s = { 0 };

	if (runner_status(run, &s, NULL) < 0 || !s.visitors)
		return;
	add(&f->obstacles, mem_printf("%u command%s started by exec, console or cp run%s in it", s.visitors,
				      s.visitors > 1 ? "s" : "", s.visitors > 1 ? "" : "s"));
}

/* --- processes --- */

static bool is_ours(const struct record *r, const char *pid)
{
	own_str char *path = mem_printf("/proc/%s/status", pid);
	own_strbuf struct str text = { 0 };
	const char *line = fs_read_file(AT_FDCWD, path, 65536, &text, NULL) < 0 ? NULL : strstr(str_text(&text), "\nUid:");
	unsigned long long uid = 0;

	return line && sscanf(line, "\nUid: %llu", &uid) == 1 && uid >= r->truth.first_id &&
	       uid < r->truth.first_id + LAUNCH_IDS;
}

static void read_name(struct look *l)
{
	own_str char *path = mem_printf("/proc/%s/comm", l->pid);
	own_strbuf struct str text = { 0 };

	(void)!fs_read_file(AT_FDCWD, path, 64, &text, NULL);
	(void)snprintf(l->name, sizeof l->name, "%.*s", (int)strcspn(str_text(&text), "\n"), str_text(&text));
}

static bool read_link(const char *path, char *ret_text, size_t size)
{
	ssize_t n = readlink(path, ret_text, size - 1);

	ret_text[n > 0 ? n : 0] = '\0';
	return n > 0;
}

static void look_at_descriptors(struct look *l)
{
	own_str char *folder = mem_printf("/proc/%s/fd", l->pid);
	own_dir DIR *dir = opendir(folder);

	for (struct dirent *d; dir && (d = readdir(dir));) {
		own_str char *path = mem_printf("%s/%s", folder, d->d_name);
		char link[256];
		struct stat st;
		if (d->d_name[0] == '.' || !read_link(path, link, sizeof link) || travel_link_goes(link) ||
		    l->facts->obstacles.count == TOLD_MOST)
			continue;
		bool device = stat(path, &st) == 0 && (S_ISCHR(st.st_mode) || S_ISBLK(st.st_mode));
		if (device || !str_starts(link, "/dev/"))
			add(&l->facts->obstacles, mem_printf("process %s (%s) has %s open", l->pid, l->name, link));
	}
}

/* Mounts of its own are no obstacle (services have them). */
static void look_at_namespaces(struct look *l)
{
	static const char *const kinds[] = { "user", "pid", "net", "ipc", "uts" };

	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		own_str char *here = mem_printf("/proc/%s/ns/%s", l->pid, kinds[i]);
		own_str char *first = mem_printf("/proc/%llu/ns/%s", (unsigned long long)l->record->truth.report->pid,
						 kinds[i]);
		char a[64], b[64];
		if (read_link(here, a, sizeof a) && read_link(first, b, sizeof b) && !str_eq(a, b) &&
		    l->facts->obstacles.count < TOLD_MOST)
			add(&l->facts->obstacles,
			    mem_printf("process %s (%s) has a namespace of its own (%s)", l->pid, l->name, kinds[i]));
	}
}

static bool same_program(const char *pid, const char *other)
{
	own_str char *one = mem_printf("/proc/%s/exe", pid), *two = mem_printf("/proc/%s/exe", other);
	char a[PATH_MAX], b[PATH_MAX];

	return read_link(one, a, sizeof a) && read_link(two, b, sizeof b) && str_eq(a, b);
}

/*
 * Started with the environment of what travels. A process may have written a title over its own (postgres): then its parent's
 * counts, of which it is a copy if both run the same program. What cannot be read is not accused.
 */
static bool is_bound(const char *given)
{
	own_str char *pid = mem_strdup(given);

	for (int i = 0; i < FORKS_MOST; i++) {
		own_str char *environment = mem_printf("/proc/%s/environ", pid), *status = mem_printf("/proc/%s/status", pid);
		own_strbuf struct str text = { 0 }, about = { 0 };
		unsigned long long parent = 0;
		if (fs_read_file(AT_FDCWD, environment, ENVIRONMENT_MOST, &text, NULL) < 0 ||
		    (text.length && memmem(text.bytes, text.length, TRAVEL_TUNABLES, strlen(TRAVEL_TUNABLES))) ||
		    fs_read_file(AT_FDCWD, status, 65536, &about, NULL) < 0)
			return true;
		const char *line = strstr(str_text(&about), "\nPPid:");
		own_str char *next = line && sscanf(line, "\nPPid: %llu", &parent) == 1 ? mem_printf("%llu", parent) : NULL;
		if (!next || !same_program(pid, next))
			return false;
		free(pid);
		pid = TAKE(next);
	}
	return false;
}

/* carrel-first, which chooses nothing; a system's first process is the image's, and bound. */
static bool is_first(const struct look *l)
{
	own_str char *path = mem_printf("/proc/%s/status", l->pid);
	own_strbuf struct str text = { 0 };
	unsigned long long outside = 0, inside = 0;

	if (fs_read_file(AT_FDCWD, path, 65536, &text, NULL) < 0)
		return false;
	const char *line = strstr(str_text(&text), "\nNSpid:");
	return line && sscanf(line, "\nNSpid: %llu %llu", &outside, &inside) == 2 && inside == 1;
}

static void look_at_binding(struct look *l)
{
	if (l->into_machine && l->facts->notes.count < TOLD_MOST && !is_bound(l->pid) && !is_first(l))
		add(&l->facts->notes, mem_printf("process %s (%s) was started without the environment that keeps it from "
						 "what a machine's processor lacks, and may end there",
						 l->pid, l->name));
}

static void processes(struct look *l)
{
	own_dir DIR *dir = opendir("/proc");

	for (struct dirent *d; dir && (d = readdir(dir));) {
		if (!isdigit((unsigned char)d->d_name[0]) || strlen(d->d_name) >= sizeof l->pid ||
		    !is_ours(l->record, d->d_name))
			continue;
		(void)snprintf(l->pid, sizeof l->pid, "%s", d->d_name);
		read_name(l);
		look_at_descriptors(l);
		look_at_namespaces(l);
		look_at_binding(l);
	}
}

/* --- network --- */

static void connections(const struct look *l, const char *table, bool ipv6)
{
	own_str char *path = mem_printf("/proc/%llu/net/%s", (unsigned long long)l->record->truth.report->pid, table);
	own_strbuf struct str text = { 0 };
	char *save = NULL, shown[160];

	if (fs_read_file(AT_FDCWD, path, TABLE_MOST, &text, NULL) < 0 || !text.length)
		return;
	for (char *line = strtok_r(text.bytes, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		if (!travel_connection(line, ipv6, shown, sizeof shown))
			continue;
		if (l->facts->notes.count == TOLD_MOST)
			return;
		add(&l->facts->notes, mem_printf("the connection %s goes on if the other side waits", shown));
	}
}

static bool is_given(const struct record *r, const char *device)
{
	const struct attachment *a = r->wish.attachments.items;

	for (size_t i = 0; i < r->wish.attachments.count; i++)
		if (str_eq(a[i].device, device))
			return true;
	return interface_is_kernels(device);
}

static void interfaces(const struct look *l)
{
	own_str char *path = mem_printf("/proc/%llu/net/dev", (unsigned long long)l->record->truth.report->pid);
	own_strbuf struct str text = { 0 };
	char *save = NULL;

	if (fs_read_file(AT_FDCWD, path, TABLE_MOST, &text, NULL) < 0 || !text.length)
		return;
	for (char *line = strtok_r(text.bytes, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		char *name = line + strspn(line, " "), *colon = strchr(name, ':');
		if (!colon)
			continue;
		*colon = '\0';
		if (!is_given(l->record, name) && l->facts->obstacles.count < TOLD_MOST)
			add(&l->facts->obstacles, mem_printf("it has made the interface %s itself", name));
	}
}

void suspend_facts_read(struct node *n, const struct record *r, bool into_machine, struct suspend_facts *ret_facts)
{
	struct look l = { .record = r, .facts = ret_facts, .into_machine = into_machine };

	*ret_facts = (struct suspend_facts){ 0 };
	visitors(n, r, ret_facts);
	if (isolate_ran_as_machine(r->truth.report)) {
		texts_add(&ret_facts->notes, "what is open inside the machine is looked at when it is moved");
		return;
	}
	if (!r->truth.report->pid || !r->truth.first_id)
		return;
	processes(&l);
	interfaces(&l);
	connections(&l, "tcp", false);
	connections(&l, "tcp6", true);
}

void suspend_facts_done(struct suspend_facts *f)
{
	texts_done(&f->obstacles);
	texts_done(&f->notes);
}
