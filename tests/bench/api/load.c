/* SPDX-License-Identifier: Apache-2.0 */
/* load SOCKET TARGET CONNECTIONS SECONDS: GETs over a unix socket, each connection kept alive and one request in flight on it.
 * Prints "requests-per-second p50-microseconds p99-microseconds". Any answer but 200 ends it with an error. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define CONNECTIONS_MOST 256
#define SAMPLES_MOST 4000000
#define ANSWER_MOST (4 << 20)

struct connection {
	int fd;
	uint64_t sent_ns;
	char *answer;
	size_t length;
};

static uint32_t *samples;
static size_t sample_count;

static void die(const char *why)
{
	perror(why);
	exit(1);
}

static uint64_t now_ns(void)
{
	struct timespec now;
	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static void ask(struct connection *c, const char *request, size_t length)
{
	c->sent_ns = now_ns();
	c->length = 0;
	if (write(c->fd, request, length) != (ssize_t)length)
		die("write");
}

/* Whether the whole answer is there. */
static int complete(struct connection *c)
{
	c->answer[c->length] = '\0';
	char *end = strstr(c->answer, "\r\n\r\n");
	if (!end)
		return 0;
	if (strncmp(c->answer, "HTTP/1.1 200", 12) != 0) {
		(void)fprintf(stderr, "%.200s\n", c->answer);
		exit(1);
	}
	const char *header = strcasestr(c->answer, "Content-Length:");
	size_t body = header && header < end ? strtoul(header + 15, NULL, 10) : 0;
	return c->length >= (size_t)(end + 4 - c->answer) + body;
}

static void receive(struct connection *c, const char *request, size_t length)
{
	ssize_t got = read(c->fd, c->answer + c->length, ANSWER_MOST - c->length - 1);
	if (got <= 0)
		die("read");
	c->length += (size_t)got;
	if (!complete(c))
		return;
	if (sample_count < SAMPLES_MOST)
		samples[sample_count++] = (uint32_t)((now_ns() - c->sent_ns) / 1000);
	ask(c, request, length);
}

static int compare(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
	return x < y ? -1 : x > y;
}

static void dial(struct connection *c, const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	(void)snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
	c->fd = socket(AF_UNIX, SOCK_STREAM, 0);
	c->answer = malloc(ANSWER_MOST);
	if (c->fd < 0 || !c->answer || connect(c->fd, (struct sockaddr *)&address, sizeof address) < 0)
		die(path);
}

int main(int argc, char **argv)
{
	static struct connection connections[CONNECTIONS_MOST];
	char request[1024];

	int count = argc == 5 ? (int)strtol(argv[3], NULL, 10) : 0, epoll = epoll_create1(0);
	if (count < 1 || count > CONNECTIONS_MOST)
		return 2;
	size_t length = (size_t)snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", argv[2]);
	samples = malloc(SAMPLES_MOST * sizeof *samples);
	for (int i = 0; i < count; i++) {
		dial(&connections[i], argv[1]);
		struct epoll_event event = { .events = EPOLLIN, .data.ptr = &connections[i] };
		if (epoll_ctl(epoll, EPOLL_CTL_ADD, connections[i].fd, &event) < 0)
			die("epoll");
		ask(&connections[i], request, length);
	}
	uint64_t start = now_ns(), end = start + (uint64_t)(strtod(argv[4], NULL) * 1e9);
	while (now_ns() < end) {
		struct epoll_event events[64];
		int ready = epoll_wait(epoll, events, 64, 1000);
		for (int i = 0; i < ready; i++)
			receive(events[i].data.ptr, request, length);
	}
	double seconds = (double)(now_ns() - start) / 1e9;
	if (sample_count == 0)
		return 1;
	qsort(samples, sample_count, sizeof *samples, compare);
	(void)printf("%.0f %u %u\n", (double)sample_count / seconds, samples[sample_count / 2],
		     samples[sample_count * 99 / 100]);
	return 0;
}
