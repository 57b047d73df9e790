/* SPDX-License-Identifier: Apache-2.0 */
#include "../test.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/own.h"
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

static bool shows(const char *part)
{
	static const char *const all[] = { "sh", "-c", "ip -d address show dev eth0; ip route; ip -6 route; ip -6 route show table local", NULL };

	return says(all, part);
}

static const char *const clone_make[] = {
	"sh", "-c", "ip link add eth0 address 02:00:00:00:00:01 type veth peer name other && ip link set eth0 up && ip link set other up && "
		    "ip address add 10.1.0.2/24 dev eth0 && ip address add fd00::2/128 dev eth0 nodad && ip route add default via 10.1.0.1 && "
		    "ip -6 route add default via fe80::1 dev eth0 && "
		    "for i in $(seq 100); do ip -6 address show dev eth0 | grep fe80 | grep -qv tentative && break; sleep 0.1; done",
	NULL
};

/* With what addresses, and whether it stays up, which the number of times that it lost its carrier tells. */
static void becomes(bool addresses_of_ours, bool stays_up)
{
	static char mac[] = "02:00:00:00:00:aa", eth0[] = "eth0", four[] = "10.1.0.9/24", six[] = "fd00::9/128", way[] = "default via 10.1.0.1",
		    way6[] = "default via fe80::1";
	char *addresses[] = { four, six }, *ways[] = { way, way6 };
	const struct guest_interface list[] = { { .mac = mac, .name = eth0, .mtu = 1400, .addresses = { addresses, addresses_of_ours ? 2 : 0 },
						  .routes = { ways, addresses_of_ours ? 2 : 0 } } };
	own_str char *before = mem_strdup(text_of("/sys/class/net/eth0/carrier_down_count"));

	assert_ok(links_become(list, 1, &e), &e);
	assert_int_equal(str_eq(before, text_of("/sys/class/net/eth0/carrier_down_count")), stays_up);
	assert_string_equal(text_of("/sys/class/net/eth0/address"), mac);
	assert_string_equal(text_of("/sys/class/net/eth0/mtu"), "1400");
	assert_false(shows("10.1.0.2"));
	assert_false(shows("fd00::2"));
	assert_false(shows("fe80::ff:fe00:1"));
	for (int i = 0; i < 100 && !shows("fe80::ff:fe00:aa"); i++)
		(void)poll(NULL, 0, 50);
	assert_true(shows("fe80::ff:fe00:aa"));
	if (!addresses_of_ours)
		return;
	assert_true(shows("inet 10.1.0.9/24"));
	assert_true(shows("inet6 fd00::9/128"));
	assert_true(shows("default via 10.1.0.1 dev eth0"));
	assert_true(shows("default via fe80::1 dev eth0"));
}

static bool alone(void)
{
	if (geteuid() == 0 && unshare(CLONE_NEWNET | CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
	    mount("sysfs", "/sys", "sysfs", 0, NULL) == 0 && says(clone_make, ""))
		return true;
	print_message("skipped: needs root, a network namespace and ip\n");
	return false;
}

static void a_clone_exchanges_addresses_while_its_interface_is_up(void **state)
{
	(void)state;
	if (!alone())
		skip();
	becomes(true, true);
	assert_ok(links_become(NULL, 0, &e), &e);
}

/* Those who gave it its addresses shall notice. */
static void an_interface_of_others_goes_down_and_up(void **state)
{
	(void)state;
	if (!alone())
		skip();
	becomes(false, false);
}

static void an_interface_that_is_not_there(void **state)
{
	(void)state;
	static char mac[] = "02:00:00:00:00:aa", name[] = "eth77";
	const struct guest_interface list[] = { { .mac = mac, .name = name } };

	assert_int_equal(links_become(list, 1, &e), -ENOENT);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(prefixes), cmocka_unit_test(routes), cmocka_unit_test(names_are_exchanged),
					    cmocka_unit_test(a_clone_exchanges_addresses_while_its_interface_is_up),
					    cmocka_unit_test(an_interface_of_others_goes_down_and_up),
					    cmocka_unit_test(an_interface_that_is_not_there) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
