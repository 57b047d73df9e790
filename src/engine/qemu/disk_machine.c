/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. The partition is read-only and the same file for all machines of a host; above it each workspace has a qcow2 that
 * names no file: which node lies below it is said here, and a name in its header would not be followed, for QEMU may have
 * written anything there. Places on the bus are those of other machines (arguments.c):
 *
 *   slot 1      functions 0 virtio-serial, 1 random numbers, 2 display, 3 USB for its pointer
 *   slot 2      networks
 *   slots 3-30  disks: virtio or nvme; with SATA they are at the chipset's six ports
 *
 * A reset of the guest resets the machine and ends nothing: installers do that.
 */
#include "engine/qemu/disk_machine.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"
#include "engine/qemu/arguments_private.h"

#define FIRST_DISK_SLOT 3
#define LINK_SLOT 2
#define SERIAL_MOST 20

struct words {
	struct machine_words list;
	unsigned fd;    /* the next descriptor */
	unsigned place; /* the next disk's */
	unsigned port;  /* the next of the chipset's */
};

#define word(w, ...) machine_word(&(w)->list, __VA_ARGS__)

/* A word and its value. */
#define OPTION(w, name, ...)                                                                                                   \
	do {                                                                                                                   \
		word(w, "%s", name);                                                                                           \
		word(w, __VA_ARGS__);                                                                                          \
	} while (0)

/* --- board --- */

