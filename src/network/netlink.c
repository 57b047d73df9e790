/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests are gathered in a fixed buffer and sent as one message: a workspace's interface is many requests and one round
 * trip. Sizes are our own, so running out of room is a fault of the program and aborts. Answers are told apart by sequence
 * number; those of a run that was given up before are passed over. The kernel goes on after a request that fails, and the
 * first failure is the one that is told.
 *
 * Of the names for errors the last 64 are kept, which is the most of requests that one message should have.
 */
#include "network/netlink.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/own.h"

#ifndef NLMSGERR_ATTR_MSG
#define NLMSGERR_ATTR_MSG 1
#endif

static int open_here(int *ret_fd, struct err *e)
{
	struct sockaddr_nl kernel = { .nl_family = AF_NETLINK };
	int one = 1, size = 1 << 20;
	own_fd int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);

	if (fd < 0 || connect(fd, (struct sockaddr *)&kernel, sizeof kernel) < 0)
		return err_errno(e, errno, "open rtnetlink");
	/* the kernel's own words for what it refuses; kernels that have none say only the number */
	(void)setsockopt(fd, SOL_NETLINK, NETLINK_EXT_ACK, &one, sizeof one);
	(void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
	*ret_fd = TAKE_FD(fd);
	return 0;
}

int netlink_open(struct netlink *n, int namespace_fd, struct err *e)
{
	n->sequence = n->first = n->length = 0;
	n->fd = -1;
	if (namespace_fd < 0)
		return open_here(&n->fd, e);
	own_fd int home = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
	if (home < 0 || setns(namespace_fd, CLONE_NEWNET) < 0)
		return err_errno(e, errno, "enter a network namespace");
	int r = open_here(&n->fd, e);
	if (setns(home, CLONE_NEWNET) < 0) { /* nothing of ours may run on in a namespace of others */
		own_close(&n->fd);
		n->fd = -1;
		return err_errno(e, errno, "return from a network namespace");
	}
	return r;
}

void netlink_close(struct netlink *n)
{
	own_close(&n->fd);
	n->fd = -1;
}

static void *room(struct netlink *n, size_t length)
{
	size_t aligned = NLMSG_ALIGN(length);
	unsigned char *at = n->bytes + n->length;

	if (n->length + aligned > sizeof n->bytes)
		abort(); /* sizes of requests are fixed by our own code */
	memset(at, 0, aligned);
	n->length += (uint32_t)aligned;
	return at;
}

static void grow(struct netlink *n) { n->request->nlmsg_len = (uint32_t)(n->bytes + n->length - (unsigned char *)n->request); }

void netlink_begin(struct netlink *n, uint16_t type, uint16_t flags, const char *what, const void *header, size_t header_length)
{
	if (!n->length)
		n->first = n->sequence + 1;
	n->request = room(n, sizeof *n->request);
	*n->request = (struct nlmsghdr){ .nlmsg_type = type, .nlmsg_flags = (uint16_t)(NLM_F_REQUEST | NLM_F_ACK | flags),
					 .nlmsg_seq = ++n->sequence };
	n->names[n->sequence % ARRAY_SIZE(n->names)] = what;
	netlink_raw(n, header, header_length);
}

void netlink_raw(struct netlink *n, const void *bytes, size_t length)
{
	memcpy(room(n, length), bytes, length);
	grow(n);
}

void netlink_put(struct netlink *n, uint16_t type, const void *bytes, size_t length)
{
	struct nlattr *attribute = room(n, NLA_HDRLEN + length);

	attribute->nla_type = type;
	attribute->nla_len = (uint16_t)(NLA_HDRLEN + length);
	if (length)
		memcpy((unsigned char *)attribute + NLA_HDRLEN, bytes, length);
	grow(n);
}

void netlink_text(struct netlink *n, uint16_t type, const char *text) { netlink_put(n, type, text, strlen(text) + 1); }
void netlink_u32(struct netlink *n, uint16_t type, uint32_t value) { netlink_put(n, type, &value, sizeof value); }
void netlink_u8(struct netlink *n, uint16_t type, uint8_t value) { netlink_put(n, type, &value, sizeof value); }

