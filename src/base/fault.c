/* SPDX-License-Identifier: Apache-2.0 */
#include "base/fault.h"

#ifdef CARREL_FAULTS

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/own.h"
#include "base/str.h"

static int number_of(const char *word)
{
	static const struct {
		const char *name;
		int number;
	} names[] = { { "ENOSPC", ENOSPC }, { "ENOMEM", ENOMEM }, { "EIO", EIO }, { "EAGAIN", EAGAIN }, { "EPERM", EPERM },
		    { "ETIMEDOUT", ETIMEDOUT } };
	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		if (str_eq(word, names[i].name))
			return names[i].number;
	return EIO;
}

static void append_line(const char *path, const char *line)
{
	own_fd int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
	own_strbuf struct str text = { 0 };
	str_printf(&text, "%s\n", line);
	if (fd >= 0)
		(void)!write(fd, text.bytes, text.length);
}

/* Blanks the line at `offset` so that it acts once even when the process dies of it. */
static void consume(int fd, long offset, size_t length)
{
	for (size_t i = 0; i < length; i++)
		(void)!pwrite(fd, "#", 1, offset + (long)i);
}

static int act(const char *action, const char *argument)
{
	if (str_eq(action, "kill"))
		(void)kill(getpid(), SIGKILL);
	if (str_eq(action, "wait")) {
		own_fd int fifo = open(argument, O_RDONLY | O_CLOEXEC);
		return 0;
	}
	return number_of(action);
}

int fault_point(const char *name)
{
	const char *path = getenv("CARREL_FAULTS");
	if (!path)
		return 0;
	own_fd int fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0 || flock(fd, LOCK_EX) < 0)
		return 0;
	own_file FILE *plan = fdopen(fcntl(fd, F_DUPFD_CLOEXEC, 0), "r");
	char line[512];
	for (long offset = 0; plan && fgets(line, sizeof line, plan); offset = ftell(plan)) {
		size_t length = strcspn(line, "\n");
		char *rest = NULL, *point = strtok_r(line, " \n", &rest), *action = strtok_r(NULL, " \n", &rest);
		const char *argument = strtok_r(NULL, " \n", &rest);
		if (!point || !action)
			continue;
		if (!argument)
			argument = "";
		if (str_eq(point, "*") && str_eq(action, "log"))
			append_line(argument, name);
		if (!str_eq(point, name))
			continue;
		consume(fd, offset, length);
		(void)flock(fd, LOCK_UN);
		return act(action, argument);
	}
	return 0;
}

#endif
