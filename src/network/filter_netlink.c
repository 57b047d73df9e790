/* SPDX-License-Identifier: Apache-2.0 */
/*
 * nfnetlink by libmnl. A batch is one message for the kernel: begin, changes, end; it answers with the first error or, because
 * the last change asks for it, with one acknowledgement after the commit.
 *
 * Dumps may be interrupted by another program's change (NLM_F_DUMP_INTR); they are taken anew, a few times.
 */
#include "network/filter_netlink.h"

#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "network/netfilter.h"

#define ELEMENTS_BYTES 32768 /* of one message; an attribute's length has 16 bits */
#define BUFFER_BYTES (1 << 23)
#define RECEIVE_BYTES 65536

struct filter_netlink {
	struct mnl_socket *socket;
	uint32_t sequence;
	char *receive;
};

int filter_netlink_open(struct filter_netlink **ret_netlink, struct err *e)
{
	struct mnl_socket *socket;
	int room = BUFFER_BYTES;

	if (netfilter_open(&socket, e) < 0)
		return -1;
	(void)setsockopt(mnl_socket_get_fd(socket), SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof room);
	(void)setsockopt(mnl_socket_get_fd(socket), SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room);
	struct filter_netlink *n = mem_alloc(sizeof *n);
	n->socket = socket;
	n->receive = mem_alloc(RECEIVE_BYTES);
	*ret_netlink = n;
	return 0;
}

void filter_netlink_free(struct filter_netlink *n)
{
	if (!n)
		return;
	(void)mnl_socket_close(n->socket);
	free(n->receive);
	free(n);
}

static struct nlmsghdr *message(struct filter_netlink *n, void *at, unsigned type, unsigned flags, unsigned family)
{
	return netfilter_message(at, type, flags, family, ++n->sequence);
}

static unsigned nft(unsigned type) { return NFNL_SUBSYS_NFTABLES << 8 | type; }
static unsigned family_of(bool bridge) { return bridge ? NFPROTO_BRIDGE : NFPROTO_INET; }

/* Sends and hears all answers to sequence numbers of this call; `seen` is for dumps. */
static int talk(struct filter_netlink *n, const void *bytes, size_t length, uint32_t first, mnl_cb_t seen, void *context)
{
	if (mnl_socket_sendto(n->socket, bytes, length) < 0)
		return -errno;
	for (;;) {
		ssize_t got = mnl_socket_recvfrom(n->socket, n->receive, RECEIVE_BYTES);
		if (got < 0)
			return -errno;
		const struct nlmsghdr *header = (const struct nlmsghdr *)n->receive;
		if ((size_t)got >= sizeof *header && header->nlmsg_seq < first)
			continue; /* a late answer to something that failed before */
		int result = mnl_cb_run(n->receive, (size_t)got, 0, mnl_socket_get_portid(n->socket), seen, context);
		if (result <= MNL_CB_STOP)
			return result < 0 ? -errno : 0;
	}
}

static int dump(struct filter_netlink *n, void *request, mnl_cb_t seen, void *context)
{
	const struct nlmsghdr *header = request;
	return talk(n, request, header->nlmsg_len, header->nlmsg_seq, seen, context);
}

/* Elements. */

static void put_element(struct nlmsghdr *header, const struct filter_element *x, bool come)
{
	struct nlattr *element = mnl_attr_nest_start(header, NFTA_LIST_ELEM);
	struct nlattr *key = mnl_attr_nest_start(header, NFTA_SET_ELEM_KEY);

	mnl_attr_put(header, NFTA_DATA_VALUE, x->key_length, x->key);
	mnl_attr_nest_end(header, key);
	if (come && x->data_length) {
		struct nlattr *data = mnl_attr_nest_start(header, NFTA_SET_ELEM_DATA);
		if (filter_set_kinds[x->set].data == DATA_VERDICT) {
			struct nlattr *verdict = mnl_attr_nest_start(header, NFTA_DATA_VERDICT);
			mnl_attr_put_u32(header, NFTA_VERDICT_CODE, htonl((uint32_t)NFT_GOTO));
			mnl_attr_put_strz(header, NFTA_VERDICT_CHAIN, (const char *)x->data);
			mnl_attr_nest_end(header, verdict);
		} else {
			mnl_attr_put(header, NFTA_DATA_VALUE, x->data_length, x->data);
		}
		mnl_attr_nest_end(header, data);
	}
	mnl_attr_nest_end(header, element);
}

