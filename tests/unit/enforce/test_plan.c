/* SPDX-License-Identifier: Apache-2.0 */
/* Plans of the three layouts against golden files; CARREL_GOLDEN=update writes them anew. */
#include "../golden.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"
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
	own_str char *file = mem_printf("enforce/golden/%s", name);
	own_strbuf struct str text = { 0 };

	assert_ok(enforce_layout_parse(mountinfo, controllers, &layout, &e), &e);
	assert_ok(enforce_plan(&layout, parent, "0123456789abcdef", l, 1000000, &plan, &e), &e);
	enforce_plan_print(&plan, &text);
	enforce_plan_done(&plan);
	enforce_layout_done(&layout);
	assert_golden(str_text(&text), file);
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

/* Virtual processors apart, also without a limit: one may be set while they run. */
static void machines(void **state)
{
	const struct enforce_limits machine = { .cpu_milli = 1500, .memory_bytes = 1 << 30, .processes = 100, .kvm = true, .processors = 2 };
	const struct enforce_limits unlimited = { .processors = 2 };

	(void)state;
	compare("v1-machine", v1, "", "carrel", &machine);
	compare("v2-machine", v2, "cpuset cpu io memory hugetlb pids rdma misc\n", "carrel", &machine);
	compare("v1-machine-unlimited", v1, "", "carrel", &unlimited);
	compare("v2-machine-unlimited", v2, "cpu memory pids\n", "carrel", &unlimited);
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

/* --- changes --- */

/* What the files would say after `is` was applied, but for those given as "FILE=CONTENT", and what a change to `wanted` writes. */
static void steps_between(const char *mountinfo, const struct enforce_limits *is, const char *file, const char *content,
			  const struct enforce_limits *wanted, struct str *out)
{
	struct enforce_layout layout;
	struct enforce_plan before, after;
	struct enforce_step steps[64];
	char *now[64] = { 0 };

	assert_ok(enforce_layout_parse(mountinfo, "cpu memory pids", &layout, &e), &e);
	assert_ok(enforce_plan(&layout, "carrel", "0123456789abcdef", is, 0, &before, &e), &e);
	assert_ok(enforce_plan(&layout, "carrel", "0123456789abcdef", wanted, 0, &after, &e), &e);
	assert_int_equal(before.write_count, after.write_count);
	for (size_t i = 0; i < before.write_count; i++)
		now[i] = file && str_ends(before.writes[i].path, file) ? (char *)(uintptr_t)content : before.writes[i].text;
	size_t count = enforce_steps(&after, now, steps);
	for (size_t i = 0; i < count; i++)
		str_printf(out, "%s%s %s -> %s%s", i ? "; " : "", strrchr(steps[i].write->path, '/') + 1, steps[i].before,
			   steps[i].write->text, steps[i].squeeze ? " squeezed" : "");
	enforce_plan_done(&before);
	enforce_plan_done(&after);
	enforce_layout_done(&layout);
}

static void only_what_differs_is_written(void **state)
{
	static const struct enforce_limits none, small = { .cpu_milli = 500, .memory_bytes = 64 << 20, .processes = 10 },
					   odd = { .cpu_milli = 500, .memory_bytes = (64 << 20) + 100, .processes = 10 };
	static const struct {
		const char *mounts;
		const struct enforce_limits *is;
		const char *file, *content;
		const struct enforce_limits *wanted;
		const char *expected;
	} cases[] = {
		{ v1, &small, NULL, NULL, &small, "" },
		{ v2, &small, NULL, NULL, &small, "" },
		{ v1, &small, NULL, NULL, &none,
		  "cpu.cfs_quota_us 50000 -> -1; memory.limit_in_bytes 67108864 -> -1; memory.memsw.limit_in_bytes 67108864 -> -1; "
		  "pids.max 10 -> max" },
		{ v2, &small, NULL, NULL, &none,
		  "cpu.max 50000 100000 -> max 100000; memory.max 67108864 -> max; memory.swap.max 0 -> max; pids.max 10 -> max" },
		{ v2, &none, NULL, NULL, &small,
		  "cpu.max max 100000 -> 50000 100000; memory.max max -> 67108864 squeezed; memory.swap.max max -> 0; pids.max max -> 10" },
		{ v1, &small, "memory.limit_in_bytes", "67108864", &odd, "" }, /* whole pages */
		{ v1, &none, "memory.limit_in_bytes", "9223372036854771712", &none, "" }, /* as v1 says: none */
		{ v1, &small, "memory.memsw.limit_in_bytes", NULL, &small, "" }, /* a kernel that does not count swap */
		{ v2, &small, "memory.high", "33554432", &small, "memory.high 33554432 -> max" }, /* an agent died */
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		own_strbuf struct str text = { 0 };
		steps_between(cases[i].mounts, cases[i].is, cases[i].file, cases[i].content, cases[i].wanted, &text);
		if (!str_eq(str_text(&text), cases[i].expected))
			fail_msg("case %zu: %s", i, str_text(&text));
	}
}

/* The folder of the virtual processors is there, so a limit comes and goes by writes. */
static void a_machine_is_limited_and_set_free(void **state)
{
	static const struct enforce_limits free_one = { .processors = 2 }, held = { .processors = 2, .cpu_milli = 500 };
	own_strbuf struct str text = { 0 };

	(void)state;
	steps_between(v2, &free_one, NULL, NULL, &held, &text);
	assert_string_equal(text.bytes, "cpu.max max 100000 -> 100000 100000; cpu.max max 100000 -> 50000 100000");
	str_clear(&text);
	steps_between(v1, &held, NULL, NULL, &free_one, &text);
	assert_string_equal(text.bytes, "cpu.cfs_quota_us 100000 -> -1; cpu.cfs_quota_us 50000 -> -1");
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(three_layouts), cmocka_unit_test(machines), cmocka_unit_test(names_that_climb_are_refused),
					    cmocka_unit_test(a_host_without_groups_is_told),
					    cmocka_unit_test(only_what_differs_is_written), cmocka_unit_test(a_machine_is_limited_and_set_free) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
