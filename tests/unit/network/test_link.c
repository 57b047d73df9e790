/* SPDX-License-Identifier: Apache-2.0 */
/* Bridges and cables in network namespaces of this test: one that plays the host, two that play workspaces. */
#include "commands.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/own.h"
#include "base/proc.h"
#include "network/link.h"

static struct err e;
static int spaces[2] = { -1, -1 }, home = -1;
static const struct link_bridge lab = { "crb1", "10.88.0.1/24", "fd00:88::1/64", 1, 1500 };
static const struct link_port ports[2] = {
	{ "cr1", "crb1", "aa", "eth0", "02:00:00:00:00:01", 2, 1500, true, "10.88.0.2/24", "fd00:88::2/64", "10.88.0.1",
	  "fe80::1", 0 },
	{ "cr2", "crb1", "bb", "eth0", "02:00:00:00:00:02", 2, 1500, true, "10.88.0.3/24", "fd00:88::3/64", "10.88.0.1",
	  "fe80::1", "fd01::/64", 0 },
};

static void enter(int space) { assert_int_equal(setns(space, CLONE_NEWNET), 0); }

static void a_bridge_may_be_made_twice(void **state)
{
	(void)state;
	for (int i = 0; i < 2; i++)
		assert_ok(link_bridge_make(&lab, &e), &e);
	says("ip address show dev crb1", "10.88.0.1/24");
	says("ip address show dev crb1", "fe80::1/64");
	says("ip address show dev crb1", "02:63:00:00:00:01");
	says("cat /proc/sys/net/ipv4/conf/crb1/proxy_arp_pvlan", "1");
	assert_ok(link_forwarding(&e), &e);
	assert_ok(link_forwarding(&e), &e);
	says("cat /proc/sys/net/ipv4/conf/all/forwarding", "1");
}

static void cables_are_made_and_configured(void **state)
{
	(void)state;
	for (int i = 0; i < 2; i++)
		assert_ok(link_ports_make(&ports[i], 1, spaces[i], &e), &e);
	says("ip -d link show dev cr1", "isolated on");
	says("ip -d link show dev cr1", "alias aa");
	says("bridge fdb show dev cr1", "02:00:00:00:00:01 master crb1 static");
	enter(spaces[0]);
	says("ip address show dev eth0", "10.88.0.2/24");
	says("ip address show dev eth0", "fd00:88::2/128");
	says("ip address show dev eth0", "02:00:00:00:00:01");
	says("ip route", "default via 10.88.0.1 dev eth0");
	says("ip -6 route", "default via fe80::1 dev eth0");
	enter(spaces[1]);
	says("ip -6 route", "fd01::/64 via fe80::1 dev eth0");
	enter(home);
}

static void neighbours_meet_through_the_host(void **state)
{
	(void)state;
	enter(spaces[0]);
	says("ping -c 3 -i 0.2 -W 2 10.88.0.1", " 0% packet loss");
	says("ping -c 3 -i 0.2 -W 2 10.88.0.3", "ttl=63"); /* routed, not bridged */
	says("ping -c 3 -i 0.2 -W 2 fd00:88::3", "ttl=63");
	enter(home);
}

static void note(void *data, const struct link_found *link)
{
	if (str_eq(link->name, "cr1"))
		*(struct link_found *)data = *link;
}

static void a_port_without_its_bridge_joins_it_again(void **state)
{
	(void)state;
	struct link_found found = { 0 };

	assert_ok(link_survey(note, &found, &e), &e);
	assert_true(found.there && found.up && found.master == link_index("crb1"));
	assert_ok(link_remove("crb1", &e), &e);
	assert_fails(link_port_join(&ports[0], &e), &e, ERR_NOT_FOUND, "no bridge crb1");
	assert_ok(link_bridge_make(&lab, &e), &e);
	assert_ok(link_survey(note, &found, &e), &e);
	assert_int_equal(found.master, 0);
	for (int i = 0; i < 2; i++)
		assert_ok(link_port_join(&ports[i], &e), &e);
	says("ip -d link show dev cr1", "isolated on");
	says("bridge fdb show dev cr1", "02:00:00:00:00:01 master crb1 static");
	enter(spaces[0]);
	says("ping -c 3 -i 0.2 -W 2 10.88.0.3", "ttl=63");
	enter(home);
}

static int count(void *data, const char *name)
{
	(void)name;
	++*(int *)data;
	return 0;
}

static void what_fails_leaves_nothing(void **state)
{
	(void)state;
	struct link_port two[2] = { ports[0], ports[0] };
	int there = 0;

	two[0].port = "cr3";
	two[0].device = "eth1";
	two[0].index = 3;
	two[1].port = "cr4";
	two[1].index = 3; /* both cannot have it */
	assert_fails(link_ports_make(two, 2, spaces[0], &e), &e, ERR_EXISTS, "make a port");
	two[1].index = 4;
	two[1].bridge = "nobridge";
	assert_fails(link_ports_make(two, 2, spaces[0], &e), &e, ERR_NOT_FOUND, "no bridge nobridge");
	assert_ok(link_list("cr3", count, &there, &e), &e);
	assert_ok(link_list("cr4", count, &there, &e), &e);
	assert_int_equal(there, 0);
}

