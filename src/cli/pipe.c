/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Standard error is read without blocking while the stream goes on, so that a talkative child never waits for us, and its last
 * 4 KiB are kept: the last three lines are the error when it fails. Closing our end before waiting is what ends a child that
 * still writes or reads. Its words may quote names of files, so they are escaped where they reach a terminal.
 */
#include "cli/pipe.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/proc.h"
#include "cli/print.h"

#define SAID_MOST 4096

char *pipe_helper(const char *name)
{
	const char *folder = getenv("CARREL_LIBEXEC");
	return folder ? mem_printf("%s/%s", folder, name) : mem_printf("%s/libexec/carrel/%s", fs_prefix(), name);
}

int pipe_start(struct pipe_child *c, const char *const *argv, enum pipe_end end, struct err *e)
{
	int data[2], errors[2], back[2] = { -1, -1 }, child_side = end != PIPE_WRITE_ITS_INPUT;

	c->back_fd = -1;
	if (pipe2(data, O_CLOEXEC) < 0)
		return err_errno(e, errno, "pipe");
	if (pipe2(errors, O_CLOEXEC) < 0) {
		(void)close(data[0]);
		(void)close(data[1]);
		return err_errno(e, errno, "pipe");
	}
	if (end == PIPE_BOTH && pipe2(back, O_CLOEXEC) < 0) {
		int r = err_errno(e, errno, "pipe");
		for (int i = 0; i < 2; i++) {
			(void)close(data[i]);
			(void)close(errors[i]);
		}
		return r;
	}
	const struct proc_fd fds[] = { { 0, child_side ? back[0] : data[0] },
				       { 1, child_side ? data[1] : -1 },
				       { 2, errors[1] } };
	const struct proc_spawn how = { .argv = argv, .fds = fds, .fd_count = ARRAY_SIZE(fds), .die_with_parent = true };
	int r = proc_start(&how, &c->pidfd, NULL, e);
	(void)close(data[child_side]);
	own_close(&back[0]);
	c->back_fd = back[1];
	(void)close(errors[1]);
	c->fd = data[!child_side];
	c->errors_fd = errors[0];
	c->name = mem_strdup(argv[0]);
	(void)!fs_set_blocking(c->errors_fd, false, NULL);
	return r;
}

void pipe_hear(struct pipe_child *c, void (*line)(void *data, const char *text), void *data)
{
	char buffer[2048];
	ssize_t n;

	while ((n = read(c->errors_fd, buffer, sizeof buffer)) > 0) {
		size_t from = c->said.length;
		str_add(&c->said, buffer, (size_t)n);
		for (size_t at = from, start; line && at < c->said.length; at++) {
			if (c->said.bytes[at] != '\n')
				continue;
			for (start = at; start > 0 && c->said.bytes[start - 1] != '\n';)
				start--;
			own_str char *text = mem_strndup(c->said.bytes + start, at - start);
			line(data, text);
		}
		if (c->said.length > SAID_MOST)
			str_drop_front(&c->said, c->said.length - SAID_MOST);
	}
	if (n == 0) {
		(void)close(c->errors_fd);
		c->errors_fd = -1;
	}
}

/* Its last lines, at most three, without its progress ("I: "). */
static char *last_words(const struct pipe_child *c)
{
	struct str words = { 0 };
	const char *lines[3] = { NULL };
	unsigned count = 0;

	for (const char *line = str_text(&c->said); *line; line += strcspn(line, "\n"), line += *line == '\n')
		if (*line != '\n' && !str_starts(line, "I: "))
			lines[count++ % 3] = line;
	for (unsigned i = count > 3 ? count - 3 : 0; i < count; i++) {
		str_puts(&words, words.length ? "; " : "");
		str_add(&words, lines[i % 3], strcspn(lines[i % 3], "\n"));
	}
	return words.bytes ? words.bytes : mem_strdup("no reason was given");
}

/* What our own helper found worth telling: its lines that begin with "W: ". */
static void tell_warnings(struct pipe_child *c)
{
	const char *slash = strrchr(c->name, '/');

	if (!str_eq(slash ? slash + 1 : c->name, "carrel-tar"))
		return;
	for (const char *line = str_text(&c->said); *line;) {
		size_t length = strcspn(line, "\n");
		own_strbuf struct str text = { 0 };
		own_str char *words = mem_strndup(line, length);
		print_escape(&text, words);
		if (str_starts(words, "W: "))
			(void)fprintf(stderr, "carrel: warning: %s\n", str_text(&text) + 3);
		line += length + (line[length] == '\n');
	}
}

int pipe_finish(struct pipe_child *c, struct err *e)
{
	int status = 0;

	if (c->fd >= 0)
		(void)close(c->fd);
	c->fd = -1;
	own_close(&c->back_fd);
	if (c->errors_fd >= 0) {
		(void)!fs_set_blocking(c->errors_fd, true, NULL);
		pipe_hear(c, NULL, NULL);
	}
	int r = proc_wait(c->pidfd, &status, e);
	if (r == 0)
		(void)close(TAKE_FD(c->pidfd));
	if (r == 0 && status == 0)
		tell_warnings(c);
	if (r < 0 || status == 0)
		return r;
	const char *slash = strrchr(c->name, '/');
	own_str char *words = last_words(c);
	return err_set(e, ERR_INTERNAL, "%s failed: %s", slash ? slash + 1 : c->name, words);
}

void pipe_done(struct pipe_child *c)
{
	int status;

	if (c->pidfd >= 0) {
		(void)!proc_signal(c->pidfd, SIGKILL, NULL);
		(void)!proc_wait(c->pidfd, &status, NULL);
		(void)close(c->pidfd);
	}
	if (c->fd >= 0)
		(void)close(c->fd);
	own_close(&c->back_fd);
	if (c->errors_fd >= 0)
		(void)close(c->errors_fd);
	str_done(&c->said);
	free(c->name);
}
