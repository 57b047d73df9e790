/* SPDX-License-Identifier: Apache-2.0 */
/* The agent with a fake engine: wishes in, reports out, records on disk in between. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../test.h"
#include "base/fs.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"
#include "fake_engine.h"
#include "node/agent.h"
#include "node/kept.h"
#include "node/isolate.h"
#include "node/suspend.h"

#define ID "00112233aabbccdd"

static char folder[64];
static int truths_synced; /* loop thread or one worker */

/* Instead of the C library's. */
int fsync(int fd)
{
	char link[64], path[512] = "";

	(void)snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	if (readlink(link, path, sizeof path - 1) > 0 && strstr(path, "/truth.json"))
		truths_synced++;
	return (int)syscall(SYS_fsync, fd);
}

static struct node node;
static struct agent *agent;
static json_t *last; /* the last report */
static struct err e;

/* What a test waits for. */
static const char *wanted_state;
static uint64_t wanted_generation;

static const char *state_of(const json_t *report) { return json_string_value(json_object_get(report, "state")); }
static uint64_t number(const json_t *report, const char *key)
{
	return (uint64_t)json_integer_value(json_object_get(report, key));
}

static void on_report(void *data, json_t *report)
{
	(void)data;
	json_decref(last);
	last = json_incref(report);
	if (wanted_state && str_eq(state_of(report), wanted_state) && number(report, "generation") >= wanted_generation)
		loop_stop(node.loop);
}

static void on_progress(void *data, const char *id, const char *step, uint64_t done, uint64_t total)
{
	(void)data, (void)id, (void)step, (void)done, (void)total;
}

static void on_volumes(void *data) { (void)data; }

static const struct agent_events events = { on_report, on_progress, on_volumes };

static void timed_out(void *data)
{
	(void)data;
	wanted_state = NULL;
	loop_stop(node.loop);
}

static void await(const char *state, uint64_t generation)
{
	wanted_state = state;
	wanted_generation = generation;
	if (last && str_eq(state_of(last), state) && number(last, "generation") >= generation)
		return;
	struct loop_source *timer = loop_add_timer(node.loop, 120000, timed_out, NULL);
	assert_ok(loop_run(node.loop, &e), &e);
	if (!wanted_state) {
		own_str char *text = last ? json_dumps(last, JSON_COMPACT) : NULL;
		fail_msg("waited for %s: %s", state, text ? text : "no report");
	}
	loop_remove(timer);
}

static void start_agent(void)
{
	char program[] = "carrel-node", state[96], run[96], group[64];
	struct config config = { 0 };

	(void)snprintf(state, sizeof state, "--state=%s/state", folder);
	(void)snprintf(run, sizeof run, "--run=%s/run", folder);
	(void)snprintf(group, sizeof group, "--cgroup=carrel-node-t%d", (int)getpid());
	char *argv[] = {
		program, state, run, group, (char[]){ "--blanks=1" }, (char[]){ "--blank-size=16M" }, (char[]){ "--ahead=0" },
		NULL
	};
	assert_ok(config_read(7, argv, &config, &e), &e);
	assert_ok(node_init(&node, &config, &e), &e);
	node.loop = loop_new();
	node.workers = workers_new(node.loop, 2);
	assert_ok(agent_new(&node, &events, NULL, &agent, &e), &e);
}

static void stop_agent(void)
{
	workers_free(node.workers);
	agent_free(agent);
	loop_free(node.loop);
	node_done(&node);
	json_decref(TAKE(last));
}

static bool nobody(void *data, const char *id)
{
	(void)data, (void)id;
	return false;
}

static int setup(void **state)
{
	(void)state;
	if (geteuid() != 0) {
		print_message("# skipped: needs root for cgroups\n");
		return 0;
	}
	log_init("test", LOG_ERROR);
	fake_reset();
	(void)snprintf(folder, sizeof folder, "/tmp/carrel-test-agent-XXXXXX");
	if (!mkdtemp(folder))
		return -1;
	start_agent();
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	if (geteuid() != 0)
		return 0;
	int r = isolate_collect(&node, nobody, NULL, &e);
	isolate_clean(&node);
	stop_agent();
	return r < 0 ? r : fs_remove_tree(AT_FDCWD, folder, &e);
}

