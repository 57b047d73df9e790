/* SPDX-License-Identifier: Apache-2.0 */
#include "../test.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "guest/link.h"

static struct err e;

static void prefixes(void **state)
{
	(void)state;
	struct link_prefix p;

	assert_int_equal(link_parse_prefix("10.1.2.3/24", &p, &e), 0);
	assert_int_equal(p.family, AF_INET);
	assert_int_equal(p.length, 24);
	assert_memory_equal(p.address, "\x0a\1\2\3", 4);
	assert_int_equal(link_parse_prefix("fd00::2", &p, &e), 0);
	assert_int_equal(p.length, 128);
	static const char *const bad[] = { "", "10.1.2", "10.1.2.3/33", "10.1.2.3/", "10.1.2.3/-1", "fd00::2/129", "fd00::g", "default" };
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		assert_int_equal(link_parse_prefix(bad[i], &p, &e), -EINVAL);
}

static void routes(void **state)
{
	(void)state;
	struct link_prefix to, gateway;

	assert_int_equal(link_parse_route("default via fe80::1", &to, &gateway, &e), 0);
	assert_int_equal(to.family, AF_INET6);
	assert_int_equal(to.length, 0);
	assert_int_equal(gateway.family, AF_INET6);
	assert_int_equal(link_parse_route("10.0.0.1", &to, &gateway, &e), 0);
	assert_int_equal(to.length, 32);
	assert_int_equal(gateway.family, 0);
	static const char *const bad[] = { "default", "default via", "10.0.0.0/8 via fe80::1", "via 10.0.0.1", " via " };
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		assert_int_equal(link_parse_route(bad[i], &to, &gateway, &e), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(prefixes), cmocka_unit_test(routes) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
