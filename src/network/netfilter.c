/* SPDX-License-Identifier: Apache-2.0 */
#include "network/netfilter.h"

#include <errno.h>
#include <linux/netfilter/nfnetlink.h>
#include <sys/socket.h>

int netfilter_open(struct mnl_socket **ret_socket, struct err *e)
{
	struct mnl_socket *socket = mnl_socket_open2(NETLINK_NETFILTER, SOCK_CLOEXEC);

	if (!socket)
		return err_errno(e, errno, "cannot open a netfilter socket");
	if (mnl_socket_bind(socket, 0, MNL_SOCKET_AUTOPID) < 0) {
		int number = errno;
		(void)mnl_socket_close(socket);
		return err_errno(e, number, "cannot bind a netfilter socket");
	}
	*ret_socket = socket;
	return 0;
}

struct nlmsghdr *netfilter_message(void *at, unsigned type, unsigned flags, unsigned family, uint32_t sequence)
{
	struct nlmsghdr *header = mnl_nlmsg_put_header(at);
	struct nfgenmsg *generic = mnl_nlmsg_put_extra_header(header, sizeof *generic);

	header->nlmsg_type = (uint16_t)type;
	header->nlmsg_flags = (uint16_t)(NLM_F_REQUEST | flags);
	header->nlmsg_seq = sequence;
	*generic = (struct nfgenmsg){ .nfgen_family = (uint8_t)family, .version = NFNETLINK_V0 };
	return header;
}
