/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One static program for the inside of machines and namespaces, which have no tools for this (test_machine_networks.py compiles
 * it).
 *
 *   probe serve PORT...             echoes TCP and UDP on each port, IPv4 and IPv6, after a line with the caller's address
 *   probe all MS PORT ADDRESS...    which of TCP, UDP and ICMP answer at each address: "tcp4 udp4 icmp4 tcp6 udp6 icmp6"
 *   probe ask tcp|udp MS ADDRESS PORT   the server's first line
 *   probe hold ADDRESS PORT         a connection: each line of input is echoed as "yes", or "no" when it does not come back
 *   probe frames DEVICE             lines of hex are frames that are sent as they are; "done" when the input ends
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdint.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

struct address {
	union {
		struct sockaddr any;
		struct sockaddr_in four;
		struct sockaddr_in6 six;
	};
	socklen_t size;
};

static struct address make_address(const char *text, unsigned port)
{
	struct address a = { .size = sizeof a.four };

	a.four = (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
	if (inet_pton(AF_INET, text, &a.four.sin_addr) == 1)
		return a;
	a.six = (struct sockaddr_in6){ .sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port) };
	a.size = sizeof a.six;
	if (inet_pton(AF_INET6, text, &a.six.sin6_addr) != 1)
		exit(2);
	return a;
}

static int number(const char *text)
{
	char *end;
	long n = strtol(text, &end, 10);

	if (!*text || *end || n < 0 || n > 65535)
		exit(2);
	return (int)n;
}

