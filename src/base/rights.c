/* SPDX-License-Identifier: Apache-2.0 */
#include "base/rights.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

union control {
	char bytes[CMSG_SPACE(RIGHTS_MOST * sizeof(int))];
	struct cmsghdr align;
};

ssize_t rights_send(int socket, const void *bytes, size_t length, const int *fds, size_t count, int flags)
{
	union control control = { 0 };
	struct iovec data = { (void *)(uintptr_t)bytes, length };
	struct msghdr h = { .msg_iov = &data, .msg_iovlen = 1 };

	if (count > RIGHTS_MOST) {
		errno = EINVAL;
		return -1;
	}
	if (count) {
		h.msg_control = &control;
		h.msg_controllen = CMSG_SPACE(count * sizeof(int));
		control.align = (struct cmsghdr){ .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS,
						  .cmsg_len = CMSG_LEN(count * sizeof(int)) };
		memcpy(CMSG_DATA(&control.align), fds, count * sizeof(int));
	}
	return sendmsg(socket, &h, flags | MSG_NOSIGNAL);
}

static void take(struct msghdr *h, int *fds, size_t room)
{
	size_t taken = 0;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(h); c; c = CMSG_NXTHDR(h, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < count; i++) {
			int fd;
			memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
			if (taken < room)
				fds[taken++] = fd;
			else
				(void)close(fd);
		}
	}
}

ssize_t rights_receive(int socket, void *bytes, size_t length, int *fds, size_t room, int flags)
{
	union control control;
	struct iovec data = { bytes, length };
	struct msghdr h = { .msg_iov = &data, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control };
	ssize_t n;

	for (size_t i = 0; i < room; i++)
		fds[i] = -1;
	do
		n = recvmsg(socket, &h, flags | MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n >= 0)
		take(&h, fds, room);
	return n;
}