struct nlattr *netlink_nest(struct netlink *n, uint16_t type)
{
	struct nlattr *nest = room(n, NLA_HDRLEN);

	nest->nla_type = type;
	grow(n);
	return nest;
}

void netlink_end(struct netlink *n, struct nlattr *nest)
{
	nest->nla_len = (uint16_t)(n->bytes + n->length - (unsigned char *)nest);
	grow(n);
}

/* --- answers --- */

/* The kernel's sentence behind an error, when it has one; the request it repeats may lie between (NLM_F_CAPPED: not). */
static const char *kernel_words(const struct nlmsghdr *answer, char out[static 160])
{
	const struct nlmsgerr *error = NLMSG_DATA(answer);
	size_t at = NLMSG_HDRLEN + sizeof error->error;

	at += answer->nlmsg_flags & NLM_F_CAPPED ? sizeof error->msg : NLMSG_ALIGN(error->msg.nlmsg_len);
	while ((answer->nlmsg_flags & NLM_F_ACK_TLVS) && at + NLA_HDRLEN <= answer->nlmsg_len) {
		const struct nlattr *attribute = (const struct nlattr *)((const unsigned char *)answer + at);
		if (attribute->nla_len < NLA_HDRLEN || at + attribute->nla_len > answer->nlmsg_len)
			break;
		if ((attribute->nla_type & NLA_TYPE_MASK) == NLMSGERR_ATTR_MSG) {
			size_t length = (size_t)attribute->nla_len - NLA_HDRLEN;
			length = length < 159 ? length : 159;
			memcpy(out, (const unsigned char *)attribute + NLA_HDRLEN, length);
			out[length] = '\0';
			return out;
		}
		at += NLA_ALIGN(attribute->nla_len);
	}
	return NULL;
}

static int judge(struct netlink *n, const struct nlmsghdr *answer, int fine, struct err *e)
{
	const struct nlmsgerr *error = NLMSG_DATA(answer);
	char words[160];

	if (!error->error || error->error == -fine)
		return 0;
	const char *what = n->names[answer->nlmsg_seq % ARRAY_SIZE(n->names)], *said = kernel_words(answer, words);
	return said ? err_errno(e, -error->error, "%s (%s)", what, said) : err_errno(e, -error->error, "%s", what);
}

const struct nlattr *netlink_find(const void *at, const void *end, uint16_t type)
{
	const unsigned char *p = at;
	const struct nlattr *a;

	for (; p + NLA_HDRLEN <= (const unsigned char *)end; p += NLA_ALIGN(a->nla_len)) {
		a = (const struct nlattr *)p;
		if (a->nla_len < NLA_HDRLEN || p + a->nla_len > (const unsigned char *)end)
			return NULL;
		if ((a->nla_type & NLA_TYPE_MASK) == type)
			return a;
	}
	return NULL;
}

int netlink_run(struct netlink *n, int fine, struct err *e) { return netlink_ask(n, fine, NULL, NULL, e); }

int netlink_ask(struct netlink *n, int fine, netlink_seen *seen, void *data, struct err *e)
{
	_Alignas(8) unsigned char bytes[16384];
	uint32_t missing = n->sequence - n->first + 1;
	int r = 0;

	if (!n->length)
		return 0;
	ssize_t sent = send(n->fd, n->bytes, n->length, 0);
	n->length = 0;
	if (sent < 0)
		return err_errno(e, errno, "talk to rtnetlink");
	while (missing) {
		ssize_t got = recv(n->fd, bytes, sizeof bytes, 0);
		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return err_errno(e, got < 0 ? errno : EPIPE, "hear from rtnetlink");
		int left = (int)got;
		for (const struct nlmsghdr *answer = (void *)bytes; NLMSG_OK(answer, left); answer = NLMSG_NEXT(answer, left)) {
			if (answer->nlmsg_seq - n->first > n->sequence - n->first)
				continue; /* of an earlier run that was given up */
			if (answer->nlmsg_type == NLMSG_DONE) { /* all of a list */
				missing--;
				continue;
			}
			if (answer->nlmsg_type != NLMSG_ERROR) {
				if (seen)
					seen(data, answer);
				continue;
			}
			missing--;
			if (r == 0)
				r = judge(n, answer, fine, e);
		}
	}
	return r;
}
