/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/terminal.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include "base/mem.h"

static struct termios before;
static volatile sig_atomic_t raw_fd = -1;

void terminal_restore(void)
{
	if (raw_fd >= 0)
		(void)tcsetattr(raw_fd, TCSADRAIN, &before);
	raw_fd = -1;
}

static void restore_and_die(int number)
{
	if (raw_fd >= 0)
		(void)tcsetattr(raw_fd, TCSANOW, &before); /* async-signal-safe */
	(void)signal(number, SIG_DFL);
	(void)raise(number);
}

int terminal_raw(int fd, struct err *e)
{
	static const int deadly[] = { SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGPIPE, SIGALRM, SIGXCPU };
	static bool prepared;

	if (tcgetattr(fd, &before) < 0)
		return err_errno(e, errno, "read the terminal's settings");
	struct termios raw = before;
	cfmakeraw(&raw);
	if (tcsetattr(fd, TCSADRAIN, &raw) < 0)
		return err_errno(e, errno, "set the terminal to raw mode");
	raw_fd = fd;
	if (prepared)
		return 0;
	prepared = true;
	(void)atexit(terminal_restore);
	for (size_t i = 0; i < ARRAY_SIZE(deadly); i++)
		(void)signal(deadly[i], restore_and_die);
	return 0;
}

void terminal_size(unsigned *ret_rows, unsigned *ret_columns)
{
	struct winsize size;

	*ret_rows = 24;
	*ret_columns = 80;
	for (int i = 0; i < 3; i++) {
		if (ioctl((const int[]){ 1, 2, 0 }[i], TIOCGWINSZ, &size) < 0 || !size.ws_row || !size.ws_col)
			continue;
		*ret_rows = size.ws_row;
		*ret_columns = size.ws_col;
		return;
	}
}
