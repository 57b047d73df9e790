/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ctnetlink by libmnl. Connection tracking sees only some packets of a connection on the fast path, so three of its rules are
 * told so, for this connection alone (nf_conntrack_proto_tcp.c of Linux):
 *
 *   window         a segment outside of what it believes the window to be is invalid, and dropped  -> BE_LIBERAL
 *   reset          one that is before the last acknowledgement it saw is invalid                   -> MAXACK_SET is cleared
 *   unacknowledged data whose acknowledgement it did not see may be silent for 5 minutes only      -> DATA_UNACKNOWLEDGED is
 *                                                                                                  cleared
 *
 * A packet that comes by may set the last two again, so they are cleared as long as the flow lives, and at its end the time
 * is set. The two ends check all of this themselves (RFC 9293, RFC 5961); the sender is proven by port, MAC and address.
 */
#include "network/fast_connection.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <libmnl/libmnl.h>
#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/nf_conntrack_tcp.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"
#include "network/netfilter.h"

#define MESSAGE_BYTES 512
#define RECEIVE_BYTES 65536
#define SHORT_S       300    /* of data that is not acknowledged (RFC 5382: at least 4 minutes) */
#define LONG_S        432000 /* of an open connection, where the host does not say */
#define ESTABLISHED   3      /* enum tcp_conntrack, not in a header for programs */
#define LOOSE_FLAGS   (IP_CT_TCP_FLAG_BE_LIBERAL)
#define CLEAR_FLAGS   (IP_CT_TCP_FLAG_BE_LIBERAL | IP_CT_TCP_FLAG_MAXACK_SET | IP_CT_TCP_FLAG_DATA_UNACKNOWLEDGED)

struct fast_connections {
	struct mnl_socket *socket;
	uint32_t sequence;
	char receive[RECEIVE_BYTES];
};

int fast_connections_open(struct fast_connections **ret_connections, struct err *e)
{
	struct mnl_socket *socket;

	if (netfilter_open(&socket, e) < 0)
		return -1;
	struct fast_connections *c = mem_alloc(sizeof *c);
	c->socket = socket;
	*ret_connections = c;
	return 0;
}

void fast_connections_free(struct fast_connections *c)
{
	if (c)
		(void)mnl_socket_close(c->socket);
	free(c);
}

static struct nlmsghdr *begin(struct fast_connections *c, void *at, unsigned type, unsigned flags, unsigned family)
{
	return netfilter_message(at, NFNL_SUBSYS_CTNETLINK << 8 | type, flags, family, ++c->sequence);
}

static unsigned family_of(const struct fast_key *k) { return k->family == 6 ? AF_INET6 : AF_INET; }

/* Either direction of a connection finds it. */
static void put_tuple(struct nlmsghdr *h, const struct fast_key *k)
{
	bool ipv6 = k->family == 6;
	struct nlattr *tuple = mnl_attr_nest_start(h, CTA_TUPLE_ORIG), *part = mnl_attr_nest_start(h, CTA_TUPLE_IP);

	mnl_attr_put(h, ipv6 ? CTA_IP_V6_SRC : CTA_IP_V4_SRC, ipv6 ? 16 : 4, k->from);
	mnl_attr_put(h, ipv6 ? CTA_IP_V6_DST : CTA_IP_V4_DST, ipv6 ? 16 : 4, k->to);
	mnl_attr_nest_end(h, part);
	part = mnl_attr_nest_start(h, CTA_TUPLE_PROTO);
	mnl_attr_put_u8(h, CTA_PROTO_NUM, k->protocol);
	mnl_attr_put_u16(h, CTA_PROTO_SRC_PORT, k->ports[0]);
	mnl_attr_put_u16(h, CTA_PROTO_DST_PORT, k->ports[1]);
	mnl_attr_nest_end(h, part);
	mnl_attr_nest_end(h, tuple);
}

static int talk(struct fast_connections *c, const struct nlmsghdr *request, mnl_cb_t seen, void *data)
{
	if (mnl_socket_sendto(c->socket, request, request->nlmsg_len) < 0)
		return -errno;
	for (;;) {
		ssize_t got = mnl_socket_recvfrom(c->socket, c->receive, sizeof c->receive);
		if (got < 0)
			return -errno;
		const struct nlmsghdr *answer = (const struct nlmsghdr *)(const void *)c->receive;
		if ((size_t)got >= sizeof *answer && answer->nlmsg_seq != request->nlmsg_seq)
			continue; /* of a request that was given up */
		int r = mnl_cb_run(c->receive, (size_t)got, request->nlmsg_seq, mnl_socket_get_portid(c->socket), seen, data);
		if (r <= MNL_CB_STOP)
			return r < 0 ? -errno : 0;
	}
}

