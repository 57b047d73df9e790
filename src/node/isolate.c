/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. The cgroups of a workspace are found by its id, its runner by its run folder; nothing is remembered here
 * but the host's cgroup layout. So every call may be repeated, and works for what another agent made.
 */
#include "node/isolate.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <poll.h>
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
#include "engine/engine.h"
#include "engine/launch.h"
#include "engine/qemu/arguments.h"
#include "engine/qemu/size.h"
#include "engine/runner_client.h"
#include "model/machine.h"
#include "node/disk.h"
#include "node/foreign.h"
#include "node/kvm.h"
#include "node/machine.h"
#include "node/suspend.h"
#include "node/suspend_machine.h"
#include "node/template.h"
#include "node/travel.h"

struct isolator {
	struct enforce_layout layout; /* constant */
};

/* A disk is no set of programs: only a machine makes something of it. */
static bool runs_programs(const struct image *image) { return !image->machine && foreign_runs(image->architecture); }

bool isolate_is_machine(const struct assignment *a)
{
	return a->spec && engine_wants_machine(a->spec, !a->image || runs_programs(a->image));
}

static bool is_native(const struct assignment *a)
{
	return !a->image->architecture || machine_board(a->image->architecture) == machine_board_here();
}

/* *ret_notice: what the user should know about the choice, or NULL. */
static int choose_engine(const struct node *n, const struct assignment *a, const struct engine **ret_engine, char **ret_notice,
			 struct err *e)
{
	struct engine_host host = { .programs = runs_programs(a->image) };
	const struct machine_board *board = a->image->architecture ? machine_board(a->image->architecture) :
								     machine_board_here();
	struct err why = { 0 };
	bool automatic = a->spec->engine == ENGINE_AUTO && isolate_is_machine(a);

	if (a->spec->engine == ENGINE_WORKSPACE && disk_is_one(a)) {
		(void)err_set(e, ERR_INVALID, "the image is a disk, which only a machine can boot");
		return err_hint(e, "use engine emulator or kvm, or leave it out");
	}
	if (a->spec->engine == ENGINE_WORKSPACE && !host.programs) {
		if (!board)
			return err_set(e, ERR_UNSUPPORTED, "programs of %s do not run here", a->image->architecture);
		int r = foreign_check(board, e);
		if (r < 0)
			return r;
		host.programs = true; /* since a moment ago: what runs them was installed meanwhile */
	}
	host.kvm = automatic && is_native(a) && kvm_check(n, &why) >= 0;
	if (ret_notice && automatic && is_native(a) && !host.kvm)
		*ret_notice = mem_printf("it runs under the emulator, slowly: %s", why.message);
	return engine_choose(a->spec, &host, ret_engine, e);
}

/* Fills what a machine is started with. */
static int find_machine(const struct node *n, const struct assignment *a, const struct isolate_parts *parts, struct launch *l,
			struct launch_machine *host, struct err *e)
{
	struct digest kernel;
	struct machine_wanted wanted = { .architecture = a->image->architecture ? a->image->architecture :
										  machine_board_here()->architecture,
					 .kernel = &kernel,
					 .kernel_fd = parts ? parts->kernel_fd : -1,
					 .kvm = l->engine == &engine_kvm,
					 .cpu = a->spec->machine ? a->spec->machine->cpu : NULL };

	if (!a->kernel && !a->image->machine) { /* disks bring their own */
		(void)err_set(e, ERR_UNSUPPORTED, "the site has no kernel for machines of %s", wanted.architecture);
		return err_hint(e, "carrel kernel import linux-%s debian:bookworm --arch %s", wanted.architecture,
				wanted.architecture);
	}
	int r = a->kernel ? digest_parse(a->kernel->digest, &kernel, e) : 0;
	if (!a->kernel)
		wanted.kernel = NULL;
	if (r >= 0)
		r = machines_host(n->machines, &wanted, host, e);
	host->partition_fds = parts ? parts->partition_fds : NULL;
	host->kernel_fd = parts ? parts->kernel_fd : -1;
	l->host_machine = host;
	return r;
}

const char *isolate_engine_name(const struct node *n, const struct assignment *a)
{
	const struct engine *engine = NULL;

	return choose_engine(n, a, &engine, NULL, NULL) >= 0 ? engine->name : NULL;
}

