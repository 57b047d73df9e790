/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The part of both tables that no workspace changes: base chains, the chains of the default, the sets, and what networks put
 * into them. docs/formats/filter.md explains it chain by chain; the order here is the order of the packet's way.
 *
 * Two orders matter. In family bridge the first rules decide nearly every frame with one lookup that proves port, MAC address
 * and IP address and gives the mark. In family inet the first rule accepts what belongs to a known connection; everything
 * behind it is paid once a connection.
 */
#include "network/filter_compile.h"

#include <stdio.h>
#include <string.h>

static const char bridge_sets[] =
	"	map ports { type ifname : verdict; }\n"
	"	set guarded { type ifname; }\n"
	"	set macs { type ifname . ether_addr; }\n"
	"	map source4 { type ifname . ether_addr . ipv4_addr : mark; }\n"
	"	map source6 { type ifname . ether_addr . ipv6_addr : mark; }\n"
	"	set nd_targets { typeof iifname . @th,64,128; }\n"
	"	set nd_macs { typeof iifname . @th,208,48; }\n"
	"	set refused { type ifname . mark; size 65535; flags dynamic; }\n"
	"	set out_hits { type ifname . mark; size 65535; flags dynamic; }\n"
	"	set in_hits { type ifname . mark; size 65535; flags dynamic; }\n";

/* The reason travels in the packet's mark to where it is counted. */
#define REASON(name, code) "	chain refuse_" name " {\n		meta mark set " code " goto refuse\n	}\n"

#define LINK_LOCAL "ip6 saddr fe80::/64 ip6 saddr != fe80::1"

