/* SPDX-License-Identifier: Apache-2.0 */
/* What DHCP frames say of a workspace's address; hearing them on a port is tried in tests/e2e/test_site_bridge.py. */
#include "../test.h"

#include <errno.h>
#include <sched.h>
#include <string.h>

#include "network/lease.h"

static const unsigned char mac[6] = { 2, 0, 0, 0, 0, 1 }, address[4] = { 192, 168, 80, 101 };

struct frame {
	unsigned char bytes[512];
	size_t length;
};

/* Ethernet, IPv4, UDP and a BOOTP message with these options. */
static struct frame frame_of(bool towards, const void *options, size_t length)
{
	struct frame f = { .length = 14 + 20 + 8 + 240 + length };
	unsigned char *ip = f.bytes + 14, *udp = ip + 20, *m = udp + 8;
	unsigned total = (unsigned)(f.length - 14);

	f.bytes[12] = 8;
	ip[0] = 0x45;
	ip[2] = (unsigned char)(total >> 8);
	ip[3] = (unsigned char)total;
	ip[9] = 17;
	udp[1] = towards ? 67 : 68;
	udp[3] = towards ? 68 : 67;
	m[0] = towards ? 2 : 1;
	memcpy(m + (towards ? 16 : 12), address, 4);
	memcpy(m + 28, mac, 6);
	memcpy(m + 236, "c\202Sc", 4);
	memcpy(m + 240, options, length);
	return f;
}

static enum lease_word word_of(const struct frame *f, bool towards)
{
	struct lease_said said;

	lease_read(f->bytes, f->length, towards, &said);
	return said.word;
}

static void what_is_given_has_a_time(void **state)
{
	(void)state;
	static const unsigned char options[] = { 1, 4, 255, 255, 255, 0, 0, 51, 4, 0, 0, 14, 16, 53, 1, 5, 255 };
	struct frame f = frame_of(true, options, sizeof options);
	struct lease_said said;

	lease_read(f.bytes, f.length, true, &said);
	assert_int_equal(said.word, LEASE_GIVEN);
	assert_int_equal(said.seconds, 3600);
	assert_memory_equal(said.mac, mac, 6);
	assert_memory_equal(said.address, address, 4);
	assert_int_equal(word_of(&f, false), LEASE_NOTHING); /* a workspace does not say so */
	static const unsigned char informed[] = { 53, 1, 5, 255 };
	f = frame_of(true, informed, sizeof informed);
	assert_int_equal(word_of(&f, true), LEASE_NOTHING);
	static const unsigned char refused[] = { 53, 1, 6, 255 };
	f = frame_of(true, refused, sizeof refused);
	assert_int_equal(word_of(&f, true), LEASE_REFUSED);
}

static void what_is_given_back_is_found_wherever_it_is_said(void **state)
{
	(void)state;
	static const unsigned char plain[] = { 53, 1, 7, 255 }, elsewhere[] = { 52, 1, 3, 255 };
	struct frame f = frame_of(false, plain, sizeof plain);

	assert_int_equal(word_of(&f, false), LEASE_RETURNED);
	assert_int_equal(word_of(&f, true), LEASE_NOTHING);
	for (size_t at = 44; at <= 108; at += 64) { /* sname, file */
		f = frame_of(false, elsewhere, sizeof elsewhere);
		memcpy(f.bytes + 42 + at, plain, sizeof plain);
		assert_int_equal(word_of(&f, false), LEASE_RETURNED);
	}
}

static void what_is_declined_is_named_by_an_option(void **state)
{
	(void)state;
	static const unsigned char declined[] = { 53, 1, 4, 50, 4, 192, 168, 80, 102, 255 }, other[4] = { 192, 168, 80, 102 };
	struct frame f = frame_of(false, declined, sizeof declined);
	struct lease_said said;

	lease_read(f.bytes, f.length, false, &said);
	assert_int_equal(said.word, LEASE_RETURNED);
	assert_memory_equal(said.address, other, 4);
}

static void every_shorter_frame_is_read_within_its_end(void **state)
{
	(void)state;
	static const unsigned char options[] = { 53, 1, 5, 51, 4, 0, 0, 14, 16, 60, 200 };
	struct frame f = frame_of(true, options, sizeof options);
	unsigned char copy[512];
	struct lease_said said;

	assert_int_equal(word_of(&f, true), LEASE_GIVEN); /* the last option is not there whole */
	for (size_t length = 0; length < f.length; length++) {
		memset(copy, 0xa5, sizeof copy);
		memcpy(copy, f.bytes, length);
		lease_read(copy, length, true, &said);
		assert_int_equal(said.word, LEASE_NOTHING); /* the packet says that it is longer */
	}
}

static void a_port_that_is_not_there_is_told(void **state)
{
	(void)state;
	struct err e;
	int fd;

	if (unshare(CLONE_NEWNET) < 0) {
		print_message("# not run: needs root\n");
		skip();
	}
	assert_fails(lease_listen("cr77", &fd, &e), &e, err_kind_from_name("internal"), "listen for DHCP on cr77");
	struct lease_said said;
	assert_ok(lease_listen("lo", &fd, &e), &e);
	assert_int_equal(lease_next(fd, &said), -ENETDOWN); /* it is down */
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(what_is_given_has_a_time),
					    cmocka_unit_test(what_is_given_back_is_found_wherever_it_is_said),
					    cmocka_unit_test(what_is_declined_is_named_by_an_option),
					    cmocka_unit_test(every_shorter_frame_is_read_within_its_end),
					    cmocka_unit_test(a_port_that_is_not_there_is_told) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
