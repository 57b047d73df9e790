/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The devices of a machine. Places on the bus:
 *
 *   slot 1      functions 0 the channel's virtio-serial, 1 random numbers, 2 display, on demand
 *   slot 2      a bridge to a bus of their own for networks: on pcie.0 itself nothing can be plugged in later
 *   slots 3-30  disks, eight functions each; 31 is the chipset's
 */
#include "engine/qemu/arguments_private.h"

#include "base/own.h"
#include "base/str.h"

#define FIRST_DISK_SLOT 3
#define LINK_SLOT 2

static void add_socket(struct machine_words *w, const char *name, int fd)
{
	machine_word(w, "-chardev");
	machine_word(w, "socket,id=%s,fd=%d", name, fd);
}

static void add_lines(struct machine_words *w)
{
	add_socket(w, "qmp", MACHINE_FD_QMP);
	machine_word(w, "-mon");
	machine_word(w, "chardev=qmp,mode=control");
	add_socket(w, "console", MACHINE_FD_CONSOLE);
	machine_word(w, "-serial");
	machine_word(w, "chardev:console");
	add_socket(w, "channel", MACHINE_FD_CHANNEL);
	machine_word(w, "-device");
	machine_word(w, "virtio-serial-pci,id=serial,bus=pcie.0,addr=1.0,multifunction=on,max_ports=2");
	machine_word(w, "-device");
	machine_word(w, "virtserialport,bus=serial.0,nr=1,chardev=channel,name=" GUEST_PORT);
	machine_word(w, "-object");
	machine_word(w, "rng-random,id=random,filename=/dev/urandom");
	machine_word(w, "-device");
	machine_word(w, "virtio-rng-pci,rng=random,bus=pcie.0,addr=1.1");
}

static void add_display(struct machine_words *w, const struct qemu_machine *m)
{
	machine_word(w, "-display");
	machine_word(w, "none");
	if (!m->vnc)
		return;
	machine_word(w, "-device");
	machine_word(w, "VGA,bus=pcie.0,addr=1.2");
	machine_word(w, "-vnc");
	machine_word(w, "unix:%s", m->vnc);
}

static void add_disk(struct machine_words *w, const struct machine_disk *d, unsigned at)
{
	const char *multi = at % 8 == 0 ? ",multifunction=on" : "";

	machine_word(w, "-add-fd");
	machine_word(w, "fd=%u,set=%u", MACHINE_FD_DISKS + at, at + 1);
	machine_word(w, "-blockdev");
	machine_word(w, "driver=file,node-name=%s,filename=/dev/fdset/%u,locking=off,auto-read-only=off,%s", d->serial, at + 1,
	     d->writable ? "read-only=off,discard=unmap,detect-zeroes=unmap" : "read-only=on");
	machine_word(w, "-device");
	machine_word(w, "virtio-blk-pci,drive=%s,serial=%s,bus=pcie.0,addr=%x.%u%s%s", d->serial, d->serial,
		     FIRST_DISK_SLOT + at / 8, at % 8, multi, d->writable ? "" : ",write-cache=off");
}

/* "9:10:11" */
static char *fd_list(size_t first, unsigned count)
{
	struct str text = { 0 };

	for (unsigned i = 0; i < count; i++)
		str_printf(&text, "%s%zu", i ? ":" : "", first + i);
	return str_take(&text);
}

static void add_link(struct machine_words *w, const struct qemu_machine *m, unsigned at)
{
	unsigned count = m->queues.count, each = count * (m->queues.vhost ? 2 : 1);
	size_t first = MACHINE_FD_DISKS + m->disk_count + (size_t)at * each;
	own_str char *taps = fd_list(first, count), *vhosts = fd_list(first + count, count);
	own_strbuf struct str netdev = { 0 }, device = { 0 };

	machine_link_words(&m->links[at], m->queues, taps, vhosts, &netdev, &device);
	machine_word(w, "-netdev");
	machine_word(w, "%s", str_text(&netdev));
	machine_word(w, "-device");
	machine_word(w, "%s", str_text(&device));
}

static void add_links(struct machine_words *w, const struct qemu_machine *m)
{
	machine_word(w, "-device");
	machine_word(w, "pci-bridge,id=" MACHINE_LINK_BUS ",chassis_nr=1,bus=pcie.0,addr=%x.0", LINK_SLOT);
	for (unsigned i = 0; i < m->link_count; i++)
		add_link(w, m, i);
}

void machine_add_devices(struct machine_words *w, const struct qemu_machine *m)
{
	add_lines(w);
	add_display(w, m);
	for (unsigned i = 0; i < m->disk_count; i++)
		add_disk(w, &m->disks[i], i);
	add_links(w, m);
}