bool isolate_ran_as_machine(const struct report *r)
{
	return r->engine &&
	       (str_eq(r->engine, spec_engine_names[ENGINE_EMULATOR]) || str_eq(r->engine, spec_engine_names[ENGINE_KVM]));
}

int isolate_can_start(struct node *n, const struct assignment *a, struct err *e)
{
	struct launch_machine host = { 0 };
	struct launch l = { 0 };
	int r = choose_engine(n, a, &l.engine, NULL, e);

	if (r >= 0 && l.engine->machine)
		r = find_machine(n, a, NULL, &l, &host, e);
	return r < 0 ? r : 0;
}

static char *run_folder(const struct node *n, const char *id) { return mem_printf("%s/%s", n->runs, id); }

static void plan_done_at(struct enforce_plan *p) { enforce_plan_done(p); }
#define own_plan __attribute__((cleanup(plan_done_at)))

static bool goes_on_as_machine(const struct isolate_parts *parts)
{
	return parts && parts->memory && parts->memory->kind == MEMORY_QEMU;
}

/* `has`: what the machine has already; zeros: what its spec says, NULL: it is none. */
static struct enforce_limits limits_of(const struct assignment *a, const struct launch_size *has)
{
	struct spec_resources wanted = spec_resources_or_default(a->spec);
	struct enforce_limits limits = { wanted.cpu_milli, wanted.memory_bytes, wanted.processes, false, 0 };

	if (!has)
		return limits;
	struct launch_size size = machine_size_wished(a->spec, a->image, MACHINE_PROCESSORS_MOST);
	limits.kvm = a->spec->engine != ENGINE_EMULATOR;
	limits.processors = has->processors ? has->processors : size.processors;
	limits.memory_bytes = (has->memory_bytes ? has->memory_bytes : size.memory_bytes) + MACHINE_ALLOWANCE;
	return limits;
}

/* `has` as above, NULL: nothing yet. */
static int make_plan(const struct node *n, const char *name, const struct assignment *a, const struct launch_size *has,
		     uint64_t first_id, struct enforce_plan *ret_plan, struct err *e)
{
	static const struct launch_size nothing_yet;
	struct enforce_limits limits = { 0 };

	if (a && a->spec)
		limits = limits_of(a, has ? has : isolate_is_machine(a) ? &nothing_yet : NULL);
	return enforce_plan(&n->isolator->layout, n->config.cgroup, name, &limits, (uint32_t)first_id, ret_plan, e);
}

void isolate_interface_done(struct launch_interface *f)
{
	const char *const own[] = { f->port, f->bridge,	  f->device, f->mac,   f->ipv4,	  f->ipv6,
				    f->gateway4, f->gateway6, f->pool6, f->zone,	 f->dns[0], f->dns[1] };

	for (size_t i = 0; i < ARRAY_SIZE(own); i++)
		free((char *)(uintptr_t)own[i]);
	*f = (struct launch_interface){ 0 };
}

void isolate_parts_done(struct isolate_parts *p)
{
	for (size_t i = 0; i < p->interface_count; i++)
		isolate_interface_done(&p->interfaces[i]);
	free(p->interfaces);
	for (size_t i = 0; i < p->lower_count; i++)
		free(p->lowers[i]);
	for (size_t i = 0; i < p->volume_count; i++) {
		own_close(&p->volumes[i].fd);
		volume_mount_close(&p->volumes[i].mount);
		free(p->volumes[i].path);
	}
	disk_close_files(&p->disk);
	for (size_t i = 0; p->partition_fds && i < p->lower_count; i++)
		own_close(&p->partition_fds[i]);
	free(p->partition_fds);
	if (p->has_kernel)
		own_close(&p->kernel_fd);
	free(p->lowers);
	free(p->volumes);
	*p = (struct isolate_parts){ 0 };
}

int isolator_new(struct isolator **ret_isolator, struct err *e)
{
	struct isolator *i = mem_alloc(sizeof *i);
	int r = enforce_layout_read(&i->layout, e);

	if (r < 0) {
		free(i);
		return r;
	}
	*ret_isolator = i;
	return 0;
}

void isolator_free(struct isolator *i)
{
	if (!i)
		return;
	enforce_layout_done(&i->layout);
	free(i);
}

/* --- limits --- */

