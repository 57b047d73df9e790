/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Round trips of small messages between two network namespaces, as sockperf's ping-pong measures them:
 *
 *   filter-pingpong CLIENT SERVER ADDRESS PORT CLIENT-CPU SERVER-CPU MILLISECONDS
 *
 * Prints nanoseconds: of batches of 50 round trips that which a tenth was faster than, since what else runs on the
 * machine adds to the others. Each end is a process on its own processor (or both on one), so the scheduler
 * has no choice to make: without that, results have two humps.
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define BATCH 50
#define MOST 200000

static void check(bool good, const char *what)
{
	if (!good) {
		perror(what);
		_exit(1);
	}
}

static uint64_t now_ns(void)
{
	struct timespec t;
	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static unsigned number(const char *text)
{
	char *end;
	unsigned long value = strtoul(text, &end, 10);
	check(*text && !*end && value <= UINT32_MAX, text);
	return (unsigned)value;
}

static void enter(const char *name, const char *cpu)
{
	char path[256];
	cpu_set_t set;

	(void)snprintf(path, sizeof path, "/run/netns/%s", name);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	check(fd >= 0 && setns(fd, CLONE_NEWNET) == 0, path);
	(void)close(fd);
	CPU_ZERO(&set);
	CPU_SET(number(cpu), &set);
	check(sched_setaffinity(0, sizeof set, &set) == 0, "sched_setaffinity");
}

static void serve(int listener)
{
	char message[64];
	int one = 1, fd = accept(listener, NULL, NULL);

	check(fd >= 0 && setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) == 0, "accept");
	for (ssize_t got; (got = recv(fd, message, sizeof message, 0)) > 0;)
		check(send(fd, message, (size_t)got, 0) == got, "answer");
	_exit(0);
}

static int compare(const void *a, const void *b)
{
	const uint64_t *left = a, *right = b;
	return *left < *right ? -1 : *left > *right;
}

static uint64_t measure(int fd, uint64_t for_ns)
{
	static uint64_t batches[MOST];
	size_t count = 0;
	char message[16] = "ping";

	for (uint64_t begin = now_ns(), at = begin, next; at < begin + for_ns && count < MOST; at = next) {
		for (int i = 0; i < BATCH; i++)
			check(send(fd, message, sizeof message, 0) == sizeof message &&
				      recv(fd, message, sizeof message, MSG_WAITALL) == sizeof message,
			      "ping");
		next = now_ns();
		batches[count++] = (next - at) / BATCH;
	}
	qsort(batches, count, sizeof *batches, compare);
	return batches[count / 10];
}

int main(int argc, char **argv)
{
	int one = 1, ready[2], tries = 0;
	char byte = 0;

	check(argc == 8 && pipe(ready) == 0, "usage: filter-pingpong CLIENT SERVER ADDRESS PORT CPU CPU MILLISECONDS");
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons((uint16_t)number(argv[4])) };
	check(inet_pton(AF_INET, argv[3], &to.sin_addr) == 1, argv[3]);
	if (!fork()) {
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		enter(argv[2], argv[6]);
		int listener = socket(AF_INET, SOCK_STREAM, 0);
		(void)setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
		check(bind(listener, (struct sockaddr *)&to, sizeof to) == 0 && listen(listener, 1) == 0, "listen");
		check(write(ready[1], &byte, 1) == 1, "ready");
		serve(listener);
	}
	(void)alarm(30); /* a connection that nobody lets through */
	enter(argv[1], argv[5]);
	check(read(ready[0], &byte, 1) == 1, "server");
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	while (connect(fd, (struct sockaddr *)&to, sizeof to) < 0)
		check(++tries < 3, "connect");
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	(void)measure(fd, 20000000);
	printf("%llu\n", (unsigned long long)measure(fd, (uint64_t)number(argv[7]) * 1000000u));
	return 0;
}
