/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_SESSION_H
#define CLI_SESSION_H

/* This process's standard streams, terminal and signals joined to those of a program in a workspace. */

#include <jansson.h>

#include "cli/cli.h"

#define DETACH_KEYS_DEFAULT "ctrl-p,ctrl-q"

struct session {
	const char *path;    /* of the API: ".../exec", ".../attach", ".../console", ".../logs" */
	json_t *request;     /* first message; stays the caller's */
	bool input;          /* send standard input */
	bool raw;            /* the user's terminal in raw mode, its size told */
	bool forward_signals; /* to the program; else they end the session */
	const char *detach_keys; /* "ctrl-p,ctrl-q", "" for none; only looked for in raw mode */
};

enum { SESSION_ENDED, SESSION_DETACHED };

/* SESSION_ENDED with *ret_status, or SESSION_DETACHED. A failure from within the stream (the program could not be started) sets
 * cli->failure_status to 127 (not found) or 126 (not executable). */
int session_run(struct cli *cli, const struct session *how, int *ret_status, struct err *e) must_check;

#endif
