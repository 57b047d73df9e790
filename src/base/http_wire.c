/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. The socket does not block; every wait is a poll() that knows the request's deadline and, when the
 * request is interruptible, ends at a signal. A streamed request body looks at the socket before each chunk: a service that
 * refuses early (no right, no space) is heard at once, and its answer is read even when it no longer takes the rest of the
 * body.
 *
 * Limits: a header of 64 KiB, a kept body of 64 MiB; a streamed body has none.
 */
#include "base/http_wire.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/loop.h"
#include "base/mem.h"
#include "base/own.h"

#define HEAD_MOST (64 << 10)
#define BODY_MOST (64 << 20)
#define TICK_MS 500

/* --- the socket --- */

void http_wire_close(struct http_wire *w)
{
	if (w->fd >= 0)
		(void)close(w->fd);
	w->fd = -1;
	str_done(&w->input);
}

static int connect_unix(const char *path, int *ret_fd, struct err *e)
{
	struct sockaddr_un to = { .sun_family = AF_UNIX };

	if (strlen(path) >= sizeof to.sun_path)
		return err_set(e, ERR_INVALID, "socket path %.60s... is longer than %zu bytes", path, sizeof to.sun_path - 1);
	memcpy(to.sun_path, path, strlen(path));
	own_fd int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return err_errno(e, errno, "make a socket");
	if (connect(fd, (struct sockaddr *)&to, sizeof to) < 0) {
		int number = errno;
		(void)err_errno(e, number, "connect to %s", path);
		if (number == ENOENT || number == ECONNREFUSED) {
			(void)err_set(e, ERR_UNAVAILABLE, "the service does not listen on %s", path);
			return err_hint(e, "is carreld running? systemctl status carreld, or give --address");
		}
		return -number;
	}
	*ret_fd = TAKE_FD(fd);
	return 0;
}

/* "http://127.0.0.1:5000", "http://[::1]", "http://localhost": nothing but this machine without TLS. */
static int connect_loopback(const char *address, int *ret_fd, struct err *e)
{
	const char *host = address + strlen("http://"), *end = host + strcspn(host, ":/");
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(80) };
	own_str char *name = mem_strndup(host, (size_t)(end - host));
	uint64_t port = 80;

	if (!str_eq(name, "localhost") && !str_starts(name, "127."))
		return err_set(e, ERR_DENIED, "plain http is for this machine only, not for %s", name);
	if (!str_eq(name, "localhost") && inet_pton(AF_INET, name, &to.sin_addr) != 1)
		return err_set(e, ERR_INVALID, "%s is no address", name);
	if (*end == ':') {
		own_str char *digits = mem_strndup(end + 1, strcspn(end + 1, "/"));
		if (str_to_u64(digits, 65535, &port) < 0)
			return err_set(e, ERR_INVALID, "%s has no valid port", address);
	}
	to.sin_port = htons((uint16_t)port);
	own_fd int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof to) < 0)
		return err_errno(e, errno, "connect to %s", address);
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){ 1 }, sizeof(int));
	*ret_fd = TAKE_FD(fd);
	return 0;
}

int http_wire_connect(struct http_wire *w, const char *address, struct err *e)
{
	http_wire_close(w);
	int r = str_starts(address, "unix:") ? connect_unix(address + strlen("unix:"), &w->fd, e) :
					       connect_loopback(address, &w->fd, e);
	return r;
}

bool http_wire_usable(const struct http_wire *w)
{
	struct pollfd p = { .fd = w->fd, .events = POLLIN };
	return w->fd >= 0 && w->input.length == 0 && poll(&p, 1, 0) == 0;
}