static const char *disk = "16M", *fake_version = "1";
static bool fail_save;

static void assign(uint64_t generation, const char *wish, uint64_t run, const char *more)
{
	own_str char *text = mem_printf(
		"{\"id\":\"" ID "\",\"generation\":%d,\"wish\":\"%s\",\"run\":%d,\"owner\":1000,"
		"\"image\":{\"digest\":\"sha256:%064d\",\"architecture\":\"amd64\",\"partitions\":[]},"
		"\"spec\":{\"image\":\"x\",\"name\":\"w\",\"command\":[\"true\"],\"resources\":{\"disk\":\"%s\"}%s}",
		(int)generation, wish, (int)run, 0, disk, more);
	struct assignment a = { 0 };

	if (geteuid() != 0)
		skip();
	assert_ok(decode_text(text, strlen(text), "test", &assignment_shape, &a, &e), &e);
	agent_assign(agent, &a);
}

static char *in_record(const char *name) { return mem_printf("%s/state/node/workspaces/" ID "/%s", folder, name); }

static void test_runs_and_ends(void **state)
{
	(void)state;
	assign(1, "running", 1, "}");
	await("running", 1);
	assert_true(fake_runs(ID));
	own_str char *root = in_record("volumes/root.ext4");
	assert_true(fs_exists(AT_FDCWD, root));
	fake_end(ID, 3);
	await("stopped", 1);
	assert_int_equal(number(last, "exit-status"), 3);
	assert_int_equal(number(last, "run"), 1);
	assign(1, "running", 1, "}"); /* said again: nothing happens */
	assign(2, "running", 2, "}");
	await("running", 2);
	assert_int_equal(fake_starts(ID), 2);
	assign(3, "removed", 2, "}");
	await("removed", 3);
	assert_false(fake_runs(ID));
	assert_false(fs_exists(AT_FDCWD, root));
	assert_int_equal(ids_taken(node.ids), 0);
	agent_forget(agent, ID);
	own_str char *record = in_record("");
	assert_false(fs_exists(AT_FDCWD, record));
}

static void test_rungs(void **state)
{
	(void)state;
	assign(1, "staged", 0, "}");
	await("staged", 1);
	assign(2, "prepared", 0, "}");
	await("prepared", 2);
	assert_int_equal(fake_starts(ID), 0);
	assign(3, "paused", 1, "}");
	await("paused", 3);
	assert_true(fake_paused(ID));
	assign(4, "running", 1, "}");
	await("running", 4);
	assert_false(fake_paused(ID));
	assert_int_equal(fake_starts(ID), 1);
	assign(5, "stopped", 1, "}");
	await("stopped", 5);
	assert_int_equal(number(last, "exit-status"), 143);
}

/* --- suspend: the fake engine's memory is one file --- */

static int fake_check(struct node *n, const struct record *r, struct err *why)
{
	(void)n, (void)r, (void)why;
	return 0;
}

static int fake_save(struct work *w, int memory, struct memory_manifest *m, void **ret_saved, struct err *why)
{
	if (fail_save)
		return err_set(why, ERR_UNSUPPORTED, "it holds something that cannot be saved");
	struct memory_file *file = mem_alloc(sizeof *file);
	m->kind = MEMORY_CRIU;
	m->engine = ENGINE_WORKSPACE;
	m->program = mem_strdup("fake");
	m->version = mem_strdup("1");
	*file = (struct memory_file){ mem_strdup("state"), 5,
				      mem_strdup("sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824") };
	m->files = (struct objects){ file, 1 };
	(void)w;
	*ret_saved = NULL;
	return fs_write_file(memory, "state", "hello", 5, 0600, false, why);
}

