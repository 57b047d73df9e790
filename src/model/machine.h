/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MODEL_MACHINE_H
#define MODEL_MACHINE_H

/*
 * What a machine that boots a disk shows its guest. An image says what its disk needs, a spec may say otherwise; AUTO in both
 * leaves it to what was found on the disk.
 */

#include "base/decode.h"

enum machine_firmware { FIRMWARE_AUTO, FIRMWARE_BIOS, FIRMWARE_UEFI };
enum machine_bus { BUS_AUTO, BUS_VIRTIO, BUS_SATA, BUS_NVME };
enum machine_nic { NIC_AUTO, NIC_VIRTIO, NIC_E1000 };
enum machine_display { DISPLAY_AUTO, DISPLAY_NONE, DISPLAY_VGA };
extern const char *const machine_firmware_names[], *const machine_bus_names[], *const machine_nic_names[];

struct machine_wish { /* of a spec */
	unsigned firmware, disk_bus, nic, display;
	char *cpu; /* model/processor.h; NULL: the pool's baseline */
};

struct image_machine { /* of an image: there is one exactly when its partitions are raw disks, the first of which is booted */
	unsigned firmware, disk_bus, nic;
	uint64_t cpu_milli, memory_bytes; /* that it asks for; 0: it does not say */
};

/* What such a workspace has in place of a root volume: a disk above each partition of its image, in their order, and last, with
 * UEFI, what that remembers. NULL: there are no more. */
#define MACHINE_VARIABLES "nvram"
const char *machine_disk_name(const struct machine_wish *wish, const struct image_machine *image, size_t partitions,
			      size_t number);

extern const struct shape machine_wish_shape, image_machine_shape;

/* The wish, else the image's; nothing of it is AUTO. */
struct machine_wish machine_choose(const struct machine_wish *wish, const struct image_machine *image);
uint64_t machine_memory_wish(uint64_t spec_bytes, const struct image_machine *image);

#define MACHINE_BLOCK_NAME 32
/* What QEMU and the guest call the workspace's writable disk `number`: 0 the root, then its volumes. */
void machine_block_name(bool boots_disk, size_t number, char out[MACHINE_BLOCK_NAME]);

#endif
