/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Times the engine alone, and prints the milliseconds of each run of `true`, one after the other:
 *   cold N    nothing is made ahead but a blank volume for each
 *   steady N  with what the agent makes ahead (node/ready.h), by the agent's own code: another thread makes it while the runs
 *             go on
 *             without pause, as the agent's idle worker does READY_AFTER_MS after something happened. It begins with full
 *             shelves
 *             and ends when they are full again; the last line is the time of all that and the processor time it took.
 *   crowd N   starts N idle workspaces as fast as it can, two at a time: how long that took and what memory they hold
 * What is timed is what an OCI runtime does too: cgroups made, limits written, the workspace made, the program run, everything
 * removed.
 */
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"
#include "fixture.h"
#include "model/name.h"
#include "node/ready.h"

#define MOST 1000
#define WORKERS 2
#define AHEAD 4          /* carrel-node --ahead */
#define READY_AFTER_MS 5 /* node/agent.c */
#define VOLUME_BYTES (UINT64_C(256) << 20)

struct one {
	struct launch launch;
	struct enforce_plan limits;
	struct spec spec;
	char id[ID_SIZE];
	char *run_dir, *folder, *log_path;
	char *volume;
	struct volume_mount mount;
	struct err e;
};

static struct fixture fixture;
static const char *run_folder; /* memory, as /run is */
static struct one all[MOST];
static int count, next_one;
static struct volume_pool *pool;
static struct ready *ready; /* steady */
static bool ending;
static pthread_cond_t happened = PTHREAD_COND_INITIALIZER;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static double now_ms(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static void fail(const char *what, const struct err *e)
{
	(void)fprintf(stderr, "%s: %s\n", what, e->message);
	exit(1);
}

static void prepare(struct one *o, int i, const char *program, const char *argument)
{
	struct err e;
	own_str char *parent = mem_printf("carrel-engine-%s", fixture.folder + strlen(fixture.folder) - 6);

	o->launch = fixture.launch;
	id_new(o->id);
	o->run_dir = mem_printf("%s/r%d", run_folder, i);
	o->folder = mem_printf("%s/r%d", fixture.folder, i);
	o->log_path = mem_printf("%s/log", o->folder);
	o->volume = mem_printf("%s/root.ext4", o->folder);
	o->mount = (struct volume_mount){ -1, -1 };
	if (mkdir(o->run_dir, 0700) < 0 || mkdir(o->folder, 0700) < 0)
		exit(1);
	texts_add(&o->spec.command, program);
	if (argument)
		texts_add(&o->spec.command, argument);
	o->launch.id = o->id;
	o->launch.spec = &o->spec;
	o->launch.run_dir = o->run_dir;
	o->launch.log_path = o->log_path;
	o->launch.first_id = fixture.launch.first_id + (uint32_t)i * LAUNCH_IDS;
	o->launch.throw_away = true;
	if (!ready && (volume_make(pool, VOLUME_ROOT, VOLUME_BYTES, o->volume, &e) < 0))
		fail("volume", &e);
	if (enforce_plan(&fixture.layout, parent, o->id, &fixture.how_much, 0, &o->limits, &e) < 0)
		fail("plan", &e);
	o->launch.cgroups = (struct launch_cgroups){ .v1 = (const char *const *)o->limits.v1, .v2 = o->limits.v2,
						     .freeze_path = o->limits.freeze_path, .freeze_text = o->limits.freeze_text,
						     .thaw_text = o->limits.thaw_text };
}

static void start(struct one *o)
{
	struct launch_result result;

	if (ready && ready_volume(ready, VOLUME_BYTES, true, o->volume, &o->launch.root_fd, &o->mount))
		o->launch.root_mount = &o->mount;
	else if (volume_make(pool, VOLUME_ROOT, VOLUME_BYTES, o->volume, &o->e) < 0 ||
		 volume_open(o->volume, &o->launch.root_fd, &o->e) < 0)
		fail("volume", &o->e);
	o->launch.runner = ready ? ready_runner(ready) : 0;
	if (enforce_apply(&o->limits, &o->e) < 0 || engine_launch(&o->launch, &result, &o->e) < 0)
		fail("launch", &o->e);
	(void)close(o->launch.root_fd);
	volume_mount_close(&o->mount);
}

static void await_end(struct one *o)
{
	struct runner_status s = { 0 };
	own_fd int watch = -1;

	if (runner_watch(o->run_dir, &watch, NULL) < 0)
		return;
	while (s.state != RUNNER_ENDED) {
		struct pollfd p = { .fd = watch, .events = POLLIN };
		(void)poll(&p, 1, 10000);
		if (runner_watch_read(watch, &s, NULL) < 0)
			return;
	}
}

static void remove_all(struct one *o)
{
	if (enforce_remove(&o->limits, &o->e) < 0)
		fail("remove", &o->e);
	if (!ready || !ready_take_back(ready, o->volume))
		(void)unlink(o->volume);
}

static void run_each(void (*after)(void))
{
	for (int i = 0; i < count; i++) {
		double begin = now_ms();
		start(&all[i]);
		double started = now_ms();
		await_end(&all[i]);
		double ended = now_ms();
		remove_all(&all[i]);
		(void)printf("%.3f %.3f %.3f\n", ended - begin, started - begin, now_ms() - begin);
		after();
	}
}

static void wait_a_moment(void) { (void)poll(NULL, 0, 20); } /* the kernel takes the last one apart meanwhile */

static void refill(void)
{
	struct err e;
	int made;

	while ((made = ready_refill(ready, &e)) > 0 || (made == 0 && (made = volume_pool_refill(pool, &e)) > 0))
		;
	if (made < 0)
		fail("refill", &e);
}

static void *refiller(void *data)
{
	(void)data;
	(void)pthread_mutex_lock(&lock);
	while (!ending) {
		(void)pthread_cond_wait(&happened, &lock);
		(void)pthread_mutex_unlock(&lock);
		(void)poll(NULL, 0, READY_AFTER_MS);
		refill();
		(void)pthread_mutex_lock(&lock);
	}
	(void)pthread_mutex_unlock(&lock);
	return NULL;
}

static void tell_refiller(void)
{
	(void)pthread_mutex_lock(&lock);
	(void)pthread_cond_signal(&happened);
	(void)pthread_mutex_unlock(&lock);
}

/* Of this process and all that it reaped. */
static double processor_ms(void)
{
	struct rusage self, children;

	(void)getrusage(RUSAGE_SELF, &self);
	(void)getrusage(RUSAGE_CHILDREN, &children);
	return (double)(self.ru_utime.tv_sec + self.ru_stime.tv_sec + children.ru_utime.tv_sec + children.ru_stime.tv_sec) *
		       1e3 +
	       (double)(self.ru_utime.tv_usec + self.ru_stime.tv_usec + children.ru_utime.tv_usec + children.ru_stime.tv_usec) /
		       1e3;
}

static void steady(void)
{
	pthread_t thread;

	ready_want(ready, VOLUME_BYTES, true);
	refill();
	wait_a_moment();
	double begin = now_ms(), used = processor_ms();
	(void)pthread_create(&thread, NULL, refiller, NULL);
	run_each(tell_refiller);
	(void)pthread_mutex_lock(&lock);
	ending = true;
	(void)pthread_cond_signal(&happened);
	(void)pthread_mutex_unlock(&lock);
	(void)pthread_join(thread, NULL);
	refill();
	(void)printf("all %.3f %.3f\n", now_ms() - begin, processor_ms() - used);
}

static void *worker(void *data)
{
	(void)data;
	for (;;) {
		(void)pthread_mutex_lock(&lock);
		int i = next_one++;
		(void)pthread_mutex_unlock(&lock);
		if (i >= count)
			return NULL;
		start(&all[i]);
	}
}

static unsigned long line_kib(const char *path, const char *key)
{
	own_strbuf struct str text = { 0 };

	if (fs_read_file(-100, path, 1 << 20, &text, NULL) < 0)
		return 0;
	const char *at = strstr(str_text(&text), key);
	return at ? strtoul(at + strlen(key), NULL, 10) : 0;
}

/* What is not free: processes, page tables, slabs, stacks; without the page cache, which the image shares. */
static unsigned long used_kib(void)
{
	static const char path[] = "/proc/meminfo";

	return line_kib(path, "MemTotal:") - line_kib(path, "MemFree:") - line_kib(path, "Buffers:") -
	       line_kib(path, "\nCached:");
}

static void crowd(void)
{
	pthread_t threads[WORKERS];
	unsigned long pss = 0, private_dirty = 0, before = used_kib();
	double begin = now_ms();

	for (int i = 0; i < WORKERS; i++)
		(void)pthread_create(&threads[i], NULL, worker, NULL);
	for (int i = 0; i < WORKERS; i++)
		(void)pthread_join(threads[i], NULL);
	double end = now_ms();
	(void)poll(NULL, 0, 1000);
	unsigned long after = used_kib();
	for (int i = 0; i < count; i++) {
		struct runner_status s;
		if (runner_status(all[i].run_dir, &s, &all[i].e) < 0)
			fail("status", &all[i].e);
		own_str char *runner = mem_printf("/proc/%d/smaps_rollup", s.runner_pid);
		pss += line_kib(runner, "\nPss:");
		private_dirty += line_kib(runner, "Private_Dirty:");
	}
	(void)printf("%d %.1f %lu %lu %lu\n", count, end - begin, pss / (unsigned)count, private_dirty / (unsigned)count,
		     (after - before) / (unsigned)count);
}

static void clean(void)
{
	for (int i = 0; i < count; i++) {
		(void)!runner_kill(all[i].run_dir, NULL);
		await_end(&all[i]);
		(void)!enforce_remove(&all[i].limits, NULL);
		fixture_remove_parents(&all[i].limits);
	}
	ready_free(ready);
	volume_pool_free(pool);
	if (!fixture_close(&fixture))
		exit(1);
}

static void open_pool(bool with_ready)
{
	own_str char *folder = mem_printf("%s/blanks", fixture.folder);
	struct err e;

	if (volume_pool_open(folder, 8, &pool, &e) < 0)
		fail("blanks", &e);
	if (with_ready)
		ready = ready_new(pool, folder, AHEAD);
}

int main(int argc, char **argv)
{
	uint64_t n = 0;
	const char *missing = fixture_missing();

	if (argc != 4 || str_to_u64(argv[2], MOST, &n) < 0) {
		(void)fprintf(stderr, "measure cold|steady|crowd NUMBER RUN-FOLDER\n");
		return 2;
	}
	if (missing) {
		(void)printf("skip\tneeds %s\n", missing);
		return 77;
	}
	bool many = str_eq(argv[1], "crowd");
	run_folder = argv[3];
	fixture_open(&fixture, NULL, NULL);
	open_pool(str_eq(argv[1], "steady"));
	count = (int)n;
	for (int i = 0; i < count; i++)
		prepare(&all[i], i, many ? "/bin/sleep" : "/bin/true", many ? "1000" : NULL);
	if (many)
		crowd();
	else if (ready)
		steady();
	else
		run_each(wait_a_moment);
	clean();
	return 0;
}
