/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_PIPE_H
#define CLI_PIPE_H

/* A child program at one end of a pipe: carrel-tar, mmdebstrap. It dies with us. Its error output is kept for the message. */

#include <stdint.h>

#include "base/str.h"
#include "cli/cli.h"

struct pipe_child {
	int pidfd, fd;  /* fd: our end of its standard output, or input */
	int back_fd;    /* PIPE_BOTH: its standard input; else -1 */
	int errors_fd;  /* its standard error, non-blocking */
	struct str said; /* last bytes of it */
	char *name;
};

enum pipe_end { PIPE_READ_ITS_OUTPUT, PIPE_WRITE_ITS_INPUT, PIPE_BOTH };

int pipe_start(struct pipe_child *c, const char *const *argv, enum pipe_end end, struct err *e) must_check;
/* Takes what is there of its standard error; `line` (may be NULL) gets each whole line. */
void pipe_hear(struct pipe_child *c, void (*line)(void *data, const char *text), void *data);
/* Closes our end and waits; a status other than 0 is an error with its last words. */
int pipe_finish(struct pipe_child *c, struct err *e) must_check;
/* Kills it when it still runs, and frees. Fine for a zeroed struct with fds of -1. */
void pipe_done(struct pipe_child *c);
#define PIPE_NONE { .pidfd = -1, .fd = -1, .back_fd = -1, .errors_fd = -1 }
#define own_pipe __attribute__((cleanup(pipe_done)))

/* Path of a helper program of ours. The caller frees. */
char *pipe_helper(const char *name);

#endif