static const char *set_name(const struct filter_element *x)
{
	return filter_set_kinds[x->set].name ? filter_set_kinds[x->set].name : x->name;
}

static bool same_set(const struct filter_element *a, const struct filter_element *b)
{
	return a->set == b->set && str_eq(set_name(a), set_name(b));
}

/* Messages for elements of one direction, as many as fit each; returns how many elements the last message took. */
static size_t put_elements(struct filter_netlink *n, struct str *batch, const char *table,
			   const struct filter_element *const *list, size_t count, bool come, size_t *ret_last)
{
	size_t done = 0;

	str_reserve(batch, ELEMENTS_BYTES + 1024);
	*ret_last = batch->length;
	struct nlmsghdr *header = message(n, batch->bytes + batch->length, nft(come ? NFT_MSG_NEWSETELEM : NFT_MSG_DELSETELEM),
					  come ? NLM_F_CREATE : 0, family_of(filter_set_kinds[list[0]->set].bridge));
	mnl_attr_put_strz(header, NFTA_SET_ELEM_LIST_TABLE, table);
	mnl_attr_put_strz(header, NFTA_SET_ELEM_LIST_SET, set_name(list[0]));
	struct nlattr *elements = mnl_attr_nest_start(header, NFTA_SET_ELEM_LIST_ELEMENTS);
	for (; done < count && same_set(list[0], list[done]) && header->nlmsg_len < ELEMENTS_BYTES - 256; done++)
		put_element(header, list[done], come);
	mnl_attr_nest_end(header, elements);
	batch->length += header->nlmsg_len;
	return done;
}

static void put_edge(struct filter_netlink *n, struct str *batch, unsigned type)
{
	str_reserve(batch, 64);
	struct nlmsghdr *header = message(n, batch->bytes + batch->length, type, 0, AF_UNSPEC);
	((struct nfgenmsg *)mnl_nlmsg_get_payload(header))->res_id = htons(NFNL_SUBSYS_NFTABLES);
	batch->length += header->nlmsg_len;
}

int filter_netlink_change(struct filter_netlink *n, const char *table, const struct filter_element *const *gone,
			  size_t gone_count, const struct filter_element *const *come, size_t come_count, struct err *e)
{
	own_strbuf struct str batch = { 0 };
	uint32_t first = n->sequence + 1;
	size_t last = 0;

	if (!gone_count && !come_count)
		return 0;
	put_edge(n, &batch, NFNL_MSG_BATCH_BEGIN);
	for (size_t i = 0; i < gone_count;)
		i += put_elements(n, &batch, table, gone + i, gone_count - i, false, &last);
	for (size_t i = 0; i < come_count;)
		i += put_elements(n, &batch, table, come + i, come_count - i, true, &last);
	((struct nlmsghdr *)(batch.bytes + last))->nlmsg_flags |= NLM_F_ACK;
	put_edge(n, &batch, NFNL_MSG_BATCH_END);
	int result = talk(n, batch.bytes, batch.length, first, NULL, NULL);
	return result < 0 ? err_errno(e, -result, "cannot change %zu elements of table %s", gone_count + come_count, table) : 0;
}

/* State. */

static int attribute(const struct nlattr *attr, void *context)
{
	const struct nlattr **table = context;
	if (mnl_attr_get_type(attr) < 16)
		table[mnl_attr_get_type(attr)] = attr;
	return MNL_CB_OK;
}