static const char bridge_chains[] =
	"	chain refuse {\n		update @refused { iifname . meta mark counter }\n		drop\n	}\n"
	REASON("mac", "0x21") REASON("ipv4", "0x22") REASON("ipv6", "0x23") REASON("arp", "0x24") REASON("nd", "0x25")
	REASON("router", "0x26") REASON("dhcp", "0x27") REASON("type", "0x28")
	"	chain own_arp {\n"
	"		iifname . ether saddr != @macs goto refuse_mac\n"
	"		arp htype != 1 goto refuse_arp\n"
	"		arp ptype != ip goto refuse_arp\n"
	"		arp hlen != 6 goto refuse_arp\n"
	"		arp plen != 4 goto refuse_arp\n"
	"		arp operation != { request, reply } goto refuse_arp\n"
	"		meta mark set iifname . arp saddr ether . arp saddr ip map @source4 accept\n"
	/* RFC 5227: a probe asks without saying who it is. */
	"		arp operation request arp saddr ip 0.0.0.0 iifname . arp saddr ether @macs accept\n"
	"		goto refuse_arp\n"
	"	}\n"
	/* Whose address is it? Its own, or any link-local one but the gateway's: on a bridge of ours only the host hears it. */
	"	chain own_claim {\n"
	"		iifname . @th,64,128 @nd_targets accept\n"
	"		@th,64,128 0xfe800000000000000000000000000001 goto refuse_nd\n"
	"		@th,64,16 0xfe80 accept\n"
	"		goto refuse_nd\n"
	"	}\n"
	"	chain own_nd {\n"
	"		iifname . ether saddr != @macs goto refuse_mac\n"
	"		ip6 hoplimit != 255 goto refuse_nd\n"
	/* RFC 4861, 4.3 and 4.4: the message, with at most one option of eight bytes; a probe's may be a nonce (RFC 7527). */
	"		ip6 length != { 24, 32 } goto refuse_nd\n"
	"		ip6 saddr :: icmpv6 type nd-neighbor-solicit goto own_claim\n"
	"		ip6 length 32 @th,192,16 != { 0x0101, 0x0201 } goto refuse_nd\n"
	"		ip6 length 32 iifname . @th,208,48 != @nd_macs goto refuse_nd\n"
	"		icmpv6 type nd-neighbor-advert goto own_claim\n"
	"		meta mark set iifname . ether saddr . ip6 saddr map @source6 accept\n"
	"		" LINK_LOCAL " accept\n"
	"		goto refuse_nd\n"
	"	}\n"
	"	chain own6 {\n"
	"		meta l4proto 58 icmpv6 type vmap { nd-neighbor-solicit : goto own_nd, nd-neighbor-advert : goto "
	"own_nd, nd-router-advert : goto refuse_router, nd-redirect : goto refuse_router, 138 : goto refuse_router }\n"
	"		udp sport 547 goto refuse_dhcp\n"
	/* RFC 6980: neighbour discovery is never fragmented, so what has its hop limit and is a fragment hides something. */
	"		exthdr frag exists ip6 hoplimit 255 goto refuse_nd\n"
	"		meta mark set iifname . ether saddr . ip6 saddr map @source6 accept\n"
	"		iifname . ether saddr != @macs goto refuse_mac\n"
	/* Guests make link-local addresses in several ways (RFC 7217). Before it has an address a host may only join groups
	 * (RFC 2710, 3810). */
	"		" LINK_LOCAL " accept\n"
	"		ip6 saddr :: ip6 daddr ff02::/16 icmpv6 type { 131, 132, 133, 143 } accept\n"
	"		goto refuse_ipv6\n"
	"	}\n"
	"	chain own {\n"
	"		ether type ip udp sport 67 goto refuse_dhcp\n"
	"		ether type ip meta mark set iifname . ether saddr . ip saddr map @source4 accept\n"
	"		ether type ip6 goto own6\n"
	"		ether type arp goto own_arp\n"
	"		iifname . ether saddr != @macs goto refuse_mac\n"
	"		ether type ip ip saddr 0.0.0.0 ip daddr 255.255.255.255 udp sport 68 udp dport 67 accept\n"
	"		ether type ip goto refuse_ipv4\n"
	"		goto refuse_type\n"
	"	}\n"
	"	chain prerouting {\n"
	"		type filter hook prerouting priority -300; policy accept;\n"
	/* Nearly all: the sender is who it says, and what only UDP and ICMP can be, it is not. `ether type` sees a VLAN's
	 * tag. */
	"		ether type ip ip protocol != 17 meta mark set iifname . ether saddr . ip saddr map @source4 accept\n"
	"		ether type ip6 ip6 nexthdr 6 meta mark set iifname . ether saddr . ip6 saddr map @source6 accept\n"
	"		iifname vmap @ports\n"
	"	}\n"
	/* Frames to 01:80:c2:00:00:0X never pass prerouting and would be handed to the port itself. */
	"	chain input {\n"
	"		type filter hook input priority -300; policy accept;\n"
	"		ether daddr & ff:ff:ff:ff:ff:f0 == 01:80:c2:00:00:00 iifname @guarded goto refuse_type\n"
	"	}\n";

static const char inet_sets[] =
	"	set bridges { type ifname; }\n"
	"	set sites { type ifname; }\n"
	"	set sealed { type ifname; }\n"
	"	set hidden { type ifname; }\n"
	"	set same { type ifname . ifname; }\n"
	"	set gates4 { type ifname . ipv4_addr; }\n"
	"	set gates6 { type ifname . ipv6_addr; }\n"
	"	map leave { type mark : verdict; }\n"
	"	map reach4 { type ifname . ipv4_addr : verdict; }\n"
	"	map reach6 { type ifname . ipv6_addr : verdict; }\n"
	"	set asks4 { type ipv4_addr; }\n"
	"	set asks6 { type ipv6_addr; }\n"
	"	map owner4 { type ipv4_addr : mark; }\n"
	"	map owner6 { type ipv6_addr : mark; }\n"
	"	set owned4 { type mark . ipv4_addr; }\n"
	"	set owned6 { type mark . ipv6_addr; }\n"
	"	set open4 { type ipv4_addr . inet_proto . inet_service; }\n"
	"	set open6 { type ipv6_addr . inet_proto . inet_service; }\n"
	"	set self4 { type ipv4_addr . ipv4_addr; }\n"
	"	set self6 { type ipv6_addr . ipv6_addr; }\n"
	"	map publish4 { type inet_proto . inet_service : ipv4_addr . inet_service; }\n"
	"	map publish6 { type inet_proto . inet_service : ipv6_addr . inet_service; }\n"
	"	map publish_at4 { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }\n"
	"	map publish_at6 { type ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service; }\n"
	"	set isolated { type mark; }\n"
	"	set out_hits { type mark . mark; size 65535; flags dynamic; }\n"
	"	set in_hits4 { type ipv4_addr . mark; size 65535; flags dynamic; }\n"
	"	set in_hits6 { type ipv6_addr . mark; size 65535; flags dynamic; }\n"
	"	set invalid { type mark; size 65535; flags dynamic; }\n"
	"	set connections { type mark; size 65535; flags dynamic; }\n";

