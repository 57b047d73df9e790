/* SPDX-License-Identifier: Apache-2.0 */
/* Machines against the command lines they must give. CARREL_GOLDEN=update writes the files anew: look at the difference before
 * committing. */
#include "arguments.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"
#include "engine/qemu/arguments.h"
#include "engine/qemu/link.h"
#include "engine/qemu/machine_plan.h"
#include "engine/qemu/template.h"

static struct err e;

static const struct machine_disk disks[] = { { "p0", false }, { "p1", false }, { "root", true }, { "v0", true } };

static struct qemu_machine plain(void)
{
	return (struct qemu_machine){ .board = machine_board("amd64"), .type = "pc-q35-7.2", .cpu = "qemu64,+avx2",
				      .id = "0123456789abcdef", .processors = 1,
				 .memory_bytes = UINT64_C(512) << 20, .disks = disks, .disk_count = ARRAY_SIZE(disks) };
}

static void compare(const struct qemu_machine *m, const char *name)
{
	char **argv = NULL;

	assert_ok(machine_arguments(m, &argv, &e), &e);
	compare_arguments(argv, name);
}

static void test_emulator(void **state)
{
	(void)state;
	struct qemu_machine m = plain();
	compare(&m, "emulator");
}

static void test_kvm_with_everything(void **state)
{
	static const struct machine_link links[] = { { "02:00:00:00:00:01", 0 }, { "02:00:00:00:00:02", 3 } };

	(void)state;
	struct qemu_machine m = plain();
	m.kvm = true;
	m.processors = 4;
	m.links = links;
	m.link_count = 2;
	m.queues = machine_queues(true, 4);
	m.vnc = "/machine/vnc";
	compare(&m, "kvm");
}

static void layout_of(const struct qemu_machine *m, char out[DIGEST_TEXT_SIZE])
{
	char **argv = NULL;

	assert_ok(machine_arguments(m, &argv, &e), &e);
	machine_layout(argv, out);
	machine_arguments_free(argv);
}

/* A state fits to the same devices, whoever the workspace is and whatever becomes of its memory; and to no others. */
static void test_layout(void **state)
{
	char before[DIGEST_TEXT_SIZE], after[DIGEST_TEXT_SIZE];

	(void)state;
	struct qemu_machine m = plain();
	layout_of(&m, before);
	m.memory_file = m.incoming = true;
	m.id = "fedcba9876543210";
	layout_of(&m, after);
	assert_string_equal(before, after);
	m.type = "pc-q35-7.1";
	layout_of(&m, after);
	assert_string_not_equal(before, after);
	m = plain();
	m.memory_bytes *= 2;
	layout_of(&m, after);
	assert_string_not_equal(before, after);
	m = plain();
	m.disk_count--;
	layout_of(&m, after);
	assert_string_not_equal(before, after);
	m = plain();
	m.processors++;
	layout_of(&m, after);
	assert_string_not_equal(before, after);
	/* a state of before the kernel was told not to wait for its timer */
	struct machine_board earlier = *machine_board("amd64");
	earlier.words = NULL;
	m = plain();
	m.system = true;
	layout_of(&m, before);
	m.board = &earlier;
	layout_of(&m, after);
	assert_string_equal(before, after);
	/* a clone has other hardware addresses, in the same places */
	const struct machine_link one = { "02:00:00:00:00:01", 0 }, other = { "02:00:00:00:00:02", 0 },
				  elsewhere = { "02:00:00:00:00:01", 1 };
	m = plain();
	m.queues = machine_queues(false, 1);
	m.link_count = 1;
	m.links = &one;
	layout_of(&m, before);
	m.links = &other;
	layout_of(&m, after);
	assert_string_equal(before, after);
	m.links = &elsewhere;
	layout_of(&m, after);
	assert_string_not_equal(before, after);
}

static void test_memory_in_a_file(void **state)
{
	(void)state;
	struct qemu_machine m = plain();
	m.memory_file = m.incoming = true;
	compare(&m, "resumed");
}

/* A launch as the agent makes it; what it points to is here. */
struct wanted {
	struct spec_resources resources;
	struct spec spec;
	struct image image;
	struct launch_machine host;
	struct launch launch;
};

static struct wanted *want(struct wanted *w)
{
	static char word[] = "true", *command[] = { word };