static int fake_commit(struct work *w, int memory, void *saved, struct err *why)
{
	(void)saved;
	if (renameat(memory, "manifest.json.new", memory, "manifest.json") < 0)
		return err_errno(why, errno, "rename");
	fake_end(w->record->id, 0);
	return 0;
}

static void fake_abort(struct work *w, void *saved) { (void)w, (void)saved; }

static int fake_host(struct node *n, const struct memory_manifest *m, struct suspend_host *ret_host, struct err *why)
{
	(void)n, (void)m, (void)why;
	ret_host->has = (struct memory_host){ .architecture = "amd64", .program = "fake", .version = fake_version };
	return 0;
}

static const struct suspend_engine fake_suspend = { "workspace", fake_check, fake_save, fake_commit, fake_abort, fake_host };
const struct suspend_engine *const suspend_engines[] = { &fake_suspend, NULL };

static void drop_manifest(void)
{
	own_str char *path = in_record("memory/manifest.json");
	(void)unlink(path); /* a real runner does that when it lets the workspace go on */
}

static void test_suspended_and_resumed(void **state)
{
	(void)state;
	assign(1, "running", 1, "}");
	await("running", 1);
	assign(2, "suspended", 1, "}");
	await("suspended", 2);
	assert_false(fake_runs(ID));
	assert_int_equal(number(last, "memory-bytes"), 5);
	stop_agent();
	start_agent(); /* it stays so */
	assign(3, "staged", 1, "}");
	await("suspended", 3);
	assign(4, "running", 1, "}");
	await("running", 4);
	drop_manifest();
	assert_int_equal(number(last, "run"), 1);
	assert_int_equal(fake_starts(ID), 2);
	assign(5, "suspended", 1, "}");
	await("suspended", 5);
	assign(6, "stopped", 1, "}");
	await("stopped", 6);
	own_str char *memory = in_record("memory");
	assert_false(fs_exists(AT_FDCWD, memory));
}

static void test_a_suspend_that_fails_changes_nothing(void **state)
{
	(void)state;
	assign(1, "paused", 1, "}");
	await("paused", 1);
	fail_save = true;
	assign(2, "suspended", 1, "}");
	await("paused", 2);
	fail_save = false;
	assert_true(fake_runs(ID));
	assert_string_equal(json_string_value(json_object_get(json_object_get(last, "error"), "kind")), "unsupported");
	assert_non_null(strstr(json_string_value(json_object_get(last, "notice")), "cannot be saved"));
	assert_int_equal(fake_starts(ID), 1);
}

/* Damaged, of another host, or another version: refused, and still there. */
static void test_memory_that_cannot_be_resumed_stays(void **state)
{
	(void)state;
	assign(1, "running", 1, "}");
	await("running", 1);
	assign(2, "suspended", 1, "}");
	await("suspended", 2);
	fake_version = "2";
	assign(3, "running", 1, "}");
	await("suspended", 3);
	assert_string_equal(json_string_value(json_object_get(json_object_get(last, "error"), "kind")), "unsupported");
	fake_version = "1";
	own_str char *file = in_record("memory/state");
	assert_ok(fs_write_file(AT_FDCWD, file, "hellO", 5, 0600, false, &e), &e);
	assign(4, "running", 1, "}");
	await("suspended", 4);
	assert_string_equal(json_string_value(json_object_get(json_object_get(last, "error"), "kind")), "corrupt");
	assert_ok(fs_write_file(AT_FDCWD, file, "hell", 4, 0600, false, &e), &e);
	assign(5, "running", 1, "}");
	await("suspended", 5);
	assert_ok(fs_write_file(AT_FDCWD, file, "hello", 5, 0600, false, &e), &e);
	assign(6, "running", 1, "}");
	await("running", 6);
	assert_null(json_object_get(last, "error"));
	assert_int_equal(fake_starts(ID), 2);
}