static int seen_generation(const struct nlmsghdr *header, void *context)
{
	const struct nlattr *attrs[16] = { 0 };

	(void)mnl_attr_parse(header, sizeof(struct nfgenmsg), attribute, attrs);
	if (attrs[NFTA_GEN_ID])
		*(uint32_t *)context = ntohl(mnl_attr_get_u32(attrs[NFTA_GEN_ID]));
	return MNL_CB_STOP;
}

int filter_netlink_generation(struct filter_netlink *n, uint32_t *ret_generation, struct err *e)
{
	char request[256];
	uint32_t generation = 0;
	int result = dump(n, message(n, request, nft(NFT_MSG_GETGEN), 0, AF_UNSPEC), seen_generation, &generation);

	if (result < 0)
		return err_errno(e, -result, "cannot ask for the generation of the rules");
	*ret_generation = generation;
	return 0;
}

struct digesting {
	const char *table;
	uint64_t sum;
	char (*sets)[2][FILTER_NAME]; /* names; [1]: "b" for family bridge */
	size_t set_count, set_room;
};

static uint64_t fnv(const unsigned char *bytes, size_t length)
{
	uint64_t hash = 0xcbf29ce484222325u; /* FNV-1a */
	for (size_t i = 0; i < length; i++)
		hash = (hash ^ bytes[i]) * 0x100000001b3u;
	return hash ^ hash >> 29;
}

/* NFTA_*_TABLE is 1 in chains, rules, sets and element lists. */
static int seen_part(const struct nlmsghdr *header, void *context)
{
	struct digesting *d = context;
	const struct nfgenmsg *generic = mnl_nlmsg_get_payload(header);
	const struct nlattr *attrs[16] = { 0 };

	(void)mnl_attr_parse(header, sizeof *generic, attribute, attrs);
	if (!attrs[1] || !str_eq(mnl_attr_get_str(attrs[1]), d->table))
		return MNL_CB_OK;
	if ((header->nlmsg_type & 0xff) == NFT_MSG_NEWSET) {
		uint32_t flags = attrs[NFTA_SET_FLAGS] ? ntohl(mnl_attr_get_u32(attrs[NFTA_SET_FLAGS])) : 0;
		if (!(flags & NFT_SET_EVAL)) {
			MEM_PUSH_ROOM(d->sets, d->set_count, d->set_room);
			(void)snprintf(d->sets[d->set_count][0], FILTER_NAME, "%s", mnl_attr_get_str(attrs[NFTA_SET_NAME]));
			d->sets[d->set_count++][1][0] = generic->nfgen_family == NFPROTO_BRIDGE ? 'b' : 'i';
		}
		d->sum += fnv((const unsigned char *)mnl_attr_get_str(attrs[NFTA_SET_NAME]),
			      strlen(mnl_attr_get_str(attrs[NFTA_SET_NAME])));
		return MNL_CB_OK;
	}
	if ((header->nlmsg_type & 0xff) == NFT_MSG_NEWCHAIN) { /* its use count changes with elements */
		d->sum += fnv((const unsigned char *)mnl_attr_get_str(attrs[NFTA_CHAIN_NAME]),
			      strlen(mnl_attr_get_str(attrs[NFTA_CHAIN_NAME])));
		return MNL_CB_OK;
	}
	/* Behind the generic header, whose last part is the generation. */
	d->sum += fnv((const unsigned char *)(generic + 1), mnl_nlmsg_get_payload_len(header) - sizeof *generic);
	return MNL_CB_OK;
}

