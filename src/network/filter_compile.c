/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From the intent to a ruleset. A workspace in the default form is elements only: its leave and reach verdicts go to chains of
 * the skeleton. One with rules of its own gets a chain that leaves and one that is reached, named by the digest of what they
 * say, so workspaces with equal rules share them and the second start with known rules is elements only, too.
 *
 * Order in a chain: deny, then allow (or from), then the default. What was decided is put into the connection's mark, by which
 * it is counted (enum filter_code).
 */
#include "network/filter_compile.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"

int filter_table_name(const char *instance, char ret_table[static FILTER_TABLE], struct err *e)
{
	size_t length = strlen(instance);

	if (length < 1 || length > 8 || strspn(instance, "abcdefghijklmnopqrstuvwxyz0123456789") != length)
		return err_set(e, ERR_INVALID, "'%.20s' cannot name tables: an instance is 1 to 8 of a-z and 0-9", instance);
	(void)snprintf(ret_table, FILTER_TABLE, "carrel_%s", instance);
	return 0;
}

/* Elements. */

static struct filter_element *element_new(struct filter_ruleset *r, enum filter_set set)
{
	MEM_PUSH_ROOM(r->elements, r->element_count, r->element_room);
	struct filter_element *e = &r->elements[r->element_count++];
	*e = (struct filter_element){ .set = set };
	return e;
}

static void key_add(struct filter_element *e, const void *bytes, size_t length, size_t padded)
{
	memcpy(e->key + e->key_length, bytes, length);
	e->key_length += (unsigned)padded;
}

static void key_name(struct filter_element *e, const char *name) { key_add(e, name, strlen(name), 16); }
static void key_mark(struct filter_element *e, uint32_t mark) { key_add(e, &mark, sizeof mark, sizeof mark); }
static void key_address(struct filter_element *e, const struct filter_address *a)
{
	key_add(e, a->bytes, a->ipv6 ? 16 : 4, a->ipv6 ? 16 : 4);
}

static void key_service(struct filter_element *e, bool udp, uint16_t port)
{
	unsigned char protocol = udp ? 17 : 6, be[2] = { (unsigned char)(port >> 8), (unsigned char)port };
	key_add(e, &protocol, 1, 4);
	key_add(e, be, 2, 4);
}

static void data_mark(struct filter_element *e, uint32_t mark)
{
	memcpy(e->data, &mark, sizeof mark);
	e->data_length = sizeof mark;
}

static void data_chain(struct filter_element *e, const char *chain)
{
	e->data_length = (unsigned)strlen(chain);
	memcpy(e->data, chain, e->data_length);
}

static uint32_t mark_of(const struct filter_interface *i) { return (uint32_t)i->attachment->number; }

/* Rules. */

static void peers_name(enum rule_peer peer, const char *name, bool ipv6, bool site, char out[static FILTER_NAME])
{
	char hex[DIGEST_HEX_SIZE];
	struct digest d = hash_bytes(name, strlen(name));
	(void)snprintf(out, FILTER_NAME, "%s%c%c_%.32s", site ? "s" : "", peer == PEER_GROUP ? 'g' : 'w', ipv6 ? '6' : '4',
		       digest_hex(&d, hex));
}

/* Which chains: those of one direction, of family inet or (`site`) of family bridge, where the packet's mark has the code. */
struct side {
	bool out, site;
};

