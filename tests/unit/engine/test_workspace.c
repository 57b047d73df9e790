/* SPDX-License-Identifier: Apache-2.0 */
/* A workspace from start to end, by the engine and its runner alone. */
#include "../test.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"
#include "engine/nursery.h"
#include "fixture.h"

static char out[65536];

static int set_up(void **state)
{
	static struct fixture f;

	fixture_open(&f, NULL, NULL);
	*state = &f;
	return 0;
}

static int tear_down(void **state) { return fixture_close(*state) ? 0 : -1; }

static void test_program(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(fixture_shell(f, "echo hello; echo $$; id -u; hostname; echo wrong >&2; exit 7", out, sizeof out), 7);
	assert_non_null(strstr(out, "hello\n2\n0\ntest\n"));
	assert_non_null(strstr(out, "wrong\n"));
	assert_int_equal(fixture_shell(f, "kill -9 $$", out, sizeof out), 128 + SIGKILL);
}

/* Exec errors tell what is wrong, as 127 and 126 of the command line, and leave nothing running. */
static void test_commands_that_do_not_start(void **state)
{
	struct fixture *f = *state;
	const char *const absent[] = { "no-such-command", NULL }, *const text[] = { "/etc/notexec", NULL };

	assert_fails(fixture_launch(f, absent), &f->e, ERR_NOT_FOUND, "no command \"no-such-command\"");
	assert_int_equal(f->e.number, ENOENT);
	assert_fails(fixture_launch(f, text), &f->e, ERR_DENIED, "/etc/notexec");
	f->spec.user = (char *)(uintptr_t)"nobody-here";
	assert_fails(fixture_shell(f, "true", out, sizeof out), &f->e, ERR_NOT_FOUND, "no user \"nobody-here\"");
	f->spec.user = NULL;
	assert_fails(runner_status(f->run_dir, &(struct runner_status){ 0 }, &f->e), &f->e, ERR_UNAVAILABLE, "no runner");
}

static void test_user(void **state)
{
	struct fixture *f = *state;

	f->spec.user = (char *)(uintptr_t)"ann";
	f->spec.directory = (char *)(uintptr_t)"/home/ann/new";
	assert_int_equal(fixture_shell(f,
				       "id -u; id -G; pwd; echo $HOME; touch f && ls -ln f | cut -c1-10; echo x > /dev/stdout",
				       out, sizeof out),
			 0);
	assert_string_equal(out, "1000\n1000 50\n/home/ann/new\n/home/ann\n-rw-r--r--\nx\n");
	f->spec.user = f->spec.directory = NULL;
}

/* What is written stays for the next run; the machine has one name and one id. */
static void test_volume_keeps(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(fixture_shell(f, "echo kept > /root/file; rm /etc/notexec; chown 1000:1000 /root/file", out,
				       sizeof out), 0);
	assert_int_equal(fixture_shell(f, "cat /root/file; ls -ln /root/file | awk '{print $3,$4}'; ls /etc/notexec; cat "
					  "/etc/hostname", out, sizeof out), 0);
	assert_non_null(strstr(out, "kept\n1000 1000\n"));
	assert_non_null(strstr(out, "No such file"));
	assert_non_null(strstr(out, "test\n"));
}

static void test_data_volume(void **state)
{
	struct fixture *f = *state;

	f->volumes[0] = (struct launch_volume){ .name = "data", .fd = fixture_volume(f, "data", false), .mount = "/srv/data" };
	f->launch.volume_count = 1;
	int status = fixture_shell(f, "ls -A /srv/data; echo 1 > /srv/data/f && grep srv/data /proc/mounts", out, sizeof out);
	(void)close(f->volumes[0].fd);
	assert_int_equal(status, 0);
	assert_non_null(strstr(out, "nosuid,nodev"));
	assert_null(strstr(out, "lost+found"));
	f->volumes[0].fd = fixture_volume(f, "data", false);
	f->volumes[0].read_only = true;
	status = fixture_shell(f, "cat /srv/data/f; echo 2 > /srv/data/f", out, sizeof out);
	(void)close(f->volumes[0].fd);
	f->launch.volume_count = 0;
	assert_int_equal(status, 1);
	assert_non_null(strstr(out, "1\n"));
	assert_non_null(strstr(out, "Read-only"));
}

