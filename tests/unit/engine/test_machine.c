/* SPDX-License-Identifier: Apache-2.0 */
/* Machines against the command lines they must give. GOLDEN_WRITE=1 writes the files anew: look at the difference before committing. */
#include "../test.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"
#include "engine/qemu/arguments.h"

static struct err e;

static const struct machine_disk disks[] = { { "p0", false }, { "p1", false }, { "root", true }, { "v0", true } };

static struct qemu_machine plain(void)
{
	return (struct qemu_machine){ .program = "/usr/bin/qemu-system-x86_64", .type = "pc-q35-7.2", .id = "0123456789abcdef", .processors = 1,
				 .memory_bytes = UINT64_C(512) << 20, .disks = disks, .disk_count = ARRAY_SIZE(disks) };
}

/* One option and its value a line. */
static void compare(const struct qemu_machine *m, const char *name)
{
	own_str char *path = mem_printf("%s/tests/unit/engine/golden/%s.arguments", getenv("CARREL_SOURCE_ROOT"), name);
	own_strbuf struct str text = { 0 }, expected = { 0 };
	char **argv = NULL;

	assert_ok(machine_arguments(m, &argv, &e), &e);
	for (size_t i = 0; argv[i]; i++)
		str_printf(&text, "%s%s", i == 0 ? "" : *argv[i] == '-' ? "\n" : " ", argv[i]);
	str_putc(&text, '\n');
	machine_arguments_free(argv);
	if (getenv("GOLDEN_WRITE"))
		assert_ok(fs_write_file(AT_FDCWD, path, text.bytes, text.length, 0644, false, &e), &e);
	assert_ok(fs_read_file(AT_FDCWD, path, 1 << 20, &expected, &e), &e);
	assert_string_equal(str_text(&text), str_text(&expected));
}

static void test_emulator(void **state)
{
	(void)state;
	struct qemu_machine m = plain();
	compare(&m, "emulator");
}

static void test_kvm_with_everything(void **state)
{
	static const char *const macs[] = { "02:00:00:00:00:01", "02:00:00:00:00:02" };

	(void)state;
	struct qemu_machine m = plain();
	m.kvm = true;
	m.processors = 4;
	m.macs = macs;
	m.link_count = 2;
	m.vnc = "/machine/vnc";
	m.append = "systemd.unified_cgroup_hierarchy=1";
	compare(&m, "kvm");
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

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_emulator), cmocka_unit_test(test_kvm_with_everything),
					    cmocka_unit_test(test_many_disks), cmocka_unit_test(test_sizes) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
