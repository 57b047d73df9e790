/* SPDX-License-Identifier: Apache-2.0 */
#include "../test.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/proc.h"

#define ARGV(...) ((const char *const[]){ __VA_ARGS__, NULL })

static void output_and_status_arrive(void **state)
{
	(void)state;
	struct err e;
	own_strbuf struct str out = { 0 };
	assert_ok(proc_run(ARGV("sh", "-c", "echo hello; echo aside >&2"), 100, &out, &e), &e);
	assert_string_equal(out.bytes, "hello\n");
	assert_fails(proc_run(ARGV("sh", "-c", "echo why >&2; exit 3"), 100, NULL, &e), &e, ERR_INTERNAL, "status 3: why");
	assert_fails(proc_run(ARGV("/no/such/program"), 100, NULL, &e), &e, ERR_NOT_FOUND, "/no/such/program");
	assert_fails(proc_run(ARGV("/etc/passwd"), 100, NULL, &e), &e, ERR_DENIED, "start /etc/passwd");
	assert_fails(proc_run(ARGV("yes"), 10000, NULL, &e), &e, ERR_TOO_LARGE, "yes");
}

static void who_hangs_is_left(void **state)
{
	(void)state;
	struct err e;
	own_strbuf struct str out = { 0 };
	assert_ok(proc_run_within(600000, ARGV("echo", "hello"), 100, &out, &e), &e);
	assert_string_equal(out.bytes, "hello\n");
	assert_fails(proc_run_within(50, ARGV("sleep", "1000"), 100, NULL, &e), &e, ERR_TIMEOUT, "sleep: it did not end in time");
	assert_fails(proc_run_within(50, ARGV("sh", "-c", "exec >&- 2>&-; exec sleep 1000"), 100, NULL, &e), &e, ERR_TIMEOUT, "in time");
	assert_fails(proc_run_within(600000, ARGV("yes"), 10000, NULL, &e), &e, ERR_TOO_LARGE, "yes");
}

static void only_named_descriptors_are_inherited(void **state)
{
	(void)state;
	struct err e;
	int pair[2], pidfd = -1, status = -1;
	assert_int_equal(pipe2(pair, 0), 0); /* without O_CLOEXEC on purpose */
	const struct proc_fd fds[] = { { 0, -1 }, { 1, pair[1] }, { 7, pair[1] } };
	const struct proc_spawn how = { .argv = ARGV("sh", "-c", "ls /proc/self/fd | tr '\\n' ' '; echo x >&7"), .fds = fds,
					.fd_count = 3 };
	assert_ok(proc_start(&how, &pidfd, NULL, &e), &e);
	(void)close(pair[1]);
	own_strbuf struct str out = { 0 };
	assert_ok(fs_read_fd(pair[0], 1000, &out, &e), &e);
	(void)close(pair[0]);
	assert_ok(proc_wait(pidfd, &status, &e), &e);
	(void)close(pidfd);
	assert_int_equal(status, 0);
	assert_string_equal(out.bytes, "0 1 2 3 7 x\n"); /* 3: ls reading the folder */
}

static void signals_count_as_a_shell_counts(void **state)
{
	(void)state;
	struct err e;
	int pidfd = -1, status = -1;
	const struct proc_spawn how = { .argv = ARGV("sleep", "1000") };
	assert_ok(proc_start(&how, &pidfd, NULL, &e), &e);
	assert_int_equal(proc_try_wait(pidfd, &status, &e), 0);
	assert_ok(proc_signal(pidfd, SIGKILL, &e), &e);
	assert_ok(proc_wait(pidfd, &status, &e), &e);
	assert_int_equal(status, 128 + SIGKILL);
	assert_ok(proc_signal(pidfd, SIGKILL, &e), &e); /* gone is fine */
	(void)close(pidfd);
}

/* Whatever numbers are free: every gap of three in a row of used descriptors is tried, with /dev/null opened in the child. */
static void any_free_numbers_do(void **state)
{
	static const struct proc_fd fds[] = { { 0, -1 }, { 1, -1 }, { 2, -1 } };
	const char *argv[] = { "true", NULL };
	struct proc_spawn how = { .argv = argv, .fds = fds, .fd_count = 3 };
	struct err e;

	(void)state;
	for (int length = 4; length < 14; length++)
		for (int gap = 0; gap + 3 <= length; gap++) {
			int used[16], status = -1;
			own_fd int pidfd = -1;
			for (int i = 0; i < length; i++)
				used[i] = fcntl(0, F_DUPFD_CLOEXEC, 3);
			for (int i = gap; i < gap + 3; i++)
				(void)close(used[i]);
			assert_ok(proc_start(&how, &pidfd, NULL, &e), &e);
			for (int i = 0; i < length; i++)
				if (i < gap || i >= gap + 3)
					(void)close(used[i]);
			assert_ok(proc_wait(pidfd, &status, &e), &e);
			assert_int_equal(status, 0);
		}
}

static void a_descriptor_tells_its_process(void **state)
{
	int pidfd = (int)syscall(SYS_pidfd_open, getpid(), 0);

	(void)state;
	assert_true(pidfd >= 0);
	assert_int_equal(proc_pid(pidfd), getpid());
	(void)close(pidfd);
	assert_int_equal(proc_pid(-1), -1);
	assert_int_equal(proc_pid(STDIN_FILENO), -1); /* of no process */
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(output_and_status_arrive), cmocka_unit_test(who_hangs_is_left),
					    cmocka_unit_test(only_named_descriptors_are_inherited),
					    cmocka_unit_test(signals_count_as_a_shell_counts),
					    cmocka_unit_test(any_free_numbers_do),
					    cmocka_unit_test(a_descriptor_tells_its_process) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