	*w = (struct wanted){ .spec = { .command = { command, 1 } },
			      .host = { .type = "pc-q35-7.2", .kernel = "/a/1.vmlinuz", .initramfs = "/a/2.cpio",
									      .processors = 8, .boot_ms = 60000 } };
	w->host.board = machine_board("amd64");
	w->spec.resources = &w->resources;
	w->launch = (struct launch){ .id = "0123456789abcdef", .spec = &w->spec, .image = &w->image, .host_machine = &w->host,
				     .first_id = 1000000, .run_dir = "/run/x", .log_path = "/log" };
	return w;
}

static char *words_of(const struct wanted *w)
{
	char *out = mem_alloc(DIGEST_TEXT_SIZE);

	assert_ok(template_words(&w->launch, out, &e), &e);
	return out;
}

/* One template for whatever has the same kernel, memory and processors; another for all else. */
static void test_name_of_a_template(void **state)
{
	struct wanted w;
	own_str char *plain_name = words_of(want(&w));

	(void)state;
	want(&w)->launch.id = "fedcba9876543210";
	w.launch.partition_count = 3;
	w.launch.volume_count = 2;
	w.launch.first_id = 2000000;
	w.host.kernel = "/elsewhere/1.vmlinuz";
	own_str char *same = words_of(&w);
	assert_string_equal(same, plain_name);
	assert_true(template_fits(&w.launch));
	for (int i = 0; i < 7; i++) {
		(void)want(&w);
		w.resources.memory_bytes = i == 0 ? UINT64_C(1) << 30 : 0;
		w.resources.cpu_milli = i == 1 ? 2000 : 0;
		w.host.kernel = i == 2 ? "/a/3.vmlinuz" : w.host.kernel;
		w.host.initramfs = i == 3 ? "/a/3.cpio" : w.host.initramfs;
		w.host.type = i == 4 ? "pc-q35-8.0" : w.host.type;
		w.host.kvm = i == 5;
		w.spec.mode = i == 6 ? MODE_SYSTEM : MODE_AUTO;
		own_str char *other = words_of(&w);
		assert_string_not_equal(other, plain_name);
	}
	want(&w)->launch.paused = true;
	assert_false(template_fits(&w.launch));
	want(&w)->launch.maintenance = true;
	assert_false(template_fits(&w.launch));
	want(&w)->host.board = machine_board("arm64");
	assert_false(template_fits(&w.launch));
}

static void test_plan_of_a_template(void **state)
{
	const struct launch_memory memory = { .path = "/memory", .folder_fd = -1, .state_fd = -1 };
	own_strbuf struct str bytes = { 0 };
	struct machine_plan p;
	struct wanted w;

	(void)state;
	want(&w)->launch.memory = &memory;
	assert_ok(template_plan(&w.launch, &bytes, &e), &e);
	assert_ok(machine_plan_decode(bytes.bytes, bytes.length, &p, &e), &e);
	assert_int_equal(p.template, TEMPLATE_MADE);
	assert_int_equal(p.disks, 0);
	assert_int_equal(p.private_memory, 0);
	assert_int_equal(p.id, 1065535);
	assert_string_equal(p.memory, "/memory");
	for (size_t i = 0; i < p.argv.count; i++) {
		assert_null(strstr(p.argv.items[i], "virtio-blk"));
		assert_null(strstr(p.argv.items[i], "0123456789abcdef"));
	}
	machine_plan_done(&p);
}

/* Each disk has a place on the bus of its own, and the first function of a slot says that there are more. */
static void test_many_disks(void **state)
{
	static struct machine_disk many[MACHINE_DISKS_MOST + 1];
	char **argv = NULL, place[32];
	size_t found = 0;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(many); i++)
		(void)snprintf(many[i].serial, sizeof many[i].serial, "p%zu", i);
	struct qemu_machine m = plain();
	m.disks = many;
	m.disk_count = MACHINE_DISKS_MOST;
	assert_ok(machine_arguments(&m, &argv, &e), &e);
	for (size_t i = 0; argv[i]; i++)
		if (str_starts(argv[i], "virtio-blk-pci,")) {
			(void)snprintf(place, sizeof place, "addr=%zx.%zu%s,", 3 + found / 8, found % 8,
				       found % 8 ? "" : ",multifunction=on");
			assert_non_null(strstr(argv[i], place));
			found++;
		}
	assert_int_equal(found, MACHINE_DISKS_MOST);
	machine_arguments_free(argv);
	m.disk_count++;
	assert_int_equal(machine_arguments(&m, &argv, &e) < 0, 1);
	assert_int_equal(e.kind, ERR_UNSUPPORTED);
}

