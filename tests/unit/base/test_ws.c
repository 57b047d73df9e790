/* SPDX-License-Identifier: Apache-2.0 */
#include "../test.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"
#include "base/ws.h"

/* One side of a connection, what it got, and what it shall do with it. */
struct end {
	struct loop *loop;
	struct ws *ws;
	struct str texts, bytes;
	size_t messages, pause_at, free_at, stop_at;
	bool echo, stop_when_closed;
	int closed, drained;
	struct err why;
};

static void on_message(void *data, bool text, const char *bytes, size_t length)
{
	struct end *x = data;

	str_add(text ? &x->texts : &x->bytes, bytes, length);
	x->messages++;
	if (x->echo)
		ws_send(x->ws, text, bytes, length);
	if (x->messages == x->pause_at)
		ws_pause(x->ws);
	if (x->messages == x->stop_at)
		loop_stop(x->loop);
	if (x->messages == x->free_at) {
		ws_free(x->ws);
		x->ws = NULL;
		loop_stop(x->loop);
	}
}

static void on_closed(void *data, const struct err *why)
{
	struct end *x = data;
	x->closed++;
	x->why = *why;
	ws_free(x->ws);
	x->ws = NULL;
	if (x->stop_when_closed)
		loop_stop(x->loop);
}

static void on_drained(void *data)
{
	struct end *x = data;
	x->drained++;
}

static const struct ws_events events = { on_message, on_closed, on_drained };

static void stop(void *data) { loop_stop(data); }

static void run(struct loop *l)
{
	struct loop_source *limit = loop_add_timer(l, 90000, stop, l);
	assert_int_equal(loop_run(l, NULL), 0);
	loop_remove(limit);
}

static void run_for(struct loop *l, uint64_t ms)
{
	(void)loop_add_timer(l, ms, stop, l);
	assert_int_equal(loop_run(l, NULL), 0);
}

struct pair_of_ends {
	struct loop *loop;
	struct end client, server;
};

static void start(struct pair_of_ends *p, size_t longest)
{
	int fds[2];

	memset(p, 0, sizeof *p);
	p->loop = p->client.loop = p->server.loop = loop_new();
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	p->client.ws = ws_new(p->loop, fds[0], WS_CLIENT, longest, NULL, 0, &events, &p->client);
	p->server.ws = ws_new(p->loop, fds[1], WS_SERVER, longest, NULL, 0, &events, &p->server);
}

static void end(struct pair_of_ends *p)
{
	ws_free(p->client.ws);
	ws_free(p->server.ws);
	str_done(&p->client.texts);
	str_done(&p->client.bytes);
	str_done(&p->server.texts);
	str_done(&p->server.bytes);
	loop_free(p->loop);
}

static void test_echo(void **state)
{
	struct pair_of_ends p;
	(void)state;

	start(&p, 1 << 20);
	p.server.echo = true;
	p.client.stop_at = 3;
	ws_send(p.client.ws, true, "hello", 5);
	ws_send(p.client.ws, false, "\0\1\2", 3);
	ws_send(p.client.ws, true, "", 0);
	run(p.loop);
	assert_string_equal(str_text(&p.client.texts), "hello");
	assert_int_equal(p.client.bytes.length, 3);
	assert_memory_equal(p.client.bytes.bytes, "\0\1\2", 3);
	end(&p);
}

static void test_large_messages_arrive_whole(void **state)
{
	struct pair_of_ends p;
	enum { size = 300000 };
	own_str char *content = mem_alloc(size);
	(void)state;

	for (size_t i = 0; i < size; i++)
		content[i] = (char)(i * 7);
	start(&p, size);
	p.server.echo = true;
	p.client.stop_at = 4;
	for (int i = 0; i < 4; i++)
		ws_send(p.client.ws, false, content, size);
	run(p.loop);
	assert_int_equal(p.client.bytes.length, 4 * size);
	for (size_t i = 0; i < 4; i++)
		assert_memory_equal(p.client.bytes.bytes + i * size, content, size);
	end(&p);
}

static void test_orderly_close(void **state)
{
	struct pair_of_ends p;
	(void)state;

	start(&p, 1 << 20);
	p.client.stop_when_closed = true;
	ws_send(p.client.ws, true, "last words", 10);
	ws_close(p.client.ws);
	ws_send(p.client.ws, true, "too late", 8);
	run(p.loop);
	run_for(p.loop, 1);
	assert_int_equal(p.client.closed, 1);
	assert_int_equal(p.server.closed, 1);
	assert_int_equal(p.client.why.kind, ERR_NONE);
	assert_int_equal(p.server.why.kind, ERR_NONE);
	assert_string_equal(str_text(&p.server.texts), "last words");
	end(&p);
}

