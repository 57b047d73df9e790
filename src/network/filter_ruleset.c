/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Filled by the compiler in any order, sealed once, then only read: sealing sorts and removes doubles, and lookups work from
 * then on. Names that are digests make equal things equal: a chain that two workspaces need is there once, and one that is
 * loaded already need not be looked into.
 *
 * The table of sets is what the skeleton's text, the elements' keys and the messages to the kernel have in common: a key is
 * its parts in the kernel's register form, and part_text is the one place that knows how nft writes it. Text is for whole
 * tables and for people; single elements go as messages (filter_netlink.c).
 */
#include "network/filter_ruleset.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"

const struct filter_set_kind filter_set_kinds[SET_COUNT] = {
	[SET_PORTS] = { "ports", true, { PART_IFNAME }, DATA_VERDICT },
	[SET_GUARDED] = { "guarded", true, { PART_IFNAME }, DATA_NONE },
	[SET_MACS] = { "macs", true, { PART_IFNAME, PART_MAC }, DATA_NONE },
	[SET_SOURCE4] = { "source4", true, { PART_IFNAME, PART_MAC, PART_IPV4 }, DATA_MARK },
	[SET_SOURCE6] = { "source6", true, { PART_IFNAME, PART_MAC, PART_IPV6 }, DATA_MARK },
	[SET_ND_TARGETS] = { "nd_targets", true, { PART_IFNAME, PART_RAW128 }, DATA_NONE },
	[SET_ND_MACS] = { "nd_macs", true, { PART_IFNAME, PART_RAW48 }, DATA_NONE },
	[SET_SITED] = { "sited", true, { PART_IFNAME }, DATA_NONE },
	[SET_SITE_LEAVE] = { "site_leave", true, { PART_IFNAME }, DATA_VERDICT },
	[SET_SITE_REACH] = { "site_reach", true, { PART_IFNAME }, DATA_VERDICT },
	[SET_SITE_OWNED] = { "site_owned", true, { PART_IFNAME, PART_MARK }, DATA_NONE },
	[SET_RESOLVERS4] = { "resolvers4", true, { PART_IFNAME, PART_IPV4 }, DATA_NONE },
	[SET_RESOLVERS6] = { "resolvers6", true, { PART_IFNAME, PART_IPV6 }, DATA_NONE },
	[SET_LEARNS] = { "learns", true, { PART_IFNAME }, DATA_NONE },
	[SET_EUI6] = { "eui6", true, { PART_IFNAME, PART_RAW64 }, DATA_NONE },
	[SET_SITE_ASKS4] = { "asks4", true, { PART_IPV4 }, DATA_NONE },
	[SET_SITE_ASKS6] = { "asks6", true, { PART_IPV6 }, DATA_NONE },
	[SET_SITE_OWNER4] = { "owner4", true, { PART_IPV4 }, DATA_MARK },
	[SET_SITE_OWNER6] = { "owner6", true, { PART_IPV6 }, DATA_MARK },
	[SET_SITE_PEERS4] = { NULL, true, { PART_IPV4 }, DATA_NONE },
	[SET_SITE_PEERS6] = { NULL, true, { PART_IPV6 }, DATA_NONE },
	[SET_LEAVE] = { "leave", false, { PART_MARK }, DATA_VERDICT },
	[SET_REACH4] = { "reach4", false, { PART_IFNAME, PART_IPV4 }, DATA_VERDICT },
	[SET_REACH6] = { "reach6", false, { PART_IFNAME, PART_IPV6 }, DATA_VERDICT },
	[SET_ASKS4] = { "asks4", false, { PART_IPV4 }, DATA_NONE },
	[SET_ASKS6] = { "asks6", false, { PART_IPV6 }, DATA_NONE },
	[SET_OWNER4] = { "owner4", false, { PART_IPV4 }, DATA_MARK },
	[SET_OWNER6] = { "owner6", false, { PART_IPV6 }, DATA_MARK },
	[SET_OWNED4] = { "owned4", false, { PART_MARK, PART_IPV4 }, DATA_NONE },
	[SET_OWNED6] = { "owned6", false, { PART_MARK, PART_IPV6 }, DATA_NONE },
	[SET_OPEN4] = { "open4", false, { PART_IPV4, PART_PROTOCOL, PART_PORT }, DATA_NONE },
	[SET_OPEN6] = { "open6", false, { PART_IPV6, PART_PROTOCOL, PART_PORT }, DATA_NONE },
	[SET_SELF4] = { "self4", false, { PART_IPV4, PART_IPV4 }, DATA_NONE },
	[SET_SELF6] = { "self6", false, { PART_IPV6, PART_IPV6 }, DATA_NONE },
	[SET_PUBLISH4] = { "publish4", false, { PART_PROTOCOL, PART_PORT }, DATA_NAT4 },
	[SET_PUBLISH6] = { "publish6", false, { PART_PROTOCOL, PART_PORT }, DATA_NAT6 },
	[SET_PUBLISH_AT4] = { "publish_at4", false, { PART_IPV4, PART_PROTOCOL, PART_PORT }, DATA_NAT4 },
	[SET_PUBLISH_AT6] = { "publish_at6", false, { PART_IPV6, PART_PROTOCOL, PART_PORT }, DATA_NAT6 },
	[SET_ISOLATED] = { "isolated", false, { PART_MARK }, DATA_NONE },
	[SET_PEERS4] = { NULL, false, { PART_IPV4 }, DATA_NONE },
	[SET_PEERS6] = { NULL, false, { PART_IPV6 }, DATA_NONE },
};