int isolate_limits(struct node *n, const struct record *r, const struct isolate_parts *parts, struct err *e)
{
	own_plan struct enforce_plan plan = { 0 };
	struct launch_size size = { 0 };

	if (goes_on_as_machine(parts))
		size = suspend_machine_size(parts->memory);
	int done = make_plan(n, r->id, &r->wish, goes_on_as_machine(parts) ? &size : NULL, r->truth.first_id, &plan, e);
	return done < 0 ? done : enforce_apply(&plan, e);
}

/* What was in memory does not come back into less. It may have been more: pages that were zero and files are packed. */
static int check_suspended(const struct record *r, struct err *e)
{
	uint64_t limit = spec_resources_or_default(r->wish.spec).memory_bytes, bytes;
	struct memory_manifest m = { 0 };
	char has[16], asked[16];
	int done = suspend_read(r, &m, e);

	if (done < 0)
		return done;
	bytes = memory_manifest_bytes(&m);
	bool fits = m.kind == MEMORY_QEMU || !limit || bytes <= limit;
	memory_manifest_done(&m);
	if (fits)
		return 0;
	(void)err_set(e, ERR_CONFLICT, "its memory state has %s, which does not come back into %s",
		      str_bytes(has, sizeof has, bytes), str_bytes(asked, sizeof asked, limit));
	return err_hint(e, "resume it and end programs first, or throw its memory away: carrel stop --discard-memory");
}

int isolate_change_limits(struct node *n, const struct record *r, struct err *e)
{
	const struct report *report = r->truth.report;
	const struct launch_size has = { (unsigned)report->machine_processors, report->machine_memory_bytes };
	own_plan struct enforce_plan plan = { 0 };

	if (report->state == STATE_SUSPENDED)
		return check_suspended(r, e);
	if (!state_is_live((enum state)report->state))
		return 0;
	struct enforce_limits limits = limits_of(&r->wish, isolate_ran_as_machine(report) ? &has : NULL);
	int done = enforce_plan(&n->isolator->layout, n->config.cgroup, r->id, &limits, (uint32_t)r->truth.first_id, &plan, e);
	return done < 0 ? done : enforce_change(&plan, e);
}

bool isolate_machine_sizes(const struct record *r, struct launch_size *ret_is, struct launch_size *ret_wished)
{
	const struct report *report = r->truth.report;
	enum state s = (enum state)report->state;

	if (!report->machine_memory_bytes || !isolate_is_machine(&r->wish) || (!state_is_live(s) && s != STATE_SUSPENDED))
		return false;
	*ret_is = (struct launch_size){ (unsigned)report->machine_processors, report->machine_memory_bytes };
	*ret_wished = machine_size_wished(r->wish.spec, r->wish.image, machines_processors());
	return true;
}

int isolate_limits_undo(struct node *n, const char *id, struct err *e)
{
	own_plan struct enforce_plan plan = { 0 };
	int r = make_plan(n, id, NULL, NULL, 0, &plan, e);
	return r < 0 ? r : enforce_remove(&plan, e);
}

/* --- launch --- */

static void fill_volumes(const struct isolate_parts *parts, struct launch_volume *volumes, struct launch *l)
{
	for (size_t i = 0; i < parts->volume_count; i++) {
		const struct isolate_volume *v = &parts->volumes[i];
		if (!v->spec) {
			l->root_fd = v->fd;
			l->root_mount = v->mount.mount_fd >= 0 ? &v->mount : NULL;
		}
		else
			volumes[l->volume_count++] = (struct launch_volume){ v->spec->name, v->fd, v->spec->mount,
									     v->spec->read_only };
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
		.cgroups = { (const char *const *)plan->v1, plan->v2, plan->freeze_path, plan->freeze_text, plan->thaw_text,
			     plan->processors },
		.held = a->held,
		.throw_away = a->spec->remove_on_exit,
	};
}

static int make_run_folder(const char *run, struct err *e)
{
	int r = fs_remove_tree(AT_FDCWD, run, e); /* of the run before */
	return r == 0 ? fs_mkdirs(run, 0700, e) : r;
}