/* What a rule says of the other end's address, in one family; false: it names nobody there. */
static bool peer_match(struct filter_ruleset *r, const struct filter_model *m, const struct rule *rule, struct side side,
		       bool ipv6, struct str *to)
{
	bool out = side.out;
	const char *field = ipv6 ? (out ? "ip6 daddr" : "ip6 saddr") : (out ? "ip daddr" : "ip saddr");
	char name[FILTER_NAME], text[NETWORK_ADDRESS_SIZE];
	char family = ipv6 ? '6' : '4';

	switch (rule->peer) {
	case PEER_ANY:
		str_printf(to, side.site ? "ether type %s" : "meta nfproto %s",
			   side.site ? (ipv6 ? "ip6" : "ip") :
			   ipv6      ? "ipv6" :
				       "ipv4");
		return true;
	case PEER_NONE:
		return false;
	case PEER_WAN:
		str_printf(to, ipv6 ? "%s " FILTER_WAN6 " %s != @pools6" : "%s != @special4 %s != @pools4", field, field);
		return true;
	case PEER_SITE:
		str_printf(to, "%s @private%c %s != @ours%c", field, family, field, family);
		return true;
	case PEER_GROUP:
	case PEER_WORKSPACE:
		peers_name(rule->peer, rule->name, ipv6, side.site, name);
		filter_ruleset_add_peers(r, name);
		str_printf(to, "%s @%s", field, name);
		return true;
	case PEER_NETWORK:
		for (size_t i = 0; i < m->pool_count; i++)
			if (m->pools[i].prefix.ipv6 == ipv6 && str_eq(m->pools[i].network->network->name, rule->name)) {
				str_printf(to, "%s %s/%u", field, filter_address_text(&m->pools[i].prefix, text),
					   m->pools[i].length);
				return true;
			}
		return false;
	case PEER_ADDRESS:
		if (rule->ipv6 != ipv6)
			return false;
		struct filter_address a = { .ipv6 = ipv6 };
		memcpy(a.bytes, rule->address, sizeof a.bytes);
		str_printf(to, "%s %s/%u", field, filter_address_text(&a, text), rule->length);
		return true;
	}
	return false;
}

static void service_match(const struct rule_service *s, bool ipv6, struct str *to)
{
	if (s->protocol == RULE_ICMP) {
		str_printf(to, " meta l4proto %u", ipv6 ? 58U : 1U); /* by number: a host may have no /etc/protocols */
		return;
	}
	if (!s->port_count) {
		str_printf(to, " meta l4proto %u", s->protocol == RULE_TCP ? 6U : 17U);
		return;
	}
	str_printf(to, " %s dport { ", rule_protocol_names[s->protocol]);
	for (unsigned i = 0; i < s->port_count; i++) {
		str_printf(to, i ? ", %u" : "%u", s->ports[i].first);
		if (s->ports[i].last > s->ports[i].first)
			str_printf(to, "-%u", s->ports[i].last);
	}
	str_puts(to, " }");
}

static void rule_lines(struct filter_ruleset *r, const struct filter_model *m, const struct rule *rule, struct side side,
		       uint32_t code, struct str *to)
{
	bool out = side.out;
	const char *then = filter_code_allows(code) ? (out ? "allowed_out" : "allowed_in") : (out ? "denied_out" : "denied_in");

	for (int ipv6 = 0; ipv6 < 2; ipv6++) {
		own_strbuf struct str peer = { 0 };
		if (!peer_match(r, m, rule, side, ipv6, &peer))
			continue;
		for (unsigned i = 0; i < rule->service_count || !i; i++) {
			str_printf(to, "\t\t%s", str_text(&peer));
			if (rule->service_count)
				service_match(&rule->services[i], ipv6, to);
			str_printf(to, " %s mark set 0x%x goto %s\n", side.site ? "meta" : "ct", code, then);
		}
	}
}

static void rules_lines(struct filter_ruleset *r, const struct filter_model *m, const struct filter_rules *rules,
			struct side side, uint32_t first, struct str *to)
{
	for (size_t i = 0; i < rules->count; i++)
		rule_lines(r, m, &rules->items[i], side, first + (uint32_t)i, to);
}

static void leave_chain(struct filter_ruleset *r, const struct filter_model *m, const struct filter_party *p, bool site,
			char ret_name[static FILTER_NAME])
{
	own_strbuf struct str body = { 0 };
	struct side side = { true, site };

	if (p->local->spec->isolated || (!p->allow.count && !p->deny.count)) {
		(void)snprintf(ret_name, FILTER_NAME, "%s", p->local->spec->isolated ? "isolated_out" : "leave_default");
		return;
	}
	rules_lines(r, m, &p->deny, side, CODE_DENY, &body);
	rules_lines(r, m, &p->allow, side, CODE_ALLOW, &body);
	if (p->allow.count)
		str_printf(&body, "\t\t%s mark set 0x%x goto denied_out\n", site ? "meta" : "ct", CODE_DEFAULT);
	else
		str_puts(&body, "\t\tgoto leave_default\n");
	filter_ruleset_add_chain(r, site ? "sout" : "out", &body, ret_name);
}