static int seen_elements(const struct nlmsghdr *header, void *context)
{
	struct digesting *d = context;
	const struct nlattr *attrs[16] = { 0 }, *element;

	(void)mnl_attr_parse(header, sizeof(struct nfgenmsg), attribute, attrs);
	if (!attrs[NFTA_SET_ELEM_LIST_ELEMENTS] || !attrs[NFTA_SET_ELEM_LIST_SET])
		return MNL_CB_OK;
	uint64_t set = fnv(mnl_attr_get_payload(attrs[NFTA_SET_ELEM_LIST_SET]),
			   mnl_attr_get_payload_len(attrs[NFTA_SET_ELEM_LIST_SET]));
	mnl_attr_for_each_nested (element, attrs[NFTA_SET_ELEM_LIST_ELEMENTS])
		d->sum += (set | 1) * fnv(mnl_attr_get_payload(element), mnl_attr_get_payload_len(element));
	return MNL_CB_OK;
}

static int digest_family(struct filter_netlink *n, struct digesting *d, bool bridge)
{
	static const unsigned types[] = { NFT_MSG_GETCHAIN, NFT_MSG_GETRULE, NFT_MSG_GETSET };
	char request[512];
	int result = 0;

	for (size_t i = 0; i < ARRAY_SIZE(types) && result >= 0; i++) {
		struct nlmsghdr *header = message(n, request, nft(types[i]), NLM_F_DUMP, family_of(bridge));
		if (types[i] != NFT_MSG_GETCHAIN)
			mnl_attr_put_strz(header, 1, d->table);
		result = dump(n, request, seen_part, d);
	}
	return result == -ENOENT ? 0 : result;
}

static int digest_once(struct filter_netlink *n, struct digesting *d)
{
	char request[512];
	int result = digest_family(n, d, true);

	if (result >= 0)
		result = digest_family(n, d, false);
	for (size_t i = 0; i < d->set_count && result >= 0; i++) {
		struct nlmsghdr *header = message(n, request, nft(NFT_MSG_GETSETELEM), NLM_F_DUMP,
						  family_of(d->sets[i][1][0] == 'b'));
		mnl_attr_put_strz(header, NFTA_SET_ELEM_LIST_TABLE, d->table);
		mnl_attr_put_strz(header, NFTA_SET_ELEM_LIST_SET, d->sets[i][0]);
		result = dump(n, request, seen_elements, d);
	}
	return result;
}

int filter_netlink_digest(struct filter_netlink *n, const char *table, uint64_t *ret_digest, struct err *e)
{
	int result = -EINTR;

	for (int tries = 0; tries < 5 && (result == -EINTR || result == -ENOENT); tries++) {
		struct digesting d = { .table = table };
		result = digest_once(n, &d);
		if (result >= 0)
			*ret_digest = d.sum;
		free(d.sets);
	}
	return result < 0 ? err_errno(e, -result, "cannot read the rules of table %s", table) : 0;
}

/* Counters. */

struct counting {
	filter_counter_seen *seen;
	void *context;
};

static void seen_counter(const struct nlattr *element, struct counting *c)
{
	const struct nlattr *parts[16] = { 0 }, *key[16] = { 0 }, *expr[16] = { 0 }, *counter[16] = { 0 };

	(void)mnl_attr_parse_nested(element, attribute, parts);
	if (!parts[NFTA_SET_ELEM_KEY] || !parts[NFTA_SET_ELEM_EXPR])
		return;
	(void)mnl_attr_parse_nested(parts[NFTA_SET_ELEM_KEY], attribute, key);
	(void)mnl_attr_parse_nested(parts[NFTA_SET_ELEM_EXPR], attribute, expr);
	if (!key[NFTA_DATA_VALUE] || !expr[NFTA_EXPR_DATA])
		return;
	(void)mnl_attr_parse_nested(expr[NFTA_EXPR_DATA], attribute, counter);
	if (!counter[NFTA_COUNTER_BYTES] || !counter[NFTA_COUNTER_PACKETS])
		return;
	c->seen(c->context, mnl_attr_get_payload(key[NFTA_DATA_VALUE]), mnl_attr_get_payload_len(key[NFTA_DATA_VALUE]),
		be64toh(mnl_attr_get_u64(counter[NFTA_COUNTER_PACKETS])),
		be64toh(mnl_attr_get_u64(counter[NFTA_COUNTER_BYTES])));
}