/* Who drops is a rule of its own: one that cannot count, as the set is full, ends there. And only what is for a workspace is
 * counted, or somebody outside could fill the set by asking for every address of a pool; the mark means nothing any more. */
static const char inet_ends[] =
	"	chain allowed_out {\n		update @out_hits { meta mark . ct mark counter }\n	}\n"
	"	chain denied_out {\n		update @out_hits { meta mark . ct mark counter }\n		drop\n	}\n"
	"	chain allowed_in {\n"
	"		update @in_hits4 { ip daddr . ct mark counter }\n"
	"		update @in_hits6 { ip6 daddr . ct mark counter }\n"
	"	}\n"
	"	chain denied_in {\n"
	"		meta mark set ip daddr map @owner4 update @in_hits4 { ip daddr . ct mark counter }\n"
	"		meta mark set ip6 daddr map @owner6 update @in_hits6 { ip6 daddr . ct mark counter }\n"
	"		drop\n"
	"	}\n"
	"	chain isolated_out {\n		ct mark set 0x2 goto denied_out\n	}\n"
	"	chain isolated_in {\n		ct mark set 0x2 goto denied_in\n	}\n"
	"	chain leave_wan {\n		ct mark set 0x11 goto allowed_out\n	}\n"
	"	chain leave_default {\n"
	"		ip daddr @asks4 ct mark set 0x14 goto allowed_out\n"
	"		ip6 daddr @asks6 ct mark set 0x14 goto allowed_out\n"
	"		ct status dnat ip daddr . meta l4proto . th dport @open4 ct mark set 0x13 goto allowed_out\n"
	"		ct status dnat ip6 daddr . meta l4proto . th dport @open6 ct mark set 0x13 goto allowed_out\n";

static const char inet_reach[] =
	"		ct mark set 0x1 goto denied_out\n"
	"	}\n"
	"	chain reach_default {\n"
	"		meta mark set ip saddr map @owner4 meta mark . ip daddr @owned4 ct mark set 0x12 goto allowed_in\n"
	"		meta mark set ip6 saddr map @owner6 meta mark . ip6 daddr @owned6 ct mark set 0x12 goto allowed_in\n"
	"		ct status dnat ip daddr . meta l4proto . th dport @open4 ct mark set 0x13 goto allowed_in\n"
	"		ct status dnat ip6 daddr . meta l4proto . th dport @open6 ct mark set 0x13 goto allowed_in\n"
	"		ct mark set 0x1 goto denied_in\n"
	"	}\n";

/* Everything behind the chain of what leaves; @M and @R stand for what depends on the metadata server, @S
 * and @T for bridges of the site. */
