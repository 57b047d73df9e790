/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/workspace/message.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "base/rights.h"

#define PATIENCE_S 60 /* a process that neither goes on nor dies in this time is stuck */

int message_pair(int ret_pair[2], struct err *e)
{
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ret_pair) < 0)
		return err_errno(e, errno, "make socket pair");
	struct timeval patience = { .tv_sec = PATIENCE_S };
	(void)setsockopt(ret_pair[0], SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
	return 0;
}

int message_send(int socket, int kind, const struct err *error, const int *fds, size_t fd_count, struct err *e)
{
	struct message m = { .kind = kind };
	size_t length = error ? sizeof m : offsetof(struct message, error);

	if (error)
		m.error = *error;
	return rights_send(socket, &m, length, fds, fd_count, 0) < 0 ? err_errno(e, errno, "send message") : 0;
}

int message_receive(int socket, int *ret_kind, int *ret_fds, struct err *e)
{
	struct message m = { 0 };
	ssize_t n = rights_receive(socket, &m, sizeof m, ret_fds, ret_fds ? MESSAGE_FDS_MOST : 0, 0);

	if (n < 0 && errno == EAGAIN)
		return err_set(e, ERR_TIMEOUT, "no answer from the first process after %d s", PATIENCE_S);
	if (n < 0)
		return err_errno(e, errno, "receive message");
	if (n == 0)
		return 0;
	*ret_kind = m.kind;
	if (m.kind == MESSAGE_FAILED) {
		m.error.message[sizeof m.error.message - 1] = m.error.hint[sizeof m.error.hint - 1] = '\0';
		if (e)
			*e = m.error;
		return -(m.error.number ? m.error.number : EIO);
	}
	return 1;
}
