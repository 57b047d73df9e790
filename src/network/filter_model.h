/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NETWORK_FILTER_MODEL_H
#define NETWORK_FILTER_MODEL_H

/*
 * The intent, resolved: addresses as bytes, rules parsed, everybody found by id and by address. What compiler and judge read,
 * so that they cannot understand an intent differently. Points into the intent; lives as long as one call.
 */

#include "base/map.h"
#include "network/filter.h"

struct filter_address {
	unsigned char bytes[16]; /* the first 4 when IPv4 */
	bool ipv6;
};

struct filter_pool {
	struct filter_address prefix; /* bits past the length are 0 */
	unsigned length;
	const struct filter_network *network;
};

struct filter_rules {
	struct rule *items;
	size_t count;
};

struct filter_interface {
	const struct filter_network *network; /* NULL: not on this host */
	const struct attachment *attachment;  /* NULL: of another host */
	bool has[2];                          /* IPv4, IPv6 */
	bool learned;                         /* the IPv4 address is of the site's DHCP, which may give another */
	struct filter_address address[2];
};

/* A workspace of the site. */
struct filter_party {
	const char *id, *name;
	uint64_t owner_uid;
	const struct texts *groups;
	const struct filter_workspace *local; /* NULL: on another host */
	struct filter_rules allow, deny, from; /* local only */
	struct filter_interface interfaces[NETWORK_INTERFACES];
	size_t interface_count;
};

struct filter_place { /* an address and whose it is */
	struct filter_address address;
	size_t party;
};

struct filter_model {
	const struct filter_intent *intent;
	struct filter_pool *pools;
	size_t pool_count, pool_room;
	struct filter_party *parties;
	size_t party_count, party_room;
	struct filter_place *places; /* sorted by address */
	size_t place_count, place_room;
	struct map by_id; /* party's index + 1 */
	bool sited;       /* a workspace of this host has a port on a bridge of the site */
	bool follows;     /* connections are followed in family bridge */
};

static inline bool filter_interface_sited(const struct filter_interface *i)
{
	return i->network && i->network->network->kind == NETWORK_BRIDGE;
}

/* `only` NULL: everybody; else the workspace with that id alone (networks as always). */
int filter_model_init(struct filter_model *m, const struct filter_intent *intent, const char *only, struct err *e) must_check;
void filter_model_done(struct filter_model *m);
#define own_model __attribute__((cleanup(filter_model_done)))

int filter_address_parse(const char *text, struct filter_address *ret_address); /* "/LENGTH" behind it is ignored; -EINVAL */
char *filter_address_text(const struct filter_address *a, char out[static NETWORK_ADDRESS_SIZE]);
int filter_address_compare(const struct filter_address *a, const struct filter_address *b);
bool filter_address_within(const struct filter_address *a, const struct filter_address *prefix, unsigned length);
const struct filter_party *filter_model_party(const struct filter_model *m, const char *id);
const struct filter_party *filter_model_at(const struct filter_model *m, const struct filter_address *a);
/* of a network whose addresses are only workspaces' */
bool filter_model_ours(const struct filter_model *m, const struct filter_address *a);
const struct filter_network *filter_model_network(const struct filter_model *m, const char *name);

/* Ranges that are not the WAN, and among them the site's own; texts for nft, judged from the same table. */
struct filter_range {
	const char *prefix;
	bool ipv6, site;
};
extern const struct filter_range filter_ranges[]; /* ends with NULL */
#define FILTER_WAN6 "2000::/3"                    /* of IPv6 only this is global (RFC 4291, 2.4) */
bool filter_is_wan(const struct filter_model *m, const struct filter_address *a);
bool filter_is_site(const struct filter_model *m, const struct filter_address *a);

/* Why a packet was denied or let through: the connection's or the packet's mark while it is decided. */
enum filter_code {
	CODE_DEFAULT = 1,      /* no rule allows it */
	CODE_ISOLATED,         /* the workspace is */
	CODE_SEALED,           /* the network is */
	CODE_CONNECTIONS,      /* more than one workspace may have */
	CODE_NAT,              /* nothing reaches a nat network from outside but by a published port */
	CODE_FORGED,           /* an address of ours that came from outside */
	CODE_HOST,             /* to the host itself */
	CODE_INVALID,          /* belongs to no connection */
	CODE_WAN = 0x11,       /* allowed by default */
	CODE_SAME,             /* allowed: same owner, or same group */
	CODE_PUBLISHED,        /* allowed: a published port */
	CODE_ASKED,            /* left for a workspace whose `from` decides */
	CODE_NAMES,            /* allowed: a server of names that the network has */
	CODE_MAC = 0x21, CODE_IPV4, CODE_IPV6, CODE_ARP, CODE_ND, CODE_ROUTER, CODE_DHCP, CODE_TYPE, CODE_UNANNOUNCED,
	CODE_PIECE,            /* a fragment of what was not let through */
	CODE_REQUEST,          /* DHCP in another one's name */
	CODE_ALLOW = 0x10000,  /* + index */
	CODE_DENY = 0x20000,
	CODE_FROM = 0x30000,
};
/* The words for it: "default", "allow wan", "spoofed MAC". Rules are looked up in the spec, which may be NULL. */
void filter_code_text(uint32_t code, const struct spec *spec, struct str *to);
bool filter_code_allows(uint32_t code);

#endif
