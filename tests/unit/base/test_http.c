/* SPDX-License-Identifier: Apache-2.0 */
/* A server of few lines in a thread says exactly what a test scripts: one canned answer per connection or request. */
#include "../test.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/http.h"
#include "base/http_wire.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/ws.h"

struct server {
	char folder[64], address[128];
	int listen_fd;
	pthread_t thread;
	const char *const *answers; /* NULL-terminated; an empty one ends the connection */
	size_t answer_length;       /* of the first, when it has NUL bytes */
	bool answer_at_head;        /* answers before the body came, and stops reading */
	struct str heard;
	int connections;
};

/* Reads one request: the head, and a body by Content-Length or the last chunk. False at the end of the connection. */
static bool hear(struct server *s, int fd)
{
	char buffer[65536];
	struct str request = { 0 };
	size_t wanted = SIZE_MAX;

	while (request.length < wanted) {
		ssize_t n = read(fd, buffer, sizeof buffer);
		if (n <= 0)
			break;
		str_add(&request, buffer, (size_t)n);
		char *end = strstr(request.bytes, "\r\n\r\n");
		if (!end)
			continue;
		const char *length = strcasestr(request.bytes, "content-length: ");
		size_t head = (size_t)(end + 4 - request.bytes);
		if (s->answer_at_head)
			wanted = 0;
		else if (strcasestr(request.bytes, "transfer-encoding: chunked"))
			wanted = memmem(request.bytes, request.length, "\r\n0\r\n\r\n", 7) ? 0 : SIZE_MAX;
		else
			wanted = head + (length && length < end ? strtoul(length + 16, NULL, 10) : 0);
	}
	bool any = request.length > 0;
	str_add(&s->heard, str_text(&request), request.length);
	str_done(&request);
	return any;
}

static void answer(struct server *s, int fd, const char *text)
{
	size_t length = s->answer_length ? s->answer_length : strlen(text);
	char accept_key[29] = "";
	const char *key = strstr(str_text(&s->heard), "Sec-WebSocket-Key: "), *hole = strstr(text, "ACCEPT");

	if (!key || !hole) {
		(void)send(fd, text, length, MSG_NOSIGNAL);
		return;
	}
	char *copy = mem_strndup(key + 19, 24);
	ws_accept_key(copy, accept_key);
	free(copy);
	(void)send(fd, text, (size_t)(hole - text), MSG_NOSIGNAL);
	(void)send(fd, accept_key, 28, MSG_NOSIGNAL);
	(void)send(fd, hole + 6, strlen(hole + 6), MSG_NOSIGNAL);
}

static void *serve(void *data)
{
	struct server *s = data;
	int fd = -1;

	for (const char *const *a = s->answers; *a; a++) {
		if (fd < 0) {
			fd = accept(s->listen_fd, NULL, NULL);
			s->connections++;
		}
		if (!hear(s, fd)) { /* the client made a new connection */
			(void)close(fd);
			fd = accept(s->listen_fd, NULL, NULL);
			s->connections++;
			(void)hear(s, fd);
		}
		answer(s, fd, *a);
		if (strstr(*a, "Connection: close") || !a[1] || !**a) {
			(void)close(fd);
			fd = -1;
		}
	}
	return NULL;
}

static void start(struct server *s, const char *const *answers)
{
	(void)snprintf(s->folder, sizeof s->folder, "/tmp/carrel-http-XXXXXX");
	assert_non_null(mkdtemp(s->folder));
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	(void)snprintf(at.sun_path, sizeof at.sun_path, "%s/s", s->folder);
	(void)snprintf(s->address, sizeof s->address, "unix:%s/s", s->folder);
	s->answers = answers;
	s->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(s->listen_fd, (struct sockaddr *)&at, sizeof at), 0);
	assert_int_equal(listen(s->listen_fd, 5), 0);
	assert_int_equal(pthread_create(&s->thread, NULL, serve, s), 0);
}