void filter_ruleset_done(struct filter_ruleset *r)
{
	for (size_t i = 0; i < r->chain_count; i++)
		free(r->chains[i].body);
	free(r->chains);
	free(r->peers);
	free(r->elements);
	str_done(&r->skeleton);
	*r = (struct filter_ruleset){ 0 };
}

void filter_ruleset_add_chain(struct filter_ruleset *r, const char *prefix, const struct str *body,
			      char ret_name[static FILTER_NAME])
{
	char hex[DIGEST_HEX_SIZE];
	struct digest d = hash_bytes(str_text(body), body->length);

	(void)snprintf(ret_name, FILTER_NAME, "%s_%.32s", prefix, digest_hex(&d, hex));
	MEM_PUSH_ROOM(r->chains, r->chain_count, r->chain_room);
	struct filter_chain *c = &r->chains[r->chain_count++];
	memcpy(c->name, ret_name, FILTER_NAME);
	c->body = mem_strdup(str_text(body));
}

void filter_ruleset_add_peers(struct filter_ruleset *r, const char *name)
{
	MEM_PUSH_ROOM(r->peers, r->peer_count, r->peer_room);
	(void)snprintf(r->peers[r->peer_count++], FILTER_NAME, "%s", name);
}

/* A chain and a set of peers begin with their name. */
static int compare_names(const void *a, const void *b) { return strcmp(a, b); }

bool filter_ruleset_has_chain(const struct filter_ruleset *r, const char *name)
{
	return r->chain_count && bsearch(name, r->chains, r->chain_count, sizeof *r->chains, compare_names);
}

bool filter_ruleset_has_peers(const struct filter_ruleset *r, const char *name)
{
	return r->peer_count && bsearch(name, r->peers, r->peer_count, sizeof *r->peers, compare_names);
}

int filter_element_compare(const struct filter_element *a, const struct filter_element *b)
{
	if (a->set != b->set)
		return a->set < b->set ? -1 : 1;
	int names = *a->name || *b->name ? strcmp(a->name, b->name) : 0;
	return names ? names : memcmp(a->key, b->key, a->key_length);
}

/* Of equal keys the one that was added first stays first: the array is one block, so the order of addresses is that of adding
 * only before sorting; therefore the index is kept in `data_length`'s upper half while sorting. */
static int compare_elements(const void *a, const void *b)
{
	const struct filter_element *left = a, *right = b;
	int order = filter_element_compare(left, right);
	return order ? order : (left->data_length >> 8) < (right->data_length >> 8) ? -1 : 1;
}

static int find_element(const void *a, const void *b) { return filter_element_compare(a, b); }

struct filter_element *filter_ruleset_find(const struct filter_ruleset *r, const struct filter_element *element)
{
	return r->element_count ? bsearch(element, r->elements, r->element_count, sizeof *element, find_element) : NULL;
}

static void seal_chains(struct filter_ruleset *r)
{
	size_t kept = 0;

	if (r->chain_count)
		qsort(r->chains, r->chain_count, sizeof *r->chains, compare_names);
	for (size_t i = 0; i < r->chain_count; i++) {
		if (kept && str_eq(r->chains[kept - 1].name, r->chains[i].name))
			free(r->chains[i].body);
		else
			r->chains[kept++] = r->chains[i];
	}
	r->chain_count = kept;
}

void filter_ruleset_seal(struct filter_ruleset *r)
{
	size_t kept = 0;

	seal_chains(r);
	if (r->peer_count)
		qsort(r->peers, r->peer_count, sizeof *r->peers, compare_names);
	for (size_t i = 0; i < r->peer_count; i++)
		if (!kept || !str_eq(r->peers[kept - 1], r->peers[i]))
			memmove(r->peers[kept++], r->peers[i], FILTER_NAME);
	r->peer_count = kept;
	for (size_t i = 0; i < r->element_count; i++)
		r->elements[i].data_length |= (unsigned)i << 8;
	if (r->element_count)
		qsort(r->elements, r->element_count, sizeof *r->elements, compare_elements);
	kept = 0;
	for (size_t i = 0; i < r->element_count; i++) {
		r->elements[i].data_length &= 0xff;
		if (!kept || filter_element_compare(&r->elements[kept - 1], &r->elements[i]) != 0)
			r->elements[kept++] = r->elements[i];
	}
	r->element_count = kept;
}

static const char digits[] = "0123456789abcdef";

