/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. The cgroups of a workspace are found by its id, its runner by its run folder; nothing is remembered here but
 * the host's cgroup layout and the spare runners.
 *
 * A spare is a runner that waits, with a first process that stands in cgroups of its own (PARENT/spare-RANDOM) already: entering a
 * v1 cgroup costs a grace period of the kernel, about 10 ms. A start takes a spare, renames its groups to the workspace's id and
 * writes the limits. Spares end with the agent, by the end of file on what connects them; their groups, should the agent be killed,
 * are taken away by the next one.
 */
#include "node/isolate.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"
#include "enforce/enforce.h"
#include "engine/launch.h"
#include "engine/runner_client.h"

#define SPARE_PREFIX "spare-"

struct spare {
	struct engine_spare *runner;
	char name[sizeof SPARE_PREFIX + ID_SIZE];
};

struct isolator {
	struct enforce_layout layout;
	pthread_mutex_t lock; /* the spares */
	struct spare *spares;
	size_t count, capacity;
};

static char *run_folder(const struct node *n, const char *id) { return mem_printf("%s/%s", n->runs, id); }

static void plan_done_at(struct enforce_plan *p) { enforce_plan_done(p); }
#define own_plan __attribute__((cleanup(plan_done_at)))

static int make_plan(const struct node *n, const char *name, const struct assignment *a, uint64_t first_id, struct enforce_plan *ret_plan,
		     struct err *e)
{
	struct enforce_limits limits = { 0 };

	if (a && a->spec) {
		struct spec_resources wanted = spec_resources_or_default(a->spec);
		limits = (struct enforce_limits){ wanted.cpu_milli, wanted.memory_bytes, wanted.processes };
	}
	return enforce_plan(&n->isolator->layout, n->config.cgroup, name, &limits, (uint32_t)first_id, ret_plan, e);
}

void isolate_parts_done(struct isolate_parts *p)
{
	for (size_t i = 0; i < p->lower_count; i++)
		free(p->lowers[i]);
	for (size_t i = 0; i < p->volume_count; i++) {
		own_close(&p->volumes[i].fd);
		free(p->volumes[i].path);
	}
	free(p->lowers);
	free(p->volumes);
	engine_spare_free(p->spare);
	*p = (struct isolate_parts){ 0 };
}

/* --- spares --- */

int isolator_new(const struct node *n, struct isolator **ret_isolator, struct err *e)
{
	struct isolator *i = mem_alloc(sizeof *i);

	(void)n;
	(void)pthread_mutex_init(&i->lock, NULL);
	int r = enforce_layout_read(&i->layout, e);
	if (r < 0) {
		isolator_free(i);
		return r;
	}
	*ret_isolator = i;
	return 0;
}

void isolator_free(struct isolator *i)
{
	if (!i)
		return;
	for (size_t at = 0; at < i->count; at++)
		engine_spare_free(i->spares[at].runner);
	free(i->spares);
	enforce_layout_done(&i->layout);
	(void)pthread_mutex_destroy(&i->lock);
	free(i);
}

static bool take_spare(struct isolator *i, struct spare *ret_spare)
{
	(void)pthread_mutex_lock(&i->lock);
	bool found = i->count > 0;
	if (found)
		*ret_spare = i->spares[--i->count];
	(void)pthread_mutex_unlock(&i->lock);
	return found;
}

int isolator_refill(struct node *n, struct err *e)
{
	struct isolator *i = n->isolator;
	own_plan struct enforce_plan plan = { 0 };
	struct spare spare = { 0 };
	char id[ID_SIZE];

	(void)pthread_mutex_lock(&i->lock);
	bool full = i->count >= n->config.spares;
	(void)pthread_mutex_unlock(&i->lock);
	if (full)
		return 0;
	id_new(id);
	(void)snprintf(spare.name, sizeof spare.name, SPARE_PREFIX "%s", id);
	int r = make_plan(n, spare.name, NULL, 0, &plan, e);
	if (r == 0)
		r = enforce_apply(&plan, e);
	if (r == 0)
		r = engine_spare_new((const char *const *)plan.v1, &spare.runner, e);
	if (r < 0) {
		(void)!enforce_remove(&plan, NULL);
		return err_wrap(e, "make a spare runner");
	}
	(void)pthread_mutex_lock(&i->lock);
	MEM_PUSH_ROOM(i->spares, i->count, i->capacity);
	i->spares[i->count++] = spare;
	(void)pthread_mutex_unlock(&i->lock);
	return 1;
}

