/* SPDX-License-Identifier: Apache-2.0 */
/*
 * carrel-metadata: answers what workspaces ask at the metadata address (network/metadata_server.h). Descriptor 3 brings one
 * message for each connection: the attachment's number, the connection, and a file with the identity of whoever is at its other
 * end. It has no network of its own and no files, and ends with the agent.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/log.h"
#include "base/own.h"
#include "base/rights.h"
#include "base/sandbox.h"
#include "network/metadata.h"

#define AGENT 3
#define CONNECTIONS 256
#define PATIENCE_S 5
#define IDENTITY_MOST ((size_t)1 << 20)

struct connection {
	int fd; /* -1: free */
	uint32_t number;
	time_t until;
	json_t *identity;
	struct str in, out;
	size_t sent;
};

static time_t now(clockid_t clock)
{
	struct timespec t;
	(void)clock_gettime(clock, &t);
	return t.tv_sec;
}

static void drop(struct connection *c)
{
	own_close(&c->fd);
	json_decref(c->identity);
	str_done(&c->in);
	str_done(&c->out);
	*c = (struct connection){ .fd = -1 };
}

static json_t *read_identity(int fd)
{
	struct str text = { 0 };
	json_t *identity = NULL;

	if (lseek(fd, 0, SEEK_SET) == 0 && fs_read_fd(fd, IDENTITY_MOST, &text, NULL) >= 0)
		identity = json_loadb(text.bytes, text.length, 0, NULL);
	str_done(&text);
	return identity;
}

/* false: the agent is gone. */
static bool receive(struct connection *connections)
{
	uint32_t number = 0;
	int fds[2];
	ssize_t n = rights_receive(AGENT, &number, sizeof number, fds, 2, MSG_DONTWAIT);

	if (n <= 0)
		return n < 0 && errno == EAGAIN;
	own_fd int connection = fds[0], identity = fds[1];
	for (size_t i = 0; i < CONNECTIONS && connection >= 0; i++)
		if (connections[i].fd < 0) {
			connections[i].identity = read_identity(identity);
			connections[i].number = number;
			connections[i].until = now(CLOCK_MONOTONIC) + PATIENCE_S;
			connections[i].fd = TAKE_FD(connection);
			return true;
		}
	return true; /* too many: this one closes */
}

static void answer(struct connection *c, const struct metadata_key *key)
{
	struct metadata_request request;
	struct err e = { 0 };
	int r = metadata_parse(c->in.bytes, c->in.length, &request, &e);

	if (r > 0)
		metadata_answer(&request, c->identity, c->number, key, (uint64_t)now(CLOCK_REALTIME), &c->out);
	else if (r < 0)
		str_printf(&c->out,
			   "HTTP/1.1 %s\r\nContent-Type: text/plain\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n%s",
			   e.kind == ERR_METHOD ? "405 Method Not Allowed" : "400 Bad Request", strlen(e.message), e.message);
}

/* false: this connection is done with. */
static bool serve(struct connection *c, short events, const struct metadata_key *key)
{
	char buffer[4096];

	if (!c->out.length && events) {
		ssize_t n = recv(c->fd, buffer, sizeof buffer, MSG_DONTWAIT);
		if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
			return false;
		if (n > 0) {
			str_add(&c->in, buffer, (size_t)n);
			answer(c, key);
		}
	}
	while (c->out.length > c->sent) {
		ssize_t n = send(c->fd, c->out.bytes + c->sent, c->out.length - c->sent, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n < 0)
			return errno == EAGAIN || errno == EINTR;
		c->sent += (size_t)n;
	}
	return !c->out.length;
}

static void run(struct connection *connections, const struct metadata_key *key)
{
	struct pollfd polls[CONNECTIONS + 1];

	for (;;) {
		polls[CONNECTIONS] = (struct pollfd){ .fd = AGENT, .events = POLLIN };
		bool any = false;
		for (size_t i = 0; i < CONNECTIONS; i++) {
			struct connection *c = &connections[i];
			any |= c->fd >= 0;
			polls[i] = (struct pollfd){ .fd = c->fd, .events = c->out.length ? POLLOUT : POLLIN };
		}
		if (poll(polls, CONNECTIONS + 1, any ? 1000 : -1) < 0 && errno != EINTR)
			return;
		for (size_t i = 0; i < CONNECTIONS; i++) {
			struct connection *c = &connections[i];
			if (c->fd >= 0 && (!serve(c, polls[i].revents, key) || now(CLOCK_MONOTONIC) > c->until))
				drop(c);
		}
		if (polls[CONNECTIONS].revents && !receive(connections))
			return;
	}
}

int main(void)
{
	struct connection *connections = calloc(CONNECTIONS, sizeof *connections);
	struct metadata_key key;
	struct err e = { 0 };

	log_init("carrel-metadata", LOG_INFO);
	for (size_t i = 0; connections && i < CONNECTIONS; i++)
		connections[i].fd = -1;
	if (!connections || getrandom(key.bytes, sizeof key.bytes, 0) != sizeof key.bytes)
		return 1;
	if (unshare(CLONE_NEWNET | CLONE_NEWNS | CLONE_NEWIPC) < 0)
		(void)err_errno(&e, errno, "take namespaces of its own");
	else if (sandbox_enter(SANDBOX_NETWORK, NULL, &e) == 0) { /* of an empty network: for recvmsg and descriptors in it */
		run(connections, &key);
		return 0;
	}
	log_error(&e, "metadata server");
	return 1;
}
