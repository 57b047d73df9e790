/* SPDX-License-Identifier: Apache-2.0 */
#ifndef STORE_CANCEL_H
#define STORE_CANCEL_H

/*
 * How the programs of import and export are cancelled: by SIGTERM or SIGINT, or because the process that started them is gone
 * (the other end of `peer_fd` closed). Every wait of theirs is a cancel_poll, so they clean up and end at once.
 */

#include <poll.h>

#include "base/err.h"

/* Blocks the signals. peer_fd -1: none. Once per program. */
int cancel_start(int peer_fd, struct err *e) must_check;
/* poll(2) with ERR_CANCELLED when asked to end. timeout_ms -1: none. At most 8 fds; returns what poll returns. */
int cancel_poll(struct pollfd *fds, nfds_t count, int timeout_ms, struct err *e) must_check;
/* In a child: the signals act again, and cancel_poll is poll. */
void cancel_in_child(void);

#endif