static const char *const sleeper[] = { "/bin/sleep", "1000", NULL };

static void test_exec(void **state)
{
	struct fixture *f = *state;
	const char *const absent[] = { "nope", NULL };
	int fd;

	assert_ok(fixture_launch(f, sleeper), &f->e);
	assert_int_equal(fixture_exec(f, NULL, "id -u; ps | grep -c 'sleep 1000'; exit 3", out, sizeof out), 3);
	assert_non_null(strstr(out, "0\n"));
	assert_int_equal(fixture_exec(f, "ann", "id -u; cat /proc/self/cgroup | wc -l; cat /proc/self/status | grep NoNewPrivs",
				      out, sizeof out),
			 0);
	assert_non_null(strstr(out, "1000\n"));
	assert_non_null(strstr(out, "NoNewPrivs:\t1"));
	assert_fails(runner_exec(f->run_dir, &(struct runner_exec){ .command = absent }, &fd, &f->e), &f->e, ERR_NOT_FOUND,
		     "nope");
	assert_ok(runner_stop(f->run_dir, PATIENCE_MS, &f->e), &f->e);
	assert_int_equal(fixture_wait(f, PATIENCE_MS), 128 + SIGTERM);
}

/* Keys go in, output comes back, the size arrives, and ^D ends the shell. */
static void test_terminal(void **state)
{
	struct fixture *f = *state;
	const char *const shell[] = { "/bin/sh", NULL };
	struct runner_exec what = { .command = shell, .terminal = true, .input = true, .rows = 33, .columns = 77 };
	own_fd int fd = -1;
	static const char keys[] = "\0stty size; tty; echo $TERM; exit 5\n";

	assert_ok(fixture_launch(f, sleeper), &f->e);
	assert_ok(runner_exec(f->run_dir, &what, &fd, &f->e), &f->e);
	assert_true(send(fd, keys, sizeof keys - 1, 0) > 0);
	assert_int_equal(fixture_collect(fd, out, sizeof out), 5);
	assert_non_null(strstr(out, "33 77\r\n"));
	assert_non_null(strstr(out, "/dev/pts/"));
	assert_non_null(strstr(out, "xterm-256color"));
	assert_ok(runner_kill(f->run_dir, &f->e), &f->e);
	assert_int_equal(fixture_wait(f, PATIENCE_MS), 128 + SIGKILL);
}

static void test_input(void **state)
{
	struct fixture *f = *state;
	const char *const cat[] = { "/bin/cat", NULL };
	own_fd int fd = -1;

	f->spec.interactive = f->launch.held = true;
	assert_ok(fixture_launch(f, cat), &f->e);
	f->spec.interactive = f->launch.held = false;
	assert_ok(runner_attach(f->run_dir, 0, 0, true, &fd, &f->e), &f->e);
	assert_true(send(fd, "\0line\n", 6, 0) == 6);
	assert_true(send(fd, "", 1, 0) == 1);
	assert_int_equal(fixture_collect(fd, out, sizeof out), 0);
	assert_string_equal(out, "line\n");
}

static int ticks(struct fixture *f)
{
	return fixture_exec(f, NULL, "cat /root/t | wc -l", out, sizeof out) == 0 ? (int)strtol(out, NULL, 10) : -1;
}

static void test_pause(void **state)
{
	struct fixture *f = *state;
	const char *const ticker[] = { "/bin/sh", "-c", "while :; do echo x >> /root/t; usleep 5000; done", NULL };
	struct runner_status s;

	assert_ok(fixture_launch(f, ticker), &f->e);
	assert_ok(runner_pause(f->run_dir, &f->e), &f->e);
	assert_ok(runner_status(f->run_dir, &s, &f->e), &f->e);
	assert_int_equal(s.state, RUNNER_PAUSED);
	assert_fails(fixture_exec(f, NULL, "true", out, sizeof out), &f->e, ERR_CONFLICT, "paused");
	assert_ok(runner_resume(f->run_dir, &f->e), &f->e);
	assert_true(ticks(f) >= 0);
	assert_ok(runner_pause(f->run_dir, &f->e), &f->e);
	assert_ok(runner_stop(f->run_dir, PATIENCE_MS, &f->e), &f->e);
	assert_int_equal(fixture_wait(f, PATIENCE_MS), 128 + SIGTERM);
}