static void finish(struct server *s)
{
	(void)pthread_join(s->thread, NULL);
	(void)close(s->listen_fd);
	(void)unlink(s->address + 5);
	(void)rmdir(s->folder);
	str_done(&s->heard);
}

#define ANSWERS(...) (const char *const[]){ __VA_ARGS__, NULL }
#define OK(body_length, body) "HTTP/1.1 200 OK\r\nContent-Length: " body_length "\r\n\r\n" body

static void test_keeps_the_connection(void **state)
{
	struct server s = { 0 };
	own_http struct http *h = NULL;
	struct err e;
	(void)state;

	start(&s, ANSWERS("HTTP/1.1 201 Created\r\nETag: \"7\"\r\nlocation:  /v1/x\r\nContent-Length: 2\r\n\r\nhi",
			  "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: "
			  "chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n",
			  "HTTP/1.1 204 No Content\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\nuntil the end"));
	assert_int_equal(http_new(s.address, &h, &e), 0);
	struct http_answer a;
	struct http_request q = { .method = "POST", .path = "/v1/x", .body = "{\"a\":1}", .body_length = 7,
				  .headers = (const char *const[]){ "X-Test: yes", NULL } };
	assert_int_equal(http_do(h, &q, &a, &e), 0);
	assert_int_equal(a.status, 201);
	assert_string_equal(a.etag, "\"7\"");
	assert_string_equal(a.location, "/v1/x");
	assert_string_equal(str_text(&a.body), "hi");
	http_answer_done(&a);
	q = (struct http_request){ .method = "GET", .path = "/2" };
	assert_int_equal(http_do(h, &q, &a, &e), 0);
	assert_string_equal(str_text(&a.body), "abcde");
	http_answer_done(&a);
	q.method = "DELETE";
	assert_int_equal(http_do(h, &q, &a, &e), 0);
	assert_int_equal(a.status, 204);
	http_answer_done(&a);
	q.method = "GET";
	assert_int_equal(http_do(h, &q, &a, &e), 0);
	assert_string_equal(str_text(&a.body), "until the end");
	http_answer_done(&a);
	(void)pthread_join(s.thread, NULL);
	assert_int_equal(s.connections, 1);
	assert_non_null(strstr(str_text(&s.heard), "X-Test: yes\r\n"));
	assert_non_null(strstr(str_text(&s.heard), "Content-Length: 7\r\n\r\n{\"a\":1}"));
	s.thread = pthread_self();
	(void)close(s.listen_fd);
	(void)unlink(s.address + 5);
	(void)rmdir(s.folder);
	str_done(&s.heard);
}

static void test_connects_anew(void **state)
{
	struct server s = { 0 };
	own_http struct http *h = NULL;
	struct err e;
	(void)state;

	start(&s, ANSWERS("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\na", OK("1", "b")));
	assert_int_equal(http_new(s.address, &h, &e), 0);
	for (int i = 0; i < 2; i++) {
		struct http_answer a;
		const struct http_request q = { .method = "GET", .path = "/" };
		assert_int_equal(http_do(h, &q, &a, &e), 0);
		assert_string_equal(str_text(&a.body), i ? "b" : "a");
		http_answer_done(&a);
	}
	finish(&s);
}

/* --- streams --- */

struct stream {
	size_t left, got;
	long fail;
	int refuse;
};

static long give(void *data, char *buffer, size_t size)
{
	struct stream *x = data;
	if (x->fail)
		return x->fail;
	size_t n = size < x->left ? size : x->left;
	memset(buffer, 'x', n);
	x->left -= n;
	return (long)n;
}

static int take(void *data, const char *bytes, size_t length)
{
	struct stream *x = data;
	(void)bytes;
	x->got += length;
	return x->refuse;
}

static int do_stream(struct server *s, struct stream *x, struct http_answer *a, struct err *e, bool up)
{
	own_http struct http *h = NULL;
	struct http_request q = { .method = up ? "POST" : "GET", .path = "/", .read = up ? give : NULL, .write = take,
				  .data = x };
	assert_int_equal(http_new(s->address, &h, e), 0);
	return http_do(h, &q, a, e);
}

