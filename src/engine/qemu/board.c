/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/qemu/board.h"

#include <sys/utsname.h>

#include "base/str.h"

#define LIBRARIES "/lib", "/lib64", "/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib/riscv64-linux-gnu", "/usr/lib64", "/etc/ld.so.cache"

static const char *const of_x86_64[] = { "/usr/bin/qemu-system-x86_64", LIBRARIES, "/usr/share/qemu", "/usr/share/seabios", "/usr/lib/ipxe", NULL };
static const char *const of_aarch64[] = { "/usr/bin/qemu-system-aarch64", LIBRARIES, "/usr/share/qemu", "/usr/lib/ipxe", NULL };
static const char *const of_riscv64[] = { "/usr/bin/qemu-system-riscv64", LIBRARIES, "/usr/share/qemu", "/usr/lib/ipxe", NULL };

const struct machine_board machine_boards[] = {
	{ "amd64", "x86_64", "/usr/bin/qemu-system-x86_64", "qemu-system-x86", "pc-q35-", NULL, "usb=off,vmport=off,smm=off", "ttyS0", of_x86_64, NULL, NULL,
	  "/usr/bin/qemu-x86_64-static" },
	{ "arm64", "aarch64", "/usr/bin/qemu-system-aarch64", "qemu-system-arm", "virt-", NULL, "usb=off,gic-version=3", "ttyAMA0", of_aarch64, NULL, NULL,
	  "/usr/bin/qemu-aarch64-static" },
	{ "riscv64", "riscv64", "/usr/bin/qemu-system-riscv64", "qemu-system-misc", NULL, "virt", "usb=off", "ttyS0", of_riscv64,
	  "/usr/share/qemu/opensbi-riscv64-generic-fw_dynamic.bin", "opensbi", "/usr/bin/qemu-riscv64-static" },
	{ 0 },
};

const struct machine_board *machine_board(const char *architecture)
{
	for (const struct machine_board *b = machine_boards; b->architecture; b++)
		if (str_eq(b->architecture, architecture))
			return b;
	return NULL;
}

const struct machine_board *machine_board_here(void)
{
	struct utsname u;

	if (uname(&u) < 0)
		return NULL;
	for (const struct machine_board *b = machine_boards; b->architecture; b++)
		if (str_eq(b->machine, u.machine))
			return b;
	return NULL;
}
