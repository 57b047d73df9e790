/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_RIGHTS_H
#define BASE_RIGHTS_H

/* Descriptors that go along with a message on a unix socket (SCM_RIGHTS, unix(7)). */

#include <stddef.h>
#include <sys/types.h>

#define RIGHTS_MOST 128 /* descriptors in a message */

/* One message of `length` bytes, at least one, and `count` descriptors, which stay the caller's; `flags` of sendmsg(2) beside
 * MSG_NOSIGNAL. Returns the bytes sent, or -1 with errno. */
ssize_t rights_send(int socket, const void *bytes, size_t length, const int *fds, size_t count, int flags);

/* The next message, its descriptors closed on exec; `fds` gets the first `room` of them, -1 for what is missing, and what is
 * beyond is closed. Returns the bytes received, 0 at the end, or -1 with errno; EINTR never. */
ssize_t rights_receive(int socket, void *bytes, size_t length, int *fds, size_t room, int flags);

#endif