static int seen_counters(const struct nlmsghdr *header, void *context)
{
	const struct nlattr *attrs[16] = { 0 }, *element;

	(void)mnl_attr_parse(header, sizeof(struct nfgenmsg), attribute, attrs);
	if (attrs[NFTA_SET_ELEM_LIST_ELEMENTS])
		mnl_attr_for_each_nested (element, attrs[NFTA_SET_ELEM_LIST_ELEMENTS])
			seen_counter(element, context);
	return MNL_CB_OK;
}

int filter_netlink_counters(struct filter_netlink *n, bool bridge, const char *table, const char *set,
			    filter_counter_seen *seen, void *context, struct err *e)
{
	char request[512];
	struct counting c = { seen, context };
	struct nlmsghdr *header = message(n, request, nft(NFT_MSG_GETSETELEM), NLM_F_DUMP, family_of(bridge));

	mnl_attr_put_strz(header, NFTA_SET_ELEM_LIST_TABLE, table);
	mnl_attr_put_strz(header, NFTA_SET_ELEM_LIST_SET, set);
	int result = dump(n, request, seen_counters, &c);
	return result < 0 && result != -ENOENT && result != -EINTR ?
		       err_errno(e, -result, "cannot read the counters of %s", set) :
		       0;
}

int filter_netlink_flush_counters(struct filter_netlink *n, const char *table, struct err *e)
{
	static const struct {
		const char *name;
		bool bridge;
	} sets[] = { { "refused", true }, { "out_hits", true }, { "in_hits", true },
		     { "out_hits", false }, { "in_hits4", false }, { "in_hits6", false }, { "invalid", false } };
	own_strbuf struct str batch = { 0 };
	uint32_t first = n->sequence + 1;

	put_edge(n, &batch, NFNL_MSG_BATCH_BEGIN);
	for (size_t i = 0; i < ARRAY_SIZE(sets); i++) {
		str_reserve(&batch, 512);
		struct nlmsghdr *header = message(n, batch.bytes + batch.length, nft(NFT_MSG_DELSETELEM),
						  i + 1 == ARRAY_SIZE(sets) ? NLM_F_ACK : 0, family_of(sets[i].bridge));
		mnl_attr_put_strz(header, NFTA_SET_ELEM_LIST_TABLE, table);
		mnl_attr_put_strz(header, NFTA_SET_ELEM_LIST_SET, sets[i].name);
		batch.length += header->nlmsg_len;
	}
	put_edge(n, &batch, NFNL_MSG_BATCH_END);
	int result = talk(n, batch.bytes, batch.length, first, NULL, NULL);
	return result < 0 ? err_errno(e, -result, "cannot reset the counters of table %s", table) : 0;
}

/* Flows. */

struct flowing {
	filter_flow_seen *seen;
	void *context;
};

static int seen_flows(const struct nlmsghdr *header, void *context)
{
	const struct nlattr *attrs[16] = { 0 }, *element;
	struct flowing *f = context;

	(void)mnl_attr_parse(header, sizeof(struct nfgenmsg), attribute, attrs);
	if (!attrs[NFTA_SET_ELEM_LIST_ELEMENTS])
		return MNL_CB_OK;
	mnl_attr_for_each_nested (element, attrs[NFTA_SET_ELEM_LIST_ELEMENTS]) {
		const struct nlattr *parts[16] = { 0 }, *key[16] = { 0 };
		struct filter_netlink_flow flow = { 0 };
		(void)mnl_attr_parse_nested(element, attribute, parts);
		if (parts[NFTA_SET_ELEM_KEY])
			(void)mnl_attr_parse_nested(parts[NFTA_SET_ELEM_KEY], attribute, key);
		if (!key[NFTA_DATA_VALUE] || mnl_attr_get_payload_len(key[NFTA_DATA_VALUE]) > sizeof flow.key)
			continue;
		flow.key_length = mnl_attr_get_payload_len(key[NFTA_DATA_VALUE]);
		memcpy(flow.key, mnl_attr_get_payload(key[NFTA_DATA_VALUE]), flow.key_length);
		if (parts[NFTA_SET_ELEM_EXPIRATION])
			flow.left_ms = be64toh(mnl_attr_get_u64(parts[NFTA_SET_ELEM_EXPIRATION])) + 1;
		f->seen(f->context, &flow);
	}
	return MNL_CB_OK;
}

