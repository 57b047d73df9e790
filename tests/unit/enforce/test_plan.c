/* SPDX-License-Identifier: Apache-2.0 */
/* Plans of the three layouts against golden files; GOLDEN_UPDATE=1 writes them anew. */
#include "../test.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"
#include "enforce/enforce.h"

static const char v1[] = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n"
			 "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n"
			 "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
			 "36 31 0:33 / /sys/fs/cgroup/devices rw - cgroup cgroup rw,devices\n"
			 "37 31 0:34 / /sys/fs/cgroup/freezer rw - cgroup cgroup rw,freezer\n"
			 "39 31 0:36 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n"
			 "40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n";
static const char v2[] = "25 1 0:22 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
			 "26 1 0:23 /part /mnt/other rw - cgroup2 cgroup2 rw\n";
static const char v2_beside[] = "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";

static const struct enforce_limits limits = { .cpu_milli = 1500, .memory_bytes = 1 << 30, .processes = 100 };
static struct err e;

static void compare(const char *name, const char *mountinfo, const char *controllers, const char *parent,
		    const struct enforce_limits *l)
{
	struct enforce_layout layout;
	struct enforce_plan plan;
	own_strbuf struct str text = { 0 }, golden = { 0 };
	own_str char *path = mem_printf("%s/tests/unit/enforce/golden/%s", getenv("CARREL_SOURCE_ROOT"), name);

	assert_ok(enforce_layout_parse(mountinfo, controllers, &layout, &e), &e);
	assert_ok(enforce_plan(&layout, parent, "0123456789abcdef", l, 1000000, &plan, &e), &e);
	enforce_plan_print(&plan, &text);
	enforce_plan_done(&plan);
	enforce_layout_done(&layout);
	if (getenv("GOLDEN_UPDATE"))
		assert_ok(fs_write_file(AT_FDCWD, path, text.bytes, text.length, 0644, false, &e), &e);
	assert_ok(fs_read_file(AT_FDCWD, path, 1 << 20, &golden, &e), &e);
	assert_string_equal(text.bytes, golden.bytes);
}

static void three_layouts(void **state)
{
	(void)state;
	own_str char *hybrid = mem_printf("%s%s", v1, v2_beside);
	compare("v1", v1, "", "carrel", &limits);
	compare("v2", v2, "cpuset cpu io memory hugetlb pids rdma misc\n", "system.slice/carrel-node.service/workspaces",
		&limits);
	compare("hybrid", hybrid, "hugetlb\n", "carrel", &limits);
	compare("v2-unlimited", v2, "cpu memory pids\n", "carrel", &(struct enforce_limits){ 0 });
}

/* Virtual processors apart; one without a limit of processor time has none apart. */
static void machines(void **state)
{
	const struct enforce_limits machine = { .cpu_milli = 1500, .memory_bytes = 1 << 30, .processes = 100, .kvm = true, .processors = 2 };
	const struct enforce_limits unlimited = { .processors = 2 };

	(void)state;
	compare("v1-machine", v1, "", "carrel", &machine);
	compare("v2-machine", v2, "cpuset cpu io memory hugetlb pids rdma misc\n", "carrel", &machine);
	compare("v2-unlimited", v2, "cpu memory pids\n", "carrel", &unlimited);
}

static void names_that_climb_are_refused(void **state)
{
	(void)state;
	struct enforce_layout layout;
	struct enforce_plan plan;
	static const char *const bad[][2] = { { "", "a" }, { "/x", "a" }, { "x/", "a" }, { "x//y", "a" }, { "../x", "a" },
					      { "x", "" }, { "x", "a/b" }, { "x", ".." } };
	assert_ok(enforce_layout_parse(v2, "cpu", &layout, &e), &e);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_fails(enforce_plan(&layout, bad[i][0], bad[i][1], &limits, 0, &plan, &e), &e, ERR_INVALID, "no name");
	enforce_layout_done(&layout);
}

static void a_host_without_groups_is_told(void **state)
{
	(void)state;
	struct enforce_layout layout;
	assert_fails(enforce_layout_parse("1 1 0:1 / / rw - ext4 /dev/x rw\n", "", &layout, &e), &e, ERR_UNSUPPORTED,
		     "no control groups");
	assert_true(strstr(e.hint, "mount -t cgroup2") != NULL);
	assert_true(enforce_layout_parse("garbage\n\n - - -\n", "", &layout, &e) < 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(three_layouts), cmocka_unit_test(machines), cmocka_unit_test(names_that_climb_are_refused),
					    cmocka_unit_test(a_host_without_groups_is_told) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
