/* SPDX-License-Identifier: Apache-2.0 */
#include "../test.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/proc.h"
#include "base/str.h"
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

static char *text_of(const char *path)
{
	static char text[64];
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);

	text[n > 0 ? n - 1 : 0] = '\0';
	(void)close(fd);
	return text;
}

static bool says(const char *const *argv, const char *part)
{
	own_strbuf struct str out = { 0 };

	return proc_run(argv, 65536, &out, NULL) >= 0 && strstr(str_text(&out), part);
}

/* The kernel counts them as it finds them: each gets its own name all the same, and udev will see that it was given. */
static void names_are_exchanged(void **state)
{
	static char one[] = "02:00:00:00:00:01", two[] = "02:00:00:00:00:02", eth0[] = "eth0", eth1[] = "eth1", address[] = "10.1.0.2/24",
		    six[] = "fd00::2/128", route[] = "default via 10.1.0.1", route6[] = "fd00::/64 via fe80::1";
	static const char *const make[] = { "ip", "link", "add", "eth0", "address", one, "type", "veth", "peer", "name", "eth1", "address", two, NULL };
	static const char *const four[] = { "ip", "route", NULL }, *const other[] = { "ip", "-6", "route", NULL },
			  *const all[] = { "ip", "address", "show", "dev", "eth1", NULL };
	char *addresses[] = { address, six }, *ways[] = { route, route6 };
	const struct guest_interface list[] = { { .mac = one, .name = eth1, .mtu = 1400, .addresses = { addresses, 2 }, .routes = { ways, 2 } },
						{ .mac = two, .name = eth0 } };

	(void)state;
	if (geteuid() != 0 || unshare(CLONE_NEWNET | CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("sysfs", "/sys", "sysfs", 0, NULL) < 0 ||
	    !says(make, "")) {
		print_message("skipped: needs root, a network namespace and ip\n");
		skip();
	}
	for (int afresh = 0; afresh < 2; afresh++) {
		assert_ok(links_configure(list, 2, afresh, &e), &e);
		assert_string_equal(text_of("/sys/class/net/eth1/address"), one);
		assert_string_equal(text_of("/sys/class/net/eth0/address"), two);
		assert_string_equal(text_of("/sys/class/net/eth1/mtu"), "1400");
		assert_string_equal(text_of("/sys/class/net/eth0/name_assign_type"), "4");
		assert_true(says(four, "default via 10.1.0.1 dev eth1"));
		assert_true(says(other, "fd00::/64 via fe80::1 dev eth1"));
		assert_true(says(all, "fd00::2/128"));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(prefixes), cmocka_unit_test(routes), cmocka_unit_test(names_are_exchanged) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