/* 0 when the socket is ready for `events`. */
static int wait_for(struct http_wire *w, short events, short *ret_events, struct err *e)
{
	for (;;) {
		int timeout = -1;
		if (w->due_ms) {
			uint64_t now = loop_now_ms();
			timeout = w->due_ms <= now ? 0 : (int)(w->due_ms - now);
		}
		struct pollfd p = { .fd = w->fd, .events = events };
		bool ticks = w->tick && (timeout < 0 || timeout > TICK_MS);
		int n = poll(&p, 1, ticks ? TICK_MS : timeout);
		if (n == 0 && ticks) {
			w->tick(w->tick_data);
			continue;
		}
		if (n > 0) {
			*ret_events = p.revents;
			return 0;
		}
		if (n == 0)
			return err_set(e, ERR_TIMEOUT, "no answer in time");
		if (errno != EINTR)
			return err_errno(e, errno, "poll");
		if (w->interruptible)
			return err_set(e, ERR_CANCELLED, "interrupted");
	}
}

int http_wire_send(struct http_wire *w, const void *bytes, size_t length, struct err *e)
{
	for (const char *p = bytes; length;) {
		ssize_t n = send(w->fd, p, length, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN) {
			short ready;
			int r = wait_for(w, POLLOUT | POLLIN, &ready, e);
			if (r < 0)
				return r;
			if (!(ready & POLLOUT))
				return 1;
			continue;
		}
		if (n < 0)
			return err_errno(e, errno, "send the request");
		p += n;
		length -= (size_t)n;
	}
	return 0;
}

/* More input: 1, 0 at the end. */
static int fill(struct http_wire *w, struct err *e)
{
	str_reserve(&w->input, 16384);
	for (;;) {
		ssize_t n = recv(w->fd, w->input.bytes + w->input.length, w->input.capacity - w->input.length - 1,
				 MSG_DONTWAIT);
		if (n >= 0) {
			w->input.length += (size_t)n;
			w->input.bytes[w->input.length] = '\0';
			return n > 0;
		}
		if (errno == EINTR)
			continue;
		if (errno != EAGAIN)
			return err_errno(e, errno, "read the answer");
		short ready;
		int r = wait_for(w, POLLIN, &ready, e);
		if (r < 0)
			return r;
	}
}

static int fill_or_fail(struct http_wire *w, struct err *e)
{
	int r = fill(w, e);
	return r == 0 ? err_set(e, ERR_UNAVAILABLE, "the service ended the connection within its answer") : r;
}

/* --- the head of an answer --- */

static const char *header_value(const char *line, const char *name)
{
	size_t n = strlen(name);
	if (strncasecmp(line, name, n) != 0 || line[n] != ':')
		return NULL;
	return line + n + 1 + strspn(line + n + 1, " \t");
}

static void keep(char *to, size_t size, const char *value)
{
	size_t n = strlen(value);
	if (n < size)
		memcpy(to, value, n + 1);
}

static int take_header(const char *line, struct http_head *head, struct http_answer *answer, struct err *e)
{
	const char *v;

	if ((v = header_value(line, "content-length"))) {
		if (str_to_u64(v, INT64_MAX, &head->content_length) < 0)
			return err_set(e, ERR_CORRUPT, "the answer has no valid Content-Length");
	} else if ((v = header_value(line, "transfer-encoding"))) {
		if (strcasecmp(v, "chunked") != 0)
			return err_set(e, ERR_UNSUPPORTED, "the answer has the transfer encoding '%.40s'", v);
		head->chunked = true;
	} else if ((v = header_value(line, "connection"))) {
		head->close = strcasecmp(v, "close") == 0;
	} else if ((v = header_value(line, "sec-websocket-accept"))) {
		keep(head->accept, sizeof head->accept, v);
	} else if ((v = header_value(line, "etag")) && answer) {
		keep(answer->etag, sizeof answer->etag, v);
	} else if ((v = header_value(line, "location")) && answer) {
		keep(answer->location, sizeof answer->location, v);
	} else if ((v = header_value(line, "carrel-operation")) && answer) {
		keep(answer->operation, sizeof answer->operation, v);
	}
	return 0;
}