/* Frozen before the first instruction of the program. */
static void test_start_paused(void **state)
{
	struct fixture *f = *state;
	const char *const program[] = { "/bin/sh", "-c", "echo ran > /root/ran; sleep 1000", NULL };
	struct runner_status s;

	f->launch.paused = true;
	assert_ok(fixture_launch(f, program), &f->e);
	f->launch.paused = false;
	assert_ok(runner_status(f->run_dir, &s, &f->e), &f->e);
	assert_int_equal(s.state, RUNNER_PAUSED);
	assert_int_equal(s.started_ms, 0);
	assert_ok(runner_resume(f->run_dir, &f->e), &f->e);
	assert_ok(runner_status(f->run_dir, &s, &f->e), &f->e);
	assert_true(s.state == RUNNER_RUNNING && s.started_ms > 0);
	assert_int_equal(fixture_exec(f, NULL, "while [ ! -e /root/ran ]; do usleep 1000; done; cat /root/ran", out,
				      sizeof out), 0);
	assert_string_equal(out, "ran\n");
	assert_ok(runner_kill(f->run_dir, &f->e), &f->e);
}

/* A program that ignores its stop signal is killed when the time is up, with its children. */
static void test_stop_time_out(void **state)
{
	struct fixture *f = *state;
	const char *const stubborn[] = { "/bin/sh", "-c",
					 "trap '' TERM; touch /root/ready; sleep 1000 & while :; do sleep 1; done", NULL };

	assert_ok(fixture_launch(f, stubborn), &f->e);
	assert_int_equal(fixture_exec(f, NULL, "while [ ! -e /root/ready ]; do usleep 1000; done", out, sizeof out), 0);
	assert_ok(runner_stop(f->run_dir, 100, &f->e), &f->e);
	assert_int_equal(fixture_wait(f, PATIENCE_MS), 128 + SIGKILL);
}

static void test_copies(void **state)
{
	struct fixture *f = *state;
	own_fd int in = -1, copy = -1, absent = -1;
	static char tar[RUNNER_FRAME_LONGEST];
	own_str char *make = mem_printf("cd %s && mkdir -p c/d && echo deep > c/d/f && ln -s /etc/passwd c/l && tar "
					"--owner=1000 --group=1000 --numeric-owner -cf c.tar c", f->folder);

	assert_int_equal(fixture_host(make), 0);
	f->launch.maintenance = true;
	assert_ok(fixture_launch(f, NULL), &f->e);
	f->launch.maintenance = false;
	own_str char *path = mem_printf("%s/c.tar", f->folder);
	own_fd int file = open(path, O_RDONLY);
	assert_ok(runner_copy_in(f->run_dir, "/root", &in, &f->e), &f->e);
	for (ssize_t n; (n = read(file, tar + 1, sizeof tar - 1)) > 0;)
		assert_true(send(in, tar, (size_t)n + 1, 0) > 0);
	assert_true(send(in, "", 1, 0) == 1);
	assert_int_equal(fixture_collect(in, out, sizeof out), 0);
	assert_int_equal(fixture_exec(f, NULL, "cat /root/c/d/f; ls -ln /root/c/d/f | awk '{print $3}'; readlink /root/c/l",
				      out, sizeof out),
			 0);
	assert_string_equal(out, "deep\n1000\n/etc/passwd\n");
	assert_ok(runner_copy_out(f->run_dir, "/root/c", &copy, &f->e), &f->e);
	assert_int_equal(fixture_collect(copy, out, sizeof out), 0);
	assert_string_equal(out, "c/");
	assert_ok(runner_copy_out(f->run_dir, "/absent", &absent, &f->e), &f->e);
	assert_true(fixture_collect(absent, out, sizeof out) < 0);
	assert_non_null(strstr(out, "\"kind\":\"not-found\""));
	assert_ok(runner_stop(f->run_dir, PATIENCE_MS, &f->e), &f->e);
	assert_int_equal(fixture_wait(f, PATIENCE_MS), 0);
}

