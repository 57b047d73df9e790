/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MODEL_NETWORK_H
#define MODEL_NETWORK_H

/*
 * Where workspaces are connected, and who may talk to whom: plain data that the service decides and the host makes true.
 *
 *   network     a segment of the site with its address pools
 *   attachment  one interface of one workspace on one network: names, addresses and rates, decided once and kept until it is
 *               detached
 *   member      what a host has to know of every workspace, its own and others', to turn the words of rules into addresses
 *
 * A workspace's own rules (allow, deny, from, isolated, publish, groups) are in its spec. A connection from A to B passes when
 * A may leave for B and B may be reached from A, and no `deny` of either names the other:
 *   leave    A's `allow` names B; without an `allow` (the default): the WAN, and any workspace whose `from` names A
 *   reach    B's `from` names A; without a `from`: workspaces of the same owner, and of a group that both are in
 * Answers to what was allowed pass always. `isolated` workspaces talk to nobody.
 */

#include "base/decode.h"

/* NAT: addresses of its own, hidden behind the host's; ROUTED: the site routes the pool to this host; ISOLATED: no way out;
 * BRIDGE: the ports join a bridge (or a VLAN on it) that the site made. */
enum network_kind { NETWORK_NAT, NETWORK_ROUTED, NETWORK_ISOLATED, NETWORK_BRIDGE };
extern const char *const network_kind_names[];

#define NETWORK_DEFAULT "default" /* the network of workspaces that name none, when the site has it */
#define NETWORK_MOST 4096         /* networks of a site */
#define NETWORK_INTERFACES 8      /* of one workspace */
#define NETWORK_DEVICE_LENGTH 15  /* longest name of an interface */

struct network {
	char *name;
	unsigned kind;
	uint64_t number;        /* unique in the site, never given again: names of bridges and rules come from it */
	char *ipv4, *ipv6;      /* pools, ADDRESS/LENGTH; the first address is the gateway's; NULL: none */
	struct texts reserved;  /* addresses and FIRST-LAST ranges that are not given out */
	char *zone;             /* DNS zone; NULL: NAME.carrel */
	char *bridge;           /* BRIDGE: the site's bridge */
	uint64_t vlan;          /* BRIDGE: VLAN id; 0: untagged */
	uint64_t mtu;
	struct texts dns;       /* servers that names outside are asked from; none: the host's */
	struct pairs labels;
};

/* Bits a second; 0: no guarantee, no limit. IN is towards the workspace. */
struct network_rates {
	uint64_t in_least, in_most, out_least, out_most;
};

struct attachment {
	char *network;
	uint64_t number;  /* unique in the site, never given again */
	char *device;     /* inside: "eth0" */
	char *port;       /* on the host: "cr" and the number in hex */
	char *mac;        /* "02:..." */
	char *ipv4, *ipv6; /* ADDRESS/LENGTH, NULL: none */
	struct network_rates *rates;
};

struct member_address {
	char *network, *ipv4, *ipv6, *mac; /* addresses without length */
	uint64_t number;                   /* of the attachment */
};

struct member {
	char *id, *name;
	uint64_t owner_uid;
	struct texts groups;
	struct objects addresses; /* struct member_address */
};

extern const struct shape network_shape, network_rates_shape, attachment_shape, member_shape;

const char *network_zone(const struct network *n, char ret_zone[static 80]);
void network_done(struct network *n);
void member_done(struct member *m);

/* Texts of the spec; each says in its error what is expected. */
int network_check_mac(const char *text, struct err *e) must_check;
int network_check_address(const char *text, struct err *e) must_check;   /* IPv4 or IPv6, no length */
int network_check_prefix(const char *text, struct err *e) must_check;    /* ADDRESS/LENGTH */
int network_check_range(const char *text, struct err *e) must_check;     /* ADDRESS, ADDRESS/LENGTH or FIRST-LAST */

#define NETWORK_ADDRESS_SIZE 46 /* of any address as text */
/* The gateway of a checked pool (its first address) and the pool's length. */
void network_gateway(const char *pool, char ret_address[static NETWORK_ADDRESS_SIZE], unsigned *ret_length);
/* The address in front of "/LENGTH". */
void network_address(const char *prefix, char ret_address[static NETWORK_ADDRESS_SIZE]);

int network_check_device(const char *text, struct err *e) must_check;    /* name of an interface of a host */

/* "[ADDRESS:]OUTSIDE:INSIDE[/tcp|/udp]", ADDRESS in [] when IPv6. */
struct network_publish {
	char address[NETWORK_ADDRESS_SIZE]; /* "": all of the host's */
	uint16_t outside, inside;
	bool udp;
};
int network_parse_publish(const char *text, struct network_publish *ret_publish, struct err *e) must_check;
int network_check_publish(const char *text, struct err *e) must_check;

#endif
