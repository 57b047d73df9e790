/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_QEMU_DISK_MACHINE_H
#define ENGINE_QEMU_DISK_MACHINE_H

/*
 * A machine that boots a disk as it is, as QEMU's command line. Pure. What differs from other machines: firmware in place of a
 * kernel, a disk that each workspace has on top of a partition it shares, a seed for cloud-init, QEMU's guest agent on the
 * channel, and devices that a guest without virtio drivers knows.
 *
 * Descriptors follow MACHINE_FD_DISKS in this order: for each partition its file and the workspace's own disk above it; data
 * volumes; with UEFI, firmware and variables; the seed; then taps.
 */

#include "base/err.h"
#include "engine/launch.h"
#include "engine/qemu/arguments.h"

#define DISK_MACHINE_SATA_MOST 5 /* ports of the board; one more is the seed's */
#define DISK_MACHINE_AGENT "org.qemu.guest_agent.0"

struct disk_machine {
	struct qemu_machine machine; /* without disks; links as there */
	struct machine_wish wish;    /* nothing AUTO */
	size_t disk_count;           /* partitions, each with a disk above it */
	const struct launch_volume *volumes;
	size_t volume_count;
};

/* How many descriptors it wants, taps aside. */
size_t disk_machine_fds(const struct disk_machine *d);
/* The command line, NULL-terminated; freed with machine_arguments_free. */
int disk_machine_arguments(const struct disk_machine *d, char ***ret_argv, struct err *e) must_check;

#endif