static long now_ms(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* --- serve --- */

static int plain(const struct sockaddr_in6 *from, char *out, size_t size)
{
	char text[INET6_ADDRSTRLEN];

	(void)inet_ntop(AF_INET6, &from->sin6_addr, text, sizeof text);
	return snprintf(out, size, "%s\n", strncmp(text, "::ffff:", 7) == 0 ? text + 7 : text);
}

static int listen_at(int kind, unsigned port)
{
	struct address a = make_address("::", port);
	int fd = socket(AF_INET6, kind, 0), off = 0, on = 1;

	(void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
	(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	if (bind(fd, &a.any, a.size) < 0 || (kind == SOCK_STREAM && listen(fd, 64) < 0)) {
		perror("bind");
		exit(1);
	}
	return fd;
}

static void talk(int fd, const struct sockaddr_in6 *from)
{
	char bytes[4096];
	ssize_t n = plain(from, bytes, sizeof bytes);

	while (n > 0 && write(fd, bytes, (size_t)n) == n)
		n = read(fd, bytes, sizeof bytes);
	_exit(0);
}

static void serve_one(int fd, int kind)
{
	struct sockaddr_in6 from;
	socklen_t size = sizeof from;
	char bytes[4096];

	if (kind == SOCK_DGRAM) {
		ssize_t n = recvfrom(fd, bytes, sizeof bytes, 0, (struct sockaddr *)&from, &size);
		if (n >= 0)
			(void)!sendto(fd, bytes, (size_t)plain(&from, bytes, sizeof bytes), 0, (struct sockaddr *)&from, size);
		return;
	}
	int connection = accept(fd, (struct sockaddr *)&from, &size);
	if (connection >= 0 && fork() == 0)
		talk(connection, &from);
	(void)close(connection);
}

static void serve(int count, char **ports) __attribute__((noreturn));
static void serve(int count, char **ports)
{
	struct pollfd fds[64];
	int n = 0;

	(void)signal(SIGCHLD, SIG_IGN);
	for (int i = 0; i < count && n + 2 <= 64; i++)
		for (int kind = SOCK_STREAM; kind <= SOCK_DGRAM; kind++)
			fds[n++] = (struct pollfd){ .fd = listen_at(kind, (unsigned)number(ports[i])), .events = POLLIN };
	puts("ready");
	(void)fflush(stdout);
	for (;;) {
		(void)poll(fds, (nfds_t)n, -1);
		for (int i = 0; i < n; i++)
			if (fds[i].revents)
				serve_one(fds[i].fd, i % 2 ? SOCK_DGRAM : SOCK_STREAM);
	}
}

/* --- all: everything is sent first, then answers are waited for --- */

struct try {
	const char *name;
	int fd;
	bool connects, passes;
};

static uint16_t checksum(const uint8_t *bytes, size_t length)
{
	uint32_t sum = 0;

	for (size_t i = 0; i + 1 < length; i += 2)
		sum += (uint32_t)(bytes[i] << 8 | bytes[i + 1]);
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)~sum;
}

static int open_ping(const struct address *a, bool six)
{
	struct address to = *a;
	uint8_t echo[16] = { six ? 128 : 8 };
	int fd = socket(a->any.sa_family, SOCK_RAW | SOCK_NONBLOCK, six ? IPPROTO_ICMPV6 : IPPROTO_ICMP);

	echo[4] = (uint8_t)getpid();
	echo[5] = (uint8_t)(getpid() >> 8);
	uint16_t sum = checksum(echo, sizeof echo);
	echo[2] = (uint8_t)(sum >> 8);
	echo[3] = (uint8_t)sum;
	to.four.sin_port = 0; /* the same place in both */
	if (fd < 0 || sendto(fd, echo, sizeof echo, 0, &to.any, to.size) < 0)
		return -1;
	return fd;
}

static int open_socket(const struct address *a, int kind)
{
	int fd = socket(a->any.sa_family, kind | SOCK_NONBLOCK, 0);

	if (fd < 0 || (connect(fd, &a->any, a->size) < 0 && errno != EINPROGRESS) ||
	    (kind == SOCK_DGRAM && send(fd, "x", 1, 0) < 0))
		return -1;
	return fd;
}

/* An answer to the echo: raw sockets see all that comes. */
static bool is_echo(const struct try *t, const uint8_t *bytes, ssize_t n)
{
	bool six = t->name[4] == '6';
	size_t head = six ? 0 : 20;

	return n >= (ssize_t)head + 8 && bytes[head] == (six ? 129 : 0) && bytes[head + 4] == (uint8_t)getpid();
}

static bool answered(struct try *t, short events)
{
	uint8_t bytes[4096];
	int error = 0;
	socklen_t size = sizeof error;

	if (t->connects) {
		(void)getsockopt(t->fd, SOL_SOCKET, SO_ERROR, &error, &size);
		t->passes = !error && (events & POLLOUT);
		return true;
	}
	ssize_t n = recv(t->fd, bytes, sizeof bytes, 0);
	t->passes = n >= 0 && (t->name[0] != 'i' || is_echo(t, bytes, n));
	return t->passes;
}

static void await(struct try *tries, int count, long end)
{
	for (long left; (left = end - now_ms()) > 0;) {
		struct pollfd fds[16];
		int waits = 0;
		for (int i = 0; i < count; i++) {
			fds[i] = (struct pollfd){ .fd = tries[i].fd, .events = tries[i].connects ? POLLOUT : POLLIN };
			waits += tries[i].fd >= 0;
		}
		if (!waits || poll(fds, (nfds_t)count, (int)left) <= 0)
			return;
		for (int i = 0; i < count; i++)
			if (fds[i].fd >= 0 && fds[i].revents && answered(&tries[i], fds[i].revents))
				tries[i].fd = -1; /* known */
	}
}

static int all(int count, char **words)
{
	static const char *const names[2][3] = { { "tcp4", "udp4", "icmp4" }, { "tcp6", "udp6", "icmp6" } };
	long end = now_ms() + number(words[0]);
	struct try tries[16];
	int n = 0;

	for (int i = 2; i < count && n + 3 <= 16; i++) {
		struct address a = make_address(words[i], (unsigned)number(words[1]));
		bool six = a.any.sa_family == AF_INET6;
		tries[n++] = (struct try){ names[six][0], open_socket(&a, SOCK_STREAM), true, false };
		tries[n++] = (struct try){ names[six][1], open_socket(&a, SOCK_DGRAM), false, false };
		tries[n] = (struct try){ names[six][2], open_ping(&a, six), false, false };
		tries[n].name = six ? "icmp6" : "icmp4";
		n++;
	}
	await(tries, n, end);
	for (int i = 0; i < n; i++)
		if (tries[i].passes)
			printf("%s ", tries[i].name);
	puts("");
	return 0;
}

/* --- ask, hold, frames --- */

static bool readable(int fd, int ms)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	return poll(&p, 1, ms) > 0;
}

static int ask(char **words)
{
	struct address a = make_address(words[2], (unsigned)number(words[3]));
	bool tcp = strcmp(words[0], "tcp") == 0;
	int ms = number(words[1]), fd = open_socket(&a, tcp ? SOCK_STREAM : SOCK_DGRAM);
	char bytes[256];

	if (fd < 0 || !readable(fd, ms))
		return 1;
	ssize_t n = recv(fd, bytes, sizeof bytes, 0);
	if (n <= 0)
		return 1;
	return fwrite(bytes, 1, (size_t)n, stdout) == (size_t)n ? 0 : 1;
}

static int hold(char **words)
{
	struct address a = make_address(words[0], (unsigned)number(words[1]));
	int fd = open_socket(&a, SOCK_STREAM);
	char line[256], bytes[256];

	if (fd < 0 || !readable(fd, 5000) || recv(fd, bytes, sizeof bytes, 0) <= 0)
		return 1;
	puts("held");
	(void)fflush(stdout);
	while (fgets(line, sizeof line, stdin)) {
		bool back = send(fd, "!", 1, MSG_NOSIGNAL) == 1 && readable(fd, 1000) && recv(fd, bytes, sizeof bytes, 0) > 0;
		puts(back ? "yes" : "no");
		(void)fflush(stdout);
	}
	return 0;
}

static int frames(const char *device)
{
	int fd = socket(AF_PACKET, SOCK_RAW, 0);
	struct sockaddr_ll to = { .sll_family = AF_PACKET, .sll_ifindex = (int)if_nametoindex(device), .sll_halen = 6 };
	char line[8192];

	if (fd < 0 || !to.sll_ifindex)
		return 1;
	while (fgets(line, sizeof line, stdin)) {
		uint8_t bytes[4096];
		size_t n = 0;
		unsigned byte;
		while (n < sizeof bytes && sscanf(line + 2 * n, "%2x", &byte) == 1)
			bytes[n++] = (uint8_t)byte;
		if (n && sendto(fd, bytes, n, 0, (struct sockaddr *)&to, sizeof to) < 0)
			return 1;
	}
	puts("done");
	return 0;
}

int main(int argc, char **argv)
{
	const char *verb = argc > 2 ? argv[1] : "";

	if (strcmp(verb, "serve") == 0)
		serve(argc - 2, argv + 2);
	if (strcmp(verb, "all") == 0)
		return all(argc - 2, argv + 2);
	if (strcmp(verb, "ask") == 0 && argc == 6)
		return ask(argv + 2);
	if (strcmp(verb, "hold") == 0 && argc == 4)
		return hold(argv + 2);
	if (strcmp(verb, "frames") == 0)
		return frames(argv[2]);
	return 2;
}
