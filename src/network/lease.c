/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. A packet socket on the workspace's port sees what leaves the bridge by it - what the filter has let through, so no
 * other workspace wrote it - and what the workspace sends, before the filter has seen it: what it would drop must not count, so
 * its conditions (network/filter_site.c) are asked here again. A program in the kernel lets come up what is DHCP, of this
 * port's own hardware address and not tagged; the rest cannot even fill the socket. The message type and the lease's length are
 * options in any order; options may go on in the fields for names (RFC 2132, 9.3), where a client could hide what it gives
 * back.
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

enum { ETHERNET = 14, UDP = 8, CLIENT = 68, SERVER = 67, FRAME_MOST = 2048 };
/* Of the BOOTP message (RFC 951), and options (RFC 2132). */
enum { AT_OP = 0, AT_HTYPE = 1, AT_HLEN = 2, AT_CIADDR = 12, AT_YIADDR = 16, AT_CHADDR = 28, AT_SNAME = 44, AT_FILE = 108,
       AT_MAGIC = 236, AT_OPTIONS = 240 };
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
	if (!towards && (m[AT_HTYPE] != 1 || m[AT_HLEN] != 6)) /* Ethernet's address, as the filter wants it */
		return;
	read_options(m + AT_OPTIONS, length - AT_OPTIONS, &o);
	if (o.overload & 1)
		read_options(m + AT_FILE, AT_MAGIC - AT_FILE, &o);
	if (o.overload & 2)
		read_options(m + AT_SNAME, AT_FILE - AT_SNAME, &o);
	memcpy(said->mac, m + AT_CHADDR, sizeof said->mac);
	memcpy(said->client, m + AT_CIADDR, sizeof said->client);
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

/* Who has no address may only say so to all, as a client. */
static bool may_send(const unsigned char *ip, unsigned from)
{
	static const unsigned char none[4], all[4] = { 255, 255, 255, 255 };

	return memcmp(ip + 12, none, 4) != 0 || (from == CLIENT && memcmp(ip + 16, all, 4) == 0);
}

void lease_read(const void *frame, size_t length, bool towards, struct lease_said *ret_said)
{
	const unsigned char *f = frame, *ip = f + ETHERNET;

	*ret_said = (struct lease_said){ .word = LEASE_NOTHING };
	if (length < ETHERNET + 20 || f[12] != 8 || f[13] != 0 || ip[0] >> 4 != 4 || ip[9] != IPPROTO_UDP)
		return;
	size_t header = (size_t)(ip[0] & 15) * 4, total = (size_t)ip[2] << 8 | ip[3];
	/* the first one of an answer has what is read; requests are whole */
	bool piece = (ip[6] & (towards ? 0x1f : 0x3f)) || ip[7];
	if (header < 20 || total > length - ETHERNET || total < header + UDP || piece)
		return;
	const unsigned char *udp = ip + header;
	unsigned from = (unsigned)udp[0] << 8 | udp[1], to = (unsigned)udp[2] << 8 | udp[3];
	memcpy(ret_said->sender, f + 6, sizeof ret_said->sender);
	memcpy(ret_said->from, ip + 12, sizeof ret_said->from);
	if (towards ? from == SERVER && to == CLIENT : from != SERVER && to == SERVER && may_send(ip, from))
		read_message(udp + UDP, total - header - UDP, towards, ret_said);
}

static bool holds(const struct lease_holder *port, const unsigned char address[static 4])
{
	for (size_t i = 0; i < port->count; i++)
		if (memcmp(port->held[i].address, address, sizeof port->held[i].address) == 0)
			return true;
	return false;
}

static bool is_none_or_held(const struct lease_holder *port, const unsigned char address[static 4])
{
	static const unsigned char none[4];

	return memcmp(address, none, sizeof none) == 0 || holds(port, address);
}