/* There are twenty of them for each workspace, and printf took a fifth of the time of all of this. */
static void put_hex(struct str *to, const unsigned char *bytes, size_t count, const char *between)
{
	for (size_t i = 0; i < count; i++) {
		const char two[] = { digits[bytes[i] >> 4], digits[bytes[i] & 15] };
		if (i)
			str_puts(to, between);
		str_add(to, two, sizeof two);
	}
}

static void put_mark(struct str *to, uint32_t mark)
{
	int shift = 28;

	while (shift && !(mark >> shift))
		shift -= 4;
	str_puts(to, "0x");
	for (; shift >= 0; shift -= 4)
		str_putc(to, digits[mark >> shift & 15]);
}

static size_t part_text(enum filter_part part, const unsigned char *at, struct str *to)
{
	char address[INET6_ADDRSTRLEN];
	uint32_t mark;

	switch (part) {
	case PART_IFNAME:
		str_putc(to, '"');
		str_add(to, at, strnlen((const char *)at, 15));
		str_putc(to, '"');
		return 16;
	case PART_MAC:
		put_hex(to, at, 6, ":");
		return 8;
	case PART_IPV4:
		str_puts(to, inet_ntop(AF_INET, at, address, sizeof address));
		return 4;
	case PART_IPV6:
		str_puts(to, inet_ntop(AF_INET6, at, address, sizeof address));
		return 16;
	case PART_MARK:
		memcpy(&mark, at, sizeof mark);
		put_mark(to, mark);
		return 4;
	case PART_PROTOCOL:
		str_printf(to, "%u", at[0]);
		return 4;
	case PART_PORT:
		str_printf(to, "%u", at[0] << 8 | at[1]);
		return 4;
	case PART_RAW48:
	case PART_RAW64:
	case PART_RAW128:
		str_puts(to, "0x");
		put_hex(to, at, part == PART_RAW48 ? 6 : part == PART_RAW64 ? 8 : 16, "");
		return part == PART_RAW128 ? 16 : 8;
	case PART_END:
		break;
	}
	return 0;
}

static void element_text(const struct filter_element *e, struct str *to)
{
	const struct filter_set_kind *kind = &filter_set_kinds[e->set];
	const unsigned char *at = e->key;

	for (unsigned i = 0; i < 4 && kind->parts[i]; i++) {
		if (i)
			str_puts(to, " . ");
		at += part_text(kind->parts[i], at, to);
	}
	if (kind->data == DATA_NONE)
		return;
	str_puts(to, " : ");
	if (kind->data == DATA_VERDICT)
		str_printf(to, "goto %s", (const char *)e->data);
	else if (kind->data == DATA_MARK)
		(void)part_text(PART_MARK, e->data, to);
	else {
		size_t length = part_text(kind->data == DATA_NAT4 ? PART_IPV4 : PART_IPV6, e->data, to);
		str_puts(to, " . ");
		(void)part_text(PART_PORT, e->data + length, to);
	}
}

const char *filter_family_of(const char *name) { return *name == 's' ? "bridge" : "inet"; }

void filter_ruleset_text_sets(const struct filter_ruleset *r, const char *table, struct str *to)
{
	for (size_t i = 0; i < r->peer_count; i++)
		str_printf(to, "add set %s %s %s { type ipv%c_addr; }\n", filter_family_of(r->peers[i]), table, r->peers[i],
			   strchr(r->peers[i], '_')[-1]);
	for (size_t i = 0; i < r->chain_count; i++)
		str_printf(to, "table %s %s {\n\tchain %s {\n%s\t}\n}\n", filter_family_of(r->chains[i].name), table,
			   r->chains[i].name, r->chains[i].body);
}

static void elements_text(const struct filter_ruleset *r, const char *table, struct str *to)
{
	for (size_t i = 0; i < r->element_count; i++) {
		const struct filter_element *e = &r->elements[i];
		const struct filter_set_kind *kind = &filter_set_kinds[e->set];
		bool first = !i || e[-1].set != e->set || !str_eq(e[-1].name, e->name);
		bool last = i + 1 == r->element_count || e[1].set != e->set || !str_eq(e[1].name, e->name);
		if (first)
			str_printf(to, "add element %s %s %s {\n", kind->bridge ? "bridge" : "inet", table,
				   kind->name ? kind->name : e->name);
		str_putc(to, '\t');
		element_text(e, to);
		str_puts(to, last ? "\n}\n" : ",\n");
	}
}

void filter_ruleset_text(const struct filter_ruleset *r, const char *table, struct str *to)
{
	/* "add" before "delete" makes the deletion succeed on a host that has no table yet. */
	for (int bridge = 1; bridge >= 0; bridge--)
		str_printf(to, "add table %s %s\ndelete table %s %s\n", bridge ? "bridge" : "inet", table,
			   bridge ? "bridge" : "inet", table);
	str_add(to, str_text(&r->skeleton), r->skeleton.length);
	filter_ruleset_text_sets(r, table, to);
	elements_text(r, table, to);
}
