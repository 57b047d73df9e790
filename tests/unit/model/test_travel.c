/* SPDX-License-Identifier: Apache-2.0 */
#include "base/str.h"
#include "model/travel.h"
#include "../test.h"

static void test_words_that_count(void **state)
{
	(void)state;
	assert_true(travel_counts("avx2"));
	assert_true(travel_counts("sse4_2"));
	assert_false(travel_counts("avx512f")); /* kept from its programs */
	assert_false(travel_counts("avx"[0] ? "av" : ""));
	assert_false(travel_counts(""));
}

static void test_links(void **state)
{
	static const char *const go[] = { "/dev/null", "/dev/pts/3", "/dev/shm/x", "/etc/passwd", "socket:[12]", "pipe:[7]", "anon_inode:[eventpoll]",
					  "anon_inode:inotify", "anon_inode:[pidfd]", "/dev/tty", "/device", "/memfd:x (deleted)" };
	static const char *const stay[] = { "/dev/kvm", "/dev/net/tun", "/dev/fuse", "/dev/sda", "anon_inode:[io_uring]", "anon_inode:bpf-prog",
					    "anon_inode:[perf_event]", "anon_inode:kvm-vm", "/dev/null2" };

	(void)state;
	for (size_t i = 0; i < sizeof go / sizeof *go; i++)
		assert_true(travel_link_goes(go[i]));
	for (size_t i = 0; i < sizeof stay / sizeof *stay; i++)
		assert_false(travel_link_goes(stay[i]));
}

/* Lines as Linux on a little-endian processor prints them. */
static void test_connections(void **state)
{
	char text[128];

	(void)state;
	assert_true(travel_connection("   1: 0707 bad", false, text, sizeof text) == false);
	assert_true(travel_connection("   0: 02075B0A:9C40 016433C6:1E61 01 00000000:00000000 00:00000000 00000000 0 0 1 1 0 20 4 30 10 -1", false, text,
				      sizeof text));
	assert_string_equal(text, "10.91.7.2:40000 to 198.51.100.1:7777");
	/* listening; to itself; to its own address */
	assert_false(travel_connection("   0: 00000000:1B59 00000000:0000 0A 00000000:00000000 00:00000000 0 0 0 1", false, text, sizeof text));
	assert_false(travel_connection("   0: 0100007F:1B59 0100007F:9C40 01 0:0 0:0 0 0 0 1", false, text, sizeof text));
	assert_false(travel_connection("   0: 02075B0A:1B59 02075B0A:9C40 01 0:0 0:0 0 0 0 1", false, text, sizeof text));
	assert_true(travel_connection("   2: B80D0120000000000000000001000000:0016 B80D0120000000000000000002000000:C350 01 0:0", true, text, sizeof text));
	assert_string_equal(text, "[2001:db8::1]:22 to [2001:db8::2]:50000");
	assert_false(travel_connection("   2: 00000000000000000000000001000000:0016 00000000000000000000000001000000:C350 01 0:0", true, text,
				       sizeof text));
	assert_false(travel_connection("   0: 02075B0A:9C40 016433C6:1E61 01", true, text, sizeof text));
	assert_false(travel_connection("  sl  local_address rem_address   st tx_queue", false, text, sizeof text));
	assert_false(travel_connection("", false, text, sizeof text));
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_words_that_count), cmocka_unit_test(test_links), cmocka_unit_test(test_connections) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
