/* SPDX-License-Identifier: Apache-2.0 */
#include "node/foreign.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"

#define ENTRIES "/proc/sys/fs/binfmt_misc"

/* Enabled, and with flag F: the kernel opened the interpreter when it was registered, so it works in every root. */
static bool registered(const struct machine_board *board)
{
	own_str char *path = mem_printf(ENTRIES "/qemu-%s", board->machine);
	own_strbuf struct str text = { 0 };

	if (fs_read_file(AT_FDCWD, path, 4096, &text, NULL) < 0 || !str_starts(str_text(&text), "enabled\n"))
		return false;
	const char *flags = strstr(str_text(&text), "\nflags: ");
	return flags && memchr(flags + 8, 'F', strcspn(flags + 8, "\n"));
}

int foreign_check(const struct machine_board *board, struct err *e)
{
	if (board == machine_board_here() || registered(board))
		return 0;
	if (access(board->user_program, X_OK) < 0) {
		(void)err_set(e, ERR_UNSUPPORTED, "programs of %s do not run here: %s is missing", board->machine, board->user_program);
		return err_hint(e, "install qemu-user-static and run: carrel doctor --fix");
	}
	(void)err_set(e, ERR_UNSUPPORTED, "programs of %s do not run here: the kernel does not know %s", board->machine, board->user_program);
	return err_hint(e, "run as root: carrel doctor --fix");
}

bool foreign_runs(const char *architecture)
{
	const struct machine_board *board = architecture ? machine_board(architecture) : machine_board_here();
	struct err e;

	return board && foreign_check(board, &e) >= 0;
}