int isolate_launch(struct node *n, const struct assignment *a, uint64_t first_id, struct launch *l, struct err *e)
{
	own_plan struct enforce_plan plan = { 0 };
	own_str char *run = run_folder(n, a->id);
	struct launch_result result = { 0 };
	int r = make_plan(n, a->id, a, NULL, first_id, &plan, e);

	if (r == 0)
		r = enforce_apply(&plan, e);
	if (r == 0)
		r = make_run_folder(run, e);
	if (r < 0)
		return r;
	l->cgroups = (struct launch_cgroups){
		(const char *const *)plan.v1, plan.v2, plan.freeze_path, plan.freeze_text, plan.thaw_text, plan.processors
	};
	l->run_dir = run;
	return engine_launch(l, &result, e);
}

static void set_text(char **text, char *value)
{
	free(*text);
	*text = value;
}

/* How a launch came to its memory, for people. */
static const char *began_of(const struct launch *l, const struct isolate_parts *parts)
{
	if (parts->memory)
		return l->memory && l->memory->clone ? "clone" : "memory";
	return !l->engine->machine ? NULL : l->memory && l->memory->template ? "template" : "boot";
}

/* One try. -EBADMSG: the template that it began from is of no use; -ESTALE: that may be so, or the host was busy. */
static int try_launch(struct node *n, const struct record *r, const struct isolate_parts *parts, struct launch *l,
		      struct launch_machine *host, bool templates, struct launch_result *ret_result, struct err *e)
{
	struct launch_memory memory = { .folder_fd = -1, .state_fd = -1 };
	own_str char *notice = NULL;
	int done = 0;

	l->memory = NULL;
	if (l->engine->machine)
		done = suspend_machine_prepare(n, r, parts, l, host, templates, &memory, &notice, e);
	if (done == 0) {
		l->runner = ready_runner(n->ready);
		done = engine_launch(l, ret_result, e);
	}
	const char *began = began_of(l, parts);
	if (done == 0) {
		struct launch_size size = l->engine->machine ? machine_size(l) : (struct launch_size){ 0 };
		r->truth.report->machine_processors = size.processors;
		r->truth.report->machine_memory_bytes = size.memory_bytes;
		set_text(&r->truth.report->began, began ? mem_strdup(began) : NULL);
	}
	if (notice)
		set_text(&r->truth.report->notice, TAKE(notice));
	l->memory = NULL;
	suspend_machine_prepared(&memory);
	return done;
}

/* A machine boots when a template does not help; one that has booted is what the next template is made for. */
static int launch_with_templates(struct node *n, const struct record *r, const struct isolate_parts *parts, struct launch *l,
				 struct launch_machine *host, struct launch_result *ret_result, struct err *e)
{
	struct err why = { 0 };
	int done = try_launch(n, r, parts, l, host, true, ret_result, e);

	if ((done == -ESTALE || done == -EBADMSG) && (!parts->memory || suspend_is_there(r))) {
		bool of_no_use = done == -EBADMSG;
		why = *e;
		log_error(&why, "workspace %s: it boots instead", r->id);
		done = make_run_folder(l->run_dir, e);
		if (done == 0)
			done = try_launch(n, r, parts, l, host, false, ret_result, e);
		if (done == 0) {
			err_clear(e); /* nothing failed in the end */
			templates_fail(n->templates, l, of_no_use);
			set_text(&r->truth.report->notice,
				 mem_printf("it was booted: going on from a template failed (%s)", why.message));
		}
	} else if (done == 0 && l->engine->machine) {
		if (str_eq(r->truth.report->began, "boot"))
			templates_want(n->templates, l);
		else if (str_eq(r->truth.report->began, "template"))
			templates_work(n->templates, l);
	}
	return done;
}