static void test_peer_that_vanishes(void **state)
{
	struct pair_of_ends p;
	(void)state;

	start(&p, 1 << 20);
	p.server.stop_when_closed = true;
	ws_send(p.client.ws, true, "x", 1);
	ws_free(p.client.ws);
	p.client.ws = NULL;
	run(p.loop);
	assert_int_equal(p.server.closed, 1);
	assert_int_equal(p.server.why.kind, ERR_UNAVAILABLE);
	assert_string_equal(str_text(&p.server.texts), "x");
	end(&p);
}

/* What the peer said before it went is heard even when we were sending to it. */
static void test_last_message_of_a_peer_that_reads_nothing(void **state)
{
	struct pair_of_ends p;
	own_str char *content = mem_alloc(1 << 16);
	(void)state;

	start(&p, 1 << 20);
	for (int i = 0; i < 40; i++)
		ws_send(p.client.ws, false, content, 1 << 16);
	ws_send(p.server.ws, true, "{\"exit\":3}", 10);
	ws_free(p.server.ws);
	p.server.ws = NULL;
	p.client.stop_when_closed = true;
	run(p.loop);
	assert_int_equal(p.client.closed, 1);
	assert_string_equal(str_text(&p.client.texts), "{\"exit\":3}");
	end(&p);
}

static void test_backpressure(void **state)
{
	struct pair_of_ends p;
	own_str char *content = mem_alloc(1 << 16);
	size_t sent = 0;
	(void)state;

	start(&p, 1 << 20);
	ws_pause(p.server.ws);
	while (!ws_congested(p.client.ws) && sent < 1000) {
		ws_send(p.client.ws, false, content, 1 << 16);
		sent++;
	}
	assert_in_range(sent, WS_QUEUE_MOST >> 16, 999);
	run_for(p.loop, 20);
	assert_int_equal(p.server.messages, 0);
	assert_int_equal(p.client.drained, 0);
	ws_resume(p.server.ws);
	p.server.stop_at = sent;
	run(p.loop);
	assert_int_equal(p.server.messages, sent);
	assert_int_equal(p.client.drained, 1);
	assert_false(ws_congested(p.client.ws));
	end(&p);
}

static void test_pause_inside_a_message(void **state)
{
	struct pair_of_ends p;
	(void)state;

	start(&p, 1 << 20);
	p.server.pause_at = 2;
	for (int i = 0; i < 10; i++)
		ws_send(p.client.ws, true, "abcdefghij" + i, 1); /* all in wslay's read-ahead */
	run_for(p.loop, 20);
	assert_int_equal(p.server.messages, 2);
	p.server.pause_at = 5;
	ws_resume(p.server.ws);
	run_for(p.loop, 20);
	assert_int_equal(p.server.messages, 5);
	p.server.stop_at = 10;
	ws_resume(p.server.ws);
	run(p.loop);
	assert_string_equal(str_text(&p.server.texts), "abcdefghij");
	end(&p);
}

/* A paused end whose peer is gone neither spins nor loses what was sent before. */
static void test_paused_and_hung_up(void **state)
{
	struct pair_of_ends p;
	(void)state;

	start(&p, 1 << 20);
	ws_pause(p.server.ws);
	ws_send(p.client.ws, true, "kept", 4);
	ws_free(p.client.ws);
	p.client.ws = NULL;
	run_for(p.loop, 30);
	assert_int_equal(p.server.closed, 0);
	p.server.stop_when_closed = true;
	ws_resume(p.server.ws);
	run(p.loop);
	assert_int_equal(p.server.closed, 1);
	assert_string_equal(str_text(&p.server.texts), "kept");
	end(&p);
}

static void test_free_inside_a_message(void **state)
{
	struct pair_of_ends p;
	(void)state;

	start(&p, 1 << 20);
	p.server.free_at = 2;
	for (int i = 0; i < 5; i++)
		ws_send(p.client.ws, true, "x", 1);
	run(p.loop);
	assert_int_equal(p.server.messages, 2);
	assert_int_equal(p.server.closed, 0);
	end(&p);
}

static void test_early_bytes(void **state)
{
	int fds[2];
	struct end x = { .stop_at = 1 };
	static const char frame[] = "\x81\x02hi"; /* from a server: not masked */
	(void)state;

	x.loop = loop_new();
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	x.ws = ws_new(x.loop, fds[0], WS_CLIENT, 100, frame, sizeof frame - 1, &events, &x);
	run(x.loop);
	assert_string_equal(str_text(&x.texts), "hi");
	ws_free(x.ws);
	(void)close(fds[1]);
	str_done(&x.texts);
	loop_free(x.loop);
}

