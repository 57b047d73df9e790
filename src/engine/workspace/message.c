/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/workspace/message.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

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
	union {
		char bytes[CMSG_SPACE(MESSAGE_FDS_MOST * sizeof(int))];
		struct cmsghdr align;
	} control = { 0 };
	size_t length = error ? sizeof m : offsetof(struct message, error);
	struct iovec data = { &m, length };
	struct msghdr h = { .msg_iov = &data, .msg_iovlen = 1 };

	if (error)
		m.error = *error;
	if (fd_count) {
		h.msg_control = &control;
		h.msg_controllen = CMSG_SPACE(fd_count * sizeof(int));
		struct cmsghdr *c = &control.align; /* the first one */
		*c = (struct cmsghdr){ .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(fd_count * sizeof(int)) };
		memcpy(CMSG_DATA(c), fds, fd_count * sizeof(int));
	}
	return sendmsg(socket, &h, MSG_NOSIGNAL) < 0 ? err_errno(e, errno, "send message") : 0;
}

static void take_fds(struct msghdr *h, int *ret_fds)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(h); c; c = CMSG_NXTHDR(h, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < n; i++) {
			int fd;
			memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
			if (ret_fds && i < MESSAGE_FDS_MOST)
				ret_fds[i] = fd;
			else
				(void)close(fd);
		}
	}
}

int message_receive(int socket, int *ret_kind, int *ret_fds, struct err *e)
{
	struct message m = { 0 };
	union {
		char bytes[CMSG_SPACE(MESSAGE_FDS_MOST * sizeof(int))];
		struct cmsghdr align;
	} control;
	struct iovec data = { &m, sizeof m };
	struct msghdr h = { .msg_iov = &data, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control };
	ssize_t n;

	for (int i = 0; ret_fds && i < MESSAGE_FDS_MOST; i++)
		ret_fds[i] = -1;
	do
		n = recvmsg(socket, &h, MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n < 0 && errno == EAGAIN)
		return err_set(e, ERR_TIMEOUT, "no answer from the first process after %d s", PATIENCE_S);
	if (n < 0)
		return err_errno(e, errno, "receive message");
	take_fds(&h, ret_fds);
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