int filter_netlink_flows(struct filter_netlink *n, const char *table, const char *set, filter_flow_seen *seen, void *context,
			 struct err *e)
{
	char request[512];
	struct flowing f = { seen, context };
	struct nlmsghdr *header = message(n, request, nft(NFT_MSG_GETSETELEM), NLM_F_DUMP, family_of(true));

	mnl_attr_put_strz(header, NFTA_SET_ELEM_LIST_TABLE, table);
	mnl_attr_put_strz(header, NFTA_SET_ELEM_LIST_SET, set);
	int result = dump(n, request, seen_flows, &f);
	return result < 0 && result != -ENOENT && result != -EINTR ?
		       err_errno(e, -result, "cannot read what %s remembers", set) :
		       0;
}

static size_t put_flows(struct filter_netlink *n, struct str *batch, const char *table, const char *set,
			const struct filter_netlink_flow *flows, size_t count, bool come)
{
	size_t done = 0;

	str_reserve(batch, ELEMENTS_BYTES + 1024);
	struct nlmsghdr *header = message(n, batch->bytes + batch->length, nft(come ? NFT_MSG_NEWSETELEM : NFT_MSG_DELSETELEM),
					  NLM_F_ACK | (come ? NLM_F_CREATE : 0), family_of(true));
	mnl_attr_put_strz(header, NFTA_SET_ELEM_LIST_TABLE, table);
	mnl_attr_put_strz(header, NFTA_SET_ELEM_LIST_SET, set);
	struct nlattr *elements = mnl_attr_nest_start(header, NFTA_SET_ELEM_LIST_ELEMENTS);
	for (; done < count && header->nlmsg_len < ELEMENTS_BYTES - 256; done++) {
		struct nlattr *element = mnl_attr_nest_start(header, NFTA_LIST_ELEM),
			      *key = mnl_attr_nest_start(header, NFTA_SET_ELEM_KEY);
		mnl_attr_put(header, NFTA_DATA_VALUE, flows[done].key_length, flows[done].key);
		mnl_attr_nest_end(header, key);
		if (come && flows[done].left_ms)
			mnl_attr_put_u64(header, NFTA_SET_ELEM_TIMEOUT, htobe64(flows[done].left_ms));
		mnl_attr_nest_end(header, element);
	}
	mnl_attr_nest_end(header, elements);
	batch->length += header->nlmsg_len;
	return done;
}

/* Each message alone, and again by halves when it fails: between reading and now one may have ended by itself. */
int filter_netlink_change_flows(struct filter_netlink *n, const char *table, const char *set,
				const struct filter_netlink_flow *flows, size_t count, bool come, struct err *e)
{
	for (size_t i = 0; i < count;) {
		own_strbuf struct str batch = { 0 };
		uint32_t first = n->sequence + 1;
		put_edge(n, &batch, NFNL_MSG_BATCH_BEGIN);
		size_t done = put_flows(n, &batch, table, set, flows + i, count - i, come);
		put_edge(n, &batch, NFNL_MSG_BATCH_END);
		int result = talk(n, batch.bytes, batch.length, first, NULL, NULL);
		if (result == -ENOENT && done > 1) {
			if (filter_netlink_change_flows(n, table, set, flows + i, done / 2, come, e) < 0 ||
			    filter_netlink_change_flows(n, table, set, flows + i + done / 2, done - done / 2, come, e) < 0)
				return -EIO;
		} else if (result < 0 && result != -ENOENT && result != -EEXIST) {
			return err_errno(e, -result, "cannot change what %s remembers", set);
		}
		i += done;
	}
	return 0;
}