static void a_port_of_an_earlier_run_is_replaced(void **state)
{
	(void)state;
	unsigned before = link_index("cr2");
	int late;

	assert_int_equal(unshare(CLONE_NEWNET), 0);
	late = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
	enter(home);
	assert_ok(link_ports_make(&ports[1], 1, late, &e), &e);
	assert_int_not_equal(link_index("cr2"), before);
	(void)close(spaces[1]);
	spaces[1] = late;
	enter(spaces[0]);
	says("ping -c 3 -i 0.2 -W 2 10.88.0.3", "ttl=63");
	enter(home);
}

static void a_tap_has_queues_and_ends_with_them(void **state)
{
	(void)state;
	const struct link_port tap = { .port = "cr9", .bridge = "crb1", .owner = "cc", .mtu = 1400, .isolated = true };
	int fds[4];

	if (access("/dev/net/tun", R_OK | W_OK) < 0) {
		print_message("# not run: this machine has no /dev/net/tun\n");
		skip();
	}
	for (unsigned queues = 1; queues <= 4; queues += 3) {
		assert_ok(link_tap_make(&tap, queues, fds, &e), &e);
		says("ip -d link show dev cr9", "mtu 1400");
		says("ip -d link show dev cr9", "isolated on");
		says("ip -d link show dev cr9", "master crb1");
		says("ip -d link show dev cr9", queues > 1 ? "multi_queue" : "type tap");
		for (unsigned i = 0; i < queues; i++) {
			assert_int_not_equal(link_index("cr9"), 0);
			(void)close(fds[i]);
		}
		assert_int_equal(link_index("cr9"), 0);
	}
	assert_fails(link_tap_make(&tap, LINK_QUEUES_MOST + 1, fds, &e), &e, ERR_INVALID, "17 queues");
	struct link_port lost = tap;
	lost.bridge = "nobridge";
	assert_fails(link_tap_make(&lost, 1, fds, &e), &e, ERR_NOT_FOUND, "no bridge nobridge");
	assert_int_equal(link_index("cr9"), 0);
}

static void a_vlan_needs_a_bridge_that_filters(void **state)
{
	(void)state;
	struct link_port tagged = ports[0];
	const char *make[] = { "ip", "link", "add", "dev", "site0", "type", "bridge", "vlan_filtering", "1", NULL };

	tagged.port = "cr7";
	tagged.device = "eth7";
	tagged.index = 9;
	tagged.vlan = 7;
	assert_fails(link_ports_make(&tagged, 1, spaces[0], &e), &e, ERR_UNSUPPORTED, "bridge crb1 does not filter VLANs");
	assert_int_equal(link_index("cr7"), 0);
	if (proc_run(make, 4096, &(struct str){ 0 }, &e) < 0) {
		print_message("# not run: this kernel has no bridges that filter VLANs\n");
		skip();
	}
	tagged.bridge = "site0";
	assert_ok(link_ports_make(&tagged, 1, spaces[0], &e), &e);
	says("bridge vlan show dev cr7", "7 PVID Egress Untagged");
	own_str char *all = output("bridge vlan show dev cr7");
	assert_null(strstr(all, " 1 "));
	assert_ok(link_remove("site0", &e), &e);
	assert_ok(link_remove("cr7", &e), &e);
}

static void a_port_goes_with_its_namespace(void **state)
{
	(void)state;
	int there = 0;

	(void)close(spaces[1]);
	spaces[1] = -1;
	for (int waited = 0; link_index("cr2") && waited < 9000; waited++)
		(void)poll(NULL, 0, 10);
	assert_int_equal(link_index("cr2"), 0);
	assert_ok(link_remove("cr1", &e), &e);
	assert_ok(link_remove("cr1", &e), &e);
	assert_ok(link_remove("crb1", &e), &e);
	assert_ok(link_list("crb", count, &there, &e), &e);
	assert_int_equal(there, 0);
}

static int open_world(void **state)
{
	(void)state;
	if (geteuid() != 0) {
		print_message("skipped: needs root\n");
		return -1;
	}
	for (int i = 0; i < 3; i++) {
		assert_int_equal(unshare(CLONE_NEWNET), 0);
		int *to = i < 2 ? &spaces[i] : &home;
		*to = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
		assert_true(*to >= 0);
		run("ip link set lo up");
	}
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(a_bridge_may_be_made_twice),
					    cmocka_unit_test(cables_are_made_and_configured),
					    cmocka_unit_test(neighbours_meet_through_the_host),
					    cmocka_unit_test(a_port_without_its_bridge_joins_it_again),
					    cmocka_unit_test(what_fails_leaves_nothing),
					    cmocka_unit_test(a_port_of_an_earlier_run_is_replaced),
					    cmocka_unit_test(a_tap_has_queues_and_ends_with_them),
					    cmocka_unit_test(a_vlan_needs_a_bridge_that_filters),
					    cmocka_unit_test(a_port_goes_with_its_namespace) };
	return cmocka_run_group_tests(tests, open_world, NULL);
}
