/* SPDX-License-Identifier: Apache-2.0 */
#include "../test.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/rights.h"

static int ends[2];

static int open_pair(void **state)
{
	(void)state;
	return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends);
}

static int close_pair(void **state)
{
	(void)state;
	(void)close(ends[0]);
	(void)close(ends[1]);
	return 0;
}

static void descriptors_arrive_and_are_closed_on_exec(void **state)
{
	(void)state;
	int pipes[2], got[3];
	char byte;
	assert_int_equal(pipe2(pipes, 0), 0);
	assert_int_equal(rights_send(ends[0], "abc", 3, pipes, 2, 0), 3);
	assert_int_equal(rights_receive(ends[1], &byte, 1, got, 3, 0), 1);
	assert_int_equal(got[2], -1);
	for (int i = 0; i < 2; i++)
		assert_true(fcntl(got[i], F_GETFD) & FD_CLOEXEC);
	assert_int_equal(write(got[1], "x", 1), 1);
	assert_int_equal(read(pipes[0], &byte, 1), 1);
	assert_int_equal(byte, 'x');
	for (int i = 0; i < 2; i++) {
		(void)close(pipes[i]);
		(void)close(got[i]);
	}
}

/* The other end of the pipe is free when every copy of its writing end is closed: also those that there was no room for. */
static void what_there_is_no_room_for_is_closed(void **state)
{
	(void)state;
	int pipes[2], got = -1;
	char byte;
	assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
	const int both[2] = { pipes[0], pipes[1] };
	assert_int_equal(rights_send(ends[0], "a", 1, both, 2, 0), 1);
	assert_int_equal(rights_receive(ends[1], &byte, 1, &got, 1, 0), 1);
	(void)close(pipes[1]);
	assert_int_equal(read(got, &byte, 1), 0);
	(void)close(got);
	assert_int_equal(rights_send(ends[0], "a", 1, pipes, 1, 0), 1);
	assert_int_equal(rights_receive(ends[1], &byte, 1, NULL, 0, 0), 1);
	(void)close(pipes[0]);
}

static void messages_without_descriptors_and_the_end(void **state)
{
	(void)state;
	int got = 7, many[RIGHTS_MOST + 1] = { 0 };
	char byte;
	assert_int_equal(rights_receive(ends[1], &byte, 1, &got, 1, MSG_DONTWAIT), -1);
	assert_int_equal(errno, EAGAIN);
	assert_int_equal(rights_send(ends[0], "a", 1, NULL, 0, 0), 1);
	assert_int_equal(rights_receive(ends[1], &byte, 1, &got, 1, 0), 1);
	assert_int_equal(got, -1);
	assert_int_equal(rights_send(ends[0], "a", 1, many, RIGHTS_MOST + 1, 0), -1);
	assert_int_equal(errno, EINVAL);
	(void)shutdown(ends[0], SHUT_WR);
	assert_int_equal(rights_receive(ends[1], &byte, 1, &got, 1, 0), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(descriptors_arrive_and_are_closed_on_exec, open_pair, close_pair),
		cmocka_unit_test_setup_teardown(what_there_is_no_room_for_is_closed, open_pair, close_pair),
		cmocka_unit_test_setup_teardown(messages_without_descriptors_and_the_end, open_pair, close_pair),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