/* --- limits --- */

int isolate_limits(struct node *n, const struct record *r, struct isolate_parts *parts, struct err *e)
{
	own_plan struct enforce_plan plan = { 0 }, spare_plan = { 0 };
	struct spare spare;
	int done = make_plan(n, r->id, &r->wish, r->truth.first_id, &plan, e);

	if (done < 0)
		return done;
	if (take_spare(n->isolator, &spare)) {
		done = make_plan(n, spare.name, NULL, 0, &spare_plan, e);
		if (done == 0)
			done = enforce_apply_spare(&spare_plan, &plan, e);
		if (done == 0) {
			parts->spare = spare.runner;
			return 0;
		}
		log_error(e, "workspace %s: a spare runner could not be used", r->id);
		engine_spare_free(spare.runner);
		(void)!enforce_remove(&spare_plan, NULL);
	}
	return enforce_apply(&plan, e);
}

int isolate_limits_undo(struct node *n, const char *id, struct err *e)
{
	own_plan struct enforce_plan plan = { 0 };
	int r = make_plan(n, id, NULL, 0, &plan, e);
	return r < 0 ? r : enforce_remove(&plan, e);
}

/* --- launch --- */

static void fill_volumes(const struct isolate_parts *parts, struct launch_volume *volumes, struct launch *l)
{
	for (size_t i = 0; i < parts->volume_count; i++) {
		const struct isolate_volume *v = &parts->volumes[i];
		if (!v->spec)
			l->root_fd = v->fd;
		else
			volumes[l->volume_count++] = (struct launch_volume){ v->spec->name, v->fd, v->spec->mount, v->spec->read_only };
	}
	l->volumes = volumes;
}

static struct launch make_launch(const struct assignment *a, const struct enforce_plan *plan, uint64_t first_id)
{
	return (struct launch){
		.id = a->id,
		.name = a->spec->name ? a->spec->name : a->id,
		.host_name = a->spec->host_name,
		.spec = a->spec,
		.image = a->image,
		.first_id = (uint32_t)first_id,
		.root_fd = -1,
		.run = a->run,
		.cgroups = { (const char *const *)plan->v1, plan->v2, plan->freeze_path, plan->freeze_text, plan->thaw_text },
		.held = a->held,
		.throw_away = a->spec->remove_on_exit,
	};
}

int isolate_start(struct node *n, const struct record *r, struct isolate_parts *parts, bool paused, bool maintenance, uint64_t *ret_pid,
		  struct err *e)
{
	own_plan struct enforce_plan plan = { 0 };
	own_str char *run = run_folder(n, r->id), *log_folder = record_path(r, "log"), *log = record_path(r, "log/output");
	own_str struct launch_volume *volumes = mem_alloc_array(parts->volume_count + 1, sizeof *volumes);
	struct launch_result result = { 0 };

	int done = make_plan(n, r->id, &r->wish, r->truth.first_id, &plan, e);
	if (done == 0)
		done = fs_remove_tree(AT_FDCWD, run, e); /* of the run before */
	if (done == 0)
		done = fs_mkdirs(run, 0700, e);
	if (done == 0)
		done = fs_mkdirs(log_folder, 0700, e);
	if (done < 0)
		return done;
	struct launch l = make_launch(&r->wish, &plan, r->truth.first_id);
	l.partitions = (const char *const *)parts->lowers;
	l.partition_count = parts->lower_count;
	fill_volumes(parts, volumes, &l);
	l.run_dir = run;
	l.log_path = log;
	l.paused = paused;
	l.maintenance = maintenance;
	done = engine_launch(&l, TAKE(parts->spare), &result, e);
	if (done == 0)
		*ret_pid = result.pid > 0 ? (uint64_t)result.pid : 0;
	return done;
}