static bool holds(const char *folder, pid_t pid)
{
	own_str char *path = mem_printf("%s/cgroup.procs", folder), *line = mem_printf("\n%d\n", (int)pid);
	own_strbuf struct str text = { 0 };

	assert_ok(fs_read_file(AT_FDCWD, path, 1 << 20, &text, NULL), &(struct err){ 0 });
	own_str char *all = mem_printf("\n%s", str_text(&text));
	return strstr(all, line) != NULL;
}

/* The process called carrel-copy in a cgroup. */
static pid_t find_copy(const char *folder)
{
	own_str char *path = mem_printf("%s/cgroup.procs", folder);
	own_strbuf struct str pids = { 0 };

	assert_ok(fs_read_file(AT_FDCWD, path, 1 << 20, &pids, NULL), &(struct err){ 0 });
	for (char *at = pids.bytes; *at; at += strcspn(at, "\n") + 1) {
		int pid = (int)strtol(at, NULL, 10);
		own_str char *comm = mem_printf("/proc/%d/comm", pid);
		own_strbuf struct str name = { 0 };
		if (fs_read_file(AT_FDCWD, comm, 64, &name, NULL) >= 0 && str_eq(str_text(&name), "carrel-copy\n"))
			return pid;
	}
	return 0;
}

static pid_t start_stuck_copy(struct fixture *f, int *ret_stream)
{
	assert_ok(fixture_launch(f, sleeper), &f->e);
	assert_int_equal(fixture_exec(f, NULL, "dd if=/dev/zero of=/root/big bs=1M count=8 2>/dev/null", out, sizeof out), 0);
	assert_ok(runner_copy_out(f->run_dir, "/root/big", ret_stream, &f->e), &f->e); /* nobody reads: it goes no further */
	return find_copy(f->limits.v1 ? f->limits.v1[0] : f->limits.v2);
}

/* A copy is counted where the workspace is, in every hierarchy, and may do no more than it. */
static void test_copy_is_confined(void **state)
{
	struct fixture *f = *state;
	own_strbuf struct str status = { 0 };
	own_fd int stream = -1;
	pid_t pid = start_stuck_copy(f, &stream);

	assert_true(pid > 0);
	for (char *const *folder = f->limits.v1; folder && *folder; folder++)
		assert_true(holds(*folder, pid));
	if (f->limits.v2)
		assert_true(holds(f->limits.v2, pid));
	own_str char *path = mem_printf("/proc/%d/status", (int)pid);
	assert_ok(fs_read_file(AT_FDCWD, path, 65536, &status, &f->e), &f->e);
	assert_non_null(strstr(status.bytes, "\nNoNewPrivs:\t1\n"));
	assert_non_null(strstr(status.bytes, "\nSeccomp:\t2\n"));
	assert_non_null(strstr(status.bytes, "\nCapBnd:\t000000008800001f\n"));
	assert_non_null(strstr(status.bytes, "\nCapEff:\t000000008800001f\n"));
	(void)close(stream);
	stream = -1;
	for (int i = 0; kill(pid, 0) == 0 && i < PATIENCE_MS / 5; i++)
		(void)poll(NULL, 0, 5);
	assert_int_equal(kill(pid, 0), -1); /* its client went away */
	assert_ok(runner_kill(f->run_dir, &f->e), &f->e);
	assert_int_equal(fixture_wait(f, PATIENCE_MS), 128 + SIGKILL);
}

static void test_copy_ends_with_the_workspace(void **state)
{
	struct fixture *f = *state;

	for (int runner = 0; runner < 2; runner++) {
		own_fd int stream = -1;
		struct runner_status s;
		pid_t pid = start_stuck_copy(f, &stream);
		assert_true(pid > 0);
		assert_ok(runner_status(f->run_dir, &s, &f->e), &f->e);
		assert_int_equal(kill(runner ? s.runner_pid : s.pid, SIGKILL), 0);
		for (int i = 0; kill(pid, 0) == 0 && i < PATIENCE_MS / 5; i++)
			(void)poll(NULL, 0, 5);
		assert_int_equal(kill(pid, 0), -1);
		if (!runner)
			(void)fixture_wait(f, PATIENCE_MS);
	}
}

