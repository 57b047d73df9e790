/* SPDX-License-Identifier: Apache-2.0 */
#include "fake_engine.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "engine/qemu/template.h"
#include "engine/engine.h"
#include "engine/launch.h"
#include "engine/qemu/arguments.h"
#include "engine/qemu/size.h"
#include "engine/nursery.h"
#include "engine/runner_client.h"

#define MOST 64

struct run {
	char id[32];
	unsigned starts;
	bool alive, paused;
	struct runner_status status;
	int watch; /* our end of the last watch */
};

static struct run runs[MOST];
static int fail_number;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static struct run *find(const char *id)
{
	for (int i = 0; i < MOST; i++)
		if (strcmp(runs[i].id, id) == 0)
			return &runs[i];
	return NULL;
}

static struct run *find_dir(const char *run_dir)
{
	const char *slash = strrchr(run_dir, '/');
	return find(slash ? slash + 1 : run_dir);
}

void fake_reset(void)
{
	memset(runs, 0, sizeof runs);
	for (int i = 0; i < MOST; i++)
		runs[i].watch = -1;
	fail_number = 0;
}

bool fake_runs(const char *id)
{
	struct run *r = find(id);
	return r && r->alive;
}

bool fake_paused(const char *id)
{
	struct run *r = find(id);
	return r && r->paused;
}

unsigned fake_starts(const char *id)
{
	struct run *r = find(id);
	return r ? r->starts : 0;
}

void fake_fail_next(int number) { fail_number = number; }

static void end(struct run *r, int status)
{
	r->alive = r->paused = false;
	r->status.state = RUNNER_ENDED;
	r->status.exit_status = status;
	r->status.ended_ms = r->status.started_ms + 5;
	if (r->watch >= 0)
		(void)close(r->watch);
	r->watch = -1;
}

void fake_end(const char *id, int status)
{
	(void)pthread_mutex_lock(&lock);
	struct run *r = find(id);
	if (r)
		end(r, status);
	(void)pthread_mutex_unlock(&lock);
}

const struct engine engine_kvm = { .name = "kvm", .machine = true }, engine_emulator = { .name = "emulator", .machine = true };

bool engine_wants_machine(const struct spec *s, bool programs)
{
	(void)s;
	(void)programs;
	return false;
}

int engine_choose(const struct spec *s, const struct engine_host *host, const struct engine **ret_engine, struct err *e)
{
	static const struct engine fake = { .name = "workspace" }, other = { .name = "emulator" };

	(void)host;
	(void)e;
	*ret_engine = s->engine == ENGINE_EMULATOR ? &other : &fake;
	return 0;
}

uint64_t machine_memory(uint64_t memory_bytes) { return memory_bytes; }

unsigned machine_processors(uint64_t cpu_milli, unsigned host_processors)
{
	(void)cpu_milli;
	return host_processors;
}

struct launch_size machine_size_wished(const struct spec *spec, const struct image *image, unsigned host_processors)
{
	(void)image;
	return (struct launch_size){ host_processors, spec_resources_or_default(spec).memory_bytes };
}

struct launch_size machine_size(const struct launch *l) { return machine_size_wished(l->spec, l->image, 1); }

int runner_suspend(const char *run_dir, int memory, int state, int *ret_connection, struct err *e)
{
	(void)run_dir, (void)memory, (void)state, (void)ret_connection;
	return err_set(e, ERR_UNSUPPORTED, "no machines here");
}

int runner_depart(const char *run_dir, int memory, int *ret_connection, struct err *e)
{
	(void)run_dir, (void)memory, (void)ret_connection;
	return err_set(e, ERR_UNSUPPORTED, "no machines here");
}

int runner_commit(int connection, struct err *e)
{
	(void)connection;
	return err_set(e, ERR_UNSUPPORTED, "no machines here");
}

int engine_plan(const struct launch *l, json_t **ret_plan, struct err *e)
{
	(void)e;
	*ret_plan = json_pack("[s]", l->id);
	return 0;
}

int engine_launch(const struct launch *l, struct launch_result *ret_result, struct err *e)
{
	(void)pthread_mutex_lock(&lock);
	struct run *r = find(l->id);
	if (!r) {
		r = find("");
		if (!r)
			abort();
		(void)snprintf(r->id, sizeof r->id, "%s", l->id);
		r->watch = -1;
	}
	int number = fail_number;
	fail_number = 0;
	r->starts++;
	if (!number) {
		r->alive = true;
		r->paused = l->paused;
		r->status = (struct runner_status){ .state = l->paused ? RUNNER_PAUSED : RUNNER_RUNNING, .exit_status = -1,
						    .pid = 1, .run = l->run, .started_ms = 1000 };
	}
	(void)pthread_mutex_unlock(&lock);
	ret_result->pid = 1;
	return number ? err_errno(e, number, "launch") : 0;
}

int nursery_runner(int *ret_runner, struct err *e)
{
	(void)ret_runner;
	return err_set(e, ERR_UNSUPPORTED, "no runners");
}