int isolate_connect(struct node *n, const char *id, int *ret_control, struct err *e)
{
	own_str char *run = run_folder(n, id);
	return runner_watch(run, ret_control, e);
}

/* Ends when the runner has: its connection's end of file. */
static void wait_for_end(const char *run)
{
	struct runner_status status;
	own_fd int fd = -1;

	if (runner_watch(run, &fd, NULL) < 0)
		return;
	for (uint64_t until = loop_now_ms() + 5000; loop_now_ms() < until;) {
		struct pollfd polled = { .fd = fd, .events = POLLIN };
		(void)poll(&polled, 1, 100);
		if (polled.revents && runner_watch_read(fd, &status, NULL) < 0)
			return;
	}
}

int isolate_undo(struct node *n, const char *id, struct err *e)
{
	own_str char *run = run_folder(n, id);

	if (!fs_exists(AT_FDCWD, run))
		return 0;
	if (runner_kill(run, NULL) == 0)
		wait_for_end(run);
	return fs_remove_tree(AT_FDCWD, run, e);
}

int isolate_status(struct node *n, const char *id, struct isolate_status *ret_status, struct err *e)
{
	own_str char *run = run_folder(n, id);
	struct runner_status s;
	int r = runner_read_status(run, &s, e);

	if (r < 0)
		return r;
	*ret_status = (struct isolate_status){
		.ended = s.state == RUNNER_ENDED && s.exit_status >= 0,
		.run = s.run,
		.pid = s.pid > 0 ? (uint64_t)s.pid : 0,
		.started_ms = s.started_ms,
		.ended_ms = s.ended_ms,
		.exit_status = s.exit_status,
	};
	return 0;
}

/* --- a workspace that lives --- */

int isolate_stop(struct node *n, const struct record *r, uint64_t timeout_ms, struct err *e)
{
	own_str char *run = run_folder(n, r->id);
	int done = timeout_ms ? runner_stop(run, timeout_ms, e) : runner_kill(run, e);
	return done == -EHOSTUNREACH ? 0 : done; /* gone already: the connection tells */
}

int isolate_pause(struct node *n, const struct record *r, struct err *e)
{
	own_str char *run = run_folder(n, r->id);
	return runner_pause(run, e);
}

int isolate_resume(struct node *n, const struct record *r, struct err *e)
{
	own_str char *run = run_folder(n, r->id);
	return runner_resume(run, e);
}

static int freeze_one(const char *run, const char *name, bool freeze, struct err *e)
{
	own_fd int mount_fd = -1, loop_fd = -1;
	int r = runner_volume(run, name, &mount_fd, &loop_fd, e);

	if (r < 0)
		return r;
	if (freeze && ioctl(mount_fd, FIFREEZE, 0) < 0 && errno != EBUSY)
		return err_errno(e, errno, "freeze volume %s", name);
	if (!freeze && ioctl(mount_fd, FITHAW, 0) < 0 && errno != EINVAL)
		return err_errno(e, errno, "thaw volume %s", name);
	return 0;
}

int isolate_freeze_volumes(struct node *n, const struct record *r, bool freeze, struct err *e)
{
	own_str char *run = run_folder(n, r->id);
	const struct spec_volume *volumes = r->wish.spec->volumes.items;
	int done = freeze_one(run, "root", freeze, e);

	for (size_t i = 0; i < r->wish.spec->volumes.count && (done == 0 || !freeze); i++)
		if (!volumes[i].read_only) {
			int one = freeze_one(run, volumes[i].name, freeze, e);
			done = done < 0 ? done : one;
		}
	return done;
}

int isolate_grow_volume(struct node *n, const struct record *r, const struct isolate_volume *v, uint64_t size_bytes, struct err *e)
{
	own_str char *run = run_folder(n, r->id);
	own_fd int mount_fd = -1, loop_fd = -1;
	int done = runner_volume(run, v->spec ? v->spec->name : "root", &mount_fd, &loop_fd, e);
	return done < 0 ? done : volume_grow_mounted(v->path, size_bytes, loop_fd, mount_fd, e);
}

/* --- plans for people --- */