static void test_a_failed_start_is_undone(void **state)
{
	(void)state;
	if (geteuid() == 0)
		fake_fail_next(ENOSPC);
	assign(1, "running", 1, "}");
	await("failed", 1);
	json_t *error = json_object_get(last, "error");
	assert_string_equal(json_string_value(json_object_get(error, "step")), "launch");
	assert_string_equal(json_string_value(json_object_get(error, "kind")), "no-capacity");
	own_str char *run = mem_printf("%s/run/node/workspaces/" ID, folder);
	assert_false(fs_exists(AT_FDCWD, run));
	assign(2, "running", 2, "}"); /* a newer wish is tried */
	await("running", 2);
	assert_null(json_object_get(last, "error"));
}

static void test_restart_policy(void **state)
{
	(void)state;
	assign(1, "running", 1, ",\"restart\":\"on-failure\"}");
	await("running", 1);
	fake_end(ID, 1);
	await("starting", 1);
	await("running", 1);
	assert_int_equal(fake_starts(ID), 2);
	assert_int_equal(number(last, "restarts"), 1);
	fake_end(ID, 0);
	await("stopped", 1);
	assert_int_equal(fake_starts(ID), 2);
}

static void test_snapshot_and_restore(void **state)
{
	own_str char *root = in_record("volumes/root.ext4"), *copy = in_record("snapshots/0123456789abcdef/root.ext4");
	char byte = 0;

	(void)state;
	assign(1, "prepared", 0, "}");
	await("prepared", 1);
	assign(2, "prepared", 0, "},\"snapshots\":[{\"id\":\"0123456789abcdef\",\"name\":\"first\"}]");
	await("prepared", 2);
	assert_true(fs_exists(AT_FDCWD, copy));
	assert_int_equal(json_array_size(json_object_get(last, "snapshots")), 1);
	own_fd int fd = open(root, O_RDWR | O_CLOEXEC);
	assert_int_equal(pwrite(fd, "Q", 1, 12 << 20), 1);
	own_close(&fd);
	assign(3, "prepared", 0,
	       "},\"snapshots\":[{\"id\":\"0123456789abcdef\",\"name\":\"first\"}],\"restore\":1,\"restore-from\":\"0123456789abcdef\"");
	await("prepared", 3);
	assert_int_equal(number(last, "restore"), 1);
	fd = open(root, O_RDWR | O_CLOEXEC);
	assert_int_equal(pread(fd, &byte, 1, 12 << 20), 1);
	assert_int_equal(byte, 0);
	assign(4, "prepared", 0, "}");
	await("prepared", 4);
	assert_false(fs_exists(AT_FDCWD, copy));
	assign(5, "prepared", 0, "},\"restore\":2,\"restore-from\":\"ffffffffffffffff\"");
	await("prepared", 5);
	assert_string_equal(json_string_value(json_object_get(json_object_get(last, "error"), "step")), "restore");
}

#define TWO_VOLUMES ",\"volumes\":[{\"name\":\"data\",\"size\":\"16M\",\"mount\":\"/data\"}]}"
#define ONE_SNAPSHOT ",\"snapshots\":[{\"id\":\"0123456789abcdef\",\"name\":\"first\"}]"
#define RESTORED TWO_VOLUMES ONE_SNAPSHOT ",\"restore\":1,\"restore-from\":\"0123456789abcdef\""

/* A byte where no file is. */
static char mark(const char *volume, char set)
{
	own_str char *path = in_record(volume);
	own_fd int fd = open(path, O_RDWR | O_CLOEXEC);
	char byte = set;

	assert_true(fd >= 0);
	assert_int_equal(set ? pwrite(fd, &byte, 1, 12 << 20) : pread(fd, &byte, 1, 12 << 20), 1);
	return byte;
}

static void arm(const char *fault)
{
	static char plan[96];
	(void)snprintf(plan, sizeof plan, "%s/faults", folder);
	assert_ok(fs_write_file(AT_FDCWD, plan, fault, strlen(fault), 0600, false, &e), &e);
	assert_int_equal(setenv("CARREL_FAULTS", plan, 1), 0);
}