/* --- what is known of one --- */

struct state {
	bool seen, tcp;
	uint32_t status, left_s;
	uint8_t tcp_state, flags;
	bool watched; /* by a helper */
	struct fast_key key;
};

static int attribute(const struct nlattr *a, void *data)
{
	const struct nlattr **table = data;
	if (mnl_attr_get_type(a) < 32)
		table[mnl_attr_get_type(a)] = a;
	return MNL_CB_OK;
}

static void parse_tcp(const struct nlattr *info, struct state *s)
{
	const struct nlattr *kinds[32] = { 0 }, *tcp[32] = { 0 };

	(void)mnl_attr_parse_nested(info, attribute, kinds);
	if (!kinds[CTA_PROTOINFO_TCP])
		return;
	(void)mnl_attr_parse_nested(kinds[CTA_PROTOINFO_TCP], attribute, tcp);
	s->tcp = true;
	if (tcp[CTA_PROTOINFO_TCP_STATE])
		s->tcp_state = mnl_attr_get_u8(tcp[CTA_PROTOINFO_TCP_STATE]);
	if (tcp[CTA_PROTOINFO_TCP_FLAGS_ORIGINAL])
		s->flags = ((const struct nf_ct_tcp_flags *)mnl_attr_get_payload(tcp[CTA_PROTOINFO_TCP_FLAGS_ORIGINAL]))->flags;
}

static void parse_tuple(const struct nlattr *tuple, struct fast_key *k)
{
	const struct nlattr *parts[32] = { 0 }, *ip[32] = { 0 }, *proto[32] = { 0 };

	*k = (struct fast_key){ 0 };
	(void)mnl_attr_parse_nested(tuple, attribute, parts);
	if (!parts[CTA_TUPLE_IP] || !parts[CTA_TUPLE_PROTO])
		return;
	(void)mnl_attr_parse_nested(parts[CTA_TUPLE_IP], attribute, ip);
	(void)mnl_attr_parse_nested(parts[CTA_TUPLE_PROTO], attribute, proto);
	bool ipv6 = ip[CTA_IP_V6_SRC] != NULL;
	const struct nlattr *from = ip[ipv6 ? CTA_IP_V6_SRC : CTA_IP_V4_SRC], *to = ip[ipv6 ? CTA_IP_V6_DST : CTA_IP_V4_DST];
	uint16_t length = ipv6 ? 16 : 4;
	if (!from || !to || mnl_attr_get_payload_len(from) < length || mnl_attr_get_payload_len(to) < length ||
	    !proto[CTA_PROTO_NUM] || !proto[CTA_PROTO_SRC_PORT] || !proto[CTA_PROTO_DST_PORT])
		return;
	memcpy(k->from, mnl_attr_get_payload(from), length);
	memcpy(k->to, mnl_attr_get_payload(to), length);
	k->family = ipv6 ? 6 : 4;
	k->protocol = mnl_attr_get_u8(proto[CTA_PROTO_NUM]);
	k->ports[0] = mnl_attr_get_u16(proto[CTA_PROTO_SRC_PORT]);
	k->ports[1] = mnl_attr_get_u16(proto[CTA_PROTO_DST_PORT]);
}

static void parse(const struct nlmsghdr *message, struct state *s)
{
	const struct nlattr *attrs[32] = { 0 };

	*s = (struct state){ .seen = true };
	(void)mnl_attr_parse(message, sizeof(struct nfgenmsg), attribute, attrs);
	if (attrs[CTA_STATUS])
		s->status = ntohl(mnl_attr_get_u32(attrs[CTA_STATUS]));
	if (attrs[CTA_TIMEOUT])
		s->left_s = ntohl(mnl_attr_get_u32(attrs[CTA_TIMEOUT]));
	if (attrs[CTA_TUPLE_ORIG])
		parse_tuple(attrs[CTA_TUPLE_ORIG], &s->key);
	if (attrs[CTA_PROTOINFO])
		parse_tcp(attrs[CTA_PROTOINFO], s);
	s->watched = attrs[CTA_HELP] != NULL;
}

static int seen_one(const struct nlmsghdr *message, void *data)
{
	parse(message, data);
	return MNL_CB_OK;
}

static int get(struct fast_connections *c, const struct fast_key *key, struct state *ret_state)
{
	_Alignas(8) char request[MESSAGE_BYTES];
	struct nlmsghdr *h = begin(c, request, IPCTNL_MSG_CT_GET, NLM_F_ACK, family_of(key));

	*ret_state = (struct state){ 0 };
	put_tuple(h, key);
	int r = talk(c, h, seen_one, ret_state);
	return r < 0 ? r : ret_state->seen ? 0 : -ENOENT;
}

