/* SPDX-License-Identifier: Apache-2.0 */
/* What DHCP frames say of a workspace's address; hearing them on a port is tried in tests/e2e/test_site_bridge.py. */
#include "../test.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/own.h"
#include "base/proc.h"
#include "network/lease.h"

static const unsigned char mac[6] = { 2, 0, 0, 0, 0, 1 }, address[4] = { 192, 168, 80, 101 };
static const unsigned char other_mac[6] = { 2, 0, 0, 0, 0, 2 }, other_address[4] = { 192, 168, 80, 102 };

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

	if (!towards) {
		memcpy(f.bytes + 6, mac, 6);
		memcpy(ip + 12, address, 4);
	}
	f.bytes[12] = 8;
	ip[0] = 0x45;
	ip[2] = (unsigned char)(total >> 8);
	ip[3] = (unsigned char)total;
	ip[9] = 17;
	udp[1] = towards ? 67 : 68;
	udp[3] = towards ? 68 : 67;
	m[0] = towards ? 2 : 1;
	m[1] = 1;
	m[2] = 6;
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

/* Where a frame has what a forger would change. */
enum { AT_SENDER = 6, AT_FRAGMENT = 14 + 6, AT_FROM = 14 + 12, AT_DESTINATION = 14 + 16, AT_PORT = 34 };
enum { AT_MESSAGE = 42, AT_CIADDR = AT_MESSAGE + 12, AT_CHADDR = AT_MESSAGE + 28 };

static bool counts(const struct frame *f, bool towards)
{
	struct lease_held held[] = { { { 192, 168, 80, 7 }, false }, { { 192, 168, 80, 101 }, false } };
	struct lease_holder port = { { 2, 0, 0, 0, 0, 1 }, held, 2 };
	struct lease_said said;

	lease_read(f->bytes, f->length, towards, &said);
	return lease_counts(&said, &port);
}

/* A release of the holder's, and what makes it a forged one. */
static void only_the_holder_gives_back(void **state)
{
	(void)state;
	static const unsigned char release[] = { 53, 1, 7, 255 }, server[] = { 0, 67 }, piece[] = { 0x20 };
	static const struct {
		size_t at, length;
		const unsigned char *bytes;
	} forged[] = {
		{ AT_SENDER, 6, other_mac },	   { AT_CHADDR, 6, other_mac },	       { AT_CIADDR, 4, other_address },
		{ AT_FROM, 4, other_address },	   { AT_MESSAGE, 1, other_mac },       { AT_MESSAGE + 1, 1, other_address },
		{ AT_MESSAGE + 2, 1, other_address }, { AT_PORT, 2, server },
		{ AT_FRAGMENT, 1, piece },
	};
	struct frame f = frame_of(false, release, sizeof release);

	assert_true(counts(&f, false));
	for (size_t i = 0; i < ARRAY_SIZE(forged); i++) {
		f = frame_of(false, release, sizeof release);
		memcpy(f.bytes + forged[i].at, forged[i].bytes, forged[i].length);
		if (counts(&f, false))
			fail_msg("forgery %zu counts", i);
	}
	/* a neighbour's, as the neighbour would send it: on this port it is not his */
	f = frame_of(false, release, sizeof release);
	memcpy(f.bytes + AT_CHADDR, other_mac, 6);
	memcpy(f.bytes + AT_CIADDR, other_address, 4);
	assert_false(counts(&f, false));
}

static void only_the_holder_declines(void **state)
{
	(void)state;
	static const unsigned char own[] = { 53, 1, 4, 50, 4, 192, 168, 80, 101, 255 },
				   foreign[] = { 53, 1, 4, 50, 4, 192, 168, 80, 102, 255 };
	static const unsigned char none[4], all[4] = { 255, 255, 255, 255 };
	struct frame f = frame_of(false, own, sizeof own);

	memcpy(f.bytes + AT_CIADDR, none, 4);
	memcpy(f.bytes + AT_FROM, none, 4);
	assert_false(counts(&f, false)); /* who has no address asks all, or the filter drops it */
	memcpy(f.bytes + AT_DESTINATION, all, 4);
	assert_true(counts(&f, false));
	f.bytes[AT_PORT + 1] = 69;
	assert_false(counts(&f, false));
	f = frame_of(false, foreign, sizeof foreign);
	assert_false(counts(&f, false));
	memcpy(f.bytes + AT_CIADDR, none, 4);
	assert_false(counts(&f, false));
}

static void an_answer_to_another_one_is_not_this_port_s(void **state)
{
	(void)state;
	static const unsigned char given[] = { 51, 4, 0, 0, 14, 16, 53, 1, 5, 255 }, refused[] = { 53, 1, 6, 255 };
	struct frame frames[] = { frame_of(true, given, sizeof given), frame_of(true, refused, sizeof refused) };

	for (size_t i = 0; i < ARRAY_SIZE(frames); i++) {
		assert_true(counts(&frames[i], true));
		assert_false(counts(&frames[i], false)); /* a workspace that answers */
		memcpy(frames[i].bytes + AT_CHADDR, other_mac, 6);
		assert_false(counts(&frames[i], true));
	}
}

