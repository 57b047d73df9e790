/* SPDX-License-Identifier: Apache-2.0 */
/* QEMU's side is played here, over a socket pair. */
#include "../test.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/mem.h"
#include "engine/qemu/qmp.h"

static struct err e;

static int decode(const char *line, struct qmp_message *m) { return qmp_decode(line, strlen(line), m, &e); }

static void test_decodes(void **state)
{
	struct qmp_message m;
	uint64_t n = 0;
	char text[32];

	(void)state;
	assert_ok(decode("{\"QMP\": {\"version\": {}, \"capabilities\": [\"oob\"]}}\r", &m), &e);
	assert_int_equal(m.kind, QMP_GREETING);
	assert_ok(decode("{\"return\": {\"status\": \"run\\u0041ning\\n\", \"running\": true, \"n\": 12}, \"id\": 7}", &m), &e);
	assert_int_equal(m.kind, QMP_RETURN);
	assert_int_equal(m.id, 7);
	assert_true(qmp_text(m.value, "status", text, sizeof text));
	assert_string_equal(text, "run?ning?");
	assert_false(qmp_text(m.value, "status", text, 4));
	assert_false(qmp_text(m.value, "n", text, sizeof text));
	assert_true(qmp_true(m.value, "running"));
	assert_true(qmp_number(m.value, "n", &n));
	assert_int_equal(n, 12);
	assert_ok(decode("{\"timestamp\": {\"seconds\": 1}, \"event\": \"SHUTDOWN\", \"data\": {\"guest\": true}}", &m), &e);
	assert_int_equal(m.kind, QMP_EVENT);
	assert_string_equal(m.name, "SHUTDOWN");
	assert_true(qmp_true(m.value, "guest"));
	assert_ok(decode("{\"id\":1,\"error\":{\"class\":\"GenericError\",\"desc\":\"no \\\"x\\\"\"}}", &m), &e);
	assert_int_equal(m.kind, QMP_ERROR);
	assert_string_equal(m.text, "no \"x\"");
}

static void test_refuses(void **state)
{
	static const char *const wrong[] = { "", "[]", "{", "{\"return\":}", "{\"return\":1", "{\"return\":1}x", "{\"a\":1}",
					     "{\"return\":\"\\x\"}", "{\"return\":\"\\u12g4\"}", "{\"return\":01.}",
					     "{\"return\":1e}", "{\"return\":[1,]}", "{return:1}", "{\"return\":\"\n\"}",
					     "{\"return\":nul}", "{\"return\":1,}" };
	struct qmp_message m;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++)
		assert_int_equal(decode(wrong[i], &m), -EBADMSG);
	char deep[200];
	(void)memset(deep, '[', sizeof deep);
	assert_true(qmp_decode(deep, sizeof deep, &m, &e) < 0);
}

struct play {
	struct loop *loop;
	struct qmp *qmp;
	int other;
	int results[4], answers, events, closed;
};

static void on_done(void *data, int result, struct qmp_value value, const struct err *why)
{
	struct play *p = data;

	assert_true(result == 0 || why);
	assert_true(result < 0 || value.length);
	p->results[p->answers++] = result;
	if (p->answers == 3)
		(void)shutdown(p->other, SHUT_RDWR);
}

static void on_event(void *data, const char *name, struct qmp_value value)
{
	struct play *p = data;

	(void)value;
	assert_string_equal(name, "STOP");
	p->events++;
}

static void on_closed(void *data, const struct err *why)
{
	struct play *p = data;

	assert_int_equal(why->kind, ERR_UNAVAILABLE);
	p->closed++;
	loop_stop(p->loop);
}

/* An answer, a refusal, a command that is never answered, and one that is open when the line ends. */
static void test_line(void **state)
{
	struct play p = { .loop = loop_new() };
	struct qmp_events events = { on_event, on_closed, &p };
	int pair[2];
	char said[1024] = "";

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	p.other = pair[1];
	p.qmp = qmp_new(p.loop, pair[0], &events);
	qmp_send(p.qmp, "cont", NULL, 5000, on_done, &p);
	qmp_send(p.qmp, "block_resize", "{\"node-name\":\"root\",\"size\":1}", 5000, on_done, &p);
	qmp_send(p.qmp, "slow", NULL, 50, on_done, &p);
	qmp_send(p.qmp, "last", NULL, 5000, on_done, &p);
	static const char hello[] =
		"{\"QMP\": {}}\r\n{\"return\": {}}\r\n{\"event\": \"STOP\"}\r\n{\"return\": {}, \"id\": 1}\r\n"
		"{\"return\": {}, \"id\": 99}\r\n{\"error\": {\"desc\": \"too small\"}, \"id\": 2}\r\n";
	assert_int_equal(send(p.other, hello, sizeof hello - 1, 0), sizeof hello - 1);
	assert_ok(loop_run(p.loop, &e), &e);
	assert_int_equal(p.answers, 4);
	assert_int_equal(p.results[0], 0);
	assert_int_equal(p.results[1], -EIO);
	assert_int_equal(p.results[2], -ETIMEDOUT);
	assert_int_equal(p.results[3], -EHOSTUNREACH);
	assert_int_equal(p.events, 1);
	assert_int_equal(p.closed, 1);
	assert_true(read(p.other, said, sizeof said - 1) > 0);
	assert_true(strncmp(said, "{\"execute\":\"qmp_capabilities\"}\n{\"execute\":\"cont\",\"id\":1}\n", 57) == 0);
	qmp_free(p.qmp);
	(void)close(p.other);
	loop_free(p.loop);
}

