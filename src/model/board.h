/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MODEL_BOARD_H
#define MODEL_BOARD_H

/*
 * The machines that QEMU builds for us, one per processor: program, board, console, and what of the host the program needs to
 * see. The one table of these facts.
 */

#include <stdbool.h>

struct machine_board {
	const char *architecture; /* as images have it: "amd64" */
	const char *machine;      /* as uname(2) has it: "x86_64" */
	const char *program;      /* "/usr/bin/qemu-system-x86_64" */
	const char *package;      /* of Debian that brings it */
	const char *type_prefix;  /* of versioned board names: "pc-q35-" */
	const char *type;         /* a board without versions; NULL: the newest with the prefix */
	const char *options;      /* of -machine */
	const char *console;      /* serial line as the guest's kernel calls it */
	const char *words;        /* more for that kernel, each after a blank; NULL: none */
	/* what the program opens: libraries (its own modules among them), firmware; NULL-terminated */
	const char *const *places;
	const char *firmware;     /* a file that must be there, NULL: none */
	const char *firmware_package;
	unsigned elf_machine;     /* e_machine of its programs: elf(5) */
	const char *user_program; /* QEMU's user mode for programs of this processor: "/usr/bin/qemu-aarch64-static" */
};

extern const struct machine_board machine_boards[]; /* ends with a NULL architecture */

/* NULL: no machine is built for it. */
const struct machine_board *machine_board(const char *architecture);
/* What binfmt_misc is told of its programs, up to the interpreter: ":NAME:M::MAGIC:MASK". The caller frees. */
char *machine_board_programs(const struct machine_board *board);
/* Of the processor that this program runs on; NULL: none of the table. */
const struct machine_board *machine_board_here(void);

#endif
