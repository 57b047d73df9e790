/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. The machine is q35 with its version in the name, because its devices shall look the same to a memory image that is resumed
 * with a later QEMU. Nothing is there by default (-nodefaults): each word below is a decision.
 *
 *   slot 1      functions 0 the channel's virtio-serial, 1 random numbers, 2 display, on demand
 *   slot 2      a bridge to a bus of their own for networks: on pcie.0 itself nothing can be plugged in later
 *   slots 3-30  disks, eight functions each; 31 is the chipset's
 *
 * Memory is a memory file that is shared, so that a suspend need not copy it. Disks are descriptors of a set (-add-fd): QEMU's
 * block layer opens them again by "/dev/fdset/N" with the same access and no more. Locks are the agent's.
 */
#include "engine/qemu/arguments.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"

#define DEFAULT_MEMORY (UINT64_C(512) << 20)
#define FIRST_DISK_SLOT 3
#define LINK_SLOT 2

struct words {
	char **items;
	size_t count, room;
};

static void word(struct words *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void word(struct words *w, const char *fmt, ...)
{
	struct str text = { 0 };
	va_list args;

	va_start(args, fmt);
	str_vprintf(&text, fmt, args);
	va_end(args);
	MEM_PUSH_ROOM(w->items, w->count, w->room);
	w->items[w->count++] = str_take(&text);
}

unsigned machine_processors(uint64_t cpu_milli, unsigned host_processors)
{
	unsigned most = host_processors < MACHINE_PROCESSORS_MOST ? host_processors : MACHINE_PROCESSORS_MOST;
	uint64_t wanted = cpu_milli ? (cpu_milli + 999) / 1000 : 1;

	if (most == 0)
		most = 1;
	return wanted > most ? most : (unsigned)wanted;
}

uint64_t machine_memory(uint64_t memory_bytes)
{
	uint64_t bytes = memory_bytes ? memory_bytes >> 20 << 20 : DEFAULT_MEMORY;

	return bytes < MACHINE_MEMORY_LEAST ? MACHINE_MEMORY_LEAST : bytes;
}

static void add_board(struct words *w, const struct qemu_machine *m)
{
	word(w, "%s", m->program);
	word(w, "-name");
	word(w, "carrel-%s,debug-threads=on", m->id);
	word(w, "-nodefaults");
	word(w, "-no-user-config");
	word(w, "-no-reboot"); /* a machine that starts again is a new run: the agent's to decide */
	word(w, "-S");
	word(w, "-sandbox");
	word(w, "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
	word(w, "-machine");
	word(w, "%s,memory-backend=memory,usb=off,vmport=off,smm=off", m->type);
	word(w, "-accel");
	word(w, "%s", m->kvm ? "kvm" : "tcg,thread=multi");
	word(w, "-cpu");
	word(w, "%s", m->kvm ? "host" : "max");
	word(w, "-smp");
	word(w, "%u", m->processors);
	word(w, "-m");
	word(w, "%" PRIu64 "M", m->memory_bytes >> 20);
	word(w, "-object");
	word(w, "memory-backend-memfd,id=memory,size=%" PRIu64 "M,share=on", m->memory_bytes >> 20);
	word(w, "-rtc");
	word(w, "base=utc,clock=host");
}

static void add_kernel(struct words *w, const struct qemu_machine *m)
{
	word(w, "-kernel");
	word(w, MACHINE_KERNEL);
	word(w, "-initrd");
	word(w, MACHINE_INITRAMFS);
	word(w, "-append");
	word(w, "console=ttyS0 quiet panic=-1%s%s", m->append ? " " : "", m->append ? m->append : "");
}

static void add_socket(struct words *w, const char *name, int fd)
{
	word(w, "-chardev");
	word(w, "socket,id=%s,fd=%d", name, fd);
}

static void add_lines(struct words *w)
{
	add_socket(w, "qmp", MACHINE_FD_QMP);
	word(w, "-mon");
	word(w, "chardev=qmp,mode=control");
	add_socket(w, "console", MACHINE_FD_CONSOLE);
	word(w, "-serial");
	word(w, "chardev:console");
	add_socket(w, "channel", MACHINE_FD_CHANNEL);
	word(w, "-device");
	word(w, "virtio-serial-pci,id=serial,bus=pcie.0,addr=1.0,multifunction=on,max_ports=2");
	word(w, "-device");
	word(w, "virtserialport,bus=serial.0,nr=1,chardev=channel,name=" GUEST_PORT);
	word(w, "-object");
	word(w, "rng-random,id=random,filename=/dev/urandom");
	word(w, "-device");
	word(w, "virtio-rng-pci,rng=random,bus=pcie.0,addr=1.1");
}

static void add_display(struct words *w, const struct qemu_machine *m)
{
	word(w, "-display");
	word(w, "none");
	if (!m->vnc)
		return;
	word(w, "-device");
	word(w, "VGA,bus=pcie.0,addr=1.2");
	word(w, "-vnc");
	word(w, "unix:%s", m->vnc);
}

static void add_disk(struct words *w, const struct machine_disk *d, unsigned at)
{
	const char *multi = at % 8 == 0 ? ",multifunction=on" : "";

	word(w, "-add-fd");
	word(w, "fd=%u,set=%u", MACHINE_FD_DISKS + at, at + 1);
	word(w, "-blockdev");
	word(w, "driver=file,node-name=%s,filename=/dev/fdset/%u,locking=off,auto-read-only=off,%s", d->serial, at + 1,
	     d->writable ? "read-only=off,discard=unmap,detect-zeroes=unmap" : "read-only=on");
	word(w, "-device");
	word(w, "virtio-blk-pci,drive=%s,serial=%s,bus=pcie.0,addr=%x.%u%s%s", d->serial, d->serial, FIRST_DISK_SLOT + at / 8, at % 8, multi,
	     d->writable ? "" : ",write-cache=off");
}

/* "9:10:11" */
static char *fd_list(size_t first, unsigned count)
{
	struct str text = { 0 };

	for (unsigned i = 0; i < count; i++)
		str_printf(&text, "%s%zu", i ? ":" : "", first + i);
	return str_take(&text);
}

static void add_link(struct words *w, const struct qemu_machine *m, unsigned at)
{
	unsigned count = m->queues.count, each = count * (m->queues.vhost ? 2 : 1);
	size_t first = MACHINE_FD_DISKS + m->disk_count + (size_t)at * each;
	own_str char *taps = fd_list(first, count), *vhosts = fd_list(first + count, count);
	own_strbuf struct str netdev = { 0 }, device = { 0 };

	machine_link_words(&m->links[at], m->queues, taps, vhosts, &netdev, &device);
	word(w, "-netdev");
	word(w, "%s", str_text(&netdev));
	word(w, "-device");
	word(w, "%s", str_text(&device));
}

static void add_links(struct words *w, const struct qemu_machine *m)
{
	word(w, "-device");
	word(w, "pci-bridge,id=" MACHINE_LINK_BUS ",chassis_nr=1,bus=pcie.0,addr=%x.0", LINK_SLOT);
	for (unsigned i = 0; i < m->link_count; i++)
		add_link(w, m, i);
}

static int check(const struct qemu_machine *m, struct err *e)
{
	if (m->disk_count > MACHINE_DISKS_MOST)
		return err_set(e, ERR_UNSUPPORTED, "%zu partitions and volumes, a machine takes at most %d", m->disk_count, MACHINE_DISKS_MOST);
	if (m->link_count > MACHINE_LINKS_MOST)
		return err_set(e, ERR_UNSUPPORTED, "%zu networks, a machine takes at most %d", m->link_count, MACHINE_LINKS_MOST);
	for (size_t i = 0; i < m->link_count; i++)
		if (m->links[i].place >= MACHINE_LINKS_MOST)
			return err_set(e, ERR_UNSUPPORTED, "an interface with number %u, the highest of a machine is %d", m->links[i].place,
				       MACHINE_LINKS_MOST - 1);
	return 0;
}

int machine_arguments(const struct qemu_machine *m, char ***ret_argv, struct err *e)
{
	struct words w = { 0 };
	int r = check(m, e);

	if (r < 0)
		return r;
	add_board(&w, m);
	add_kernel(&w, m);
	add_lines(&w);
	add_display(&w, m);
	for (unsigned i = 0; i < m->disk_count; i++)
		add_disk(&w, &m->disks[i], i);
	add_links(&w, m);
	MEM_PUSH_ROOM(w.items, w.count, w.room);
	w.items[w.count] = NULL;
	*ret_argv = w.items;
	return 0;
}

void machine_arguments_free(char **argv)
{
	for (size_t i = 0; argv && argv[i]; i++)
		free(argv[i]);
	free(argv);
}