static const char inet_forward[] =
	"		meta mark vmap @leave\n"
	"		drop\n"
	"	}\n"
	"	chain arriving {\n"
	"		ct state invalid drop\n"
	"		oifname @sealed iifname . oifname != @same ct mark set 0x3 goto denied_in\n"
	"		iifname != @bridges ip saddr @carried4 ct mark set 0x6 goto denied_in\n"
	"		iifname != @bridges ip6 saddr @carried6 ct mark set 0x6 goto denied_in\n"
	"		oifname @hidden iifname != @bridges ct status ! dnat ct mark set 0x5 goto denied_in\n"
	"		oifname . ip daddr vmap @reach4\n"
	"		oifname . ip6 daddr vmap @reach6\n"
	"		drop\n"
	"	}\n"
	"@S"
	"	chain forward {\n"
	"		type filter hook forward priority 0; policy accept;\n"
	"		ct state established,related accept\n"
	"		iifname @bridges jump leaving\n"
	"		oifname @bridges jump arriving\n"
	"@T"
	"	}\n"
	/* What the host itself answers to a workspace. */
	"	chain host {\n"
	"		ct state established,related accept\n"
	"		meta nfproto ipv4 udp sport 68 udp dport 67 accept\n"
	"		meta nfproto ipv6 udp sport 546 udp dport 547 accept\n"
	"		icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit, 131, 132, 143 } accept\n"
	"		meta pkttype { broadcast, multicast } drop\n"
	"		meta mark 0 drop\n"
	"		ct state invalid update @invalid { meta mark counter }\n"
	"		ct state invalid drop\n"
	"@M"
	"		icmp type echo-request iifname . ip daddr @gates4 accept\n"
	"		icmpv6 type echo-request iifname . ip6 daddr @gates6 accept\n"
	"		meta mark @isolated ct mark set 0x2 goto denied_out\n"
	"		meta l4proto { 6, 17 } th dport 53 iifname . ip daddr @gates4 accept\n"
	"		meta l4proto { 6, 17 } th dport 53 iifname . ip6 daddr @gates6 accept\n"
	"		ct mark set 0x7 goto denied_out\n"
	"	}\n"
	"	chain input {\n"
	"		type filter hook input priority 0; policy accept;\n"
	"		iifname @bridges goto host\n"
	"	}\n"
	/* The way between two workspaces of a network is by the host; telling them a shorter one would cut it. */
	"	chain answers {\n"
	"		type filter hook output priority 0; policy accept;\n"
	"		oifname @bridges icmp type redirect drop\n"
	"		oifname @bridges icmpv6 type nd-redirect drop\n"
	"	}\n"
	"	chain publish {\n"
	"		meta l4proto { 6, 17 } dnat ip to ip daddr . meta l4proto . th dport map @publish_at4\n"
	"		meta l4proto { 6, 17 } dnat ip to meta l4proto . th dport map @publish4\n"
	"		meta l4proto { 6, 17 } dnat ip6 to ip6 daddr . meta l4proto . th dport map @publish_at6\n"
	"		meta l4proto { 6, 17 } dnat ip6 to meta l4proto . th dport map @publish6\n"
	"	}\n"
	/* A published port never takes what the host answers to workspaces: names and metadata. */
	"	chain prerouting {\n"
	"		type nat hook prerouting priority -105; policy accept;\n"
	"		iifname . ip daddr @gates4 return\n"
	"		iifname . ip6 daddr @gates6 return\n"
	"@R"
	"		ip daddr 169.254.169.254 return\n"
	"		ip6 daddr fd00:ec2::254 return\n"
	"		fib daddr type local goto publish\n"
	"	}\n"
	"	chain output {\n"
	"		type nat hook output priority -105; policy accept;\n"
	"		ip daddr 169.254.169.254 return\n"
	"		ip6 daddr fd00:ec2::254 return\n"
	"		fib daddr type local goto publish\n"
	"	}\n"
	/* A workspace that asks for its own published port would else see itself as the sender; loopback's addresses stay on
	 * the host. */
	"	chain postrouting {\n"
	"		type nat hook postrouting priority 95; policy accept;\n"
	"		oifname @bridges ip saddr . ip daddr @self4 masquerade\n"
	"		oifname @bridges ip6 saddr . ip6 daddr @self6 masquerade\n"
	"		oifname @bridges ip saddr 127.0.0.0/8 masquerade\n"
	"		oifname != @bridges ip saddr @nat4 masquerade\n"
	"		oifname != @bridges ip6 saddr @nat6 masquerade\n"
	"	}\n";

/* On a bridge of the site its machines are among the workspaces. */
static void site_pools(const struct filter_model *m, bool ipv6, struct str *to)
{
	char text[NETWORK_ADDRESS_SIZE];

	for (size_t i = 0; i < m->pool_count; i++)
		if (m->pools[i].prefix.ipv6 == ipv6 && m->pools[i].network->network->kind == NETWORK_BRIDGE)
			str_printf(to, ", %s/%u", filter_address_text(&m->pools[i].prefix, text), m->pools[i].length);
}

