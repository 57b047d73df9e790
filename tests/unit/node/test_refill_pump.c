/* SPDX-License-Identifier: Apache-2.0 */
/* What a helper machine sends is taken up to a limit of bytes and of time, whatever it does. */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../test.h"
#include "base/loop.h"
#include "node/refill_pump.h"

#define DONE "{\"exit\":0}"
#define LONG_MS 60000

static int reader[2], writer[2]; /* the pump has the first of each */

static int make(void **state)
{
	(void)state;
	return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, reader) |
	       socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, writer);
}

static int unmake(void **state)
{
	(void)state;
	for (int i = 0; i < 2; i++) {
		(void)close(reader[i]);
		(void)close(writer[i]);
	}
	return 0;
}

static void say(int fd, const char *text) { assert_int_equal(send(fd, text, strlen(text), 0), (ssize_t)strlen(text)); }

static void files_go_over(void **state)
{
	struct refill_limits l = { loop_now_ms() + LONG_MS, 8 + sizeof DONE };
	char got[16];
	struct err e;

	(void)state;
	say(reader[1], "\1file");
	say(reader[1], "\2hm");
	say(reader[1], DONE);
	say(writer[1], DONE);
	assert_ok(refill_pump(reader[0], writer[0], &l, &e), &e);
	assert_int_equal(recv(writer[1], got, sizeof got, 0), 5);
	assert_memory_equal(got, "\0file", 5);
	assert_int_equal(recv(writer[1], got, sizeof got, 0), 1);
}

static void it_may_not_send_more_than_its_volume_holds(void **state)
{
	struct refill_limits l = { loop_now_ms() + LONG_MS, 12 };
	struct err e;

	(void)state;
	for (int i = 0; i < 3; i++)
		say(reader[1], "\1file");
	assert_fails(refill_pump(reader[0], writer[0], &l, &e), &e, ERR_TOO_LARGE, "volume");
}

static atomic_bool over;

static void *never_end(void *unused)
{
	(void)unused;
	while (!over && send(reader[1], "\2.", 2, MSG_NOSIGNAL | MSG_DONTWAIT) != 0)
		;
	return NULL;
}

static void one_that_never_ends_is_given_up(void **state)
{
	struct refill_limits l = { loop_now_ms() + 200, UINT64_MAX };
	pthread_t thread;
	struct err e;

	(void)state;
	assert_int_equal(pthread_create(&thread, NULL, never_end, NULL), 0);
	int r = refill_pump(reader[0], writer[0], &l, &e);
	over = true;
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_int_equal(r, -ETIMEDOUT);
	assert_int_equal(e.kind, ERR_TIMEOUT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(files_go_over, make, unmake),
		cmocka_unit_test_setup_teardown(it_may_not_send_more_than_its_volume_holds, make, unmake),
		cmocka_unit_test_setup_teardown(one_that_never_ends_is_given_up, make, unmake),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