static void test_tmpfs_has_a_limit(void **state)
{
	struct fixture *f = *state;
	struct spec_resources resources = { .memory_bytes = 64 << 20 };

	f->spec.resources = &resources;
	assert_int_equal(fixture_shell(f, "dd if=/dev/zero of=/dev/shm/x bs=1M count=40 2>&1 | grep -c 'No space'; "
					  "stat -c %s /dev/shm/x", out, sizeof out), 0);
	f->spec.resources = NULL;
	assert_string_equal(out, "1\n33554432\n");
}

/* Without carrel-run there is no workspace: its processes die, its mounts and loop devices go (tear_down looks). */
static void test_runner_killed(void **state)
{
	struct fixture *f = *state;
	struct runner_status s;

	assert_ok(fixture_launch(f, sleeper), &f->e);
	assert_ok(runner_status(f->run_dir, &s, &f->e), &f->e);
	assert_int_equal(kill(s.runner_pid, SIGKILL), 0);
	for (int i = 0; kill(s.pid, 0) == 0 && i < 12000; i++)
		(void)poll(NULL, 0, 5);
	assert_int_equal(kill(s.pid, 0), -1);
}

/* Also an init, which knows nothing of it. */
static void test_runner_of_a_system_killed(void **state)
{
	struct fixture *f = *state;
	struct runner_status s;

	f->spec.mode = MODE_SYSTEM;
	assert_ok(fixture_launch(f, NULL), &f->e);
	f->spec.mode = MODE_AUTO;
	assert_ok(runner_status(f->run_dir, &s, &f->e), &f->e);
	assert_int_equal(kill(s.runner_pid, SIGKILL), 0);
	for (int i = 0; kill(s.pid, 0) == 0 && i < 12000; i++)
		(void)poll(NULL, 0, 5);
	assert_int_equal(kill(s.pid, 0), -1);
}

/* Runners go on without the process they come from, and the next start makes a new one. */
static void test_nursery_killed(void **state)
{
	struct fixture *f = *state;
	struct runner_status s;
	own_fd int ahead = -1;
	char path[64];
	own_strbuf struct str text = { 0 };

	assert_ok(fixture_launch(f, sleeper), &f->e);
	assert_ok(runner_status(f->run_dir, &s, &f->e), &f->e);
	(void)snprintf(path, sizeof path, "/proc/%d/stat", s.runner_pid);
	assert_ok(fs_read_file(AT_FDCWD, path, 4096, &text, &f->e), &f->e);
	assert_int_equal(kill((pid_t)strtol(strstr(text.bytes, ") ") + 4, NULL, 10), SIGKILL), 0); /* its parent */
	assert_ok(nursery_runner(&ahead, &f->e), &f->e);
	assert_int_equal(fixture_exec(f, NULL, "echo on", out, sizeof out), 0);
	assert_string_equal(out, "on\n");
	assert_ok(runner_kill(f->run_dir, &f->e), &f->e);
	assert_int_equal(fixture_wait(f, PATIENCE_MS), 128 + SIGKILL);
}

/* One that was made before is used; one that is not there any more is replaced. */
static void test_runner_made_ahead(void **state)
{
	struct fixture *f = *state;
	int pair[2];

	assert_ok(nursery_runner(&f->launch.runner, &f->e), &f->e);
	assert_int_equal(fixture_shell(f, "exit 4", out, sizeof out), 4);
	assert_int_equal(fcntl(f->launch.runner, F_GETFD), -1); /* it was closed */
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	(void)close(pair[1]);
	f->launch.runner = pair[0];
	assert_int_equal(fixture_shell(f, "exit 5", out, sizeof out), 5);
	f->launch.runner = 0;
}