int isolate_start(struct node *n, const struct record *r, struct isolate_parts *parts, bool paused, bool maintenance,
		  uint64_t *ret_pid, struct err *e)
{
	own_plan struct enforce_plan plan = { 0 };
	own_str char *run = run_folder(n, r->id), *log_folder = record_path(r, "log"), *log = record_path(r, "log/output");
	own_str struct launch_volume *volumes = mem_alloc_array(parts->volume_count + 1, sizeof *volumes);
	own_str int *disk_fds = NULL;
	struct launch_result result = { 0 };
	struct launch_machine host = { 0 };
	struct travel travel = { .launch = { .tools_fd = -1, .luggage_fd = -1, .images_fd = -1, .folder_fd = -1 } };
	own_str char *notice = NULL;

	int done = make_plan(n, r->id, &r->wish, NULL, r->truth.first_id, &plan, e);
	if (done == 0)
		done = make_run_folder(run, e);
	if (done == 0)
		done = fs_mkdirs(log_folder, 0700, e);
	if (done < 0)
		return done;
	struct launch l = make_launch(&r->wish, &plan, r->truth.first_id);
	l.partitions = (const char *const *)parts->lowers;
	l.partition_count = parts->lower_count;
	fill_volumes(parts, volumes, &l);
	l.interfaces = parts->interfaces;
	l.interface_count = parts->interface_count;
	l.run_dir = run;
	l.log_path = log;
	l.paused = paused;
	l.maintenance = maintenance;
	done = choose_engine(n, &r->wish, &l.engine, &notice, e);
	if (done == 0 && !l.engine->machine)
		l.foreign = foreign_board(r->wish.image->architecture);
	if (done == 0 && l.engine->machine)
		done = find_machine(n, &r->wish, parts, &l, &host, e);
	if (done == 0 && disk_is_one(&r->wish))
		done = disk_launch_fds(r, parts, &disk_fds, &l.disk_fd_count, e);
	l.disk_fds = disk_fds;
	own_fd int images = -1;
	own_str char *images_path = record_path(r, MEMORY_FOLDER);
	if (done == 0 && !l.engine->machine && parts->memory)
		done = fs_open_dir(AT_FDCWD, images_path, &images, e);
	l.memory_fd = images;
	if (done == 0 && l.engine->machine && travel_is_wished(&r->wish, maintenance)) {
		done = travel_prepare(n, r, parts, &travel, e);
		l.travel = &travel.launch;
	}
	if (done == 0)
		done = launch_with_templates(n, r, parts, &l, &host, &result, e);
	travel_done(&travel);
	for (size_t i = 0; i < parts->volume_count; i++)
		volume_mount_close(&parts->volumes[i].mount); /* the runner's now; the last to close it takes it apart */
	if (done == 0)
		*ret_pid = result.pid > 0 ? (uint64_t)result.pid : 0;
	if (done == 0 && notice)
		set_text(&r->truth.report->notice, TAKE(notice));
	return done;
}