/* Raw bytes to a server end; what it says about them. */
static struct end feed(const char *bytes, size_t length, size_t longest, bool one_by_one)
{
	int fds[2];
	struct end x = { .stop_when_closed = true };

	x.loop = loop_new();
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	x.ws = ws_new(x.loop, fds[0], WS_SERVER, longest, NULL, 0, &events, &x);
	for (size_t i = 0; one_by_one && i < length; i++) {
		assert_int_equal(write(fds[1], bytes + i, 1), 1);
		run_for(x.loop, 0);
	}
	if (!one_by_one)
		assert_int_equal(write(fds[1], bytes, length), (ssize_t)length);
	(void)shutdown(fds[1], SHUT_WR);
	run(x.loop);
	(void)close(fds[1]);
	ws_free(x.ws);
	loop_free(x.loop);
	return x;
}

#define FEED(text, longest) feed(text, sizeof(text) - 1, longest, false)
#define MASK "\0\0\0\0" /* a mask that changes nothing */

static void test_fragments(void **state)
{
	static const char frames[] = "\x01\x82" MASK "ab" /* text, more follows */
				     "\x89\x81" MASK "p"  /* a ping between fragments */
				     "\x00\x82" MASK "cd" "\x80\x81" MASK "e";
	(void)state;

	for (int one_by_one = 0; one_by_one < 2; one_by_one++) {
		struct end x = feed(frames, sizeof frames - 1, 100, one_by_one);
		assert_int_equal(x.messages, 1);
		assert_string_equal(str_text(&x.texts), "abcde");
		str_done(&x.texts);
	}
}

static void test_violations(void **state)
{
	(void)state;
	struct end x = FEED("\x81\x02hi", 100); /* a client must mask */
	assert_int_equal(x.messages, 0);
	assert_int_equal(x.why.kind, ERR_CORRUPT);
	x = FEED("\xc1\x80" MASK, 100); /* reserved bit */
	assert_int_equal(x.why.kind, ERR_CORRUPT);
	x = FEED("\x83\x80" MASK, 100); /* reserved opcode */
	assert_int_equal(x.why.kind, ERR_CORRUPT);
	x = FEED("\x80\x81" MASK "x", 100); /* continuation of nothing */
	assert_int_equal(x.why.kind, ERR_CORRUPT);
	x = FEED("\x81\x82" MASK "\xc0\x80", 100); /* text that is not UTF-8 */
	assert_int_equal(x.messages, 0);
	assert_int_equal(x.why.kind, ERR_CORRUPT);
	x = FEED("GET / HTTP/1.1\r\n\r\n", 100);
	assert_int_equal(x.messages, 0);
	assert_int_not_equal(x.why.kind, ERR_NONE);
	x = FEED("\x82\xfe", 100); /* ends within a header */
	assert_int_equal(x.why.kind, ERR_UNAVAILABLE);
}

static void test_oversize(void **state)
{
	(void)state;
	struct end x = FEED("\x82\x84" MASK "abcd", 4);
	assert_int_equal(x.bytes.length, 4);
	str_done(&x.bytes);
	x = FEED("\x82\x85" MASK "abcde", 4);
	assert_int_equal(x.messages, 0);
	assert_int_equal(x.why.kind, ERR_TOO_LARGE);
	/* nothing is allocated for what is only announced */
	x = FEED("\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff" MASK "a", 1 << 20);
	assert_int_equal(x.messages, 0);
	assert_int_not_equal(x.why.kind, ERR_NONE);
	x = FEED("\x02\x83" MASK "abc" "\x80\x82" MASK "de", 4); /* the sum counts */
	assert_int_equal(x.messages, 0);
	assert_int_equal(x.why.kind, ERR_TOO_LARGE);
}

static void test_accept_key(void **state)
{
	char out[29];
	(void)state;

	ws_accept_key("dGhlIHNhbXBsZSBub25jZQ==", out); /* RFC 6455, 1.3 */
	assert_string_equal(out, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_echo),
		cmocka_unit_test(test_large_messages_arrive_whole),
		cmocka_unit_test(test_orderly_close),
		cmocka_unit_test(test_peer_that_vanishes),
		cmocka_unit_test(test_last_message_of_a_peer_that_reads_nothing),
		cmocka_unit_test(test_backpressure),
		cmocka_unit_test(test_pause_inside_a_message),
		cmocka_unit_test(test_paused_and_hung_up),
		cmocka_unit_test(test_free_inside_a_message),
		cmocka_unit_test(test_early_bytes),
		cmocka_unit_test(test_fragments),
		cmocka_unit_test(test_violations),
		cmocka_unit_test(test_oversize),
		cmocka_unit_test(test_accept_key),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
