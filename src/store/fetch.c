/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The parent's half. Messages (heads and ends, structs of a fixed size) and bodies come on different descriptors, so their
 * order is not that of sending: the end says how many bytes belong to the answer, and the transfer is over when these have
 * come. Whatever the child says is checked like the registry's own words.
 *
 * A child that is left in the midst of an answer - cancelled, a sink that failed, a protocol that was broken - is killed, and
 * the next request starts another: there is nothing to clean up in it. Certificates are read here, as it has no files.
 */
#include "store/fetch.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"
#include "store/cancel.h"
#include "store/child.h"

struct fetch {
	struct fetch_server server;
	struct str authorities;
	struct child child; /* pidfd -1: not running */
	int socket, pipe;
};

/* The bundle is read here, because the child cannot. Without one, https has nobody to trust and says so. */
static void read_authorities(struct str *ret_pem)
{
	const char *set = getenv("SSL_CERT_FILE");
	const char *path = set && set[0] == '/' ? set : "/etc/ssl/certs/ca-certificates.crt";

	if (fs_read_file(AT_FDCWD, path, 16 << 20, ret_pem, NULL) < 0)
		*ret_pem = (struct str){ 0 };
}

static void stop(struct fetch *f)
{
	child_kill(&f->child);
	if (f->socket >= 0)
		(void)close(TAKE_FD(f->socket));
	if (f->pipe >= 0)
		(void)close(TAKE_FD(f->pipe));
}

static int launch(struct fetch *f, struct err *e)
{
	own_fd int their_socket = -1, their_pipe = -1;
	int sockets[2], pipes[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets) < 0)
		return err_errno(e, errno, "socketpair");
	f->socket = sockets[0];
	their_socket = sockets[1];
	if (pipe2(pipes, O_CLOEXEC) < 0)
		return err_errno(e, errno, "pipe");
	f->pipe = pipes[0];
	their_pipe = pipes[1];
	(void)fcntl(f->pipe, F_SETPIPE_SZ, 1 << 20);
	struct fetch_channel channel = { &f->server, f->authorities.bytes, f->authorities.length, their_socket, their_pipe };
	const int fds[] = { their_socket, their_pipe };
	return child_start("the process that talks to the registry", CHILD_FETCHES, fetch_child_run, &channel, fds,
			   ARRAY_SIZE(fds), &f->child, e);
}

int fetch_start(const struct fetch_server *server, struct fetch **ret_fetch, struct err *e)
{
	own_fetch struct fetch *f = mem_alloc(sizeof *f);

	*f = (struct fetch){ .server = *server, .child = { .pidfd = -1, .report_fd = -1 }, .socket = -1, .pipe = -1 };
	read_authorities(&f->authorities);
	int r = launch(f, e);
	if (r < 0)
		return r;
	*ret_fetch = TAKE(f);
	return 0;
}

void fetch_free(struct fetch *f)
{
	stop(f);
	str_done(&f->authorities);
	free(f);
}

/* --- one request --- */

struct transfer {
	struct fetch *fetch;
	const struct fetch_request *request;
	const struct fetch_sink *sink;
	bool begun, ended;
	uint64_t received_bytes, most_bytes;
	struct fetch_message end;
};

static int child_gone(struct fetch *f, struct err *e)
{
	int r = child_finish(&f->child, e);
	stop(f);
	return r < 0 ? r : err_set(e, ERR_INTERNAL, "the process that talks to the registry ended");
}

static int take_message(struct transfer *t, struct err *e)
{
	struct fetch_message m;
	ssize_t n = recv(t->fetch->socket, &m, sizeof m, 0);

	if (n != (ssize_t)sizeof m)
		return child_gone(t->fetch, e);
	if (m.type == FETCH_END) {
		t->ended = true;
		t->end = m;
		return 0;
	}
	if (t->begun)
		return err_set(e, ERR_INTERNAL, "the process that talks to the registry sent two heads");
	m.head.media_type[sizeof m.head.media_type - 1] = '\0';
	if (m.head.offset != 0 && m.head.offset != t->request->offset)
		return err_set(e, ERR_CORRUPT, "the registry sent another part than was asked for");
	t->begun = true;
	t->most_bytes = t->request->most_bytes - m.head.offset;
	return t->sink->begin(t->sink->data, &m.head, e);
}

static int take_body(struct transfer *t, struct err *e)
{
	static char buffer[1 << 18];
	ssize_t n = read(t->fetch->pipe, buffer, sizeof buffer);

	if (n <= 0)
		return n == 0 ? child_gone(t->fetch, e) : err_errno(e, errno, "read from the registry's process");
	int number = fault_point("fetch-body");
	if (number)
		return err_errno(e, number, "fetch-body");
	t->received_bytes += (uint64_t)n;
	if (!t->begun || t->received_bytes > t->most_bytes)
		return err_set(e, ERR_CORRUPT, "the registry sent more than the %llu bytes that were announced",
			       (unsigned long long)t->request->most_bytes);
	return t->sink->write(t->sink->data, buffer, (size_t)n, e);
}

static int transfer(struct transfer *t, struct err *e)
{
	while (!t->ended || t->received_bytes < t->end.body_bytes) {
		struct pollfd fds[] = { { .fd = t->fetch->socket, .events = POLLIN }, { .fd = t->fetch->pipe,
											.events = POLLIN } };
		if (t->ended)
			fds[0].fd = -1;
		int r = cancel_poll(fds, ARRAY_SIZE(fds), -1, e);
		if (r >= 0 && fds[0].revents)
			r = take_message(t, e);
		else if (r >= 0 && fds[1].revents)
			r = take_body(t, e);
		if (r < 0)
			return r;
	}
	if (!t->end.failed)
		return 0;
	t->end.error.message[sizeof t->end.error.message - 1] = t->end.error.hint[sizeof t->end.error.hint - 1] = '\0';
	unsigned kind = t->end.error.kind;
	(void)err_set(e, kind > ERR_NONE && kind < ERR_KIND_COUNT ? (enum err_kind)kind : ERR_INTERNAL, "%s",
		      t->end.error.message);
	return err_hint(e, "%s", t->end.error.hint);
}

int fetch_do(struct fetch *f, const struct fetch_request *request, const struct fetch_sink *sink, struct err *e)
{
	struct transfer t = { .fetch = f, .request = request, .sink = sink };
	int r = f->child.pidfd < 0 ? launch(f, e) : 0;

	if (r < 0)
		return r;
	if (send(f->socket, request, sizeof *request, MSG_NOSIGNAL) != (ssize_t)sizeof *request)
		return child_gone(f, e);
	r = transfer(&t, e);
	if (r < 0 && !t.ended)
		stop(f); /* in the midst of an answer: the next request gets a new child */
	return r;
}