static void range_sets(const struct filter_model *m, struct str *to)
{
	for (int site = 0; site < 2; site++) {
		bool first = true;
		str_printf(to, "	set %s { type ipv4_addr; flags interval; auto-merge; elements = { ",
			   site ? "private4" : "special4");
		for (const struct filter_range *r = filter_ranges; r->prefix; r++)
			if (!r->ipv6 && (r->site || !site)) {
				str_printf(to, "%s%s", first ? "" : ", ", r->prefix);
				first = false;
			}
		if (site)
			site_pools(m, false, to);
		str_puts(to, " } }\n");
	}
	str_puts(to, "	set private6 { type ipv6_addr; flags interval; auto-merge; elements = { fc00::/7");
	site_pools(m, true, to);
	str_puts(to, " } }\n");
}

static void add_element(struct str *to, const char *table, const char *set, const char *element)
{
	str_printf(to, "add element inet %s %s { %s }\n", table, set, element);
}

static bool pool_in(unsigned set, const struct filter_pool *p)
{
	unsigned kind = p->network->network->kind;

	switch (set) {
	case 0:
		return true;
	case 1:
		return kind != NETWORK_BRIDGE;
	case 2:
		return kind != NETWORK_BRIDGE && p->network->bridge;
	default:
		return kind == NETWORK_NAT && p->network->bridge;
	}
}

/* Of all networks; of our own; of those that this host carries, and of those that hide behind its addresses. Written where the
 * sets are made: nft 1.0.6 fails on a transaction that adds to a set of ranges twice. */
static void pool_sets(const struct filter_model *m, unsigned count, struct str *to)
{
	static const char *const names[] = { "pools", "ours", "carried", "nat" };
	char text[NETWORK_ADDRESS_SIZE];

	for (unsigned set = 0; set < count; set++)
		for (int ipv6 = 0; ipv6 < 2; ipv6++) {
			const char *before = " elements = { ", *end = "";
			str_printf(to, "	set %s%c { type ipv%c_addr; flags interval; auto-merge;", names[set],
				   ipv6 ? '6' : '4', ipv6 ? '6' : '4');
			for (size_t i = 0; i < m->pool_count; i++)
				if (m->pools[i].prefix.ipv6 == ipv6 && pool_in(set, &m->pools[i])) {
					str_printf(to, "%s%s/%u", before, filter_address_text(&m->pools[i].prefix, text),
						   m->pools[i].length);
					before = ", ";
					end = " }";
				}
			str_printf(to, "%s }\n", end);
		}
}

static void pool_elements(const char *table, const struct filter_network *n, const char *pool, struct str *to)
{
	char gateway[NETWORK_ADDRESS_SIZE], element[128];
	unsigned length;
	char family = strchr(pool, ':') ? '6' : '4';

	if (!n->bridge || n->network->kind == NETWORK_BRIDGE)
		return;
	network_gateway(pool, gateway, &length);
	(void)snprintf(element, sizeof element, "\"%s\" . %s", n->bridge, gateway);
	add_element(to, table, family == '6' ? "gates6" : "gates4", element);
}

static void network_elements(const struct filter_model *m, const char *table, const struct filter_network *n, struct str *to)
{
	char device[NETWORK_DEVICE_LENGTH + 3], element[128];

	if (m->sited && n->bridge && n->network->kind == NETWORK_BRIDGE) {
		(void)snprintf(device, sizeof device, "\"%s\"", n->bridge);
		add_element(to, table, "sites", device);
	}
	if (n->network->ipv4)
		pool_elements(table, n, n->network->ipv4, to);
	if (n->network->ipv6)
		pool_elements(table, n, n->network->ipv6, to);
	if (!n->bridge || n->network->kind == NETWORK_BRIDGE)
		return;
	(void)snprintf(device, sizeof device, "\"%s\"", n->bridge);
	add_element(to, table, "bridges", device);
	if (n->network->kind == NETWORK_ISOLATED)
		add_element(to, table, "sealed", device);
	if (n->network->kind == NETWORK_NAT)
		add_element(to, table, "hidden", device);
	(void)snprintf(element, sizeof element, "%s . %s", device, device);
	add_element(to, table, "same", element);
	(void)snprintf(element, sizeof element, "%s . fe80::1", device);
	add_element(to, table, "gates6", element);
}