static void reach_chain(struct filter_ruleset *r, const struct filter_model *m, const struct filter_party *p, bool site,
			char ret_name[static FILTER_NAME])
{
	own_strbuf struct str body = { 0 };
	struct side side = { false, site };

	if (p->local->spec->isolated || (!p->from.count && !p->deny.count && !p->groups->count)) {
		(void)snprintf(ret_name, FILTER_NAME, "%s", p->local->spec->isolated ? "isolated_in" : "reach_default");
		return;
	}
	rules_lines(r, m, &p->deny, side, CODE_DENY, &body);
	rules_lines(r, m, &p->from, side, CODE_FROM, &body);
	for (size_t i = 0; !p->from.count && i < p->groups->count; i++) {
		struct rule group = { .peer = PEER_GROUP };
		(void)snprintf(group.name, sizeof group.name, "%s", p->groups->items[i]);
		rule_lines(r, m, &group, side, CODE_SAME, &body);
	}
	if (p->from.count)
		str_printf(&body, "\t\t%s mark set 0x%x goto denied_in\n", site ? "meta" : "ct", CODE_DEFAULT);
	else
		str_puts(&body, "\t\tgoto reach_default\n");
	filter_ruleset_add_chain(r, site ? "sin" : "in", &body, ret_name);
}

/* A workspace. */

static void source_element(struct filter_ruleset *r, const struct filter_interface *i, const unsigned char mac[static 6],
			   const struct filter_address *a)
{
	struct filter_element *e = element_new(r, a->ipv6 ? SET_SOURCE6 : SET_SOURCE4);

	key_name(e, i->attachment->port);
	key_add(e, mac, 6, 8);
	key_address(e, a);
	data_mark(e, mark_of(i));
	if (a->ipv6) {
		e = element_new(r, SET_ND_TARGETS);
		key_name(e, i->attachment->port);
		key_address(e, a);
	}
}

static void mac_of(const struct filter_interface *i, unsigned char ret_mac[static 6])
{
	unsigned b[6];

	(void)sscanf(i->attachment->mac, "%2x:%2x:%2x:%2x:%2x:%2x", &b[0], &b[1], &b[2], &b[3], &b[4], &b[5]);
	for (int k = 0; k < 6; k++)
		ret_mac[k] = (unsigned char)b[k];
}

/* RFC 4291, appendix A: the link-local address that follows from the MAC address. */
static void link_local(const struct filter_interface *i, unsigned char ret_address[static 16])
{
	unsigned char mac[6];

	mac_of(i, mac);
	memcpy(ret_address,
	       (unsigned char[]){ 0xfe, 0x80, 0, 0, 0, 0, 0, 0, mac[0] ^ 2, mac[1], mac[2], 0xff, 0xfe, mac[3], mac[4],
				  mac[5] },
	       16);
}

static void port_elements(struct filter_ruleset *r, const struct filter_interface *i)
{
	unsigned char mac[6];
	struct filter_element *e;

	mac_of(i, mac);
	e = element_new(r, SET_PORTS);
	key_name(e, i->attachment->port);
	data_chain(e, filter_interface_sited(i) ? "site" : "own");
	key_name(element_new(r, SET_GUARDED), i->attachment->port);
	e = element_new(r, SET_MACS);
	key_name(e, i->attachment->port);
	key_add(e, mac, 6, 8);
	e = element_new(r, SET_ND_MACS);
	key_name(e, i->attachment->port);
	key_add(e, mac, 6, 8);
	struct filter_address local = { .ipv6 = true };
	link_local(i, local.bytes);
	source_element(r, i, mac, &local);
	for (int f = 0; f < 2; f++)
		if (i->has[f])
			source_element(r, i, mac, &i->address[f]);
}

