/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. A connection's mark is read from the kernel's connection tracking (ctnetlink:
 * linux/netfilter/nfnetlink_conntrack.h), by the tuple of its answers, since its destination was changed on the way here.
 * Connection and identity go to the child as two descriptors with the number, in one message; the child owns them then. What it
 * does not take at once it does not get: the message is sent without waiting, and the connection closes.
 */
#include "network/metadata_server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <libmnl/libmnl.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/proc.h"
#include "base/rights.h"

#define BACKLOG 128
#define AT_A_TIME 16
#define PATIENCE_MS 100

struct metadata_server {
	struct loop *loop;
	metadata_lookup_fn *lookup;
	void *data;
	int listener, netlink, child, pidfd;
	struct loop_source *source;
	uint16_t port;
	uint32_t sequence;
};

/* --- whose connection it is --- */

struct tuple {
	int family;
	const void *from, *to; /* addresses as the kernel has them */
	uint16_t from_port, to_port; /* network order */
};

static void put_tuple(struct nlmsghdr *message, uint16_t kind, const struct tuple *t)
{
	bool six = t->family == AF_INET6;
	size_t length = six ? 16 : 4;
	struct nlattr *tuple = mnl_attr_nest_start(message, kind), *part = mnl_attr_nest_start(message, CTA_TUPLE_IP);

	mnl_attr_put(message, six ? CTA_IP_V6_SRC : CTA_IP_V4_SRC, length, t->from);
	mnl_attr_put(message, six ? CTA_IP_V6_DST : CTA_IP_V4_DST, length, t->to);
	mnl_attr_nest_end(message, part);
	part = mnl_attr_nest_start(message, CTA_TUPLE_PROTO);
	mnl_attr_put_u8(message, CTA_PROTO_NUM, IPPROTO_TCP);
	mnl_attr_put_u16(message, CTA_PROTO_SRC_PORT, t->from_port);
	mnl_attr_put_u16(message, CTA_PROTO_DST_PORT, t->to_port);
	mnl_attr_nest_end(message, part);
	mnl_attr_nest_end(message, tuple);
}

/* 0: the kernel does not know the connection, or it has no mark. */
static uint32_t read_mark(struct metadata_server *s, const struct tuple *answers)
{
	char buffer[8192];
	struct nlmsghdr *message = mnl_nlmsg_put_header(buffer);
	struct nlattr *attribute;
	uint32_t mark = 0;

	message->nlmsg_type = NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET;
	message->nlmsg_flags = NLM_F_REQUEST;
	message->nlmsg_seq = ++s->sequence;
	struct nfgenmsg *generic = mnl_nlmsg_put_extra_header(message, sizeof *generic);
	generic->nfgen_family = (uint8_t)answers->family;
	generic->version = NFNETLINK_V0;
	put_tuple(message, CTA_TUPLE_REPLY, answers);
	if (send(s->netlink, message, message->nlmsg_len, MSG_DONTWAIT) < 0)
		return 0;
	struct pollfd in = { .fd = s->netlink, .events = POLLIN };
	ssize_t n = poll(&in, 1, PATIENCE_MS) == 1 ? recv(s->netlink, buffer, sizeof buffer, MSG_DONTWAIT) : -1;
	const struct nlmsghdr *answer = (const struct nlmsghdr *)buffer;
	if (n < 0 || !mnl_nlmsg_ok(answer, (int)n) || answer->nlmsg_seq != s->sequence || answer->nlmsg_type == NLMSG_ERROR)
		return 0;
	mnl_attr_for_each(attribute, answer, sizeof *generic)
		if (mnl_attr_get_type(attribute) == CTA_MARK && mnl_attr_get_payload_len(attribute) == 4)
			mark = ntohl(mnl_attr_get_u32(attribute));
	return mark;
}

static uint32_t whose(struct metadata_server *s, int connection)
{
	struct sockaddr_in6 here = { 0 }, there = { 0 };
	socklen_t here_size = sizeof here, there_size = sizeof there;

	if (getsockname(connection, (struct sockaddr *)&here, &here_size) < 0 ||
	    getpeername(connection, (struct sockaddr *)&there, &there_size) < 0)
		return 0;
	bool four = IN6_IS_ADDR_V4MAPPED(&there.sin6_addr);
	struct tuple answers = { .family = four ? AF_INET : AF_INET6, .from = here.sin6_addr.s6_addr + (four ? 12 : 0),
				 .to = there.sin6_addr.s6_addr + (four ? 12 : 0), .from_port = here.sin6_port,
				 .to_port = there.sin6_port };
	return read_mark(s, &answers);
}