static void marked_with_a_snapshot(void)
{
	assign(1, "prepared", 0, TWO_VOLUMES);
	await("prepared", 1);
	assign(2, "prepared", 0, TWO_VOLUMES ONE_SNAPSHOT);
	await("prepared", 2);
	(void)mark("volumes/root.ext4", 'Q');
	(void)mark("volumes/data.ext4", 'Q');
}

static void test_a_restore_that_fails_changes_nothing(void **state)
{
	own_str char *left = in_record("volumes/root.ext4.restored");

	(void)state;
	marked_with_a_snapshot();
	arm("restore-copied ENOSPC\n");
	assign(3, "prepared", 0, RESTORED);
	await("prepared", 3);
#ifdef CARREL_FAULTS
	assert_string_equal(json_string_value(json_object_get(json_object_get(last, "error"), "kind")), "no-capacity");
	assert_int_equal(mark("volumes/root.ext4", 0), 'Q');
	assert_int_equal(mark("volumes/data.ext4", 0), 'Q');
#endif
	assert_false(fs_exists(AT_FDCWD, left));
}

static void test_a_restore_is_finished_by_the_next_agent(void **state)
{
	(void)state;
	marked_with_a_snapshot();
	arm("restore-renamed EIO\n");
	assign(3, "prepared", 0, RESTORED);
#ifdef CARREL_FAULTS
	do {
		json_decref(TAKE(last));
		await("prepared", 2);
	} while (!json_object_get(last, "error"));
	assert_int_equal(mark("volumes/root.ext4", 0), 0);
	assert_int_equal(mark("volumes/data.ext4", 0), 'Q');
#else
	await("prepared", 3);
#endif
	stop_agent();
	start_agent();
	await("prepared", 3);
	assert_int_equal(number(last, "restore"), 1);
	assert_int_equal(mark("volumes/root.ext4", 0), 0);
	assert_int_equal(mark("volumes/data.ext4", 0), 0);
	(void)mark("volumes/data.ext4", 'R'); /* and not done once more */
	assign(4, "prepared", 0, RESTORED);
	await("prepared", 4);
	assert_int_equal(mark("volumes/data.ext4", 0), 'R');
}

static void empty(const char *name)
{
	own_str char *path = in_record(name);
	assert_int_equal(truncate(path, 0), 0);
}

static void test_a_lost_wish_is_had_from_the_service(void **state)
{
	(void)state;
	assign(1, "running", 1, "}");
	await("running", 1);
	uint64_t taken = ids_taken(node.ids);
	stop_agent();
	empty("assignment.json");
	start_agent();
	assert_int_equal(ids_taken(node.ids), taken);
	assert_true(fake_runs(ID));
	assign(1, "running", 1, "}");
	await("running", 1);
	fake_end(ID, 4);
	await("stopped", 1);
	assert_int_equal(number(last, "exit-status"), 4);
	assert_int_equal(fake_starts(ID), 1);
}

static void test_a_lost_truth_is_presumed(void **state)
{
	(void)state;
	assign(1, "running", 1, "}" ONE_SNAPSHOT ",\"restore\":1,\"restore-from\":\"0123456789abcdef\"");
	await("running", 1);
	stop_agent();
	empty("truth.json");
	start_agent();
	await("running", 1);
	assert_int_equal(number(last, "restore"), 1);
	stop_agent();
	fake_end(ID, 4);
	empty("truth.json");
	empty("assignment.json");
	start_agent();
	assign(1, "running", 1, "}");
	await("stopped", 1);
	assert_int_equal(fake_starts(ID), 1); /* not once more by itself */
	assign(2, "running", 2, "}");
	await("running", 2);
}