static void test_upload(void **state)
{
	struct server s = { 0 };
	struct stream x = { .left = 1000000 };
	struct http_answer a = { 0 };
	struct err e;
	(void)state;

	start(&s, ANSWERS("HTTP/1.1 202 Accepted\r\nContent-Length: 4\r\n\r\ndone"));
	assert_int_equal(do_stream(&s, &x, &a, &e, true), 0);
	assert_int_equal(a.status, 202);
	assert_int_equal(x.got, 4);
	assert_true(s.heard.length > 1000000);
	http_answer_done(&a);
	finish(&s);
}

/* A refusal is heard although the body is not taken; what it says is kept, not passed to the reader of a success. */
static void test_upload_refused_early(void **state)
{
	struct server s = { .answer_at_head = true };
	struct stream x = { .left = 64 << 20 };
	struct http_answer a = { 0 };
	struct err e;
	(void)state;

	start(&s, ANSWERS("HTTP/1.1 507 Full\r\nConnection: close\r\nContent-Length: 57\r\n\r\n"
			  "{\"error\":{\"kind\":\"no-capacity\",\"message\":\"disk is full\"}}"));
	assert_int_equal(do_stream(&s, &x, &a, &e, true), 0);
	assert_int_equal(a.status, 507);
	assert_int_equal(x.got, 0);
	assert_true(x.left > 0);
	assert_true(http_error(&a, &e) < 0);
	assert_int_equal(e.kind, ERR_NO_CAPACITY);
	assert_string_equal(e.message, "disk is full");
	http_answer_done(&a);
	finish(&s);
}

static void *answer_late(void *data)
{
	static const char text[] = "HTTP/1.1 409 Conflict\r\nContent-Length: 0\r\n\r\n";
	int waiting = 0;
	while (ioctl(*(int *)data, FIONREAD, &waiting) == 0 && waiting < 65536) /* the client is in the midst of sending */
		(void)sched_yield();
	(void)send(*(int *)data, text, sizeof text - 1, MSG_NOSIGNAL);
	return NULL;
}

/* The server answers and then neither reads nor closes: a client that only wants to send would wait for ever. */
static void test_upload_answered_and_not_read(void **state)
{
	int fds[2];
	struct stream x = { .left = 64 << 20 };
	struct http_answer a = { 0 };
	struct err e;
	const struct http_request q = { .method = "POST", .path = "/", .read = give, .data = &x };
	(void)state;

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	struct http_wire w = { .fd = fds[0] };
	pthread_t late;
	assert_int_equal(pthread_create(&late, NULL, answer_late, &fds[1]), 0);
	assert_int_equal(http_wire_do(&w, &q, &a, &e), 0);
	assert_int_equal(a.status, 409);
	assert_int_equal(w.fd, -1);
	(void)pthread_join(late, NULL);
	(void)close(fds[1]);
}

static void test_upload_aborted(void **state)
{
	struct server s = { 0 };
	struct stream x = { .fail = -ECANCELED };
	struct http_answer a = { 0 };
	struct err e;
	(void)state;

	start(&s, ANSWERS(OK("0", "")));
	assert_true(do_stream(&s, &x, &a, &e, true) < 0);
	assert_int_equal(e.kind, ERR_CANCELLED);
	finish(&s);
}

static void test_download_refused_by_the_reader(void **state)
{
	struct server s = { 0 };
	struct stream x = { .refuse = 1 };
	struct http_answer a = { 0 };
	struct err e;
	(void)state;

	start(&s, ANSWERS(OK("3", "abc")));
	assert_true(do_stream(&s, &x, &a, &e, false) < 0);
	assert_int_equal(e.kind, ERR_CANCELLED);
	finish(&s);
}

/* --- bad answers --- */

static enum err_kind ask(const char *text, long timeout_ms)
{
	struct server s = { 0 };
	own_http struct http *h = NULL;
	struct err e = { 0 };
	struct http_answer a = { 0 };
	const struct http_request q = { .method = "GET", .path = "/", .timeout_ms = timeout_ms };

