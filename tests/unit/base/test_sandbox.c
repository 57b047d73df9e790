/* SPDX-License-Identifier: Apache-2.0 */
#include "../test.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/own.h"
#include "base/sandbox.h"

/* Each attempt runs in a sandboxed child; 0: it succeeded, else its errno. */
typedef int attempt_fn(void);

static int pipe_to_parent[2];

static int attempt(attempt_fn *fn, unsigned rights, const char *const *readable)
{
	struct err e;
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		if (sandbox_enter(rights, readable, &e) < 0) {
			(void)!write(2, e.message, strlen(e.message));
			_exit(255);
		}
		errno = 0;
		_exit(fn());
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_not_equal(WEXITSTATUS(status), 255);
	return WEXITSTATUS(status);
}

static int outcome(long result) { return result < 0 ? errno : 0; }
static int reads_a_file(void) { return outcome(open("/etc/passwd", O_RDONLY | O_CLOEXEC)); }
static int makes_a_file(void) { return outcome(open("/tmp/carrel-sandbox-escaped", O_WRONLY | O_CREAT | O_CLOEXEC, 0600)); }
static int makes_a_folder(void) { return outcome(mkdir("/tmp/carrel-sandbox-escaped", 0700)); }
static int removes_a_file(void) { return outcome(unlink("/tmp/carrel-sandbox-absent")); }
static int links_a_file(void) { return outcome(symlink("a", "/tmp/carrel-sandbox-escaped")); }
static int changes_a_mode(void) { return outcome(fchmod(pipe_to_parent[0], 0777)); }
static int opens_a_socket(void) { return outcome(socket(AF_INET, SOCK_STREAM, 0)); }
static int opens_a_local_socket(void) { return outcome(socket(AF_UNIX, SOCK_STREAM, 0)); }
static int opens_a_raw_socket(void) { return outcome(socket(AF_PACKET, SOCK_RAW, 0)); }
static int signals_its_parent(void) { return outcome(kill(getppid(), 0)); }
static int traces_its_parent(void) { return outcome(ptrace(PTRACE_SEIZE, getppid(), 0, 0)); }
static int becomes_root(void) { return outcome(setuid(0)); }
static int changes_its_root(void) { return outcome(chroot("/")); }

static int starts_a_process(void)
{
	pid_t pid = fork();
	if (pid == 0)
		_exit(0);
	return outcome(pid);
}

static int starts_a_program(void)
{
	char *argv[] = { (char *)(uintptr_t)"/bin/true", NULL };
	return outcome(execv(argv[0], argv));
}

static int maps_code(void)
{
	void *at = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	return at == MAP_FAILED ? errno : 0;
}

static int turns_data_into_code(void)
{
	void *at = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	return at == MAP_FAILED ? 0 : outcome(mprotect(at, 4096, PROT_READ | PROT_EXEC));
}

static int takes_all_memory(void)
{
	void *at = malloc((size_t)SANDBOX_MEMORY_BYTES_MOST);
	int r = at ? 0 : errno;
	free(at);
	return r;
}

static int takes_more_than_threads_need(void)
{
	void *at = malloc(
		(size_t)(SANDBOX_MEMORY_BYTES_MOST + (uint64_t)sysconf(_SC_NPROCESSORS_ONLN) * SANDBOX_THREAD_BYTES_MOST));
	int r = at ? 0 : errno;
	free(at);
	return r;
}

static int takes_a_gigabyte(void)
{
	void *at = malloc((size_t)1 << 30);
	int r = at ? 0 : errno;
	free(at);
	return r;
}

static void *nothing(void *data) { return data; }
static int starts_a_thread(void)
{
	pthread_t thread;
	int r = pthread_create(&thread, NULL, nothing, NULL);
	return r ? r : pthread_join(thread, NULL);
}

static void test_the_wall_holds(void **state)
{
	static const struct {
		const char *name;
		attempt_fn *fn;
	} rows[] = {
		{ "read a file", reads_a_file },	   { "make a file", makes_a_file },
		{ "make a folder", makes_a_folder },	   { "remove a file", removes_a_file },
		{ "make a link", links_a_file },	   { "change a mode", changes_a_mode },
		{ "open a socket", opens_a_socket },	   { "open a local socket", opens_a_local_socket },
		{ "signal its parent", signals_its_parent }, { "trace its parent", traces_its_parent },
		{ "start a process", starts_a_process },   { "start a program", starts_a_program },
		{ "map code", maps_code },		   { "turn data into code", turns_data_into_code },
		{ "start a thread", starts_a_thread },	   { "become root", becomes_root },
		{ "change its root", changes_its_root },
	};

	(void)state;
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		if (attempt(rows[i].fn, 0, NULL) == 0)
			fail_msg("it could %s", rows[i].name);
	}
	assert_int_equal(access("/tmp/carrel-sandbox-escaped", F_OK), -1);
}

