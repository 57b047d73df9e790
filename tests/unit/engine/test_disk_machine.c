/* SPDX-License-Identifier: Apache-2.0 */
/* Machines that boot disks against the command lines they must give. CARREL_GOLDEN=update writes the files anew. */
#include "arguments.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"
#include "engine/qemu/disk_machine.h"

static struct err e;

static const struct launch_volume volumes[] = { { .name = "data" }, { .name = "a-name-that-is-longer-than-serials",
								      .read_only = true } };
static const struct machine_link links[] = { { "02:00:00:00:00:01", 0 } };

static struct disk_machine plain(unsigned firmware, unsigned bus, unsigned nic, unsigned display)
{
	return (struct disk_machine){
		.machine = { .board = machine_board("amd64"), .type = "pc-q35-7.2", .cpu = "qemu64,+avx2",
			     .id = "0123456789abcdef", .processors = 2, .memory_bytes = UINT64_C(1) << 30, .links = links,
			     .link_count = 1, .queues = { .count = 1, .e1000 = nic == NIC_E1000 } },
		.wish = { firmware, bus, nic, display },
		.disk_count = 2,
		.volumes = volumes,
		.volume_count = 2,
	};
}

static void compare(const struct disk_machine *d, const char *name)
{
	char **argv = NULL;

	assert_ok(disk_machine_arguments(d, &argv, &e), &e);
	compare_arguments(argv, name);
}

static void test_bios_and_virtio(void **state)
{
	(void)state;
	struct disk_machine d = plain(FIRMWARE_BIOS, BUS_VIRTIO, NIC_VIRTIO, DISPLAY_VGA);
	compare(&d, "disk-bios");
	assert_int_equal(disk_machine_fds(&d), 2 * 2 + 2 + 1);
}

static void test_uefi_and_old_devices(void **state)
{
	(void)state;
	struct disk_machine d = plain(FIRMWARE_UEFI, BUS_SATA, NIC_E1000, DISPLAY_NONE);
	char **argv = NULL;
	assert_int_equal(disk_machine_arguments(&d, &argv, &e), -EOPNOTSUPP); /* a read-only volume */
	d.volume_count = 1;
	compare(&d, "disk-uefi-sata");
	assert_int_equal(disk_machine_fds(&d), 2 * 2 + 1 + 2 + 1);
}

static void test_nvme(void **state)
{
	(void)state;
	struct disk_machine d = plain(FIRMWARE_BIOS, BUS_NVME, NIC_VIRTIO, DISPLAY_VGA);
	compare(&d, "disk-nvme");
}

/* Memory in a file, going on from a state; what fits to it does not hang on that. */
static void test_resumed(void **state)
{
	(void)state;
	struct disk_machine d = plain(FIRMWARE_UEFI, BUS_VIRTIO, NIC_VIRTIO, DISPLAY_VGA);
	char before[DIGEST_TEXT_SIZE], after[DIGEST_TEXT_SIZE], **argv = NULL;

	assert_ok(disk_machine_arguments(&d, &argv, &e), &e);
	machine_layout(argv, before);
	machine_arguments_free(argv);
	d.machine.memory_file = d.machine.incoming = true;
	compare(&d, "disk-resumed");
	assert_ok(disk_machine_arguments(&d, &argv, &e), &e);
	machine_layout(argv, after);
	machine_arguments_free(argv);
	assert_string_equal(before, after);
	d.wish.disk_bus = BUS_SATA;
	d.volume_count = 0;
	assert_ok(disk_machine_arguments(&d, &argv, &e), &e);
	machine_layout(argv, after);
	machine_arguments_free(argv);
	assert_string_not_equal(before, after);
}

static void test_more_disks_than_ports(void **state)
{
	char **argv = NULL;

	(void)state;
	struct disk_machine d = plain(FIRMWARE_BIOS, BUS_SATA, NIC_VIRTIO, DISPLAY_VGA);
	d.disk_count = DISK_MACHINE_SATA_MOST;
	d.volume_count = 1;
	assert_int_equal(disk_machine_arguments(&d, &argv, &e), -EOPNOTSUPP);
	assert_non_null(strstr(e.hint, "virtio"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bios_and_virtio),
		cmocka_unit_test(test_uefi_and_old_devices),
		cmocka_unit_test(test_nvme),
		cmocka_unit_test(test_resumed),
		cmocka_unit_test(test_more_disks_than_ports),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