	start(&s, ANSWERS(text));
	assert_int_equal(http_new(s.address, &h, &e), 0);
	int r = http_do(h, &q, &a, &e);
	assert_int_equal(r < 0, e.kind != ERR_NONE);
	http_answer_done(&a);
	finish(&s);
	return e.kind;
}

static void test_bad_answers(void **state)
{
	(void)state;
	assert_int_equal(ask("SSH-2.0-OpenSSH\r\n", 0), ERR_CORRUPT);
	assert_int_equal(ask("HTTP/1.1 2x0 OK\r\n\r\n", 0), ERR_CORRUPT);
	assert_int_equal(ask("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", 0), ERR_CORRUPT);
	assert_int_equal(ask("HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\n", 0), ERR_CORRUPT);
	assert_int_equal(ask("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort", 0), ERR_UNAVAILABLE);
	assert_int_equal(ask("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", 0), ERR_UNSUPPORTED);
	assert_int_equal(ask("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 0), ERR_CORRUPT);
	assert_int_equal(ask("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n0\r\n\r\n", 0), ERR_CORRUPT);
	assert_int_equal(ask("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-2\r\nab\r\n", 0), ERR_CORRUPT);
	assert_int_equal(ask("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", 0), ERR_UNAVAILABLE);
	assert_int_equal(ask("HTTP/1.1 101 Switching Protocols\r\n\r\n", 0), ERR_CORRUPT);
	assert_int_equal(ask("HTTP/1.1 200 OK\r\n", 0), ERR_UNAVAILABLE);
	assert_int_equal(ask("", 0), ERR_UNAVAILABLE);
}

static void test_endless_header(void **state)
{
	own_strbuf struct str text = { 0 };
	(void)state;

	str_puts(&text, "HTTP/1.1 200 OK\r\nX: ");
	for (int i = 0; i < 20000; i++)
		str_puts(&text, "0123456789");
	assert_int_equal(ask(text.bytes, 0), ERR_TOO_LARGE);
}

static void test_no_answer_in_time(void **state)
{
	struct server s = { 0 };
	own_http struct http *h = NULL;
	struct err e = { 0 };
	struct http_answer a;
	const struct http_request q = { .method = "GET", .path = "/", .timeout_ms = 30 };
	(void)state;

	(void)snprintf(s.folder, sizeof s.folder, "/tmp/carrel-http-XXXXXX");
	assert_non_null(mkdtemp(s.folder));
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	(void)snprintf(at.sun_path, sizeof at.sun_path, "%s/s", s.folder);
	(void)snprintf(s.address, sizeof s.address, "unix:%s/s", s.folder);
	own_fd int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof at), 0);
	assert_int_equal(listen(fd, 5), 0); /* connects, but nobody answers */
	assert_int_equal(http_new(s.address, &h, &e), 0);
	assert_int_equal(http_do(h, &q, &a, &e), -ETIMEDOUT);
	(void)unlink(at.sun_path);
	(void)rmdir(s.folder);
}

static void test_addresses(void **state)
{
	struct http *h = NULL;
	struct err e;
	struct http_answer a;
	const struct http_request q = { .method = "GET", .path = "/" };
	(void)state;

	assert_int_equal(http_new("http://example.org/", &h, &e), -EACCES);
	assert_int_equal(http_new("http://127.0.0.1.example.org", &h, &e), -EACCES);
	assert_int_equal(http_new("http://localhost.example.org", &h, &e), -EACCES);
	assert_int_equal(http_new("http://127.0.0.1@example.org", &h, &e), -EACCES);
	assert_int_equal(http_new("ftp://x", &h, &e), -EINVAL);
	assert_int_equal(http_new("", &h, &e), -EINVAL);
	assert_int_equal(http_new("unix:/nonexistent/carreld.sock", &h, &e), 0);
	assert_true(http_do(h, &q, &a, &e) < 0);
	assert_int_equal(e.kind, ERR_UNAVAILABLE);
	assert_true(e.hint[0] != '\0');
	http_free(h);
	own_strbuf struct str longer = { 0 };
	str_puts(&longer, "unix:/");
	for (int i = 0; i < 200; i++)
		str_putc(&longer, 'x');
	assert_int_equal(http_new(longer.bytes, &h, &e), 0);
	assert_int_equal(http_do(h, &q, &a, &e), -EINVAL);
	http_free(h);
}