/* --- the child --- */

static void end_child(struct metadata_server *s)
{
	int status;

	own_close(&s->child);
	s->child = -1;
	if (s->pidfd >= 0) {
		(void)!proc_signal(s->pidfd, SIGKILL, NULL);
		(void)!proc_wait(s->pidfd, &status, NULL);
	}
	own_close(&s->pidfd);
	s->pidfd = -1;
}

static int start_child(struct metadata_server *s, struct err *e)
{
	own_str char *program = mem_printf("%s/libexec/carrel/carrel-metadata", fs_prefix());
	const char *const argv[] = { program, NULL };
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
		return err_errno(e, errno, "make a socket pair");
	own_fd int theirs = pair[1];
	const struct proc_fd fds[] = { { 0, -1 }, { 1, -1 }, { 3, theirs } };
	const struct proc_spawn how = { .argv = argv, .fds = fds, .fd_count = ARRAY_SIZE(fds), .die_with_parent = true };
	s->child = pair[0];
	int r = proc_start(&how, &s->pidfd, NULL, e);
	if (r < 0)
		end_child(s);
	return r;
}

static int identity_file(json_t *identity) /* takes it */
{
	own_str char *text = json_dumps(identity, JSON_COMPACT);
	own_fd int fd = memfd_create("identity", MFD_CLOEXEC);

	json_decref(identity);
	if (!text || fd < 0 || fs_write_all(fd, text, strlen(text), NULL) < 0)
		return -1;
	return TAKE_FD(fd);
}

static int hand_over(struct metadata_server *s, int connection, uint32_t number)
{
	json_t *identity = number ? s->lookup(s->data, number) : NULL;
	own_fd int file = identity ? identity_file(identity) : -1;
	const int fds[2] = { connection, file };

	if (file < 0)
		return -EACCES; /* not by the filter, or gone meanwhile: no answer */
	return rights_send(s->child, &number, sizeof number, fds, 2, MSG_DONTWAIT) < 0 ? -errno : 0;
}

static void on_connection(void *data, uint32_t events)
{
	struct metadata_server *s = data;
	struct err e = { 0 };

	(void)events;
	for (int i = 0; i < AT_A_TIME; i++) {
		own_fd int connection = accept4(s->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		if (connection < 0)
			return;
		uint32_t number = whose(s, connection);
		int r = s->child < 0 ? -EPIPE : hand_over(s, connection, number);
		if (r != -EPIPE && r != -ECONNRESET)
			continue;
		end_child(s);
		if (start_child(s, &e) < 0)
			log_error(&e, "metadata server");
		else
			(void)hand_over(s, connection, number);
	}
}

/* --- the server --- */

static int make_sockets(struct metadata_server *s, struct err *e)
{
	struct sockaddr_in6 any = { .sin6_family = AF_INET6 };
	socklen_t size = sizeof any;
	int both = 0;

	s->listener = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (s->listener < 0 || setsockopt(s->listener, IPPROTO_IPV6, IPV6_V6ONLY, &both, sizeof both) < 0 ||
	    bind(s->listener, (struct sockaddr *)&any, sizeof any) < 0 || listen(s->listener, BACKLOG) < 0 ||
	    getsockname(s->listener, (struct sockaddr *)&any, &size) < 0)
		return err_errno(e, errno, "listen for the metadata address");
	s->port = ntohs(any.sin6_port);
	s->netlink = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER);
	struct sockaddr_nl kernel = { .nl_family = AF_NETLINK };
	if (s->netlink < 0 || connect(s->netlink, (struct sockaddr *)&kernel, sizeof kernel) < 0)
		return err_errno(e, errno, "open connection tracking");
	return 0;
}

int metadata_server_new(struct loop *l, metadata_lookup_fn *lookup, void *data, struct metadata_server **ret_server,
			struct err *e)
{
	struct metadata_server *s = mem_alloc(sizeof *s);

	*s = (struct metadata_server){ .loop = l, .lookup = lookup, .data = data, .listener = -1, .netlink = -1, .child = -1,
				       .pidfd = -1 };
	int r = make_sockets(s, e);
	if (r < 0) {
		metadata_server_free(s);
		return r;
	}
	s->source = loop_add_fd(l, s->listener, POLLIN, on_connection, s);
	*ret_server = s;
	return 0;
}

void metadata_server_free(struct metadata_server *s)
{
	if (!s)
		return;
	loop_remove(s->source);
	end_child(s);
	own_close(&s->listener);
	own_close(&s->netlink);
	free(s);
}

uint16_t metadata_server_port(const struct metadata_server *s) { return s->port; }