/* A line without its end; *ret_line points into w->input until the next call. Drops what was used before. */
static int read_line(struct http_wire *w, size_t *used, char **ret_line, struct err *e)
{
	for (;;) {
		char *start = w->input.bytes ? w->input.bytes + *used : NULL;
		char *end = start ? memchr(start, '\n', w->input.length - *used) : NULL;
		if (end) {
			*used = (size_t)(end - w->input.bytes) + 1;
			*end = '\0';
			if (end > start && end[-1] == '\r')
				end[-1] = '\0';
			*ret_line = start;
			return 0;
		}
		if (w->input.length > HEAD_MOST)
			return err_set(e, ERR_TOO_LARGE, "the answer's header is longer than %d bytes", HEAD_MOST);
		int r = fill_or_fail(w, e);
		if (r < 0)
			return r;
	}
}

static int read_one_head(struct http_wire *w, struct http_head *head, struct http_answer *answer, struct err *e)
{
	size_t used = 0;
	char *line;
	int r = read_line(w, &used, &line, e);

	if (r < 0)
		return r;
	if (!str_starts(line, "HTTP/1.") || strlen(line) < 12 || strspn(line + 9, "0123456789") != 3)
		return err_set(e, ERR_CORRUPT, "the answer is not HTTP");
	*head = (struct http_head){ .status = (int)strtol(line + 9, NULL, 10), .content_length = UINT64_MAX,
				    .close = str_starts(line, "HTTP/1.0") };
	for (;;) {
		r = read_line(w, &used, &line, e);
		if (r < 0)
			return r;
		if (!*line)
			break;
		r = take_header(line, head, answer, e);
		if (r < 0)
			return r;
	}
	str_drop_front(&w->input, used);
	return 0;
}

int http_wire_read_head(struct http_wire *w, struct http_head *ret_head, struct http_answer *answer, struct err *e)
{
	int r;
	do
		r = read_one_head(w, ret_head, answer, e);
	while (r == 0 && ret_head->status < 200 && ret_head->status != 101);
	return r;
}

/* --- the body of an answer --- */

static int pass(const struct http_request *q, struct http_answer *a, const char *bytes, size_t length, struct err *e)
{
	if (q->write && a->status >= 200 && a->status < 300) {
		int r = q->write(q->data, bytes, length);
		return r ? err_set(e, ERR_CANCELLED, "the answer was not taken") : 0;
	}
	if (a->body.length + length > BODY_MOST)
		return err_set(e, ERR_TOO_LARGE, "the answer is longer than %d MiB", BODY_MOST >> 20);
	str_add(&a->body, bytes, length);
	return 0;
}

/* Passes on `left` bytes, or all until the end when it is UINT64_MAX. */
static int pass_bytes(struct http_wire *w, const struct http_request *q, uint64_t left, struct http_answer *a, struct err *e)
{
	while (left) {
		if (w->input.length == 0) {
			int r = left == UINT64_MAX ? fill(w, e) : fill_or_fail(w, e);
			if (r <= 0)
				return r;
		}
		size_t n = w->input.length < left ? w->input.length : (size_t)left;
		int r = pass(q, a, w->input.bytes, n, e);
		if (r < 0)
			return r;
		str_drop_front(&w->input, n);
		if (left != UINT64_MAX)
			left -= n;
	}
	return 0;
}

static int read_chunks(struct http_wire *w, const struct http_request *q, struct http_answer *a, struct err *e)
{
	for (;;) {
		size_t used = 0;
		char *line, *end;
		int r = read_line(w, &used, &line, e);
		if (r < 0)
			return r;
		errno = 0;
		unsigned long long size = strtoull(line, &end, 16);
		if (end == line || errno || size > INT64_MAX || (*end && *end != ';'))
			return err_set(e, ERR_CORRUPT, "the answer has a chunk without a size");
		str_drop_front(&w->input, used);
		if (size) {
			r = pass_bytes(w, q, size, a, e);
			if (r < 0)
				return r;
		}
		used = 0;
		r = read_line(w, &used, &line, e);
		if (r < 0)
			return r;
		if (*line)
			return err_set(e, ERR_CORRUPT, "a chunk of the answer does not end where it says");
		str_drop_front(&w->input, used);
		if (size == 0)
			return 0;
	}
}