/* A descriptor comes with the first byte of its own command, whatever was sent before or waits behind it. */
static void take_with_fd(int socket, char *said, size_t size, int *ret_fd)
{
	union {
		char bytes[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = { 0 };
	struct iovec data = { said, size - 1 };
	struct msghdr h = { .msg_iov = &data, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control };

	*ret_fd = -1;
	ssize_t n = recvmsg(socket, &h, MSG_CMSG_CLOEXEC);
	assert_true(n > 0);
	said[n] = '\0';
	struct cmsghdr *c = CMSG_FIRSTHDR(&h);
	if (c)
		memcpy(ret_fd, CMSG_DATA(c), sizeof *ret_fd);
}

static void stop_now(void *data) { loop_stop(data); }

static void test_descriptors(void **state)
{
	static const char hello[] = "{\"QMP\": {}}\n";
	struct play p = { .loop = loop_new() };
	struct qmp_events events = { on_event, on_closed, &p };
	int pair[2], pipes[2][2], fd;
	char said[1024], byte;

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	p.qmp = qmp_new(p.loop, pair[0], &events);
	qmp_send(p.qmp, "first", NULL, 5000, NULL, NULL);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(pipe(pipes[i]), 0);
		assert_int_equal(write(pipes[i][1], &"ab"[i], 1), 1);
		qmp_send_fd(p.qmp, "getfd", i ? "{\"fdname\":\"b\"}" : "{\"fdname\":\"a\"}", pipes[i][0], 5000, NULL, NULL);
	}
	qmp_send(p.qmp, "last", NULL, 5000, NULL, NULL);
	assert_int_equal(send(pair[1], hello, sizeof hello - 1, 0), sizeof hello - 1);
	(void)loop_add_timer(p.loop, 100, stop_now, p.loop);
	assert_ok(loop_run(p.loop, &e), &e);
	for (int i = 0; i < 2; i++) {
		char *at = said;
		do { /* the kernel may give what has no descriptor alone, or together with what has one behind it */
			take_with_fd(pair[1], said, sizeof said, &fd);
		} while (fd < 0);
		at = strstr(said, "\"getfd\"");
		assert_non_null(at);
		assert_non_null(strstr(at, i ? "\"b\"" : "\"a\""));
		assert_int_equal(read(fd, &byte, 1), 1);
		assert_int_equal(byte, "ab"[i]);
		(void)close(fd);
		(void)close(pipes[i][1]);
	}
	qmp_free(p.qmp);
	assert_true(fcntl(pipes[0][0], F_GETFD) < 0); /* gone here */
	(void)close(pair[1]);
	loop_free(p.loop);
}

static void run_for(struct play *p, uint64_t ms)
{
	(void)loop_add_timer(p->loop, ms, stop_now, p->loop);
	assert_ok(loop_run(p->loop, &e), &e);
}

static void count_done(void *data, int result, struct qmp_value value, const struct err *why)
{
	int *counts = data;

	(void)value;
	(void)why;
	counts[result < 0]++;
}

/* An agent hears one command at a time, and the next when the one before was answered or given up. */
static void test_agent_one_at_a_time(void **state)
{
	static const char *const answers[] = { "{\"return\":{},\"id\":2}\n", "{\"return\":{},\"id\":1}\n" };
	static const char last[] = "{\"return\":{},\"id\":3}\n";
	static const struct qmp_events none;
	struct play p = { .loop = loop_new() };
	char said[1024] = "";
	int pair[2], counts[2] = { 0, 0 };

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
	p.qmp = qmp_new_agent(p.loop, pair[0], &none);
	qmp_send(p.qmp, "first", NULL, 60000, count_done, counts);
	qmp_send(p.qmp, "second", NULL, 200, count_done, counts);
	qmp_send(p.qmp, "third", NULL, 60000, count_done, counts);
	run_for(&p, 50);
	assert_true(recv(pair[1], said, sizeof said - 1, 0) > 0);
	assert_non_null(strstr(said, "first"));
	assert_null(strstr(said, "second"));
	assert_true(send(pair[1], answers[0], strlen(answers[0]), 0) > 0); /* to what was not asked */
	run_for(&p, 50);
	assert_int_equal(counts[0], 0);
	run_for(&p, 600); /* the second is given up without a word */
	assert_int_equal(counts[1], 1);
	assert_true(recv(pair[1], said, sizeof said - 1, 0) < 0);
	assert_true(send(pair[1], answers[1], strlen(answers[1]), 0) > 0);
	run_for(&p, 100);
	assert_int_equal(counts[0], 1);
	memset(said, 0, sizeof said);
	assert_true(recv(pair[1], said, sizeof said - 1, 0) > 0);
	assert_non_null(strstr(said, "third"));
	assert_true(send(pair[1], last, sizeof last - 1, 0) > 0);
	run_for(&p, 100);
	assert_int_equal(counts[0], 2);
	qmp_send(p.qmp, "fourth", NULL, 60000, count_done, counts);
	qmp_send(p.qmp, "fifth", NULL, 60000, count_done, counts);
	(void)close(pair[1]);
	run_for(&p, 100);
	assert_int_equal(counts[1], 3);
	qmp_free(p.qmp);
	loop_free(p.loop);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_decodes), cmocka_unit_test(test_refuses),
					    cmocka_unit_test(test_line), cmocka_unit_test(test_descriptors),
					    cmocka_unit_test(test_agent_one_at_a_time) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