/* Port, and no more: of the servers that the network has for names, and of addresses that it does not give itself. */
static void site_elements(struct filter_ruleset *r, const struct filter_party *p, const struct filter_interface *i)
{
	const struct texts *dns = &i->network->network->dns;
	struct filter_address a;
	unsigned char local[16];

	key_name(element_new(r, SET_SITED), i->attachment->port);
	struct filter_element *e = element_new(r, SET_SITE_OWNED);
	key_name(e, i->attachment->port);
	key_mark(e, (uint32_t)p->owner_uid);
	for (size_t k = 0; k < dns->count && !p->local->spec->isolated; k++)
		if (filter_address_parse(dns->items[k], &a) == 0) {
			e = element_new(r, a.ipv6 ? SET_RESOLVERS6 : SET_RESOLVERS4);
			key_name(e, i->attachment->port);
			key_address(e, &a);
		}
	if (!i->has[0] || i->learned)
		key_name(element_new(r, SET_LEARNS), i->attachment->port);
	if (!i->has[1]) {
		link_local(i, local);
		e = element_new(r, SET_EUI6);
		key_name(e, i->attachment->port);
		key_add(e, local + 8, 8, 8);
	}
}

/* Towards a bridge of the site: what comes from another port there, and what this host forwards. */
static void site_chains(struct filter_ruleset *r, const struct filter_model *m, const struct filter_party *p,
			const struct filter_interface *i)
{
	char name[FILTER_NAME];
	struct filter_element *e = element_new(r, SET_SITE_LEAVE);

	key_name(e, i->attachment->port);
	leave_chain(r, m, p, true, name);
	data_chain(e, name);
	reach_chain(r, m, p, true, name);
	e = element_new(r, SET_SITE_REACH);
	key_name(e, i->attachment->port);
	data_chain(e, name);
}

static void interface_elements(struct filter_ruleset *r, const struct filter_party *p, const struct filter_interface *i,
			       const char *leave, const char *reach, bool sited)
{
	struct filter_element *e;

	port_elements(r, i);
	if (filter_interface_sited(i)) {
		site_elements(r, p, i);
	} else {
		e = element_new(r, SET_LEAVE);
		key_mark(e, mark_of(i));
		data_chain(e, leave);
	}
	if (p->local->spec->isolated)
		key_mark(element_new(r, SET_ISOLATED), mark_of(i));
	for (int f = 0; f < 2; f++) {
		if (!i->has[f])
			continue;
		e = element_new(r, f ? SET_REACH6 : SET_REACH4);
		key_name(e, i->network->bridge);
		key_address(e, &i->address[f]);
		data_chain(e, reach);
		e = element_new(r, f ? SET_OWNED6 : SET_OWNED4);
		key_mark(e, (uint32_t)p->owner_uid);
		key_address(e, &i->address[f]);
		if (!p->from.count || p->local->spec->isolated)
			continue;
		key_address(element_new(r, f ? SET_ASKS6 : SET_ASKS4), &i->address[f]);
		if (sited)
			key_address(element_new(r, f ? SET_SITE_ASKS6 : SET_SITE_ASKS4), &i->address[f]);
	}
}

static void publish_element(struct filter_ruleset *r, const struct filter_party *p, const struct filter_address *to,
			    const struct network_publish *publish)
{
	struct filter_address at;
	bool every = !*publish->address;
	unsigned char port[4] = { (unsigned char)(publish->inside >> 8), (unsigned char)publish->inside };
	unsigned length = to->ipv6 ? 16 : 4;

	if (!every && (filter_address_parse(publish->address, &at) < 0 || at.ipv6 != to->ipv6))
		return;
	struct filter_element *e = element_new(r, to->ipv6 ? (every ? SET_PUBLISH6 : SET_PUBLISH_AT6) :
							     (every ? SET_PUBLISH4 : SET_PUBLISH_AT4));
	if (!every)
		key_address(e, &at);
	key_service(e, publish->udp, publish->outside);
	memcpy(e->data, to->bytes, length);
	memcpy(e->data + length, port, sizeof port);
	e->data_length = length + 4;
	e = element_new(r, to->ipv6 ? SET_SELF6 : SET_SELF4);
	key_address(e, to);
	key_address(e, to);
	if (p->from.count)
		return;
	e = element_new(r, to->ipv6 ? SET_OPEN6 : SET_OPEN4);
	key_address(e, to);
	key_service(e, publish->udp, publish->inside);
}

