/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_QEMU_MACHINE_PLAN_H
#define ENGINE_QEMU_MACHINE_PLAN_H

/*
 * What carrel-run does for a workspace that is a machine, as plain data: made by the agent, handed over in the same way as a
 * plan of the workspace engine (docs/formats/plan.md), from which its first word tells it apart. A second message brings the
 * disks, in the order of the arguments: files of partitions, open for reading, then of volumes, open for both.
 */

#include "base/str.h"
#include "model/guest_protocol.h"

#define MACHINE_MAGIC UINT64_C(0x314d5043) /* "CPM1" */

/* docs/formats/template.md */
enum machine_template {
	TEMPLATE_NONE,
	TEMPLATE_MADE, /* it has started when carrel-init waits for its configuration, and gets none */
	TEMPLATE_USED,
	/* it goes on from there: after the disks comes the state's file. A failed start has the number EBADMSG if
			* QEMU does not take the state, else ESTALE */
};

struct machine_plan {
	struct guest_bytes host;   /* struct plan: what is the runner's own: run folder, log, cgroups, flags. It has no steps */
	struct guest_bytes config; /* struct guest_config, without seed and clock */
	struct guest_bytes identity; /* of a clone: struct guest_identity, without seed and clock; empty: it stays who it is */
	struct guest_texts argv;
	struct guest_texts places; /* folders and files of the host that QEMU sees, read-only, under their own names */
	char *kernel, *initramfs;  /* files */
	uint64_t disks;            /* descriptors in the second message */
	uint64_t id;               /* user and group that QEMU runs as */
	uint64_t kvm;              /* 0 or 1: it gets /dev/kvm */
	uint64_t queues;           /* of each interface in `host`: taps, made by the runner, after the disks */
	uint64_t vhost;            /* 0 or 1: and as many descriptors of /dev/vhost-net */
	uint64_t boots_disk;       /* 0 or 1: nobody of ours is inside: no config, kernel and initramfs are empty */
	uint64_t e1000;            /* 0 or 1: interfaces are this card's in place of virtio's */
	uint64_t fixed_links;      /* 0 or 1: a board without ACPI: interfaces cannot be plugged in while it runs */
	char *memory;              /* file that is the machine's memory; empty: none, it is QEMU's own */
	uint64_t private_memory;   /* 0 or 1: the file stays as it is: what is written are copies of its pages */
	char *private_shim;        /* with private_memory: what makes QEMU map it so (private_memory.c) */
	uint64_t template;         /* enum machine_template */
	/* 0 or 1: it goes on from a state: after the disks come the memory folder and the state's file */
	uint64_t resumes;
	uint64_t waits;            /* 0 or 1: and at last a pipe: a byte comes from it when the memory is whole */
	uint64_t travels;          /* 0 or 1: its workspace can depart */
	/* 0 or 1: and arrives: after the disks comes the folder of the memory state, whose images are on a disk */
	uint64_t arrives;
	uint64_t display;          /* 0 or 1: of one that boots a disk: it takes viewers */
	/* file that takes the ids of its virtual processors' threads; empty: they stay where they are */
	char *processors;
	uint64_t boot_ms;          /* until carrel-init must have said hello; then it is started once more */
};

void machine_plan_encode(const struct machine_plan *p, struct str *out);
/* Whether these bytes are such a plan. */
bool machine_plan_is(const void *bytes, size_t length);
int machine_plan_decode(const void *bytes, size_t length, struct machine_plan *ret_plan, struct err *e) must_check;
void machine_plan_done(struct machine_plan *p);

#endif
