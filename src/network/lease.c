/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. A packet socket on the workspace's port sees what leaves the bridge by it - what the filter has let through, so no other
 * workspace wrote it - and what the workspace sends. A filter in the kernel lets DHCP alone come up. The message type and the lease's
 * length are options in any order; options may go on in the fields for names (RFC 2132, 9.3), where a client could hide what it gives back.
 *
 * The bytes are from outside: every field is read behind a check of its place, and nothing of them is kept but the numbers.
 */
#include "network/lease.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/own.h"

enum { ETHERNET = 14, UDP = 8, CLIENT = 68, SERVER = 67 };
/* Of the BOOTP message (RFC 951), and options (RFC 2132). */
enum { AT_OP = 0, AT_CIADDR = 12, AT_YIADDR = 16, AT_CHADDR = 28, AT_SNAME = 44, AT_FILE = 108, AT_MAGIC = 236, AT_OPTIONS = 240 };
enum { OPTION_PAD = 0, OPTION_ADDRESS = 50, OPTION_TIME = 51, OPTION_OVERLOAD = 52, OPTION_TYPE = 53, OPTION_END = 255 };
enum { TYPE_DECLINE = 4, TYPE_ACK = 5, TYPE_NAK = 6, TYPE_RELEASE = 7 };

struct options {
	unsigned type, overload;
	uint32_t seconds;
	unsigned char address[4]; /* that is wished, or declined */
};

static void read_options(const unsigned char *at, size_t length, struct options *o)
{
	for (size_t i = 0; i < length && at[i] != OPTION_END;) {
		if (at[i] == OPTION_PAD) {
			i++;
			continue;
		}
		if (length - i < 2 || length - i - 2 < at[i + 1])
			return;
		const unsigned char *value = at + i + 2;
		if (at[i] == OPTION_TYPE && at[i + 1] == 1)
			o->type = value[0];
		else if (at[i] == OPTION_OVERLOAD && at[i + 1] == 1)
			o->overload = value[0];
		else if (at[i] == OPTION_ADDRESS && at[i + 1] == 4)
			memcpy(o->address, value, sizeof o->address);
		else if (at[i] == OPTION_TIME && at[i + 1] == 4)
			o->seconds = (uint32_t)value[0] << 24 | (uint32_t)value[1] << 16 | (uint32_t)value[2] << 8 | value[3];
		i += 2U + at[i + 1];
	}
}

static void read_message(const unsigned char *m, size_t length, bool towards, struct lease_said *said)
{
	static const unsigned char magic[4] = { 99, 130, 83, 99 };
	struct options o = { 0 };

	if (length < AT_OPTIONS || memcmp(m + AT_MAGIC, magic, sizeof magic) != 0 || m[AT_OP] != (towards ? 2 : 1))
		return;
	read_options(m + AT_OPTIONS, length - AT_OPTIONS, &o);
	if (o.overload & 1)
		read_options(m + AT_FILE, AT_MAGIC - AT_FILE, &o);
	if (o.overload & 2)
		read_options(m + AT_SNAME, AT_FILE - AT_SNAME, &o);
	memcpy(said->mac, m + AT_CHADDR, sizeof said->mac);
	/* who declines an address has none yet, and names it in an option (RFC 2131, table 5) */
	const unsigned char *address = towards ? m + AT_YIADDR : o.type == TYPE_DECLINE ? o.address : m + AT_CIADDR;
	memcpy(said->address, address, sizeof said->address);
	said->seconds = o.seconds;
	if (towards && o.type == TYPE_ACK && o.seconds) /* one without a time answers a question (RFC 2131, 4.3.5) */
		said->word = LEASE_GIVEN;
	else if (towards && o.type == TYPE_NAK)
		said->word = LEASE_REFUSED;
	else if (!towards && (o.type == TYPE_RELEASE || o.type == TYPE_DECLINE))
		said->word = LEASE_RETURNED;
}

void lease_read(const void *frame, size_t length, bool towards, struct lease_said *ret_said)
{
	const unsigned char *f = frame, *ip = f + ETHERNET;

	*ret_said = (struct lease_said){ .word = LEASE_NOTHING };
	if (length < ETHERNET + 20 || f[12] != 8 || f[13] != 0 || ip[0] >> 4 != 4 || ip[9] != IPPROTO_UDP)
		return;
	size_t header = (size_t)(ip[0] & 15) * 4, total = (size_t)ip[2] << 8 | ip[3];
	bool later = (ip[6] & 0x1f) || ip[7]; /* a fragment that is not the first */
	if (header < 20 || total > length - ETHERNET || total < header + UDP || later)
		return;
	const unsigned char *udp = ip + header;
	unsigned from = (unsigned)udp[0] << 8 | udp[1], to = (unsigned)udp[2] << 8 | udp[3];
	if (towards ? from == SERVER && to == CLIENT : to == SERVER)
		read_message(udp + UDP, total - header - UDP, towards, ret_said);
}

/* UDP over IPv4 to port 67, or from it, and the first fragment: what tcpdump makes of it, with the header's length followed. */
static const struct sock_filter dhcp[] = {
	BPF_STMT(BPF_LD | BPF_H | BPF_ABS, 12),
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ETH_P_IP, 0, 8),
	BPF_STMT(BPF_LD | BPF_B | BPF_ABS, ETHERNET + 9),
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, IPPROTO_UDP, 0, 6),
	BPF_STMT(BPF_LDX | BPF_B | BPF_MSH, ETHERNET),
	BPF_STMT(BPF_LD | BPF_H | BPF_IND, ETHERNET),
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SERVER, 2, 0),
	BPF_STMT(BPF_LD | BPF_H | BPF_IND, ETHERNET + 2),
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SERVER, 0, 1),
	BPF_STMT(BPF_RET | BPF_K, 2048),
	BPF_STMT(BPF_RET | BPF_K, 0),
};

int lease_listen(const char *port, int *ret_fd, struct err *e)
{
	const struct sock_fprog program = { ARRAY_SIZE(dhcp), (struct sock_filter *)(uintptr_t)dhcp };
	struct sockaddr_ll at = { .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL), .sll_ifindex = (int)if_nametoindex(port) };
	own_fd int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0); /* deaf until it is bound */
	const int size = 256 << 10;

	if (!at.sll_ifindex)
		return err_errno(e, ENODEV, "listen for DHCP on %s", port);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program) < 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size) < 0 || bind(fd, (struct sockaddr *)&at, sizeof at) < 0)
		return err_errno(e, errno, "listen for DHCP on %s", port);
	*ret_fd = TAKE_FD(fd);
	return 0;
}

int lease_next(int fd, struct lease_said *ret_said)
{
	struct tpacket_stats lost = { 0 };
	socklen_t size = sizeof lost;

	for (;;) {
		unsigned char frame[2048];
		struct sockaddr_ll at = { 0 };
		socklen_t length = sizeof at;
		ssize_t got = recvfrom(fd, frame, sizeof frame, 0, (struct sockaddr *)&at, &length);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0 && errno == EAGAIN)
			break;
		if (got < 0)
			return -ENETDOWN;
		lease_read(frame, (size_t)got, at.sll_pkttype == PACKET_OUTGOING, ret_said);
		if (ret_said->word != LEASE_NOTHING)
			return 1;
	}
	return getsockopt(fd, SOL_PACKET, PACKET_STATISTICS, &lost, &size) == 0 && lost.tp_drops ? -ENOBUFS : 0; /* the count begins anew */
}