/* Connections. */

struct ending {
	filter_connection_ends *ends;
	void *context;
	struct str orders; /* messages that delete */
	struct filter_netlink *netlink;
	int count;
};

struct tuple {
	struct filter_address from, to;
	unsigned protocol;
	uint16_t from_port, to_port;
};

static bool tuple_parse(const struct nlattr *attr, struct tuple *t)
{
	const struct nlattr *parts[16] = { 0 }, *ip[16] = { 0 }, *proto[16] = { 0 };

	(void)mnl_attr_parse_nested(attr, attribute, parts);
	if (!parts[CTA_TUPLE_IP] || !parts[CTA_TUPLE_PROTO])
		return false;
	(void)mnl_attr_parse_nested(parts[CTA_TUPLE_IP], attribute, ip);
	(void)mnl_attr_parse_nested(parts[CTA_TUPLE_PROTO], attribute, proto);
	t->from.ipv6 = t->to.ipv6 = ip[CTA_IP_V6_SRC] != NULL;
	const struct nlattr *from = ip[t->from.ipv6 ? CTA_IP_V6_SRC : CTA_IP_V4_SRC],
			    *to = ip[t->from.ipv6 ? CTA_IP_V6_DST : CTA_IP_V4_DST];
	size_t length = t->from.ipv6 ? 16 : 4;
	if (!from || !to || !proto[CTA_PROTO_NUM] || mnl_attr_get_payload_len(from) < length ||
	    mnl_attr_get_payload_len(to) < length)
		return false;
	memcpy(t->from.bytes, mnl_attr_get_payload(from), length);
	memcpy(t->to.bytes, mnl_attr_get_payload(to), length);
	t->protocol = mnl_attr_get_u8(proto[CTA_PROTO_NUM]);
	t->from_port = proto[CTA_PROTO_SRC_PORT] ? ntohs(mnl_attr_get_u16(proto[CTA_PROTO_SRC_PORT])) : 0;
	t->to_port = proto[CTA_PROTO_DST_PORT] ? ntohs(mnl_attr_get_u16(proto[CTA_PROTO_DST_PORT])) : 0;
	return true;
}

static int seen_connection(const struct nlmsghdr *header, void *context)
{
	struct ending *end = context;
	const struct nfgenmsg *generic = mnl_nlmsg_get_payload(header);
	const struct nlattr *attrs[32] = { 0 };
	struct tuple original = { 0 }, reply = { 0 };

	(void)mnl_attr_parse(header, sizeof *generic, attribute, attrs);
	if (!attrs[CTA_TUPLE_ORIG] || !attrs[CTA_TUPLE_REPLY] || !tuple_parse(attrs[CTA_TUPLE_ORIG], &original) ||
	    !tuple_parse(attrs[CTA_TUPLE_REPLY], &reply))
		return MNL_CB_OK;
	struct filter_connection c = { .from = original.from, .to = reply.from, .protocol = original.protocol,
				       .port = reply.from_port };
	c.published = memcmp(original.to.bytes, reply.from.bytes, 16) != 0 || original.to_port != reply.from_port;
	if (!end->ends(end->context, &c))
		return MNL_CB_OK;
	str_reserve(&end->orders, 1024);
	struct nlmsghdr *order = message(end->netlink, end->orders.bytes + end->orders.length,
					 NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_DELETE, NLM_F_ACK, generic->nfgen_family);
	mnl_attr_put(order, CTA_TUPLE_ORIG | NLA_F_NESTED, mnl_attr_get_payload_len(attrs[CTA_TUPLE_ORIG]),
		     mnl_attr_get_payload(attrs[CTA_TUPLE_ORIG]));
	if (attrs[CTA_ID])
		mnl_attr_put(order, CTA_ID, mnl_attr_get_payload_len(attrs[CTA_ID]), mnl_attr_get_payload(attrs[CTA_ID]));
	end->orders.length += order->nlmsg_len;
	end->count++;
	return MNL_CB_OK;
}

