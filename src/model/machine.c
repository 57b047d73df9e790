/* SPDX-License-Identifier: Apache-2.0 */
#include "model/machine.h"

#include <stddef.h>
#include <stdio.h>

#include "model/processor.h"

const char *const machine_firmware_names[] = { "auto", "bios", "uefi", NULL };
const char *const machine_bus_names[] = { "auto", "virtio", "sata", "nvme", NULL };
const char *const machine_nic_names[] = { "auto", "virtio", "e1000", NULL };
static const char *const display_names[] = { "auto", "none", "vga", NULL };

#define W(member) offsetof(struct machine_wish, member)
static const struct field wish_fields[] = {
	{ "firmware", FIELD_ENUM, W(firmware), "bios or uefi; what the disk needs when auto", .names = machine_firmware_names },
	{ "disk-bus", FIELD_ENUM, W(disk_bus), "how disks are attached: virtio, sata (for guests without other drivers), nvme",
	  .names = machine_bus_names },
	{ "nic", FIELD_ENUM, W(nic), "network card: virtio or e1000", .names = machine_nic_names },
	{ "display", FIELD_ENUM, W(display), "vga, which carrel display shows, or none: boot messages go to the console",
	  .names = display_names },
	{ "cpu", FIELD_TEXT, W(cpu), "processor of any machine: baseline (what all hosts of the pool have), host (KVM only), "
	  "max, a level like x86-64-v2, or a model of QEMU's; baseline when missing", .max = 64,
	  .check = processor_check_wish },
	{ 0 },
};
const struct shape machine_wish_shape = { "machine", sizeof(struct machine_wish), wish_fields,
					  "The processor of a machine, and the devices of one that boots a disk.", NULL };

#define M(member) offsetof(struct image_machine, member)
static const struct field image_fields[] = {
	{ "firmware", FIELD_ENUM, M(firmware), "what boots it", .names = machine_firmware_names },
	{ "disk-bus", FIELD_ENUM, M(disk_bus), "how its disks are attached", .names = machine_bus_names },
	{ "nic", FIELD_ENUM, M(nic), "its network card", .names = machine_nic_names },
	{ "cpu", FIELD_MILLI, M(cpu_milli), "processors it asks for" },
	{ "memory", FIELD_BYTES, M(memory_bytes), "memory it asks for" },
	{ 0 },
};
const struct shape image_machine_shape = { "image-machine", sizeof(struct image_machine), image_fields,
					   "What the disks of an image need." };

static unsigned first(unsigned a, unsigned b, unsigned otherwise) { return a ? a : b ? b : otherwise; }

struct machine_wish machine_choose(const struct machine_wish *wish, const struct image_machine *image)
{
	static const struct machine_wish none;
	static const struct image_machine nothing;
	const struct machine_wish *w = wish ? wish : &none;
	const struct image_machine *i = image ? image : &nothing;

	return (struct machine_wish){ first(w->firmware, i->firmware, FIRMWARE_BIOS),
				      first(w->disk_bus, i->disk_bus, BUS_VIRTIO), first(w->nic, i->nic, NIC_VIRTIO),
				      first(w->display, DISPLAY_AUTO, DISPLAY_VGA) };
}

uint64_t machine_memory_wish(uint64_t spec_bytes, const struct image_machine *image)
{
	return spec_bytes || !image ? spec_bytes : image->memory_bytes;
}

const char *machine_disk_name(const struct machine_wish *wish, const struct image_machine *image, size_t partitions,
			      size_t number)
{
	static const char *const names[] = { "root", "disk1", "disk2", "disk3", "disk4", "disk5", "disk6", "disk7" };

	if (number < partitions)
		return number < sizeof names / sizeof names[0] ? names[number] : NULL;
	return number == partitions && machine_choose(wish, image).firmware == FIRMWARE_UEFI ? MACHINE_VARIABLES : NULL;
}

void machine_block_name(bool boots_disk, size_t number, char out[MACHINE_BLOCK_NAME])
{
	if (number == 0)
		(void)snprintf(out, MACHINE_BLOCK_NAME, "%s", boots_disk ? "disk0" : "root");
	else
		(void)snprintf(out, MACHINE_BLOCK_NAME, "%s%zu", boots_disk ? "volume" : "v", number - 1);
}