static void test_a_restore_is_synced_and_a_run_is_not(void **state)
{
	(void)state;
	truths_synced = 0;
	assign(1, "running", 1, "}" ONE_SNAPSHOT);
	await("running", 1);
	fake_end(ID, 0);
	await("stopped", 1);
	assign(2, "stopped", 1, "}" ONE_SNAPSHOT);
	await("stopped", 2);
	assert_int_equal(truths_synced, 0);
	assign(3, "stopped", 1, "}" ONE_SNAPSHOT ",\"restore\":1,\"restore-from\":\"0123456789abcdef\"");
	await("stopped", 3);
	assert_int_equal(number(last, "restore"), 1);
	assert_int_equal(truths_synced, 1);
}

static void test_adopted_after_a_restart(void **state)
{
	(void)state;
	assign(1, "running", 1, ",\"restart\":\"no\"}");
	await("running", 1);
	uint64_t taken = ids_taken(node.ids);
	stop_agent();
	start_agent();
	assert_int_equal(ids_taken(node.ids), taken);
	assert_true(fake_runs(ID));
	fake_end(ID, 7);
	await("stopped", 1);
	assert_int_equal(number(last, "exit-status"), 7);
	assert_int_equal(fake_starts(ID), 1);
}

static void test_gone_while_the_agent_was_away(void **state)
{
	(void)state;
	assign(1, "running", 1, "}");
	await("running", 1);
	stop_agent();
	fake_end(ID, 9);
	start_agent();
	await("stopped", 1);
	assert_int_equal(number(last, "exit-status"), 9);
}

static void test_kept_volume_stays(void **state)
{
	own_str char *kept = mem_printf("%s/state/node/kept/1000/data.ext4", folder);
	const char *volume = ",\"volumes\":[{\"name\":\"data\",\"size\":\"16M\",\"mount\":\"/data\",\"keep\":true}]}";

	(void)state;
	assign(1, "prepared", 0, volume);
	await("prepared", 1);
	assert_true(fs_exists(AT_FDCWD, kept));
	assign(2, "removed", 0, volume);
	await("removed", 2);
	assert_true(fs_exists(AT_FDCWD, kept));
	assert_ok(kept_remove(&node, 1000, "data", &e), &e);
	assert_false(fs_exists(AT_FDCWD, kept));
}

static void test_grows_at_rest(void **state)
{
	own_str char *root = in_record("volumes/root.ext4");
	uint64_t size, used;

	(void)state;
	assign(1, "prepared", 0, "}");
	await("prepared", 1);
	disk = "48M";
	assign(2, "prepared", 0, "}");
	await("prepared", 2);
	assert_ok(volume_measure(root, &size, &used, &e), &e);
	assert_int_equal(size, 48 << 20);
	assert_ok(volume_file_system_bytes(root, &size, &e), &e);
	assert_int_equal(size, 48 << 20);
	disk = "16M"; /* never smaller */
	assign(3, "prepared", 0, "}");
	await("prepared", 3);
	assert_null(json_object_get(last, "error"));
}

static void test_not_in_an_authoritative_list(void **state)
{
	(void)state;
	assign(1, "running", 1, "}");
	await("running", 1);
	agent_mark(agent);
	agent_sweep(agent, false);
	assert_true(fake_runs(ID));
	agent_mark(agent);
	agent_sweep(agent, true);
	await("removed", 1);
	assert_false(fake_runs(ID));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_runs_and_ends),
		TEST(test_rungs),
		TEST(test_suspended_and_resumed),
		TEST(test_a_suspend_that_fails_changes_nothing),
		TEST(test_memory_that_cannot_be_resumed_stays),
		TEST(test_a_failed_start_is_undone),
		TEST(test_restart_policy),
		TEST(test_snapshot_and_restore),
		TEST(test_a_restore_that_fails_changes_nothing),
		TEST(test_a_restore_is_finished_by_the_next_agent),
		TEST(test_a_lost_wish_is_had_from_the_service),
		TEST(test_a_lost_truth_is_presumed),
		TEST(test_a_restore_is_synced_and_a_run_is_not),
		TEST(test_adopted_after_a_restart),
		TEST(test_gone_while_the_agent_was_away),
		TEST(test_kept_volume_stays),
		TEST(test_grows_at_rest),
		TEST(test_not_in_an_authoritative_list),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