static void test_memory_is_limited(void **state)
{
	(void)state;
#ifdef __SANITIZE_ADDRESS__
	skip();
#endif
	assert_int_equal(attempt(takes_all_memory, 0, NULL), ENOMEM);
	assert_int_equal(attempt(takes_more_than_threads_need, SANDBOX_THREADS, NULL), ENOMEM);
	assert_int_equal(attempt(takes_a_gigabyte, SANDBOX_THREADS, NULL), 0);
}

/* It cannot raise the limit, and works below it. */
static void test_a_lower_limit_stays(void **state)
{
	static const unsigned rights[] = { 0, SANDBOX_THREADS };
	const struct rlimit low = { UINT64_C(512) << 20, UINT64_C(512) << 20 };
	int status;

	(void)state;
#ifdef __SANITIZE_ADDRESS__
	skip();
#endif
	for (size_t i = 0; i < ARRAY_SIZE(rights); i++) {
		pid_t pid = fork();
		if (pid == 0)
			_exit(setrlimit(RLIMIT_AS, &low) < 0 || sandbox_enter(rights[i], NULL, NULL) < 0 ? 255 :
													   takes_a_gigabyte());
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_true(WIFEXITED(status));
		assert_int_equal(WEXITSTATUS(status), ENOMEM);
	}
}

static int works(void)
{
	char *memory = malloc(1 << 20), c;
	if (!memory || write(pipe_to_parent[1], "x", 1) != 1 || read(pipe_to_parent[0], &c, 1) != 1 || c != 'x')
		return 1;
	struct stat st;
	free(memory);
	return fstat(pipe_to_parent[0], &st) == 0 ? 0 : 2;
}

static void test_work_is_possible(void **state)
{
	(void)state;
	assert_int_equal(attempt(works, 0, NULL), 0);
	assert_int_equal(attempt(starts_a_thread, SANDBOX_THREADS, NULL), 0);
}

static uint16_t port;
static int connects(void)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = port, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	own_fd int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	return fd < 0 ? errno : outcome(connect(fd, (struct sockaddr *)&to, sizeof to));
}

static int reads_hosts(void) { return outcome(open("/etc/hosts", O_RDONLY | O_CLOEXEC)); }
static int writes_hosts(void) { return outcome(open("/etc/hosts", O_WRONLY | O_CLOEXEC)); }

static void test_network(void **state)
{
	static const char *const readable[] = { "/etc/hosts", "/etc/no-such-file", NULL };
	struct sockaddr_in here = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t size = sizeof here;
	own_fd int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	(void)state;
	assert_int_equal(bind(listener, (struct sockaddr *)&here, sizeof here), 0);
	assert_int_equal(listen(listener, 4), 0);
	assert_int_equal(getsockname(listener, (struct sockaddr *)&here, &size), 0);
	port = here.sin_port;
	assert_int_equal(attempt(connects, SANDBOX_NETWORK, readable), 0);
	assert_int_equal(attempt(starts_a_thread, SANDBOX_NETWORK, readable), 0);
	assert_int_equal(attempt(reads_hosts, SANDBOX_NETWORK, readable), 0);
	assert_int_not_equal(attempt(writes_hosts, SANDBOX_NETWORK, readable), 0);
	assert_int_not_equal(attempt(reads_a_file, SANDBOX_NETWORK, readable), 0);
	assert_int_not_equal(attempt(opens_a_local_socket, SANDBOX_NETWORK, readable), 0);
	assert_int_not_equal(attempt(opens_a_raw_socket, SANDBOX_NETWORK, readable), 0);
	assert_int_not_equal(attempt(starts_a_program, SANDBOX_NETWORK, readable), 0);
	assert_int_not_equal(attempt(starts_a_process, SANDBOX_NETWORK, readable), 0);
	assert_int_not_equal(attempt(signals_its_parent, SANDBOX_NETWORK, readable), 0);
}

/* A child whose parent is killed does not stay: changing the user must not have cleared the signal. */
static void test_it_dies_with_its_parent(void **state)
{
	int ends[2];
	char c;

	(void)state;
	assert_int_equal(pipe(ends), 0);
	pid_t parent = fork();
	if (parent == 0) {
		if (fork() == 0) {
			(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
			if (sandbox_enter(0, NULL, NULL) == 0 && write(ends[1], "x", 1) == 1)
				(void)poll(NULL, 0, -1);
			_exit(0);
		}
		(void)close(ends[1]);
		(void)pause();
	}
	(void)close(ends[1]);
	assert_int_equal(read(ends[0], &c, 1), 1);
	assert_int_equal(kill(parent, SIGKILL), 0);
	assert_int_equal(waitpid(parent, NULL, 0), parent);
	assert_int_equal(read(ends[0], &c, 1), 0); /* the last writer is gone */
	(void)close(ends[0]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_the_wall_holds),   cmocka_unit_test(test_memory_is_limited),
		cmocka_unit_test(test_work_is_possible), cmocka_unit_test(test_a_lower_limit_stays),
		cmocka_unit_test(test_network),          cmocka_unit_test(test_it_dies_with_its_parent),
	};
	if (pipe(pipe_to_parent) < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
