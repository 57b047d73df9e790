/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the table of family bridge has besides, when a workspace is on a bridge of the site: there frames go from port to port,
 * past the rules of family inet, so the words are compiled for this family, too. docs/formats/filter.md has the way of a frame.
 *
 *   prerouting -300   `site`: the sender is who it says, as on networks of our own, but stricter: others hear these frames
 *   prerouting -100   `leaving`: what a workspace may open (after the kernel's connection tracking, where it has that here)
 *   forward           `arriving`: what may be opened towards a workspace, and answers
 *   output            the host's own frames pass, as everywhere; what it forwards to an address that nobody knows (it came by
 *                     the
 *                     site's DHCP) carries FILTER_FORWARDED in its mark and is judged like a frame of another port
 *
 * Without nf_conntrack_bridge the rules are reflexive: what a rule lets through is remembered with its port, addresses and
 * numbers (`left_*`, `reached_*`), and what belongs to it or answers it passes without a rule. Only answers keep an entry: 1
 * minute until the first one, then 2 hours for TCP (a minute after FIN or RST) and 3 minutes for UDP; 30 seconds for ping.
 * `talks*` remembers who talks with whom, for ICMP errors, whose inner packet it is compared with. Of fragments the first is
 * judged, since it has the ports; the others pass when the first did (`pieces*`), and only after it. Other protocols have no
 * numbers to be remembered by: each of their packets needs a rule, in both directions.
 *
 * A port's name is in every key: bridges of the site may have the same addresses.
 */
#include "network/filter_compile.h"

#include <string.h>

/* In templates a $ and a letter stand for what differs between families and directions. */
struct words {
	const char *of['z' - 'A' + 1];
};
#define W(letter) [letter - 'A']

static const struct words families[] = {
	{ { W('F') = "4", W('I') = "ip", W('A') = "ipv4_addr", W('K') = "ip", W('C') = "icmp", W('L') = "1",
	    W('E') = "{ 3, 11, 12 }", W('N') = "ip id", W('S') = "@nh,96,32", W('T') = "@nh,128,32", W('s') = "@th,160,32",
	    W('t') = "@th,192,32", W('M') = "ip frag-off & 0x2000 != 0", W('R') = "ip frag-off & 0x1fff != 0" } },
	{ { W('F') = "6", W('I') = "ip6", W('A') = "ipv6_addr", W('K') = "ip6", W('C') = "icmpv6", W('L') = "58",
	    W('E') = "{ 1, 2, 3, 4 }", W('N') = "frag id", W('S') = "@nh,64,128", W('T') = "@nh,192,128",
	    W('s') = "@th,128,128", W('t') = "@th,256,128", W('M') = "exthdr frag exists",
	    W('R') = "exthdr frag exists frag frag-off != 0" } },
};

/* $P: the workspace's port; $W: flows that frames of this direction open, $B: those that they answer; $D: the direction. */
static const struct words directions[] = {
	{ { W('D') = "out", W('P') = "iifname", W('W') = "left", W('B') = "reached" } },
	{ { W('D') = "in", W('P') = "oifname", W('W') = "reached", W('B') = "left" } },
};

static void expand(const char *template, const struct words *family, const struct words *direction, struct str *to)
{
	for (const char *at = template; *at; at++) {
		const char *word = NULL;
		if (*at == '$') {
			at++;
			word = family ? family->of[*at - 'A'] : NULL;
			if (!word && direction)
				word = direction->of[*at - 'A'];
		}
		if (word)
			str_puts(to, word);
		else
			str_putc(to, *at);
	}
}

static const char site_sets[] =
	"	set sited { type ifname; }\n"
	"	map site_leave { type ifname : verdict; }\n"
	"	map site_reach { type ifname : verdict; }\n"
	"	set site_owned { type ifname . mark; }\n"
	"	set learns { type ifname; }\n"
	"	set eui6 { typeof iifname . @nh,128,64; }\n"
	"	set leases { typeof iifname . @ll,48,48 . @nh,96,32; size 65535; flags dynamic; }\n"
	"	set connections { type ifname; size 65535; flags dynamic; }\n";

static const char family_sets[] =
	"	set resolvers$F { type ifname . $A; }\n"
	"	set asks$F { type $A; }\n"
	"	map owner$F { type $A : mark; }\n";

#define REMEMBERS "size 262144; flags dynamic,timeout;"
static const char flow_sets[] =
	"	set left_tcp$F { type ifname . $A . $A . inet_service . inet_service; " REMEMBERS " }\n"
	"	set left_udp$F { type ifname . $A . $A . inet_service . inet_service; " REMEMBERS " }\n"
	"	set left_ping$F { typeof iifname . $I saddr . $I daddr . $C id; " REMEMBERS " }\n"
	"	set reached_tcp$F { type ifname . $A . $A . inet_service . inet_service; " REMEMBERS " }\n"
	"	set reached_udp$F { type ifname . $A . $A . inet_service . inet_service; " REMEMBERS " }\n"
	"	set reached_ping$F { typeof iifname . $I saddr . $I daddr . $C id; " REMEMBERS " }\n"
	"	set talks$F { typeof iifname . $S . $T; " REMEMBERS " }\n"
	"	set pieces$F { typeof iifname . $I saddr . $I daddr . $N; " REMEMBERS " }\n";

/* Who it is. `leases` has addresses that the site's DHCP gave; `eui6` the last 64 bits that follow from a hardware address. */
static const char site_sender[] =
	"	chain site_claim {\n"
	"		iifname . @th,64,128 @nd_targets accept\n"
	"		iifname . @th,128,64 @eui6 accept\n"
	"		goto refuse_nd\n"
	"	}\n"
	"	chain site_nd {\n"
	"		iifname . ether saddr != @macs goto refuse_mac\n"
	"		ip6 hoplimit != 255 goto refuse_nd\n"
	"		ip6 length != { 24, 32 } goto refuse_nd\n"
	"		ip6 saddr :: icmpv6 type nd-neighbor-solicit goto site_claim\n"
	"		ip6 length 32 @th,192,16 != { 0x0101, 0x0201 } goto refuse_nd\n"
	"		ip6 length 32 iifname . @th,208,48 != @nd_macs goto refuse_nd\n"
	"		icmpv6 type nd-neighbor-advert goto site_claim\n"
	"		meta mark set iifname . ether saddr . ip6 saddr map @source6 accept\n"
	"		iifname . @nh,128,64 @eui6 accept\n"
	"		goto refuse_nd\n"
	"	}\n"
	"	chain site6 {\n"
	"		meta l4proto 58 icmpv6 type vmap { nd-neighbor-solicit : goto site_nd, nd-neighbor-advert : goto "
	"site_nd, nd-router-advert : goto refuse_router, nd-redirect : goto refuse_router, 138 : goto refuse_router }\n"
	"		udp sport 547 goto refuse_dhcp\n"
	"		exthdr frag exists ip6 hoplimit 255 goto refuse_nd\n"
	"		meta mark set iifname . ether saddr . ip6 saddr map @source6 accept\n"
	"		iifname . ether saddr != @macs goto refuse_mac\n"
	"		iifname . @nh,128,64 @eui6 accept\n"
	"		ip6 saddr :: ip6 daddr ff02::/16 icmpv6 type { 131, 132, 133, 143 } accept\n"
	"		goto refuse_ipv6\n"
	"	}\n"
	"	chain refuse_request {\n		meta mark set 0x2b goto refuse\n	}\n"
	/* A request is the port's own: a server would believe a return in the name of another one. */
	"	chain site_asks {\n"
	"		iifname . ether saddr != @macs goto refuse_mac\n"
	"		ip frag-off & 0x3fff != 0 goto refuse_request\n"
	"		@th,64,24 0x010106 iifname . @th,288,48 @nd_macs @th,160,32 0 return\n"
	"		@th,64,24 0x010106 iifname . @th,288,48 @nd_macs iifname . @ll,48,48 . @th,160,32 @leases return\n"
	"		goto refuse_request\n"
	"	}\n"
	"	chain site {\n"
	"		ether type ip udp sport 67 goto refuse_dhcp\n"
	"		ether type ip udp dport 67 jump site_asks\n"
	"		ether type ip meta mark set iifname . ether saddr . ip saddr map @source4 accept\n"
	"		ether type ip6 goto site6\n"
	"		ether type arp arp htype 1 arp ptype ip arp hlen 6 arp plen 4 iifname . ether saddr @macs "
	"iifname . @nh,64,48 . @nh,112,32 @leases accept\n"
	"		ether type arp goto own_arp\n"
	"		iifname . ether saddr != @macs goto refuse_mac\n"
	"		ether type ip iifname . @ll,48,48 . @nh,96,32 @leases accept\n"
	"		ether type ip ip saddr 0.0.0.0 ip daddr 255.255.255.255 udp sport 68 udp dport 67 accept\n"
	"		ether type ip goto refuse_ipv4\n"
	"		goto refuse_type\n"
	"	}\n";

/* What is known already. A frame of the opener does not keep its flow: it is judged again when nobody has answered for a
 * while. */
static const char known_family[] =
	"	chain tcp$F_$D {\n"
	"		tcp flags & (fin | rst) != 0x0 $P . $I saddr . $I daddr . th sport . th dport @$W_tcp$F "
	"update @$W_tcp$F { $P . $I saddr . $I daddr . th sport . th dport timeout 1m } goto passes_$D\n"
	"		$P . $I saddr . $I daddr . th sport . th dport @$W_tcp$F goto passes_$D\n"
	"		tcp flags & (fin | rst) != 0x0 $P . $I daddr . $I saddr . th dport . th sport @$B_tcp$F "
	"update @$B_tcp$F { $P . $I daddr . $I saddr . th dport . th sport timeout 1m } goto passes_$D\n"
	"		$P . $I daddr . $I saddr . th dport . th sport @$B_tcp$F "
	"update @$B_tcp$F { $P . $I daddr . $I saddr . th dport . th sport timeout 2h } goto passes_$D\n"
	"	}\n"
	"	chain udp$F_$D {\n"
	"		$P . $I saddr . $I daddr . th sport . th dport @$W_udp$F goto passes_$D\n"
	"		$P . $I daddr . $I saddr . th dport . th sport @$B_udp$F "
	"update @$B_udp$F { $P . $I daddr . $I saddr . th dport . th sport timeout 3m } goto passes_$D\n"
	"	}\n"
	"	chain icmp$F_$D {\n"
	"		$C type echo-reply $P . $I daddr . $I saddr . $C id @$B_ping$F goto passes_$D\n"
	"		$C type $E $P . $s . $t @talks$F goto passes_$D\n"
	"		$C type $E $P . $t . $s @talks$F goto passes_$D\n"
	"	}\n"
	"	chain piece$F_$D {\n"
	"		$P . $I saddr . $I daddr . $N @pieces$F meta mark set 0 accept\n"
	"		meta mark set 0x2a goto denied_$D\n"
	"	}\n";

static const char known[] =
	"	chain known_$D {\n"
	"		ether type ip ip frag-off & 0x1fff != 0 goto piece4_$D\n"
	"		exthdr frag exists frag frag-off != 0 goto piece6_$D\n"
	"		ether type ip meta l4proto vmap { 6 : goto tcp4_$D, 17 : goto udp4_$D, 1 : goto icmp4_$D }\n"
	"		ether type ip6 meta l4proto vmap { 6 : goto tcp6_$D, 17 : goto udp6_$D, 58 : goto icmp6_$D }\n"
	"	}\n";

static const char passes_begin[] = "	chain passes_$D {\n";
static const char passes_family[] = "		$M update @pieces$F { $P . $I saddr . $I daddr . $N timeout 30s }\n";
static const char opens_begin[] = "	chain opens_$D {\n";
static const char opens_family[] =
	"		ether type $K meta l4proto 6 update @$W_tcp$F { $P . $I saddr . $I daddr . th sport . th dport timeout "
	"1m }\n"
	"		ether type $K meta l4proto 17 update @$W_udp$F { $P . $I saddr . $I daddr . th sport . th dport "
	"timeout 1m }\n"
	"		$C type echo-request update @$W_ping$F { $P . $I saddr . $I daddr . $C id timeout 30s }\n"
	"		ether type $K meta l4proto { 6, 17, $L } update @talks$F { $P . $S . $T timeout 1d }\n";

static const char ends[] =
	"	chain denied_$D {\n		update @$D_hits { $P . meta mark counter }\n		drop\n	}\n"
	"	chain isolated_$D {\n		meta mark set 0x2 goto denied_$D\n	}\n";

static const char leave[] =
	"	chain leave_wan {\n		meta mark set 0x11 goto allowed_out\n	}\n"
	"	chain leave_default {\n"
	"		ip daddr @asks4 meta mark set 0x14 goto allowed_out\n"
	"		ip6 daddr @asks6 meta mark set 0x14 goto allowed_out\n"
	"		ip daddr != @special4 ip daddr != @pools4 goto leave_wan\n"
	"		ip6 daddr " FILTER_WAN6 " ip6 daddr != @pools6 goto leave_wan\n"
	"		meta mark set 0x1 goto denied_out\n"
	"	}\n"
	"	chain reach_default {\n"
	"		meta mark set ip saddr map @owner4 oifname . meta mark @site_owned meta mark set 0x12 goto allowed_in\n"
	"		meta mark set ip6 saddr map @owner6 oifname . meta mark @site_owned meta mark set 0x12 goto "
	"allowed_in\n"
	"		meta mark set 0x1 goto denied_in\n"
	"	}\n";

/* Neighbours, addresses and groups are not connections: `site` has proved what leaves, and what arrives is the site's. */
static const char leaving[] =
	"	chain leaving {\n"
	"		ether type arp meta mark set 0 accept\n"
	"		udp sport 68 udp dport 67 meta mark set 0 accept\n"
	"		udp sport 546 udp dport 547 meta mark set 0 accept\n"
	"		icmpv6 type { 131, 132, 133, 135, 136, 143 } meta mark set 0 accept\n"
	"$K"
	"		meta l4proto { 6, 17 } th dport 53 iifname . ip daddr @resolvers4 meta mark set 0x15 goto allowed_out\n"
	"		meta l4proto { 6, 17 } th dport 53 iifname . ip6 daddr @resolvers6 meta mark set 0x15 goto "
	"allowed_out\n"
	"		iifname vmap @site_leave\n"
	"		drop\n"
	"	}\n"
	"	chain left {\n"
	"		type filter hook prerouting priority -100; policy accept;\n"
	"		iifname @sited goto leaving\n"
	"	}\n";

/* A DHCPACK (RFC 2131) for the port's own hardware address says what its workspace may be called from now on; never one of a
 * workspace. */
static const char arriving[] =
	"	chain lease {\n"
	"		iifname @sited drop\n"
	"		oifname @learns @th,64,8 2 @th,1952,32 0x63825363 @th,1984,24 0x350105 oifname . @th,288,48 @nd_macs "
	"update @leases { oifname . @th,288,48 . @th,192,32 }\n"
	"		accept\n"
	"	}\n"
	"	chain arriving {\n"
	"		ether type arp accept\n"
	"		ether type != { ip, ip6 } drop\n"
	"		ether type ip udp sport 67 udp dport 68 goto lease\n"
	"		ether type ip6 udp sport 547 udp dport 546 accept\n"
	"		icmpv6 type { 130, 131, 132, 134, 135, 136, 143 } accept\n"
	"$K"
	"		oifname vmap @site_reach\n"
	"		drop\n"
	"	}\n"
	"	chain reached {\n"
	"		type filter hook forward priority -100; policy accept;\n"
	"		oifname @sited goto arriving\n"
	"	}\n"
	"	chain routed {\n"
	"		meta mark set meta mark & 0xbfffffff\n"
	"		oifname @sited goto arriving\n"
	"	}\n"
	"	chain greeting {\n"
	"		ether type ip udp sport 67 udp dport 68 goto lease\n"
	"$G"
	"		accept\n"
	"	}\n"
	"	chain greets {\n"
	"		type filter hook output priority -100; policy accept;\n"
	"		meta mark & " FILTER_FORWARDED " == " FILTER_FORWARDED " goto routed\n"
	"		oifname @sited goto greeting\n"
	"	}\n";

#define FOLLOWED "		ct state established,related meta mark set 0 accept\n		ct state invalid drop\n"

/* The host's TCP opens by SYN only, or an answer to what was ended would open it again, from the other side. */
#define GREETED                                                                            \
	"		jump known_in\n"                                                           \
	"		tcp flags & (syn | ack) == syn goto opens_in\n"                            \
	"		meta l4proto 6 accept\n"                                                 \
	"		ether type { ip, ip6 } goto opens_in\n"

static void allowed(const struct words *direction, uint64_t most, bool follows, struct str *to)
{
	expand("	chain allowed_$D {\n		update @$D_hits { $P . meta mark counter }\n", NULL, direction, to);
	if (follows) {
		expand("		add @connections { $P ct count over ", NULL, direction, to);
		str_printf(to, "%llu }", (unsigned long long)most);
	} else { /* nobody counts them here: as many at once, and a sixteenth of them each second */
		expand("		meta l4proto { 6, 17, 1, 58 } update @connections { $P limit rate over ", NULL,
		       direction, to);
		str_printf(to, "%llu/second burst %llu packets }", (unsigned long long)most / 16 + 1,
			   (unsigned long long)most);
	}
	expand(" meta mark set 0x4 goto denied_$D\n", NULL, direction, to);
	expand(follows ? "		meta mark set 0 accept\n	}\n" : "		goto opens_$D\n	}\n", NULL,
	       direction, to);
}

static void flows(const struct words *direction, struct str *to)
{
	expand(passes_begin, NULL, direction, to);
	for (int f = 0; f < 2; f++)
		expand(passes_family, &families[f], direction, to);
	str_puts(to, "		meta mark set 0 accept\n	}\n");
	expand(opens_begin, NULL, direction, to);
	for (int f = 0; f < 2; f++)
		expand(opens_family, &families[f], direction, to);
	expand("		goto passes_$D\n	}\n", NULL, direction, to);
	for (int f = 0; f < 2; f++)
		expand(known_family, &families[f], direction, to);
	expand(known, NULL, direction, to);
}

void filter_compile_site_sets(bool follows, struct str *to)
{
	str_puts(to, site_sets);
	for (int f = 0; f < 2; f++) {
		expand(family_sets, &families[f], NULL, to);
		if (!follows)
			expand(flow_sets, &families[f], NULL, to);
	}
}

void filter_compile_site_chains(uint64_t connections_most, bool follows, struct str *to)
{
	struct words how = { 0 };

	how.of['K' - 'A'] = follows ? FOLLOWED : "		jump known_out\n";
	how.of['G' - 'A'] = follows ? "" : GREETED;
	str_puts(to, site_sender);
	for (int d = 0; d < 2; d++) {
		expand(ends, NULL, &directions[d], to);
		if (!follows)
			flows(&directions[d], to);
		allowed(&directions[d], connections_most, follows, to);
	}
	str_puts(to, leave);
	expand(leaving, &how, NULL, to);
	if (!follows)
		how.of['K' - 'A'] = "		jump known_in\n";
	expand(arriving, &how, NULL, to);
}
