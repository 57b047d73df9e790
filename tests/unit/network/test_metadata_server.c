/* SPDX-License-Identifier: Apache-2.0 */
/* The server with its child, and a workspace's side of a cable in another network namespace. The filter is three rules here. */
#include "commands.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/proc.h"
#include "network/metadata_server.h"

static struct err e;
static struct loop *loop;
static struct metadata_server *server;
static pid_t guest;
static char answer[65536 * 2];

static json_t *lookup(void *data, uint32_t attachment)
{
	(void)data;
	if (attachment != 7)
		return NULL;
	char *large = mem_alloc(60001);
	memset(large, 'u', 60000);
	json_t *identity = json_pack("{s:s, s:i, s:[{s:s}], s:s}", "id", "seven", "which", 0, "interfaces", "mac",
				     "02:00:00:00:00:07", "user-data", large);
	free(large);
	return identity;
}

static void stop(void *data) { loop_stop(data); }

/* In the guest's namespace: sends a request to `address`, writes the whole answer to `out`. */
static void ask_as_guest(const char *address, const char *request, int out)
{
	char buffer[65536];
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(80) };
	own_str char *path = mem_printf("/proc/%d/ns/net", (int)guest);
	int space = open(path, O_RDONLY | O_CLOEXEC), fd;
	ssize_t n;

	(void)inet_pton(AF_INET, address, &to.sin_addr);
	if (setns(space, CLONE_NEWNET) < 0 || (fd = socket(AF_INET, SOCK_STREAM, 0)) < 0)
		_exit(2);
	const struct timeval patience = { 5, 0 };
	(void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
	(void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
	if (connect(fd, (struct sockaddr *)&to, sizeof to) < 0 || send(fd, request, strlen(request), MSG_NOSIGNAL) < 0)
		_exit(3);
	while ((n = recv(fd, buffer, sizeof buffer, 0)) > 0)
		if (write(out, buffer, (size_t)n) != n)
			_exit(4);
	_exit(0);
}

static void ended(void *data, uint32_t events)
{
	(void)events;
	loop_stop(data);
}

static const char *ask(const char *request)
{
	int pipes[2];
	size_t length = 0;
	ssize_t n;

	assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
	pid_t child = fork();
	if (child == 0)
		ask_as_guest("169.254.169.254", request, pipes[1]);
	(void)close(pipes[1]);
	/* the answer may be larger than a pipe: read while the loop serves */
	assert_ok(fs_set_blocking(pipes[0], false, &e), &e);
	for (;;) {
		struct loop_source *source = loop_add_fd(loop, pipes[0], POLLIN, ended, loop),
				   *timer = loop_add_timer(loop, 90000, stop, loop);
		assert_ok(loop_run(loop, &e), &e);
		loop_remove(source);
		loop_remove(timer);
		n = read(pipes[0], answer + length, sizeof answer - 1 - length);
		if (n == 0 || (n < 0 && errno != EAGAIN))
			break;
		length += n > 0 ? (size_t)n : 0;
	}
	answer[length] = '\0';
	(void)close(pipes[0]);
	assert_int_equal(waitpid(child, NULL, 0), child);
	return answer;
}

static void the_caller_is_known_by_its_mark(void **state)
{
	(void)state;
	assert_non_null(strstr(ask("GET /latest/meta-data/instance-id HTTP/1.1\r\n\r\n"), "\r\n\r\nseven"));
	const char *all = ask("GET /latest/user-data HTTP/1.1\r\n\r\n");
	assert_non_null(strstr(all, "Content-Length: 60000"));
	assert_int_equal(strlen(strstr(all, "\r\n\r\n") + 4), 60000);
	assert_non_null(strstr(ask("NONSENSE\r\n\r\n"), " 405 "));
	assert_non_null(strstr(ask("GET /%zz HTTP/1.1\r\n\r\n"), " 400 "));
	run("nft flush chain inet t before");
	run("nft add rule inet t before iifname crb1 ip daddr 169.254.169.254 ct mark set 8");
	assert_string_equal(ask("GET / HTTP/1.1\r\n\r\n"), ""); /* nobody we know */
	run("nft flush chain inet t before");
	run("nft add rule inet t before iifname crb1 ip daddr 169.254.169.254 ct mark set 7");
	assert_non_null(strstr(ask("GET / HTTP/1.1\r\n\r\n"), " 200 "));
}

static pid_t child_of_server(void)
{
	own_str char *path = mem_printf("/proc/self/task/%d/children", (int)getpid());
	own_strbuf struct str pids = { 0 };

	assert_ok(fs_read_file(AT_FDCWD, path, 4096, &pids, &e), &e);
	for (char *at = pids.bytes; at && *at; at = strchr(at, ' ') ? strchr(at, ' ') + 1 : NULL) {
		pid_t pid = (pid_t)strtol(at, NULL, 10);
		own_str char *comm = mem_printf("/proc/%d/comm", (int)pid);
		own_strbuf struct str name = { 0 };
		if (pid && fs_read_file(AT_FDCWD, comm, 64, &name, NULL) >= 0 && str_eq(name.bytes, "carrel-metadata\n"))
			return pid;
	}
	return 0;
}

static void the_child_may_die(void **state)
{
	(void)state;
	pid_t child = child_of_server();

	assert_true(child > 0);
	assert_int_equal(kill(child, SIGKILL), 0);
	for (int waited = 0; kill(child, 0) == 0 && waited < 200; waited++) { /* a zombie until the server looks */
		own_str char *path = mem_printf("/proc/%d/stat", (int)child);
		own_strbuf struct str stat = { 0 };
		if (fs_read_file(AT_FDCWD, path, 4096, &stat, NULL) < 0 || strstr(stat.bytes, ") Z "))
			break;
		(void)poll(NULL, 0, 10);
	}
	assert_non_null(strstr(ask("GET /latest/meta-data/mac HTTP/1.1\r\n\r\n"), "02:00:00:00:00:07"));
	assert_int_not_equal(child_of_server(), child);
}

static int open_world(void **state)
{
	(void)state;
	const char *build = getenv("CARREL_BUILD_ROOT");

	if (!build || geteuid() != 0) {
		print_message("skipped: needs root, and the build folder in CARREL_BUILD_ROOT\n");
		return -1;
	}
	own_str char *prefix = mem_printf("%s/tests/network-prefix", build), *libexec = mem_printf("%s/libexec", prefix),
		     *link = mem_printf("%s/carrel", libexec), *programs = mem_printf("%s/src/network", build);
	int ready[2];
	char byte;

	assert_ok(fs_mkdirs(libexec, 0755, &e), &e);
	assert_true(symlink(programs, link) == 0 || errno == EEXIST);
	assert_int_equal(setenv("CARREL_PREFIX", prefix, 1), 0);
	assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
	assert_int_equal(unshare(CLONE_NEWNET), 0);
	guest = fork();
	if (guest == 0) {
		(void)!unshare(CLONE_NEWNET);
		(void)!write(ready[1], "x", 1);
		for (;;)
			(void)pause();
	}
	assert_int_equal(read(ready[0], &byte, 1), 1);
	own_str char *cable = mem_printf("ip link add cr7 type veth peer name eth0 netns %d", (int)guest);
	own_str char *inside = mem_printf("nsenter -n -t %d ip address add 10.88.0.7/24 dev eth0", (int)guest);
	own_str char *up = mem_printf("nsenter -n -t %d ip link set eth0 up", (int)guest);
	own_str char *route = mem_printf("nsenter -n -t %d ip route add default via 10.88.0.1", (int)guest);
	run("ip link set lo up");
	run("ip link add crb1 type bridge");
	run("ip address add 10.88.0.1/24 dev crb1");
	run("ip link set crb1 up");
	run(cable);
	run("ip link set cr7 master crb1 up");
	run(inside);
	run(up);
	run(route);
	loop = loop_new();
	assert_ok(metadata_server_new(loop, lookup, NULL, &server, &e), &e);
	own_str char *lead = mem_printf("nft add rule inet t pre iifname crb1 ip daddr 169.254.169.254 tcp dport 80 redirect "
					"to :%u", metadata_server_port(server));
	run("nft add table inet t");
	run("nft add chain inet t before { type filter hook prerouting priority -150 ; }");
	run("nft add chain inet t pre { type nat hook prerouting priority -100 ; }");
	run("nft add rule inet t before iifname crb1 ip daddr 169.254.169.254 ct mark set 7");
	run(lead);
	return 0;
}

static int close_world(void **state)
{
	(void)state;
	metadata_server_free(server);
	loop_free(loop);
	(void)kill(guest, SIGKILL);
	(void)waitpid(guest, NULL, 0);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(the_caller_is_known_by_its_mark),
					    cmocka_unit_test(the_child_may_die) };
	return cmocka_run_group_tests(tests, open_world, close_world);
}
