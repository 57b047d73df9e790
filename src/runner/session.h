/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RUNNER_SESSION_H
#define RUNNER_SESSION_H

/*
 * One program whose streams we hold - the workspace's own, one of exec, or a copy - and the clients that watch it.
 *
 * A session that waits for its clients (`patient`) reads no further output while a client's socket is full: the program feels
 * it. One that does not (a system's console) drops what a slow client cannot take. It ends when the program has ended and its
 * pipes are read empty; then each client gets the last message and `done` is called.
 */

#include <stdbool.h>

#include "base/err.h"
#include "base/loop.h"
#include "base/str.h"
#include "runner/logfile.h"

#define SESSION_HELD_MS 60000 /* how long a program that ended waits for its first client */

struct session;

struct session_streams {
	int pidfd;                  /* a child of ours; -1: ends by session_end or session_fail */
	int input, output, errors;  /* pipes, or -1 */
	int terminal;               /* master, or -1 */
};

struct session_options {
	struct session_streams streams; /* taken */
	struct logfile *log;            /* may be NULL */
	bool patient;
	bool held;            /* reads no output before the first client, and does not end before it, for SESSION_HELD_MS */
	bool errors_are_text; /* stderr becomes the sentence of an error message when the program fails (copies) */
	bool system;          /* an init: SIGINT and SIGHUP are how the kernel says power-off and reboot, status 0 and 133 */
	bool ends_with_output; /* a socket in place of a terminal, without a child: its end is the session's, with status 0 */
	bool single;          /* belongs to its one client: when that goes away, the program is ended */
	void (*done)(void *data, struct session *s, int status);
	void *data;
	/* What stands for a child and a terminal when there is none of ours; each may be NULL. Not called after the end. */
	int (*signal)(void *other, int number, struct err *e);
	void (*resize)(void *other, unsigned rows, unsigned columns);
	void (*leave)(void *other); /* the one client of a `single` session is gone: ends it */
	void *other;
};

/* Rows or columns of a terminal as a client gave them; 0: nothing that can be. */
unsigned short session_extent(unsigned given);
struct session *session_new(struct loop *l, const struct session_options *how);
void session_free(struct session *s);
/* Takes the socket. A client of a session that is over gets the last message at once. */
void session_add_client(struct session *s, int socket, bool input, unsigned rows, unsigned columns);
/* No longer waits for a first client: the workspace is stopped or killed. */
void session_let_go(struct session *s);
bool session_has_clients(const struct session *s);
int session_signal(struct session *s, int number, struct err *e) must_check;
/* What a child's end is to other sessions. Once; a second time is fine and changes nothing. */
void session_end(struct session *s, int status);
/* The same with an error in place of a status, which clients get as their last message. */
void session_fail(struct session *s, const struct err *e);

#endif
