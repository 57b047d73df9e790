/* SPDX-License-Identifier: Apache-2.0 */
#include "model/board.h"

#include <elf.h>
#include <sys/utsname.h>

#include "base/mem.h"
#include "base/str.h"

#define LIBRARIES \
	"/lib", "/lib64", "/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib/riscv64-linux-gnu", \
	"/usr/lib64", "/etc/ld.so.cache"

static const char *const of_x86_64[] = { "/usr/bin/qemu-system-x86_64", LIBRARIES,       "/usr/share/qemu",
					 "/usr/share/seabios",          "/usr/lib/ipxe", NULL };
static const char *const of_aarch64[] = { "/usr/bin/qemu-system-aarch64", LIBRARIES, "/usr/share/qemu", "/usr/lib/ipxe", NULL };
static const char *const of_riscv64[] = { "/usr/bin/qemu-system-riscv64", LIBRARIES, "/usr/share/qemu", "/usr/lib/ipxe", NULL };

const struct machine_board machine_boards[] = {
	{ .architecture = "amd64", .machine = "x86_64", .program = "/usr/bin/qemu-system-x86_64", .package = "qemu-system-x86",
	  .type_prefix = "pc-q35-", .options = "usb=off,vmport=off,smm=off", .console = "ttyS0",
	  /* under an emulator that gets no processor for a moment, the check whether the timer ticks ends in a panic */
	  .words = " no_timer_check", .places = of_x86_64,
	  .elf_machine = EM_X86_64, .user_program = "/usr/bin/qemu-x86_64-static" },
	{ .architecture = "arm64", .machine = "aarch64", .program = "/usr/bin/qemu-system-aarch64",
	  .package = "qemu-system-arm", .type_prefix = "virt-", .options = "usb=off,gic-version=3", .console = "ttyAMA0",
	  .places = of_aarch64, .elf_machine = EM_AARCH64, .user_program = "/usr/bin/qemu-aarch64-static" },
	{ .architecture = "riscv64", .machine = "riscv64", .program = "/usr/bin/qemu-system-riscv64",
	  .package = "qemu-system-misc", .type = "virt", .options = "usb=off", .console = "ttyS0", .places = of_riscv64,
	  .firmware = "/usr/share/qemu/opensbi-riscv64-generic-fw_dynamic.bin", .firmware_package = "opensbi",
	  .elf_machine = EM_RISCV, .user_program = "/usr/bin/qemu-riscv64-static" },
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

/* 64-bit, little-endian; e_type is 2 or 3, and what else stands in e_ident does not matter where the mask is 0. */
char *machine_board_programs(const struct machine_board *board)
{
	static const char magic[] = "\\x7fELF\\x02\\x01\\x01\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x02\\x00";
	static const char mask[] =
		"\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\x00\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xfe\\xff\\xff\\xff";

	return mem_printf(":qemu-%s:M::%s\\x%02x\\x%02x:%s", board->machine, magic, board->elf_machine & 0xff,
			  board->elf_machine >> 8, mask);
}
