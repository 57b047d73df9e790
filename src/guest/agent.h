/* SPDX-License-Identifier: Apache-2.0 */
#ifndef GUEST_AGENT_H
#define GUEST_AGENT_H

/*
 * Serves the channel: takes the configuration, makes the world, starts the workspace's program, and answers requests until the
 * machine goes off. In the machine it begins as process 1 and, when the world is made, goes on in a child, so that process 1
 * can become the image's init.
 */

#include <stdbool.h>

#include "base/err.h"
#include "base/str.h"

struct agent_inner;

struct agent_options {
	int port;        /* taken */
	bool machine;    /* we are process 1 of a machine: may kill everything and switch it off */
	int root;        /* tests: folder of a world that is there already; -1: it is made */
	const char *modules; /* folder, or NULL */
	const struct agent_inner *inner; /* the workspace lives in namespaces; NULL: it has the machine to itself */
	/* A workspace that travels is configured: another program goes on in this process's place, with the channel, and
	 * `said`, which it has heard already. Returns when that failed. NULL: this is that program. */
	int (*become_inner)(int port, const struct str *said, char *name, struct err *e);
	const struct str *said; /* handed over by the program before; NULL: nothing */
	char *name;      /* of this process, to be marked: argv[0] */
};

/* Returns when the machine shall go off (0) or start again (1); tests: when the program has ended and the host was told. */
int agent_run(const struct agent_options *how, struct err *e) must_check;

#endif