/* A cable; its end `cr1` is the port, and what is sent by `in1` comes in there. */
static int cable(int *ret_inside, int *ret_port)
{
	int *ends[] = { ret_inside, ret_port };
	static const char *const names[] = { "in1", "cr1" };

	static const char *const make[] = { "ip", "link", "add", "in1", "up", "type", "veth", "peer", "name", "cr1", NULL };
	static const char *const raise[] = { "ip", "link", "set", "cr1", "up", NULL };
	own_strbuf struct str said = { 0 };
	struct err e;

	if (unshare(CLONE_NEWNET) < 0 || proc_run(make, 4096, &said, &e) < 0)
		return -1;
	assert_ok(proc_run(raise, 4096, &said, &e), &e);
	for (int i = 0; i < 2; i++) {
		struct sockaddr_ll at = { .sll_family = AF_PACKET, .sll_ifindex = (int)if_nametoindex(names[i]) };
		*ends[i] = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
		assert_return_code(bind(*ends[i], (struct sockaddr *)&at, sizeof at), errno);
	}
	return 0;
}

/* A frame crosses the cable by a soft interrupt, which on a busy machine comes later. */
static int next_that_comes(int fd, struct lease_said *ret_said)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	assert_int_equal(poll(&p, 1, 60000), 1);
	return lease_next(fd, ret_said);
}

/* What others could send does not even come up: it cannot fill the socket and make the port's own words be lost. */
static void only_a_port_s_own_frames_are_heard(void **state)
{
	(void)state;
	static const unsigned char release[] = { 53, 1, 7, 255 }, given[] = { 51, 4, 0, 0, 14, 16, 53, 1, 5, 255 };
	struct frame returned = frame_of(false, release, sizeof release), gives = frame_of(true, given, sizeof given), f;
	struct lease_said said;
	struct err e;
	int inside, port, fd;

	if (cable(&inside, &port) < 0) {
		print_message("# not run: needs root and veth\n");
		skip();
	}
	assert_ok(lease_listen("cr1", mac, &fd, &e), &e);
	for (int i = 0; i < 4000; i++) { /* more than there is room for */
		f = i & 1 ? gives : returned;
		memcpy(f.bytes + (i & 2 && !(i & 1) ? AT_SENDER : AT_CHADDR), other_mac, 6);
		assert_int_equal(send(i & 1 ? port : inside, f.bytes, f.length, 0), f.length);
	}
	f = returned; /* a tag, which the filter refuses */
	memmove(f.bytes + 16, f.bytes + 12, f.length - 12);
	memcpy(f.bytes + 12, "\x81\0\0\7", 4);
	assert_int_equal(send(inside, f.bytes, f.length + 4, 0), f.length + 4);
	assert_int_equal(send(port, returned.bytes, returned.length, 0), returned.length); /* the wrong way */
	assert_int_equal(send(inside, gives.bytes, gives.length, 0), gives.length);
	assert_int_equal(lease_next(fd, &said), 0);
	assert_int_equal(send(inside, returned.bytes, returned.length, 0), returned.length);
	assert_int_equal(next_that_comes(fd, &said), 1);
	assert_int_equal(said.word, LEASE_RETURNED);
	assert_memory_equal(said.sender, mac, 6);
	assert_memory_equal(said.client, address, 4);
	assert_int_equal(send(port, gives.bytes, gives.length, 0), gives.length);
	assert_int_equal(next_that_comes(fd, &said), 1);
	assert_int_equal(said.word, LEASE_GIVEN);
	assert_int_equal(lease_next(fd, &said), 0);
	int r = 0;
	for (int round = 0; round < 100 && r != -ENOBUFS; round++) { /* what the interrupt has no room for does not come to the socket */
		for (int i = 0; i < 4000; i++)
			assert_int_equal(send(inside, returned.bytes, returned.length, 0), returned.length);
		assert_int_equal(next_that_comes(fd, &said), 1);
		while ((r = lease_next(fd, &said)) > 0)
			;
	}
	assert_int_equal(r, -ENOBUFS); /* its own */
	(void)close(inside);
	(void)close(port);
	(void)close(fd);
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
	assert_fails(lease_listen("cr77", mac, &fd, &e), &e, err_kind_from_name("internal"), "listen for DHCP on cr77");
	struct lease_said said;
	assert_ok(lease_listen("lo", mac, &fd, &e), &e);
	assert_int_equal(lease_next(fd, &said), -ENETDOWN); /* it is down */
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(what_is_given_has_a_time),
					    cmocka_unit_test(what_is_given_back_is_found_wherever_it_is_said),
					    cmocka_unit_test(what_is_declined_is_named_by_an_option),
					    cmocka_unit_test(only_the_holder_gives_back),
					    cmocka_unit_test(only_the_holder_declines),
					    cmocka_unit_test(an_answer_to_another_one_is_not_this_port_s),
					    cmocka_unit_test(only_a_port_s_own_frames_are_heard),
					    cmocka_unit_test(every_shorter_frame_is_read_within_its_end),
					    cmocka_unit_test(a_port_that_is_not_there_is_told) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