/* Published ports lead to the first interface that the outside can reach at all. */
static void publish_elements(struct filter_ruleset *r, const struct filter_party *p)
{
	for (int f = 0; f < 2; f++)
		for (size_t i = 0; i < p->interface_count; i++) {
			const struct filter_interface *n = &p->interfaces[i];
			if (!n->has[f] || n->network->network->kind == NETWORK_ISOLATED ||
			    n->network->network->kind == NETWORK_BRIDGE)
				continue;
			for (size_t k = 0; k < p->local->spec->publish.count; k++) {
				struct network_publish publish;
				struct err e;
				if (network_parse_publish(p->local->spec->publish.items[k], &publish, &e) >= 0)
					publish_element(r, p, &n->address[f], &publish);
			}
			break;
		}
}

void filter_compile_workspace(struct filter_ruleset *r, const struct filter_model *m, const struct filter_party *p, bool sited)
{
	char leave[FILTER_NAME], reach[FILTER_NAME];

	if (!p->local || !p->interface_count)
		return;
	leave_chain(r, m, p, false, leave);
	reach_chain(r, m, p, false, reach);
	for (size_t i = 0; i < p->interface_count; i++) {
		interface_elements(r, p, &p->interfaces[i], leave, reach, sited);
		if (filter_interface_sited(&p->interfaces[i]))
			site_chains(r, m, p, &p->interfaces[i]);
	}
	if (!p->local->spec->isolated)
		publish_elements(r, p);
}

static void member_element(struct filter_ruleset *r, const struct filter_ruleset *known, enum rule_peer peer, const char *name,
			   const struct filter_address *a)
{
	char set[FILTER_NAME];

	for (int site = 0; site < (known->sited ? 2 : 1); site++) {
		peers_name(peer, name, a->ipv6, site, set);
		if (!filter_ruleset_has_peers(known, set))
			continue;
		struct filter_element *e = element_new(r, site ? (a->ipv6 ? SET_SITE_PEERS6 : SET_SITE_PEERS4) :
								  a->ipv6 ? SET_PEERS6 : SET_PEERS4);
		memcpy(e->name, set, sizeof set);
		key_address(e, a);
	}
}

static void owner_element(struct filter_ruleset *r, enum filter_set set, const struct filter_address *a, uint64_t owner_uid)
{
	struct filter_element *e = element_new(r, set);
	key_address(e, a);
	data_mark(e, (uint32_t)owner_uid);
}

void filter_compile_member(struct filter_ruleset *r, const struct filter_ruleset *known, const struct filter_party *p)
{
	for (size_t i = 0; i < p->interface_count; i++)
		for (int f = 0; f < 2; f++) {
			const struct filter_address *a = &p->interfaces[i].address[f];
			if (!p->interfaces[i].has[f])
				continue;
			owner_element(r, f ? SET_OWNER6 : SET_OWNER4, a, p->owner_uid);
			if (known->sited)
				owner_element(r, f ? SET_SITE_OWNER6 : SET_SITE_OWNER4, a, p->owner_uid);
			for (size_t g = 0; g < p->groups->count; g++)
				member_element(r, known, PEER_GROUP, p->groups->items[g], a);
			member_element(r, known, PEER_WORKSPACE, p->name, a);
		}
}

void filter_compile_model(struct filter_ruleset *r, const struct filter_model *m, const char *table)
{
	r->sited = m->sited;
	filter_compile_skeleton(m, table, &r->skeleton);
	for (size_t i = 0; i < m->party_count; i++)
		filter_compile_workspace(r, m, &m->parties[i], m->sited);
	filter_ruleset_seal(r);
	for (size_t i = 0; i < m->party_count; i++)
		filter_compile_member(r, r, &m->parties[i]);
	filter_ruleset_seal(r);
}

int filter_compile(const struct filter_intent *intent, struct str *ret_text, struct err *e)
{
	own_model struct filter_model m = { 0 };
	struct filter_ruleset r = { 0 };
	char table[FILTER_TABLE];

	if (filter_table_name(intent->instance, table, e) < 0 || filter_model_init(&m, intent, NULL, e) < 0)
		return -EINVAL;
	filter_compile_model(&r, &m, table);
	filter_ruleset_text(&r, table, ret_text);
	filter_ruleset_done(&r);
	return 0;
}
