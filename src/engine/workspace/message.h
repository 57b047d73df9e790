/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_WORKSPACE_MESSAGE_H
#define ENGINE_WORKSPACE_MESSAGE_H

/* Between carrel-run and a process it makes, on a socket pair that closes when the program is executed. */

#include <stddef.h>

#include "base/err.h"

enum message_kind {
	MESSAGE_GO = 1,
	MESSAGE_PREPARED,
	MESSAGE_ENTERED,
	MESSAGE_FAILED,
	MESSAGE_NAMESPACES,
	/* of a restore inside a machine: with the network namespace, which waits for its interfaces; answered by MESSAGE_GO */
	/* ... all are made again and stand still; answered by MESSAGE_GO. On a host: all run again, and were given before */
	MESSAGE_READY,
};

#define MESSAGE_FDS_MOST 64

struct message {
	int kind;
	struct err error;
};

int message_pair(int ret_pair[2], struct err *e) must_check;
/* With up to MESSAGE_FDS_MOST descriptors. */
int message_send(int socket, int kind, const struct err *error, const int *fds, size_t fd_count, struct err *e) must_check;
/* 1: a message; 0: end of file, which is what a successful exec looks like; MESSAGE_FAILED becomes its error. `ret_fds` has
 * room for MESSAGE_FDS_MOST, unused ones are -1; NULL: none expected. */
int message_receive(int socket, int *ret_kind, int *ret_fds, struct err *e) must_check;

#endif