static void test_sizes(void **state)
{
	(void)state;
	assert_int_equal(machine_processors(0, 8), 1);
	assert_int_equal(machine_processors(1, 8), 1);
	assert_int_equal(machine_processors(1500, 8), 2);
	assert_int_equal(machine_processors(64000, 8), 8);
	assert_int_equal(machine_memory(0), UINT64_C(512) << 20);
	assert_int_equal(machine_memory(1), MACHINE_MEMORY_LEAST);
	assert_int_equal(machine_memory((UINT64_C(300) << 20) + 5), UINT64_C(300) << 20);
}

/* Plugged in later it is the same device, said in the control line's way. */
static void test_plug(void **state)
{
	static const struct machine_link link = { "02:00:00:00:00:02", 3 };
	own_strbuf struct str netdev = { 0 }, device = { 0 };

	(void)state;
	machine_link_plug(&link, machine_queues(false, 4), "tap0", "", &netdev, &device);
	assert_string_equal(str_text(&netdev), "{\"type\":\"tap\",\"id\":\"net3\",\"fds\":\"tap0\"}");
	assert_string_equal(str_text(&device),
			    "{\"driver\":\"virtio-net-pci\",\"id\":\"link3\",\"netdev\":\"net3\",\"mac\":"
			    "\"02:00:00:00:00:02\",\"romfile\":\"\",\"disable-legacy\":\"on\",\"bus\":\"links\","
			    "\"addr\":\"4.0\"}");
	str_clear(&netdev);
	str_clear(&device);
	machine_link_plug(&link, machine_queues(true, 2), "tap0:tap1", "vhost0:vhost1", &netdev, &device);
	assert_string_equal(str_text(&netdev),
			    "{\"type\":\"tap\",\"id\":\"net3\",\"fds\":\"tap0:tap1\",\"vhost\":true,\"vhostfds\":"
			    "\"vhost0:vhost1\"}");
	assert_non_null(strstr(str_text(&device), "\"mq\":true,\"vectors\":6}"));
	str_clear(&netdev);
	str_clear(&device);
	machine_link_unplug(3, &netdev, &device);
	assert_string_equal(str_text(&netdev), "{\"id\":\"net3\"}");
	assert_string_equal(str_text(&device), "{\"id\":\"link3\"}");
}

/* What a namespace gets from outside, a machine is told. */
static void test_inside(void **state)
{
	static const char *const plan[] = { "cr1",      "crn1",    "eth0",        "02:00:00:00:00:01",
					    "1400",     "1",       "10.0.0.2/24", "fd00::2/64",
					    "10.0.0.1", "fe80::1", "0",           "",
					    "cr2",      "crn2",    "eth7",        "02:00:00:00:00:02",
					    "1500",     "1",       "10.1.0.2/24", "",
					    "",         "",        "0",           "fd01::/64",
					    NULL };
	static const char *const beyond[] = { "cr3", "crn2", "eth8", "02:00:00:00:00:03", "1500", "1", "", "", "", "",
					      "0",   "",     NULL };
	struct guest_objects inside;
	struct machine_link link;

	(void)state;
	assert_int_equal(machine_link_count(plan), 2);
	assert_ok(machine_link_read(plan + 12, &link, &e), &e);
	assert_int_equal(link.place, 7);
	assert_string_equal(link.mac, "02:00:00:00:00:02");
	assert_true(machine_link_read(beyond, &link, &e) < 0);
	machine_links_inside(plan, &inside);
	const struct guest_interface *g = inside.items;
	assert_int_equal(inside.count, 2);
	assert_string_equal(g[0].name, "eth0");
	assert_int_equal(g[0].mtu, 1400);
	assert_int_equal(g[0].addresses.count, 2);
	assert_string_equal(g[0].addresses.items[0], "10.0.0.2/24");
	assert_string_equal(g[0].addresses.items[1], "fd00::2/128");
	assert_int_equal(g[0].routes.count, 2);
	assert_string_equal(g[0].routes.items[0], "default via 10.0.0.1");
	assert_string_equal(g[0].routes.items[1], "default via fe80::1");
	assert_int_equal(g[1].addresses.count, 1);
	assert_int_equal(g[1].routes.count, 1);
	assert_string_equal(g[1].routes.items[0], "fd01::/64 via fe80::1");
	machine_links_inside_done(&inside);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_emulator), cmocka_unit_test(test_kvm_with_everything),
					    cmocka_unit_test(test_layout), cmocka_unit_test(test_memory_in_a_file),
					    cmocka_unit_test(test_name_of_a_template),
					    cmocka_unit_test(test_plan_of_a_template), cmocka_unit_test(test_many_disks),
					    cmocka_unit_test(test_sizes), cmocka_unit_test(test_plug),
					    cmocka_unit_test(test_inside) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