int http_wire_read_body(struct http_wire *w, const struct http_request *q, const struct http_head *head, struct http_answer *a,
			struct err *e)
{
	a->status = head->status;
	if (q->head)
		q->head(q->data, a);
	if (str_eq(q->method, "HEAD") || head->status == 204 || head->status == 304)
		return 0;
	return head->chunked ? read_chunks(w, q, a, e) : pass_bytes(w, q, head->content_length, a, e);
}

/* --- a request --- */

static void add_head(struct str *out, const struct http_request *q)
{
	str_printf(out, "%s %s HTTP/1.1\r\nHost: localhost\r\nUser-Agent: carrel/" CARREL_VERSION "\r\n", q->method, q->path);
	for (const char *const *h = q->headers; h && *h; h++)
		str_printf(out, "%s\r\n", *h);
	if (q->read)
		str_puts(out, "Transfer-Encoding: chunked\r\n");
	else if (q->body_length || !str_eq(q->method, "GET"))
		str_printf(out, "Content-Length: %zu\r\n", q->body_length);
	str_puts(out, "\r\n");
}

static bool answered_early(const struct http_wire *w)
{
	struct pollfd p = { .fd = w->fd, .events = POLLIN };
	return poll(&p, 1, 0) > 0;
}

/* 1: the service answered before it had the whole body. */
static int send_stream(struct http_wire *w, const struct http_request *q, struct err *e)
{
	enum { block = 256 << 10, room = 16 };
	own_str char *buffer = mem_alloc(block + room + 2);

	for (;;) {
		if (answered_early(w))
			return 1;
		long n = q->read(q->data, buffer + room, block);
		if (n < 0)
			return n == -ECANCELED ? err_set(e, ERR_CANCELLED, "cancelled") :
						 err_errno(e, (int)-n, "read what is to be sent");
		char size[room];
		int digits = snprintf(size, sizeof size, "%lx\r\n", n);
		memcpy(buffer + room - digits, size, (size_t)digits);
		buffer[room + n] = '\r';
		buffer[room + n + 1] = '\n';
		int r = http_wire_send(w, buffer + room - digits, (size_t)digits + (size_t)n + 2, e);
		if (r == -EPIPE || r == -ECONNRESET)
			return 1;
		if (r != 0 || n == 0)
			return r;
	}
}

static int send_request(struct http_wire *w, const struct http_request *q, struct err *e)
{
	own_strbuf struct str out = { 0 };

	add_head(&out, q);
	if (!q->read)
		str_add(&out, q->body, q->body_length);
	int r = http_wire_send(w, out.bytes, out.length, e);
	return r == 0 && q->read ? send_stream(w, q, e) : r;
}

int http_wire_do(struct http_wire *w, const struct http_request *q, struct http_answer *ret_answer, struct err *e)
{
	struct http_answer a = { 0 };
	struct http_head head = { 0 };

	w->due_ms = q->timeout_ms ? loop_now_ms() + (uint64_t)q->timeout_ms : 0;
	w->interruptible = q->interruptible;
	w->tick = q->tick;
	w->tick_data = q->data;
	int sent = send_request(w, q, e);
	int r = sent < 0 ? sent : http_wire_read_head(w, &head, &a, e);
	if (r == 0 && head.status == 101)
		r = err_set(e, ERR_CORRUPT, "the service switched the protocol without being asked");
	if (r == 0)
		r = http_wire_read_body(w, q, &head, &a, e);
	bool ended_by_length = head.chunked || head.content_length != UINT64_MAX || head.status == 204 || head.status == 304;
	if (r < 0 || sent == 1 || head.close || !ended_by_length)
		http_wire_close(w);
	if (r < 0) {
		http_answer_done(&a);
		return r;
	}
	*ret_answer = a;
	return 0;
}
