/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NETWORK_FILTER_RULESET_H
#define NETWORK_FILTER_RULESET_H

/*
 * The filter as data, between the compiler and the kernel: a skeleton (text that is the same for every workspace), chains that
 * hold the rules which differ from the default, sets of peers, and elements. A chain's name is the digest of its body and a
 * set's that of the name it stands for: nothing a user writes becomes nft's text, equal rules share one chain, and a chain
 * never changes.
 */

#include "base/map.h"
#include "base/str.h"

/* The sets and maps of the skeleton, and the sets of peers, which are named at run time. */
enum filter_set {
	SET_PORTS, SET_GUARDED, SET_MACS, SET_SOURCE4, SET_SOURCE6, SET_ND_TARGETS, SET_ND_MACS, /* family bridge */
	/* of the site */
	SET_SITED, SET_SITE_LEAVE, SET_SITE_REACH, SET_SITE_OWNED, SET_RESOLVERS4, SET_RESOLVERS6, SET_LEARNS, SET_EUI6,
	SET_SITE_ASKS4, SET_SITE_ASKS6, SET_SITE_OWNER4, SET_SITE_OWNER6, SET_SITE_PEERS4, SET_SITE_PEERS6,
	SET_LEAVE, SET_REACH4, SET_REACH6, SET_ASKS4, SET_ASKS6, SET_OWNER4, SET_OWNER6, SET_OWNED4, SET_OWNED6,
	/* family inet */
	SET_OPEN4, SET_OPEN6, SET_SELF4, SET_SELF6, SET_PUBLISH4, SET_PUBLISH6, SET_PUBLISH_AT4, SET_PUBLISH_AT6, SET_ISOLATED,
	SET_PEERS4, SET_PEERS6,
	SET_COUNT
};

/* Parts of a key: bytes as in the kernel's registers, each padded to four. */
enum filter_part { PART_END, PART_IFNAME, PART_MAC, PART_IPV4, PART_IPV6, PART_MARK, PART_PROTOCOL, PART_PORT, PART_RAW48,
		   PART_RAW64, PART_RAW128 };

enum filter_data { DATA_NONE, DATA_VERDICT, DATA_MARK, DATA_NAT4, DATA_NAT6 };

struct filter_set_kind {
	const char *name; /* NULL: in the element */
	bool bridge;      /* the table of family bridge */
	enum filter_part parts[4];
	enum filter_data data;
};
extern const struct filter_set_kind filter_set_kinds[SET_COUNT];

#define FILTER_NAME 40

struct filter_element {
	enum filter_set set;
	unsigned key_length, data_length;
	char name[FILTER_NAME];   /* of a set of peers, or "" */
	unsigned char key[48];
	unsigned char data[FILTER_NAME]; /* verdict: the name of the chain to go to */
};

struct filter_chain {
	char name[FILTER_NAME];
	char *body;
};

struct filter_ruleset {
	struct str skeleton;
	bool sited; /* with what bridges of the site need */
	struct filter_chain *chains; /* sorted by name when sealed, each once */
	size_t chain_count, chain_room;
	/* "g4_...", "w6_...": sets of addresses, sorted, each once; "sg4_...": those of family bridge */
	char (*peers)[FILTER_NAME];
	size_t peer_count, peer_room;
	struct filter_element *elements; /* sorted by set and key when sealed; of equal keys the first that was added */
	size_t element_count, element_room;
};

void filter_ruleset_done(struct filter_ruleset *r);
void filter_ruleset_add_chain(struct filter_ruleset *r, const char *prefix, const struct str *body,
			      char ret_name[static FILTER_NAME]);
void filter_ruleset_add_peers(struct filter_ruleset *r, const char *name);
bool filter_ruleset_has_chain(const struct filter_ruleset *r, const char *name); /* sealed */
bool filter_ruleset_has_peers(const struct filter_ruleset *r, const char *name); /* sealed */
/* Sorts and makes unique. */
void filter_ruleset_seal(struct filter_ruleset *r);
int filter_element_compare(const struct filter_element *a, const struct filter_element *b); /* by set and key */
/* Where it is in the sealed ruleset, or NULL. */
struct filter_element *filter_ruleset_find(const struct filter_ruleset *r, const struct filter_element *element);

/* "inet" or "bridge": of a chain or a set of peers. */
const char *filter_family_of(const char *name);
/* nft's text for new sets of peers and chains, and for the whole: one transaction that replaces both tables. */
void filter_ruleset_text_sets(const struct filter_ruleset *r, const char *table, struct str *to);
void filter_ruleset_text(const struct filter_ruleset *r, const char *table, struct str *to);

#endif
