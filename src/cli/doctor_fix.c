/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/doctor_fix.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"
#include "model/board.h"

#define ENTRIES "/proc/sys/fs/binfmt_misc"

static int open_register(int *ret_fd, struct err *e)
{
	*ret_fd = open(ENTRIES "/register", O_WRONLY | O_CLOEXEC);
	if (*ret_fd < 0 && errno == ENOENT &&
	    mount("binfmt_misc", ENTRIES, "binfmt_misc", MS_NOSUID | MS_NOEXEC | MS_NODEV, NULL) == 0)
		*ret_fd = open(ENTRIES "/register", O_WRONLY | O_CLOEXEC);
	if (*ret_fd >= 0)
		return 0;
	(void)err_errno(e, errno, "open " ENTRIES "/register");
	return err_hint(e, "run it as root, with the module binfmt_misc loaded");
}

static int fix_one(const struct machine_board *board, struct err *e)
{
	own_str char *entry = mem_printf(ENTRIES "/qemu-%s", board->machine), *programs = machine_board_programs(board);
	own_str char *line = mem_printf("%s:%s:F", programs, board->user_program);
	own_fd int fd = -1;

	if (access(board->user_program, X_OK) < 0 || fs_exists(AT_FDCWD, entry))
		return 0;
	int r = open_register(&fd, e);
	if (r < 0)
		return r;
	if (write(fd, line, strlen(line)) < 0)
		return err_errno(e, errno, "register programs of %s", board->machine);
	(void)printf("fixed: programs of %s are run by %s\n", board->machine, board->user_program);
	return 0;
}

int doctor_fix(struct err *e)
{
	int r = 0;

	for (const struct machine_board *b = machine_boards; r >= 0 && b->architecture; b++)
		if (b != machine_board_here())
			r = fix_one(b, e);
	return r;
}