int isolate_make_template(struct node *n, const struct record *r, int kernel_fd, struct err *e)
{
	const struct isolate_parts parts = { .kernel_fd = kernel_fd };
	const struct enforce_plan plan = { 0 };
	struct launch l = make_launch(&r->wish, &plan, r->truth.first_id);
	struct launch_machine host = { 0 };
	struct err why;
	int done = choose_engine(n, &r->wish, &l.engine, NULL, e);

	if (done >= 0)
		done = find_machine(n, &r->wish, &parts, &l, &host, e);
	if (done >= 0 && templates_ready(n->templates, &l, &why) < 0)
		log_error(&why, "workspace %s: its machine will boot", r->id);
	return done < 0 ? done : 0;
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
		.paused = s.state == RUNNER_PAUSED,
		.killed_for_memory = s.killed_for_memory,
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

int isolate_connect_machine(struct node *n, const char *id, const struct launch_interface *interfaces, size_t count,
			    struct err *e)
{
	own_str char *run = run_folder(n, id);
	return runner_connect(run, interfaces, count, e);
}

int isolate_pause(struct node *n, const struct record *r, struct err *e)
{
	own_str char *run = run_folder(n, r->id);
	return runner_pause(run, e);
}

int isolate_suspend(struct node *n, const struct record *r, int folder, int *ret_connection, struct err *e)
{
	own_str char *run = run_folder(n, r->id);
	return runner_suspend(run, folder, folder, ret_connection, e);
}

int isolate_depart(struct node *n, const struct record *r, int folder, int *ret_connection, struct err *e)
{
	own_str char *run = run_folder(n, r->id);
	return runner_depart(run, folder, ret_connection, e);
}

int isolate_commit(struct node *n, const struct record *r, int connection, struct err *e)
{
	own_str char *run = run_folder(n, r->id);
	int done = runner_commit(connection, e);
	if (done == 0)
		wait_for_end(run);
	return done;
}

int isolate_resume(struct node *n, const struct record *r, struct err *e)
{
	own_str char *run = run_folder(n, r->id);
	return runner_resume(run, e);
}

/* The runner's descriptors of mounts are paths (O_PATH); ioctls need an open folder. */
static int open_volume_fds(const char *run, const char *name, int *ret_mount_fd, int *ret_loop_fd, struct err *e)
{
	own_fd int path_fd = -1, loop_fd = -1;
	int r = runner_volume(run, name, &path_fd, &loop_fd, e);

	if (r < 0)
		return r;
	int fd = openat(path_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return err_errno(e, errno, "open the mount of volume %s", name);
	*ret_mount_fd = fd;
	*ret_loop_fd = TAKE_FD(loop_fd);
	return 0;
}

static int freeze_one(const char *run, const char *name, bool freeze, struct err *e)
{
	own_fd int mount_fd = -1, loop_fd = -1;
	int r = open_volume_fds(run, name, &mount_fd, &loop_fd, e);

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

int isolate_grow_volume(struct node *n, const struct record *r, const struct isolate_volume *v, uint64_t size_bytes,
			struct err *e)
{
	own_str char *run = run_folder(n, r->id);
	own_fd int mount_fd = -1, loop_fd = -1;
	int done = open_volume_fds(run, v->spec ? v->spec->name : "root", &mount_fd, &loop_fd, e);
	return done < 0 ? done : volume_grow_mounted(v->path, size_bytes, loop_fd, mount_fd, e);
}

int isolate_grow_machine(struct node *n, const struct record *r, size_t number, uint64_t size_bytes, struct err *e)
{
	own_str char *run = run_folder(n, r->id);
	char disk[MACHINE_BLOCK_NAME];

	machine_block_name(disk_is_one(&r->wish), number, disk);
	return runner_grow(run, disk, size_bytes, e);
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

	if (make_plan(n, a->id, a, NULL, n->config.first_id, &plan, &e) < 0)
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
	struct launch_machine host = { 0 };
	struct err e = { 0 };

	for (size_t i = 0; i < a->image->partitions.count; i++)
		lowers[i] = mem_printf("%s/%s", n->partitions,
				       strchr(partitions[i].digest, ':') ? strchr(partitions[i].digest, ':') + 1 : "");
	for (size_t i = 0; i < a->spec->volumes.count; i++)
		volumes[i] = (struct launch_volume){ specs[i].name, -1, specs[i].mount, specs[i].read_only };
	int r = make_plan(n, a->id, a, NULL, n->config.first_id, &plan, &e);
	struct launch l = make_launch(a, &plan, n->config.first_id);
	l.partitions = (const char *const *)lowers;
	l.partition_count = a->image->partitions.count;
	l.volumes = volumes;
	l.volume_count = a->spec->volumes.count;
	l.run_dir = run;
	l.log_path = log;
	if (r == 0)
		r = choose_engine(n, a, &l.engine, NULL, &e);
	if (r == 0 && !l.engine->machine)
		l.foreign = foreign_board(a->image->architecture);
	if (r == 0 && l.engine->machine)
		r = find_machine(n, a, NULL, &l, &host, &e);
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

static void collect_runs(struct node *n, bool (*known)(void *, const char *), void *data)
{
	own_dir DIR *dir = opendir(n->runs);

	for (struct dirent *entry; dir && (entry = readdir(dir));)
		if (id_valid(entry->d_name) && !known(data, entry->d_name))
			remove_group(n, entry->d_name);
}

int isolate_collect(struct node *n, bool (*known)(void *data, const char *id), void *data, struct err *e)
{
	struct texts ids = { 0 };

	collect_runs(n, known, data);
	int r = enforce_list(&n->isolator->layout, n->config.cgroup, &ids, e);
	for (size_t i = 0; i < ids.count; i++)
		if (id_valid(ids.items[i]) && !known(data, ids.items[i]))
			remove_group(n, ids.items[i]);
	texts_done(&ids);
	return r;
}

/* The parents of all groups, which are made again when they are needed; one that is not empty stays. */
void isolate_clean(struct node *n)
{
	own_plan struct enforce_plan plan = { 0 };

	if (make_plan(n, "0", NULL, NULL, 0, &plan, NULL) < 0)
		return;
	for (size_t i = 0; plan.folders && plan.folders[i]; i++) {
		char *slash = strrchr(plan.folders[i], '/');
		if (slash && str_eq(slash, "/0")) {
			*slash = '\0';
			(void)rmdir(plan.folders[i]);
		}
	}
}
