/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_QEMU_ARGUMENTS_H
#define ENGINE_QEMU_ARGUMENTS_H

/*
 * A machine as QEMU's command line. Pure: the same machine gives the same words, and every device has its fixed place on the
 * bus.
 *
 * QEMU opens nothing of the host's by name but its own libraries and firmware, the kernel and the initramfs: disks, the memory
 * file, sockets and taps are descriptors that it inherits, numbered from 3 on in the order of enum machine_fd.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/hash.h"
#include "model/board.h"
#include "engine/qemu/link.h"
#include "model/guest_protocol.h"

/* Descriptors as QEMU has them. Disks follow in the order of `disks`, then for each link its queues' taps and, with vhost, as
 * many of /dev/vhost-net. */
enum machine_fd { MACHINE_FD_QMP = 3, MACHINE_FD_CHANNEL, MACHINE_FD_CONSOLE, MACHINE_FD_DISKS };

#define MACHINE_DISKS_MOST 224 /* 28 slots of pcie.0, 8 functions each */
#define MACHINE_PROCESSORS_MOST 64
#define MACHINE_MEMORY_LEAST (UINT64_C(128) << 20)
/* of QEMU itself, on top of the guest's memory: translated code, queues, libraries */
#define MACHINE_ALLOWANCE (UINT64_C(192) << 20)

/* Places in QEMU's own file system. */
#define MACHINE_KERNEL "/machine/kernel"
#define MACHINE_INITRAMFS "/machine/initramfs"
#define MACHINE_MEMORY "/machine/memory"
#define MACHINE_PRIVATE "/machine/private-memory.so"

struct machine_disk {
	char serial[GUEST_SERIAL_LONGEST + 1];
	bool writable;
};

struct qemu_machine {
	const struct machine_board *board;
	const char *type;     /* with its version: "pc-q35-7.2" */
	const char *cpu;      /* as QEMU has it */
	const char *id;       /* the workspace's: names the process */
	bool kvm;
	bool system;          /* it runs the image's own init */
	unsigned processors;
	uint64_t memory_bytes;
	bool memory_file;     /* MACHINE_MEMORY; otherwise QEMU makes one of its own */
	bool incoming;        /* waits for a state */
	const struct machine_disk *disks;
	size_t disk_count;
	const struct machine_link *links;
	size_t link_count;
	struct machine_queues queues;
	const char *vnc;      /* socket, a path as QEMU sees it; NULL: no display */
};

/* What a workspace's limits mean for a machine: whole processors, whole megabytes. 0: no limit: one processor, 512 MiB. */
unsigned machine_processors(uint64_t cpu_milli, unsigned host_processors);
uint64_t machine_memory(uint64_t memory_bytes);

/* The command line, NULL-terminated; freed with machine_arguments_free. */
int machine_arguments(const struct qemu_machine *m, char ***ret_argv, struct err *e) must_check;
void machine_arguments_free(char **argv);
/* What a device state fits to: all words but names, paths and descriptors of the host's, and what becomes of the memory. */
void machine_layout(char *const *argv, char out[DIGEST_TEXT_SIZE]);

#endif