/* carrel-run dies at any step of the start: the agent hears of it, and nothing is left (tear_down looks). */
static void test_runner_dies_while_it_starts(void **state)
{
	struct fixture *f = *state;
	static const char *const points[] = { "runner.born", "runner.volumes" };

#ifndef CARREL_FAULTS
	skip();
#endif
	for (size_t i = 0; i < ARRAY_SIZE(points); i++) {
		own_str char *plan = mem_printf("%s/faults", f->folder), *kill_line = mem_printf("%s kill\n", points[i]);
		own_str char *errno_line = mem_printf("%s ENOSPC\n", points[i]);
		assert_int_equal(setenv("CARREL_FAULTS", plan, 1), 0);
		nursery_end(); /* runners have the environment of the one that they come from */
		assert_ok(fs_write_file(AT_FDCWD, plan, kill_line, strlen(kill_line), 0600, false, &f->e), &f->e);
		assert_fails(fixture_launch(f, sleeper), &f->e, ERR_INTERNAL, "died");
		assert_ok(fs_write_file(AT_FDCWD, plan, errno_line, strlen(errno_line), 0600, false, &f->e), &f->e);
		assert_fails(fixture_launch(f, sleeper), &f->e, ERR_NO_CAPACITY, "after the");
		assert_int_equal(unsetenv("CARREL_FAULTS"), 0);
		nursery_end();
	}
	assert_int_equal(fixture_shell(f, "exit 4", out, sizeof out), 4);
}

static void test_log(void **state)
{
	struct fixture *f = *state;
	own_strbuf struct str log = { 0 };
	struct runner_log_record head;

	assert_int_equal(fixture_shell(f, "echo to the log", out, sizeof out), 0);
	assert_ok(fs_read_file(AT_FDCWD, f->log_path, 1 << 20, &log, &f->e), &f->e);
	assert_true(log.length > sizeof head);
	memcpy(&head, log.bytes, sizeof head);
	assert_int_equal(head.mark, RUNNER_LOG_MARK);
	assert_int_equal(head.length, strlen("to the log\n"));
	assert_int_equal(head.stream, 1);
	assert_memory_equal(log.bytes + sizeof head, "to the log\n", head.length);
}

/* Everything a held program writes waits for its reader. */
static void test_held_output_is_whole(void **state)
{
	struct fixture *f = *state;
	const char *const much[] = { "/bin/sh", "-c", "dd if=/dev/zero bs=65536 count=64 2>/dev/null", NULL };
	static char big[5 << 20];

	assert_int_equal(fixture_run(f, much, big, sizeof big), 0);
	own_str char *log = mem_printf("cat %s %s.1 2>/dev/null | wc -c | { read n; [ $n -gt 4194304 ]; }", f->log_path,
				       f->log_path);
	assert_int_equal(fixture_host(log), 0);
}

/* A held program that ended waits for its reader, but not longer than the workspace is wanted. */
static void test_held_and_never_attached(void **state)
{
	struct fixture *f = *state;
	const char *const quick[] = { "/bin/sh", "-c", "echo unread; exit 6", NULL };
	struct runner_status s;

	f->launch.held = true;
	assert_ok(fixture_launch(f, quick), &f->e);
	for (int i = 0; i < 20; i++) {
		assert_ok(runner_status(f->run_dir, &s, &f->e), &f->e);
		assert_int_equal(s.exit_status, -1);
		(void)poll(NULL, 0, 5);
	}
	assert_ok(runner_stop(f->run_dir, PATIENCE_MS, &f->e), &f->e);
	assert_int_equal(fixture_wait(f, PATIENCE_MS), 6);
	assert_ok(fixture_launch(f, quick), &f->e);
	assert_ok(runner_kill(f->run_dir, &f->e), &f->e);
	assert_true(fixture_wait(f, PATIENCE_MS) >= 0);
	f->launch.held = false;
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(program),
		TEST(commands_that_do_not_start),
		TEST(user),
		TEST(volume_keeps),
		TEST(data_volume),
		TEST(exec),
		TEST(terminal),
		TEST(input),
		TEST(pause),
		TEST(copy_is_confined),
		TEST(copy_ends_with_the_workspace),
		TEST(tmpfs_has_a_limit),
		TEST(start_paused),
		TEST(stop_time_out),
		TEST(copies),
		TEST(log),
		TEST(runner_killed),
		TEST(runner_of_a_system_killed),
		TEST(nursery_killed),
		TEST(runner_made_ahead),
		TEST(runner_dies_while_it_starts),
		TEST(held_output_is_whole),
		TEST(held_and_never_attached),
	};
	const char *missing = fixture_missing();

	if (missing) {
		(void)printf("1..0 # SKIP needs %s\n", missing);
		return 0;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