/* The metadata server finds the caller by the connection's mark, which is the number of the attachment. */
static void metadata_lines(char what, unsigned port, struct str *to)
{
	if (!port)
		return;
	if (what == 'M')
		str_printf(to,
			   "		ct original ip daddr 169.254.169.254 tcp dport %u ct mark set meta mark accept\n"
			   "		ct original ip6 daddr fd00:ec2::254 tcp dport %u ct mark set meta mark accept\n",
			   port, port);
	else
		str_printf(to,
			   "		iifname @bridges ip daddr 169.254.169.254 tcp dport 80 redirect to :%u\n"
			   "		iifname @bridges ip6 daddr fd00:ec2::254 tcp dport 80 redirect to :%u\n",
			   port, port);
}

/* What the host forwards to a bridge of the site: by the address if that is a workspace's, else family bridge judges it. With
 * bridge-nf-call-ip6tables frames that are bridged come by here, too: neighbour discovery among them is no connection. */
static const char site_chain[] =
	"	chain to_site {\n"
	"		iifname @sites icmpv6 type { nd-router-solicit, nd-router-advert, nd-neighbor-solicit, "
	"nd-neighbor-advert } accept\n"
	"		oifname . ip daddr vmap @reach4\n"
	"		oifname . ip6 daddr vmap @reach6\n"
	"		meta mark set meta mark | " FILTER_FORWARDED "\n"
	"	}\n";

static void forward_text(const struct filter_model *m, struct str *to)
{
	for (const char *at = inet_forward; *at;) {
		if (!strncmp(at, "@S", 2) || !strncmp(at, "@T", 2)) {
			str_puts(to, !m->sited ? "" : at[1] == 'S' ? site_chain : "		oifname @sites goto to_site\n");
			at += 2;
			continue;
		}
		if (!strncmp(at, "@M", 2) || !strncmp(at, "@R", 2)) {
			metadata_lines(at[1], m->intent->metadata_port, to);
			at += 2;
			continue;
		}
		const char *next = strchr(at, '\n');
		size_t length = next ? (size_t)(next - at) + 1 : strlen(at);
		str_add(to, at, length);
		at += length;
	}
}

static void bridge_table(const struct filter_model *m, const char *table, uint64_t connections_most, struct str *to)
{
	str_printf(to, "table bridge %s {\n%s", table, bridge_sets);
	if (m->sited) {
		filter_compile_site_sets(m->follows, to);
		range_sets(m, to);
		pool_sets(m, 2, to);
	}
	str_puts(to, bridge_chains);
	if (m->sited)
		filter_compile_site_chains(connections_most, m->follows, to);
	str_puts(to, "}\n");
}

void filter_compile_skeleton(const struct filter_model *m, const char *table, struct str *to)
{
	uint64_t most = m->intent->connections_most ? m->intent->connections_most : FILTER_CONNECTIONS;

	bridge_table(m, table, most, to);
	str_printf(to, "table inet %s {\n%s", table, inet_sets);
	range_sets(m, to);
	pool_sets(m, 4, to);
	str_puts(to, inet_ends);
	str_puts(to, "		ip daddr != @special4 ip daddr != @pools4 goto leave_wan\n"
		     "		ip6 daddr " FILTER_WAN6 " ip6 daddr != @pools6 goto leave_wan\n");
	str_puts(to, inet_reach);
	str_printf(to,
		   "	chain leaving {\n"
		   "		ct state invalid update @invalid { meta mark counter }\n"
		   "		ct state invalid drop\n"
		   "		iifname @sealed iifname . oifname != @same ct mark set 0x3 goto denied_out\n"
		   "		add @connections { meta mark ct count over %llu } ct mark set 0x4 goto denied_out\n",
		   (unsigned long long)most);
	forward_text(m, to);
	str_puts(to, "}\n");
	for (size_t i = 0; i < m->intent->network_count; i++)
		network_elements(m, table, &m->intent->networks[i], to);
}
