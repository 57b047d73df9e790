/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../test.h"
#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"
#include "model/runner_protocol.h"
#include "node/logs.h"

static char folder[64];
static char *path;
static struct loop *loop;
static struct ws *near, *far;
static struct logs *logs;
static struct str got;
static bool live, ended;
static struct err e;

static void on_message(void *data, bool text, const char *bytes, size_t length)
{
	(void)data;
	if (text)
		str_printf(&got, "[%.*s]", (int)length, bytes);
	else
		str_printf(&got, "%d:%.*s|", bytes[0], (int)length - 1, bytes + 1);
	if (text)
		loop_stop(loop);
}

static void on_closed(void *data, const struct err *why)
{
	(void)data, (void)why;
}

static const struct ws_events reader = { .message = on_message, .closed = on_closed };

static bool is_live(void *data)
{
	(void)data;
	return live;
}

static void on_end(void *data)
{
	(void)data;
	ended = true;
}

static int setup(void **state)
{
	int pair[2];

	(void)state;
	(void)snprintf(folder, sizeof folder, "/tmp/carrel-test-logs-XXXXXX");
	if (!mkdtemp(folder) || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return -1;
	path = mem_printf("%s/output", folder);
	loop = loop_new();
	near = ws_new(loop, pair[0], WS_SERVER, 1 << 20, NULL, 0, &reader, NULL);
	far = ws_new(loop, pair[1], WS_CLIENT, 1 << 20, NULL, 0, &reader, NULL);
	live = ended = false;
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	logs_free(TAKE(logs));
	ws_free(near);
	ws_free(far);
	loop_free(loop);
	str_done(&got);
	free(path);
	return fs_remove_tree(AT_FDCWD, folder, &e);
}

static void put(uint64_t time_ms, uint32_t stream, const char *text)
{
	struct runner_log_record h = { .mark = RUNNER_LOG_MARK, .length = (uint32_t)strlen(text), .time_ns = time_ms * 1000000,
				       .stream = stream };
	own_fd int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);

	h.check = h.mark ^ h.length ^ h.stream ^ (uint32_t)h.time_ns ^ (uint32_t)(h.time_ns >> 32);
	assert_int_equal(write(fd, &h, sizeof h), sizeof h);
	assert_int_equal(write(fd, text, h.length), h.length);
}

static void rotate(void)
{
	own_str char *one = mem_printf("%s.1", path), *two = mem_printf("%s.2", path);
	(void)rename(one, two);
	assert_int_equal(rename(path, one), 0);
}

static void ask(bool follow, int64_t tail, uint64_t since_ms)
{
	struct logs_request request = { follow, tail, since_ms };
	logs = logs_new(loop, path, &request, far, is_live, on_end, NULL);
}

static void timed_out(void *data)
{
	str_puts(&got, "(timed out)");
	loop_stop(data);
}

static void run(void)
{
	(void)loop_add_timer(loop, 120000, timed_out, loop);
	assert_ok(loop_run(loop, &e), &e);
}

static void test_all_of_all_files(void **state)
{
	(void)state;
	put(1000, 1, "a\n");
	rotate();
	put(2000, 2, "b\n");
	rotate();
	put(3000, 1, "c");
	ask(false, -1, 0);
	run();
	assert_string_equal(str_text(&got), "1:a\n|2:b\n|1:c|[{\"exit\":0}]");
}

static void test_since(void **state)
{
	(void)state;
	put(1000, 1, "a\n");
	put(2000, 1, "b\n");
	ask(false, -1, 1500);
	run();
	assert_string_equal(str_text(&got), "1:b\n|[{\"exit\":0}]");
}

static void test_last_lines_across_records_and_files(void **state)
{
	(void)state;
	put(1000, 1, "one\ntwo\nth");
	rotate();
	put(2000, 1, "ree\nfour\n");
	ask(false, 2, 0);
	run();
	assert_string_equal(str_text(&got), "1:th|1:ree\nfour\n|[{\"exit\":0}]");
}

static void test_no_log(void **state)
{
	(void)state;
	ask(false, 10, 0);
	run();
	assert_string_equal(str_text(&got), "[{\"exit\":0}]");
}

static void test_damage_is_skipped(void **state)
{
	(void)state;
	put(1000, 1, "a\n");
	own_fd int fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);
	assert_int_equal(write(fd, "CLOG garbage", 12), 12);
	put(2000, 1, "b\n");
	ask(false, -1, 0);
	run();
	assert_string_equal(str_text(&got), "1:a\n|1:b\n|[{\"exit\":0}]");
}

static void more(void *data)
{
	(void)data;
	put(2000, 1, "b\n");
	rotate();
	put(3000, 1, "c\n");
	live = false;
}

static void test_followed_through_a_rotation(void **state)
{
	(void)state;
	put(1000, 1, "a\n");
	live = true;
	ask(true, -1, 0);
	(void)loop_add_timer(loop, 20, more, NULL);
	run();
	assert_string_equal(str_text(&got), "1:a\n|1:b\n|1:c\n|[{\"exit\":0}]");
}

static void first_words(void *data)
{
	(void)data;
	put(1000, 1, "first\n");
	live = false;
}

/* The log of a workspace that has said nothing is no file. */
static void test_the_first_record_of_a_new_log_is_new(void **state)
{
	(void)state;
	live = true;
	ask(true, 0, 0);
	(void)loop_add_timer(loop, 20, first_words, NULL);
	run();
	assert_string_equal(str_text(&got), "1:first\n|[{\"exit\":0}]");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_all_of_all_files), TEST(test_since), TEST(test_last_lines_across_records_and_files),
		TEST(test_no_log),           TEST(test_damage_is_skipped), TEST(test_followed_through_a_rotation),
		TEST(test_the_first_record_of_a_new_log_is_new),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