static json_t *lines_of(const char *text)
{
	json_t *lines = json_array();

	for (size_t length; *text; text += length + (text[length] == '\n')) {
		length = strcspn(text, "\n");
		(void)json_array_append_new(lines, json_stringn(text, length));
	}
	return lines;
}

json_t *isolate_limits_plan(const struct node *n, const struct assignment *a)
{
	own_plan struct enforce_plan plan = { 0 };
	own_strbuf struct str text = { 0 };
	struct err e = { 0 };

	if (make_plan(n, a->id, a, n->config.first_id, &plan, &e) < 0)
		return json_pack("[s]", e.message);
	enforce_plan_print(&plan, &text);
	return lines_of(str_text(&text));
}

json_t *isolate_plan(const struct node *n, const struct assignment *a)
{
	own_plan struct enforce_plan plan = { 0 };
	const struct image_partition *partitions = a->image->partitions.items;
	const struct spec_volume *specs = a->spec->volumes.items;
	own_str struct launch_volume *volumes = mem_alloc_array(a->spec->volumes.count + 1, sizeof *volumes);
	char **lowers = mem_alloc_array(a->image->partitions.count + 1, sizeof *lowers);
	own_str char *run = run_folder(n, a->id), *log = mem_printf("%s/%s/log/output", n->workspaces, a->id);
	json_t *planned = NULL;
	struct err e = { 0 };

	for (size_t i = 0; i < a->image->partitions.count; i++)
		lowers[i] = mem_printf("%s/%s", n->partitions, strchr(partitions[i].digest, ':') ? strchr(partitions[i].digest, ':') + 1 : "");
	for (size_t i = 0; i < a->spec->volumes.count; i++)
		volumes[i] = (struct launch_volume){ specs[i].name, -1, specs[i].mount, specs[i].read_only };
	int r = make_plan(n, a->id, a, n->config.first_id, &plan, &e);
	struct launch l = make_launch(a, &plan, n->config.first_id);
	l.partitions = (const char *const *)lowers;
	l.partition_count = a->image->partitions.count;
	l.volumes = volumes;
	l.volume_count = a->spec->volumes.count;
	l.run_dir = run;
	l.log_path = log;
	if (r == 0)
		r = engine_plan(&l, &planned, &e);
	for (size_t i = 0; i < a->image->partitions.count; i++)
		free(lowers[i]);
	free(lowers);
	return r < 0 ? json_pack("[s]", e.message) : planned;
}

/* --- what belongs to nobody --- */

static void remove_group(struct node *n, const char *name)
{
	struct err e = { 0 };

	log_info("taking away what is left of %s", name);
	if (isolate_undo(n, name, &e) < 0 || isolate_limits_undo(n, name, &e) < 0)
		log_error(&e, "take away what is left of %s", name);
}

static bool is_ours(const char *name) { return id_valid(name) || (str_starts(name, SPARE_PREFIX) && id_valid(name + strlen(SPARE_PREFIX))); }

static void collect_folder(struct node *n, const char *folder, bool (*known)(void *, const char *), void *data)
{
	own_dir DIR *dir = opendir(folder);

	for (struct dirent *entry; dir && (entry = readdir(dir));)
		if (is_ours(entry->d_name) && !known(data, entry->d_name))
			remove_group(n, entry->d_name);
}

int isolate_collect(struct node *n, bool (*known)(void *data, const char *id), void *data, struct err *e)
{
	own_plan struct enforce_plan plan = { 0 };
	int r = make_plan(n, SPARE_PREFIX "x", NULL, 0, &plan, e);

	if (r < 0)
		return r;
	collect_folder(n, n->runs, known, data);
	for (size_t i = 0; plan.folders && plan.folders[i]; i++) {
		own_str char *parent = mem_strdup(plan.folders[i]);
		char *slash = strrchr(parent, '/');
		if (!slash || !str_eq(slash + 1, SPARE_PREFIX "x"))
			continue;
		*slash = '\0';
		collect_folder(n, parent, known, data);
		if (!n->isolator->count)
			(void)rmdir(parent); /* fails while it has groups; made again when it is needed */
	}
	return 0;
}
