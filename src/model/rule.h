/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MODEL_RULE_H
#define MODEL_RULE_H

/*
 * One rule of `allow`, `deny` or `from`: who, and which services of theirs (or of ours, in `from`).
 *
 *   RULE    = PEER [SERVICE...]                 words separated by spaces; without a service: everything
 *   PEER    = wan                               global addresses that are none of the site's
 *           | site                              private addresses (RFC 1918, RFC 6598, RFC 4193) that are no workspace's
 *           | any | none
 *           | group:NAME | workspace:NAME | network:NAME
 *           | ADDRESS[/LENGTH]                  IPv4 or IPv6
 *   SERVICE = tcp/PORTS | udp/PORTS | tcp | udp | icmp
 *   PORTS   = PORT[-PORT][,...]                 22,80-90
 *
 * Bounded: at most RULE_SERVICES services of RULE_PORTS ranges each, RULE_LONGEST characters. A parsed rule has no pointers.
 */

#include "base/err.h"
#include "base/str.h"

#define RULE_SERVICES 8
#define RULE_PORTS 16
#define RULE_LONGEST 512

enum rule_peer { PEER_WAN, PEER_SITE, PEER_ANY, PEER_NONE, PEER_GROUP, PEER_WORKSPACE, PEER_NETWORK, PEER_ADDRESS };

enum rule_protocol { RULE_TCP, RULE_UDP, RULE_ICMP }; /* ICMP: ICMPv6 where the address is IPv6 */
extern const char *const rule_protocol_names[];

struct rule_ports {
	uint16_t first, last;
};

struct rule_service {
	enum rule_protocol protocol;
	struct rule_ports ports[RULE_PORTS]; /* ascending, none touches the next */
	unsigned port_count;                 /* 0: all */
};

struct rule {
	enum rule_peer peer;
	char name[64];             /* group, workspace, network */
	unsigned char address[16]; /* the first 4 bytes when IPv4; bits past the length are 0 */
	bool ipv6;
	unsigned length;
	struct rule_service services[RULE_SERVICES];
	unsigned service_count; /* 0: everything */
};

/* The error says what is expected, with the nearest word where one is near. */
int rule_parse(const char *text, struct rule *ret_rule, struct err *e) must_check;
int rule_check(const char *text, struct err *e) must_check; /* for field tables */
/* The one way to write it. */
void rule_text(const struct rule *r, struct str *to);
/* One service, as in a rule: "tcp/22". For `carrel network test`. */
int rule_parse_service(const char *text, struct rule_service *ret_service, struct err *e) must_check;
/* Port 0 stands for "a packet without ports": only a service without ports names it. */
bool rule_serves(const struct rule *r, enum rule_protocol protocol, uint16_t port);

#endif
