/* SPDX-License-Identifier: Apache-2.0 */
/* VLANs by a device of their own, in a network namespace; where the kernel has none, that it is said. Frames pass in
 * tests/e2e/test_nested.py. */
#include "commands.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/proc.h"
#include "network/link.h"
#include "network/vlan.h"

static struct err e;
static const struct vlan seven = { "crvabcd7", "crwabcd7", "uplink0", "carrel abcd: network office", 7, 7, 1400 };

static void what_was_found_is_told(void **state)
{
	(void)state;
	struct link_found f = link_find("uplink0");

	assert_true(f.there && !f.bridge && f.mtu == 1500);
	assert_false(link_find("nowhere0").there);
	run("ip link add dev site0 type bridge");
	assert_true(link_find("site0").bridge && !link_find("site0").filters);
	assert_ok(link_remove("site0", &e), &e);
}

static void too_large_packets_are_refused(void **state)
{
	(void)state;
	struct vlan large = seven;

	large.mtu = 9000;
	assert_fails(vlan_make(&large, &e), &e, ERR_INVALID,
		     "packets of 9000 bytes do not fit VLAN 7 of uplink0, which takes 1500");
	assert_non_null(strstr(e.hint, "--mtu 1500"));
	assert_int_equal(link_index(seven.device), 0);
}

static void a_kernel_without_is_told(void **state)
{
	(void)state;
	if (vlan_supported()) {
		print_message("# not run: this kernel has VLAN devices\n");
		skip();
	}
	assert_fails(vlan_make(&seven, &e), &e, ERR_UNSUPPORTED,
		     "this kernel has no VLAN devices, so nothing can be in VLAN 7");
	assert_non_null(strstr(e.hint, "8021q"));
	assert_int_equal(link_index(seven.device), 0);
	assert_int_equal(link_index(seven.bridge), 0);
}

static void device_and_bridge_may_be_made_twice(void **state)
{
	(void)state;
	if (!vlan_supported()) {
		print_message("# not run: this kernel has no VLAN devices\n");
		skip();
	}
	for (int i = 0; i < 2; i++)
		assert_ok(vlan_make(&seven, &e), &e);
	says("ip -d link show dev crvabcd7", "id 7");
	says("ip -d link show dev crvabcd7", "master crwabcd7");
	says("ip -d link show dev crwabcd7", "mtu 1500");
	says("ip -d link show dev crwabcd7", "alias carrel abcd: network office");
	says("cat /proc/sys/net/ipv4/conf/crwabcd7/forwarding /proc/sys/net/ipv4/conf/crwabcd7/rp_filter", "0\n1");
	struct vlan second = seven;
	second.device = "crvabcd8";
	second.bridge = "crwabcd8";
	assert_fails(vlan_make(&second, &e), &e, ERR_CONFLICT,
		     "another network of this host is on VLAN 7 of uplink0 already (crvabcd7)");
	assert_ok(link_remove(seven.device, &e), &e); /* somebody did */
	assert_ok(vlan_make(&seven, &e), &e);
	says("ip -d link show dev crvabcd7", "master crwabcd7");
}

static int open_world(void **state)
{
	(void)state;
	if (geteuid() != 0 || unshare(CLONE_NEWNET) < 0) {
		print_message("skipped: needs root\n");
		return -1;
	}
	run("ip link add dev uplink0 type veth peer name far0");
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(what_was_found_is_told),
					    cmocka_unit_test(too_large_packets_are_refused),
					    cmocka_unit_test(a_kernel_without_is_told),
					    cmocka_unit_test(device_and_bridge_may_be_made_twice) };
	return cmocka_run_group_tests(tests, open_world, NULL);
}
