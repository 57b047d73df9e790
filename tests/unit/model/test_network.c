/* SPDX-License-Identifier: Apache-2.0 */
#include "../test.h"

#include <string.h>

#include "model/network.h"

static struct err e;

static void publish_is_read(void **state)
{
	(void)state;
	struct network_publish p;

	assert_ok(network_parse_publish("8080:80", &p, &e), &e);
	assert_int_equal(p.outside, 8080);
	assert_int_equal(p.inside, 80);
	assert_false(p.udp);
	assert_string_equal(p.address, "");
	assert_ok(network_parse_publish("127.0.0.1:5353:53/udp", &p, &e), &e);
	assert_true(p.udp);
	assert_string_equal(p.address, "127.0.0.1");
	assert_ok(network_parse_publish("[::1]:65535:1/tcp", &p, &e), &e);
	assert_string_equal(p.address, "::1");
	static const char *const bad[] = { "",	   "80",     ":80",	  "80:",	   "0:80",	"65536:80",   "1:2:3",
					   "a:80", "80:b",   "80:80/",	  "80:80/sctp",	   "::1:80:80", "[1.2.3.4]:80:80",
					   "[]:80:80", "1.2.3:80:80", "+80:80", "80: 80", "1.2.3.4::80", "[::1]80:80" };
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		assert_fails(network_parse_publish(bad[i], &p, &e), &e, ERR_INVALID, "published port");
}

static void addresses_are_checked(void **state)
{
	(void)state;
	assert_ok(network_check_range("10.0.0.5-10.0.0.9", &e), &e);
	assert_ok(network_check_range("fd00::1", &e), &e);
	assert_ok(network_check_range("10.0.0.0/28", &e), &e);
	assert_ok(network_check_mac("02:00:00:ab:cd:ef", &e), &e);
	static const char *const ranges[] = { "", "-", "10.0.0.9-10.0.0.5", "10.0.0.1-fd00::1", "10.0.0.0/33",
					      "10.0.0.0/", "10.0.0.0/-1", "10.0.0.0/8x", "x/8" };
	for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++)
		assert_fails(network_check_range(ranges[i], &e), &e, ERR_INVALID, "'");
	static const char *const macs[] = {
		"", "02:00:00:00:00", "02:00:00:00:00:zz", "01:00:00:00:00:01", "02-00-00-00-00-01", "02:00:00:00:00:011"
	};
	for (size_t i = 0; i < sizeof macs / sizeof *macs; i++)
		assert_fails(network_check_mac(macs[i], &e), &e, ERR_INVALID, "");
}

static void a_pool_has_a_gateway(void **state)
{
	(void)state;
	char address[NETWORK_ADDRESS_SIZE];
	unsigned length;

	network_gateway("10.88.4.0/22", address, &length);
	assert_string_equal(address, "10.88.4.1");
	assert_int_equal(length, 22);
	network_gateway("fd00:88::/64", address, &length);
	assert_string_equal(address, "fd00:88::1");
	assert_int_equal(length, 64);
}

static int parse(const char *text, struct network *n)
{
	*n = (struct network){ 0 };
	return decode_text(text, strlen(text), "network", &network_shape, n, &e);
}

static void networks_are_checked(void **state)
{
	(void)state;
	struct network n;
	char zone[80];

	assert_ok(parse("name: lab\nipv4: 10.88.0.0/24\nipv6: 'fd00:88::/64'\nreserved: [10.88.0.2-10.88.0.9]\n", &n), &e);
	assert_string_equal(network_zone(&n, zone), "lab.carrel");
	assert_int_equal(n.mtu, 1500);
	network_done(&n);
	static const struct { const char *text, *part; } bad[] = {
		{ "name: host\nipv4: 10.0.0.0/24\n", "a word of the spec" },
		{ "name: a\nipv4: 10.0.0.1/24\n", "bits set behind" },
		{ "name: a\nipv4: 10.0.0.0/31\n", "a length from" },
		{ "name: a\nipv4: 'fd00::/64'\n", "is not an IPv4 pool" },
		{ "name: a\nkind: bridge\n", "names the site's bridge" },
		{ "name: a\nbridge: br0\n", "only a network of kind bridge" },
		{ "name: a\nkind: bridge\nbridge: 'br*'\n", "is not the name of an interface" },
		{ "name: a\nkind: bridge\nbridge: a/b\n", "is not the name of an interface" },
		{ "name: a\nkind: bridge\nbridge: ..\n", "is not the name of an interface" },
		{ "name: a\nkind: bridge\nbridge: br0\nvlan: 4095\n", "4095 is too large: at most 4094" },
		{ "name: a\nmtu: 10\n", "10 is too small: at least 576" },
		{ "name: a\nvlan: 3\n", "only a network of kind bridge" },
		{ "name: a\nzone: A.B\n", "a DNS zone is" },
		{ "name: a\nzone: 'a..b'\n", "a DNS zone is" },
		{ "name: a\nipv6: 'fd00::/64'\nmtu: 1000\n", "at least 1280" },
		{ "name: a\nipv5: x\n", "unknown key" },
	};
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		err_clear(&e);
		if (parse(bad[i].text, &n) == 0 || !strstr(e.message, bad[i].part))
			fail_msg("%s -> \"%s\"", bad[i].text, e.message);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(publish_is_read), cmocka_unit_test(addresses_are_checked),
					    cmocka_unit_test(a_pool_has_a_gateway), cmocka_unit_test(networks_are_checked) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