int filter_netlink_connections(struct filter_netlink *n, filter_connection_ends *ends, void *context, struct err *e)
{
	char request[256];
	struct ending end = { .ends = ends, .context = context, .netlink = n };
	int result = dump(n, message(n, request, NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET, NLM_F_DUMP, AF_UNSPEC),
			  seen_connection, &end);

	for (size_t at = 0; at < end.orders.length && (result >= 0 || result == -EINTR);) {
		const struct nlmsghdr *order = (const struct nlmsghdr *)(end.orders.bytes + at);
		int deleted = talk(n, order, order->nlmsg_len, order->nlmsg_seq, NULL, NULL);
		if (deleted < 0 && deleted != -ENOENT) /* it may have ended by itself */
			result = deleted;
		at += order->nlmsg_len;
	}
	str_done(&end.orders);
	return result < 0 && result != -EINTR ? err_errno(e, -result, "cannot end connections that are not allowed any more") :
						end.count;
}

/* Others. */

struct dropping {
	filter_chain_seen *seen;
	void *context;
};

static int seen_chain(const struct nlmsghdr *header, void *context)
{
	struct dropping *d = context;
	const struct nfgenmsg *generic = mnl_nlmsg_get_payload(header);
	const struct nlattr *attrs[16] = { 0 }, *hook[16] = { 0 };
	const char *family = generic->nfgen_family == NFPROTO_IPV4 ? "ip" :
			     generic->nfgen_family == NFPROTO_IPV6 ? "ip6" :
								     "inet";

	(void)mnl_attr_parse(header, sizeof *generic, attribute, attrs);
	if (!attrs[NFTA_CHAIN_HOOK] || !attrs[NFTA_CHAIN_POLICY] || !attrs[NFTA_CHAIN_TABLE] || !attrs[NFTA_CHAIN_NAME] ||
	    (generic->nfgen_family != NFPROTO_IPV4 && generic->nfgen_family != NFPROTO_IPV6 &&
	     generic->nfgen_family != NFPROTO_INET))
		return MNL_CB_OK;
	(void)mnl_attr_parse_nested(attrs[NFTA_CHAIN_HOOK], attribute, hook);
	if (hook[NFTA_HOOK_HOOKNUM] && ntohl(mnl_attr_get_u32(hook[NFTA_HOOK_HOOKNUM])) == NF_INET_FORWARD &&
	    (ntohl(mnl_attr_get_u32(attrs[NFTA_CHAIN_POLICY])) == NF_DROP ||
	     !strcmp(mnl_attr_get_str(attrs[NFTA_CHAIN_TABLE]), "firewalld")))
		d->seen(d->context, family, mnl_attr_get_str(attrs[NFTA_CHAIN_TABLE]),
			mnl_attr_get_str(attrs[NFTA_CHAIN_NAME]));
	return MNL_CB_OK;
}

int filter_netlink_dropping(struct filter_netlink *n, filter_chain_seen *seen, void *context, struct err *e)
{
	char request[256];
	struct dropping d = { seen, context };
	int result = dump(n, message(n, request, nft(NFT_MSG_GETCHAIN), NLM_F_DUMP, AF_UNSPEC), seen_chain, &d);
	return result < 0 && result != -EINTR ? err_errno(e, -result, "cannot read other programs' chains") : 0;
}