int fast_connection_settled(struct fast_connections *c, const struct fast_key *key, struct err *e)
{
	const uint32_t need = IPS_SEEN_REPLY | IPS_ASSURED | IPS_CONFIRMED, never = IPS_NAT_MASK | IPS_SEQ_ADJUST;
	struct state s;
	int r = get(c, key, &s);

	if (r == -ENOENT)
		return r;
	if (r < 0)
		return err_errno(e, -r, "look for a connection");
	if ((s.status & never) || s.watched)
		return -EPERM;
	if (key->protocol == IPPROTO_TCP && s.tcp_state != ESTABLISHED)
		return 0;
	return (s.status & need) == need && !(s.status & IPS_DYING);
}

/* --- what is told --- */

static int change(struct fast_connections *c, const struct fast_key *key, uint32_t timeout_s)
{
	static const struct nf_ct_tcp_flags flags = { .flags = LOOSE_FLAGS, .mask = CLEAR_FLAGS };
	_Alignas(8) char request[MESSAGE_BYTES];
	struct nlmsghdr *h = begin(c, request, IPCTNL_MSG_CT_NEW, NLM_F_ACK, family_of(key));

	put_tuple(h, key);
	if (timeout_s)
		mnl_attr_put_u32(h, CTA_TIMEOUT, htonl(timeout_s));
	if (key->protocol == IPPROTO_TCP) {
		struct nlattr *info = mnl_attr_nest_start(h, CTA_PROTOINFO), *tcp = mnl_attr_nest_start(h, CTA_PROTOINFO_TCP);
		mnl_attr_put(h, CTA_PROTOINFO_TCP_FLAGS_ORIGINAL, sizeof flags, &flags);
		mnl_attr_put(h, CTA_PROTOINFO_TCP_FLAGS_REPLY, sizeof flags, &flags);
		mnl_attr_nest_end(h, tcp);
		mnl_attr_nest_end(h, info);
	}
	return talk(c, h, NULL, NULL);
}

int fast_connection_loosen(struct fast_connections *c, const struct fast_key *key, struct err *e)
{
	int r = key->protocol == IPPROTO_TCP ? change(c, key, 0) : 0;
	return r < 0 && r != -ENOENT ? err_errno(e, -r, "tell connection tracking of the fast path") : r;
}

static uint32_t long_time(void)
{
	own_strbuf struct str text = { 0 };
	uint64_t seconds = 0;

	if (fs_read_file(AT_FDCWD, "/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_established", 64, &text, NULL) < 0)
		return LONG_S;
	if (text.length && text.bytes[text.length - 1] == '\n')
		text.bytes[--text.length] = '\0';
	return str_to_u64(str_text(&text), UINT32_MAX, &seconds) < 0 || !seconds ? LONG_S : (uint32_t)seconds;
}

static int rest(struct fast_connections *c, const struct state *s, const struct fast_key *key, struct err *e)
{
	if (!s->tcp || s->tcp_state != ESTABLISHED || s->left_s > SHORT_S)
		return 0;
	int r = change(c, key, long_time());
	return r < 0 && r != -ENOENT ? err_errno(e, -r, "tell connection tracking of the fast path") : 0;
}

int fast_connection_rest(struct fast_connections *c, const struct fast_key *key, struct err *e)
{
	struct state s;
	int r = key->protocol == IPPROTO_TCP ? get(c, key, &s) : -ENOENT;

	if (r < 0)
		return r == -ENOENT ? 0 : err_errno(e, -r, "look for a connection");
	return rest(c, &s, key, e);
}

struct all {
	struct state *items;
	size_t count, room;
};

static int seen_loose(const struct nlmsghdr *message, void *data)
{
	struct all *all = data;
	struct state s;

	parse(message, &s);
	if (s.tcp && (s.flags & IP_CT_TCP_FLAG_BE_LIBERAL) && s.tcp_state == ESTABLISHED && s.left_s <= SHORT_S &&
	    s.key.family) {
		MEM_PUSH_ROOM(all->items, all->count, all->room);
		all->items[all->count++] = s;
	}
	return MNL_CB_OK;
}

int fast_connection_rest_all(struct fast_connections *c, struct err *e)
{
	_Alignas(8) char request[MESSAGE_BYTES];
	struct all all = { 0 };
	int r = talk(c, begin(c, request, IPCTNL_MSG_CT_GET, NLM_F_DUMP, AF_UNSPEC), seen_loose, &all);

	if (r == -EINTR) /* somebody changed something meanwhile: what was seen is enough */
		r = 0;
	if (r < 0)
		(void)err_errno(e, -r, "look through the connections");
	for (size_t i = 0; i < all.count && r >= 0; i++)
		r = rest(c, &all.items[i], &all.items[i].key, e);
	free(all.items);
	return r;
}
