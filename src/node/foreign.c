/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. Since Linux 6.7 a user namespace can have a binfmt_misc of its own: each workspace then registers what it needs and
 * nobody else sees it. On older kernels the host's own is asked, where `carrel doctor --fix` registers for everybody. Which of
 * the two a kernel is for is found out by doing it, once.
 */
#include "node/foreign.h"

#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/proc.h"
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

static bool own_in_namespaces;

static void try_namespace(void)
{
	static const char *const argv[] = { "/usr/bin/unshare", "--user", "--map-root-user", "--mount", "/bin/mount", "-t",
					    "binfmt_misc", "none", "/tmp", NULL };
	struct err ignored;

	own_in_namespaces = proc_run(argv, 4096, NULL, &ignored) >= 0;
}

static bool workspaces_register(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	(void)pthread_once(&once, try_namespace);
	return own_in_namespaces;
}

int foreign_check(const struct machine_board *board, struct err *e)
{
	if (board == machine_board_here() || registered(board))
		return 0;
	if (access(board->user_program, X_OK) < 0) {
		(void)err_set(e, ERR_UNSUPPORTED, "programs of %s do not run here: %s is missing", board->machine,
			      board->user_program);
		return err_hint(e, "install qemu-user-static");
	}
	if (workspaces_register())
		return 0;
	(void)err_set(e, ERR_UNSUPPORTED,
		      "programs of %s do not run here: this kernel has no binfmt_misc for namespaces (Linux 6.7)",
		      board->machine);
	return err_hint(e, "register it for the whole host, as root: carrel doctor --fix");
}

const struct machine_board *foreign_board(const char *architecture)
{
	const struct machine_board *board = architecture ? machine_board(architecture) : NULL;

	return board && board != machine_board_here() && !registered(board) ? board : NULL;
}

bool foreign_runs(const char *architecture)
{
	const struct machine_board *board = architecture ? machine_board(architecture) : machine_board_here();
	struct err e;

	return board && foreign_check(board, &e) >= 0;
}