int volume_mount(int file, bool throw_away, struct volume_mount *ret_mount, struct err *e)
{
	(void)file;
	(void)throw_away;
	(void)ret_mount;
	return err_set(e, ERR_UNSUPPORTED, "no mounts");
}

int volume_mount_again(const struct volume_mount *m, struct volume_mount *ret_mount, struct err *e)
{
	return volume_mount(m->mount_fd, false, ret_mount, e);
}

void volume_mount_close(struct volume_mount *m) { *m = (struct volume_mount){ -1, -1 }; }

int runner_read_status(const char *run_dir, struct runner_status *ret_status, struct err *e)
{
	struct run *r = find_dir(run_dir);
	if (!r)
		return err_set(e, ERR_NOT_FOUND, "never started");
	*ret_status = r->status;
	return 0;
}

int runner_watch(const char *run_dir, int *ret_fd, struct err *e)
{
	struct run *r = find_dir(run_dir);
	int pair[2];

	if (!r || !r->alive || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
		return err_set(e, ERR_UNAVAILABLE, "no runner");
	(void)pthread_mutex_lock(&lock);
	if (r->watch >= 0)
		(void)close(r->watch);
	r->watch = pair[0];
	(void)pthread_mutex_unlock(&lock);
	*ret_fd = pair[1];
	return 0;
}

int runner_watch_read(int fd, struct runner_status *ret_status, struct err *e)
{
	(void)fd;
	(void)ret_status;
	return err_set(e, ERR_UNAVAILABLE, "gone");
}

static int with(const char *run_dir, int (*change)(struct run *r), struct err *e)
{
	struct run *r = find_dir(run_dir);
	if (!r || !r->alive)
		return err_set(e, ERR_UNAVAILABLE, "no runner");
	(void)pthread_mutex_lock(&lock);
	int done = change(r);
	(void)pthread_mutex_unlock(&lock);
	return done;
}

static int stop(struct run *r) { return end(r, 143), 0; }
static int kill_it(struct run *r) { return end(r, 137), 0; }
static int pause_it(struct run *r) { return r->paused = true, 0; }
static int resume(struct run *r) { return r->paused = false, 0; }

int runner_stop(const char *run_dir, uint64_t timeout_ms, struct err *e)
{
	(void)timeout_ms;
	return with(run_dir, stop, e);
}

int runner_kill(const char *run_dir, struct err *e) { return with(run_dir, kill_it, e); }
int runner_pause(const char *run_dir, struct err *e) { return with(run_dir, pause_it, e); }
int runner_resume(const char *run_dir, struct err *e) { return with(run_dir, resume, e); }

int runner_grow(const char *run_dir, const char *disk, uint64_t bytes, struct err *e)
{
	(void)run_dir, (void)disk, (void)bytes;
	return err_set(e, ERR_UNSUPPORTED, "no machine here");
}

int runner_connect(const char *run_dir, const struct launch_interface *interfaces, size_t count, struct err *e)
{
	(void)run_dir;
	(void)interfaces;
	(void)count;
	return err_set(e, ERR_UNSUPPORTED, "no machines here");
}

int runner_volume(const char *run_dir, const char *name, int *ret_mount_fd, int *ret_loop_fd, struct err *e)
{
	(void)run_dir;
	(void)name;
	(void)ret_mount_fd;
	(void)ret_loop_fd;
	return err_set(e, ERR_UNSUPPORTED, "no mounts here");
}

static int no_stream(struct err *e) { return err_set(e, ERR_UNSUPPORTED, "no streams here"); }
int runner_attach(const char *run_dir, unsigned rows, unsigned columns, bool input, int *ret_fd, struct err *e)
{
	(void)run_dir, (void)rows, (void)columns, (void)input, (void)ret_fd;
	return no_stream(e);
}

int runner_console(const char *run_dir, unsigned rows, unsigned columns, bool input, int *ret_fd, struct err *e)
{
	(void)run_dir, (void)rows, (void)columns, (void)input, (void)ret_fd;
	return no_stream(e);
}

int runner_display(const char *run_dir, int *ret_fd, struct err *e)
{
	(void)run_dir, (void)ret_fd;
	return no_stream(e);
}

int runner_status(const char *run_dir, struct runner_status *ret_status, struct err *e)
{
	(void)run_dir, (void)ret_status;
	return no_stream(e);
}

int runner_exec(const char *run_dir, const struct runner_exec *what, int *ret_fd, struct err *e)
{
	(void)run_dir, (void)what, (void)ret_fd;
	return no_stream(e);
}

int runner_copy_in(const char *run_dir, const char *path, int *ret_fd, struct err *e)
{
	(void)run_dir, (void)path, (void)ret_fd;
	return no_stream(e);
}

int runner_copy_out(const char *run_dir, const char *path, int *ret_fd, struct err *e)
{
	(void)run_dir, (void)path, (void)ret_fd;
	return no_stream(e);
}

bool template_fits(const struct launch *l)
{
	(void)l;
	return false;
}

int template_words(const struct launch *l, char out[DIGEST_TEXT_SIZE], struct err *e)
{
	(void)l, (void)out;
	return no_stream(e);
}