bool lease_counts(const struct lease_said *said, const struct lease_holder *port)
{
	if (said->word == LEASE_NOTHING || memcmp(said->mac, port->mac, sizeof said->mac) != 0)
		return false;
	return said->word != LEASE_RETURNED ||
	       (memcmp(said->sender, port->mac, sizeof said->sender) == 0 && holds(port, said->address) &&
		is_none_or_held(port, said->from) && is_none_or_held(port, said->client));
}

#define LOAD(size, mode, at) BPF_STMT(BPF_LD | BPF_##size | BPF_##mode, at)
#define ELSE_DROP(value, left) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 0, left)
#define PROGRAM_LENGTH 25

/* UDP over IPv4, the first fragment, of that chaddr: from port 67 on its way out; on its way in to port 67 and from that
 * address. The last number of a jump is how many instructions the refusal is away. */
static int listen_to(int fd, const unsigned char mac[static 6])
{
	const uint32_t high = (uint32_t)mac[0] << 24 | (uint32_t)mac[1] << 16 | (uint32_t)mac[2] << 8 | mac[3];
	const uint32_t low = (uint32_t)mac[4] << 8 | mac[5], chaddr = ETHERNET + UDP + AT_CHADDR;
	struct sock_filter own[PROGRAM_LENGTH] = {
		LOAD(B, ABS, (uint32_t)SKF_AD_OFF + SKF_AD_VLAN_TAG_PRESENT), ELSE_DROP(0, 22),
		LOAD(H, ABS, 12), ELSE_DROP(ETH_P_IP, 20),
		LOAD(B, ABS, ETHERNET + 9), ELSE_DROP(IPPROTO_UDP, 18),
		LOAD(H, ABS, ETHERNET + 6), BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, 0x1fff, 16, 0),
		BPF_STMT(BPF_LDX | BPF_B | BPF_MSH, ETHERNET),
		LOAD(W, IND, chaddr), ELSE_DROP(high, 13),
		LOAD(H, IND, chaddr + 4), ELSE_DROP(low, 11),
		LOAD(B, ABS, (uint32_t)SKF_AD_OFF + SKF_AD_PKTTYPE), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, PACKET_OUTGOING, 6, 0),
		LOAD(W, ABS, 6), ELSE_DROP(high, 7),
		LOAD(H, ABS, 10), ELSE_DROP(low, 5),
		LOAD(H, IND, ETHERNET + 2), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SERVER, 2, 3),
		LOAD(H, IND, ETHERNET), ELSE_DROP(SERVER, 1),
		BPF_STMT(BPF_RET | BPF_K, FRAME_MOST),
		BPF_STMT(BPF_RET | BPF_K, 0),
	};
	const struct sock_fprog program = { PROGRAM_LENGTH, own };

	return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program);
}

int lease_listen(const char *port, const unsigned char mac[static 6], int *ret_fd, struct err *e)
{
	struct sockaddr_ll at = { .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL),
				  .sll_ifindex = (int)if_nametoindex(port) };
	own_fd int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0); /* deaf until it is bound */
	const int size = 256 << 10;

	if (!at.sll_ifindex)
		return err_errno(e, ENODEV, "listen for DHCP on %s", port);
	if (fd < 0 || listen_to(fd, mac) < 0 || setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size) < 0 ||
	    bind(fd, (struct sockaddr *)&at, sizeof at) < 0)
		return err_errno(e, errno, "listen for DHCP on %s", port);
	*ret_fd = TAKE_FD(fd);
	return 0;
}

int lease_next(int fd, struct lease_said *ret_said)
{
	struct tpacket_stats lost = { 0 };
	socklen_t size = sizeof lost;

	for (;;) {
		unsigned char frame[FRAME_MOST];
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
	/* the count begins anew */
	return getsockopt(fd, SOL_PACKET, PACKET_STATISTICS, &lost, &size) == 0 && lost.tp_drops ? -ENOBUFS : 0;
}