static void add_board(struct words *w, const struct disk_machine *d)
{
	const struct qemu_machine *m = &d->machine;

	word(w, "%s", m->board->program);
	OPTION(w, "-name", "carrel-%s,debug-threads=on", m->id);
	word(w, "-nodefaults");
	word(w, "-no-user-config");
	word(w, "-S");
	OPTION(w, "-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
	OPTION(w, "-machine", "%s,memory-backend=memory,%s%s%s", m->type, m->board->options,
	       d->wish.display == DISPLAY_NONE ? ",graphics=off" : "",
	       d->wish.firmware == FIRMWARE_UEFI ? ",pflash0=firmware,pflash1=variables" : "");
	if (m->kvm)
		OPTION(w, "-accel", "kvm");
	else
		OPTION(w, "-accel", "tcg,thread=multi,tb-size=%u", TRANSLATED_MIB);
	OPTION(w, "-cpu", "%s", m->cpu);
	OPTION(w, "-smp", "%u", m->processors);
	OPTION(w, "-m", "%" PRIu64 "M", m->memory_bytes >> 20);
	if (m->memory_file)
		OPTION(w, "-object", "memory-backend-file,id=memory,size=%" PRIu64 "M,mem-path=" MACHINE_MEMORY ",share=on",
		       m->memory_bytes >> 20);
	else
		OPTION(w, "-object", "memory-backend-memfd,id=memory,size=%" PRIu64 "M,share=on", m->memory_bytes >> 20);
	if (m->incoming)
		OPTION(w, "-incoming", "defer");
	OPTION(w, "-rtc", "base=utc,clock=host");
}

static void add_socket(struct words *w, const char *name, int fd) { OPTION(w, "-chardev", "socket,id=%s,fd=%d", name, fd); }

static void add_lines(struct words *w)
{
	add_socket(w, "qmp", MACHINE_FD_QMP);
	OPTION(w, "-mon", "chardev=qmp,mode=control");
	add_socket(w, "console", MACHINE_FD_CONSOLE);
	OPTION(w, "-serial", "chardev:console");
	add_socket(w, "channel", MACHINE_FD_CHANNEL);
	OPTION(w, "-device", "virtio-serial-pci,id=serial,bus=pcie.0,addr=1.0,multifunction=on,max_ports=2");
	OPTION(w, "-device", "virtserialport,bus=serial.0,nr=1,chardev=channel,name=" DISK_MACHINE_AGENT);
	OPTION(w, "-object", "rng-random,id=random,filename=/dev/urandom");
	OPTION(w, "-device", "virtio-rng-pci,rng=random,bus=pcie.0,addr=1.1");
}

/* Viewers come as descriptors (add_client): QEMU listens nowhere. */
static void add_display(struct words *w, const struct disk_machine *d)
{
	OPTION(w, "-display", "none");
	if (d->wish.display == DISPLAY_NONE)
		return;
	OPTION(w, "-device", "VGA,bus=pcie.0,addr=1.2");
	OPTION(w, "-device", "qemu-xhci,id=usb,bus=pcie.0,addr=1.3");
	OPTION(w, "-device", "usb-tablet,bus=usb.0,port=1");
	OPTION(w, "-vnc", "none");
}

/* --- disks --- */

static void add_file(struct words *w, const char *node, bool writable)
{
	unsigned set = w->fd - MACHINE_FD_DISKS + 1;

	OPTION(w, "-add-fd", "fd=%u,set=%u", w->fd++, set);
	OPTION(w, "-blockdev", "driver=file,node-name=%s,filename=/dev/fdset/%u,locking=off,auto-read-only=off,%s", node, set,
	       writable ? "read-only=off,discard=unmap" : "read-only=on");
}

static void add_slot(struct words *w, const char *driver, const char *node, const char *serial, const char *more)
{
	unsigned at = w->place++;

	OPTION(w, "-device", "%s,drive=%s,serial=%.*s,bus=pcie.0,addr=%x.%u%s%s", driver, node, SERIAL_MOST, serial,
	       FIRST_DISK_SLOT + at / 8, at % 8, at % 8 == 0 ? ",multifunction=on" : "", more);
}

static void add_device(struct words *w, const struct disk_machine *d, const char *node, const char *serial, const char *more)
{
	if (d->wish.disk_bus == BUS_SATA)
		OPTION(w, "-device", "ide-hd,drive=%s,serial=%.*s,bus=ide.%u%s", node, SERIAL_MOST, serial, w->port++, more);
	else
		add_slot(w, d->wish.disk_bus == BUS_NVME ? "nvme" : "virtio-blk-pci", node, serial, more);
}

static void add_disk(struct words *w, const struct disk_machine *d, size_t number)
{
	char below[32], file[32], disk[32], boot[32];

	(void)snprintf(below, sizeof below, "below%zu", number);
	(void)snprintf(file, sizeof file, "file%zu", number);
	(void)snprintf(disk, sizeof disk, "disk%zu", number);
	(void)snprintf(boot, sizeof boot, ",bootindex=%zu", number);
	add_file(w, below, false);
	add_file(w, file, true);
	OPTION(w, "-blockdev", "driver=qcow2,node-name=%s,file=%s,backing=%s,discard=unmap,detect-zeroes=unmap", disk, file,
	       below);
	add_device(w, d, disk, disk, boot);
}

static void add_volume(struct words *w, const struct disk_machine *d, size_t number)
{
	char file[32], node[32];

	/* its descriptor is open for both, and QEMU takes it no other way */
	(void)snprintf(file, sizeof file, "volume%zu-file", number);
	(void)snprintf(node, sizeof node, "volume%zu", number);
	add_file(w, file, true);
	OPTION(w, "-blockdev", "driver=raw,node-name=%s,file=%s,%s", node, file,
	       d->volumes[number].read_only ? "read-only=on" : "discard=unmap,detect-zeroes=unmap");
	add_device(w, d, node, d->volumes[number].name, "");
}

/* A read-only SATA disk does not exist, a CD does. */
static void add_seed(struct words *w, const struct disk_machine *d)
{
	add_file(w, "seed", false);
	if (d->wish.disk_bus == BUS_SATA)
		OPTION(w, "-device", "ide-cd,drive=seed,serial=seed,bus=ide.%d", DISK_MACHINE_SATA_MOST);
	else
		add_slot(w, "virtio-blk-pci", "seed", "seed", ",write-cache=off");
}

/* --- networks --- */

static char *fd_list(unsigned first, unsigned count)
{
	struct str text = { 0 };

	for (unsigned i = 0; i < count; i++)
		str_printf(&text, "%s%u", i ? ":" : "", first + i);
	return str_take(&text);
}

static void add_links(struct words *w, const struct qemu_machine *m)
{
	OPTION(w, "-device", "pci-bridge,id=" MACHINE_LINK_BUS ",chassis_nr=1,bus=pcie.0,addr=%x.0", LINK_SLOT);
	for (size_t i = 0; i < m->link_count; i++) {
		unsigned count = m->queues.count;
		own_str char *taps = fd_list(w->fd, count), *vhosts = fd_list(w->fd + count, count);
		own_strbuf struct str netdev = { 0 }, device = { 0 };
		machine_link_words(&m->links[i], m->queues, taps, vhosts, &netdev, &device);
		OPTION(w, "-netdev", "%s", str_text(&netdev));
		OPTION(w, "-device", "%s", str_text(&device));
		w->fd += count * (m->queues.vhost ? 2 : 1);
	}
}

/* --- all of it --- */

static int check(const struct disk_machine *d, struct err *e)
{
	size_t disks = d->disk_count + d->volume_count;
	size_t most = d->wish.disk_bus == BUS_SATA ? DISK_MACHINE_SATA_MOST : MACHINE_DISKS_MOST / 4;

	for (size_t i = 0; i < d->volume_count; i++)
		if (d->volumes[i].read_only && d->wish.disk_bus == BUS_SATA)
			return err_set(e, ERR_UNSUPPORTED, "volume %s is read-only, which SATA disks cannot be",
				       d->volumes[i].name);
	if (disks <= most)
		return 0;
	(void)err_set(e, ERR_UNSUPPORTED, "%zu disks and volumes, a machine with this disk bus takes at most %zu", disks, most);
	return d->wish.disk_bus == BUS_SATA ? err_hint(e, "disk-bus virtio takes more") : -e->number;
}

size_t disk_machine_fds(const struct disk_machine *d)
{
	return 2 * d->disk_count + d->volume_count + (d->wish.firmware == FIRMWARE_UEFI ? 2 : 0) + 1;
}

int disk_machine_arguments(const struct disk_machine *d, char ***ret_argv, struct err *e)
{
	struct words w = { .fd = MACHINE_FD_DISKS };
	int r = check(d, e);

	if (r < 0)
		return r;
	add_board(&w, d);
	add_lines(&w);
	add_display(&w, d);
	for (size_t i = 0; i < d->disk_count; i++)
		add_disk(&w, d, i);
	for (size_t i = 0; i < d->volume_count; i++)
		add_volume(&w, d, i);
	if (d->wish.firmware == FIRMWARE_UEFI) {
		add_file(&w, "firmware", false);
		add_file(&w, "variables", true);
	}
	add_seed(&w, d);
	add_links(&w, &d->machine);
	MEM_PUSH_ROOM(w.list.items, w.list.count, w.list.room);
	w.list.items[w.list.count] = NULL;
	*ret_argv = w.list.items;
	return 0;
}