/* --- upgrade --- */

static void test_upgrade(void **state)
{
	struct server s = { 0 };
	own_fd int fd = -1;
	own_strbuf struct str early = { 0 };
	struct err e;
	(void)state;

	start(&s, ANSWERS("HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: ACCEPT\r\n\r\n\x81\x02hi"));
	assert_int_equal(http_upgrade(s.address, "/v1/exec", &fd, &early, &e), 0);
	assert_true(fd >= 0);
	while (early.length < 4) {
		char c;
		assert_int_equal(read(fd, &c, 1), 1);
		str_putc(&early, c);
	}
	assert_memory_equal(early.bytes, "\x81\x02hi", 4);
	finish(&s);
}

static void test_upgrade_refused(void **state)
{
	struct server s = { 0 }, liar = { 0 };
	int fd = -1;
	struct str early = { 0 };
	struct err e;
	(void)state;

	start(&s, ANSWERS("HTTP/1.1 404 Not Found\r\nContent-Length: 74\r\n\r\n"
			  "{\"error\":{\"kind\":\"not-found\",\"message\":\"no workspace\",\"hint\":\"carrel ls\"}}"));
	assert_int_equal(http_upgrade(s.address, "/", &fd, &early, &e), -ENOENT);
	assert_string_equal(e.message, "no workspace");
	assert_string_equal(e.hint, "carrel ls");
	finish(&s);
	start(&liar, ANSWERS("HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: nonsense\r\n\r\n"));
	assert_true(http_upgrade(liar.address, "/", &fd, &early, &e) < 0);
	assert_int_equal(e.kind, ERR_CORRUPT);
	assert_int_equal(fd, -1);
	finish(&liar);
}

static void test_error_objects(void **state)
{
	struct err e;
	struct http_answer a = { .status = 409 };
	(void)state;

	assert_true(http_error(&a, &e) < 0);
	assert_int_equal(e.kind, ERR_CONFLICT);
	str_puts(&a.body, "{\"error\":{\"kind\":\"none\",\"message\":\"x\"}}");
	assert_true(http_error(&a, &e) < 0); /* never a success */
	str_clear(&a.body);
	str_puts(&a.body, "{\"error\":[1,2]}");
	assert_true(http_error(&a, &e) < 0);
	str_clear(&a.body);
	str_puts(&a.body, "{\"error\":{\"kind\":\"news\",\"message\":\"of a later version\"}}");
	assert_true(http_error(&a, &e) < 0);
	assert_int_equal(e.kind, ERR_INTERNAL);
	http_answer_done(&a);
}

static void test_quote(void **state)
{
	own_strbuf struct str out = { 0 };
	(void)state;

	http_quote(&out, "a/b:c d\xc3\xa4~%");
	assert_string_equal(out.bytes, "a%2Fb%3Ac%20d%C3%A4~%25");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_keeps_the_connection),
		cmocka_unit_test(test_connects_anew),
		cmocka_unit_test(test_upload),
		cmocka_unit_test(test_upload_refused_early),
		cmocka_unit_test(test_upload_answered_and_not_read),
		cmocka_unit_test(test_upload_aborted),
		cmocka_unit_test(test_download_refused_by_the_reader),
		cmocka_unit_test(test_bad_answers),
		cmocka_unit_test(test_endless_header),
		cmocka_unit_test(test_no_answer_in_time),
		cmocka_unit_test(test_addresses),
		cmocka_unit_test(test_upgrade),
		cmocka_unit_test(test_upgrade_refused),
		cmocka_unit_test(test_error_objects),
		cmocka_unit_test(test_quote),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
