/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The same decisions as the chains, without packets. Each function here stands for one chain of filter_skeleton.c or
 * filter_compile.c, and asks in its order; tests/e2e/test_filter.py holds them together with real packets.
 */
#include "network/filter_judge.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

const char *const filter_side_names[] = { "out", "in", NULL };

static bool peer_is(const struct filter_model *m, const struct rule *r, const struct filter_party *party,
		    const struct filter_address *a)
{
	struct filter_address prefix = { .ipv6 = r->ipv6 };

	switch (r->peer) {
	case PEER_ANY:
		return true;
	case PEER_NONE:
		return false;
	case PEER_WAN:
		return filter_is_wan(m, a);
	case PEER_SITE:
		return filter_is_site(m, a);
	case PEER_GROUP:
		for (size_t i = 0; party && i < party->groups->count; i++)
			if (str_eq(party->groups->items[i], r->name))
				return true;
		return false;
	case PEER_WORKSPACE:
		return party && str_eq(party->name, r->name);
	case PEER_NETWORK:
		for (size_t i = 0; i < m->pool_count; i++)
			if (str_eq(m->pools[i].network->network->name, r->name) &&
			    filter_address_within(a, &m->pools[i].prefix, m->pools[i].length))
				return true;
		return false;
	case PEER_ADDRESS:
		memcpy(prefix.bytes, r->address, sizeof prefix.bytes);
		return filter_address_within(a, &prefix, r->length);
	}
	return false;
}

static bool serves(const struct rule *r, const struct filter_case *c, bool denies)
{
	if (c->any)
		return !denies || !r->service_count;
	return c->plain ? !r->service_count : rule_serves(r, c->protocol, c->port);
}

/* Index of the first rule that matches, or -1. */
static int match(const struct filter_model *m, const struct filter_rules *rules, const struct filter_case *c, bool out)
{
	bool denies = rules == &(out ? c->from : c->to)->deny;

	for (size_t i = 0; i < rules->count; i++) {
		const struct rule *r = &rules->items[i];
		if (serves(r, c, denies) && peer_is(m, r, out ? c->to : c->from, out ? &c->to_address : &c->from_address))
			return (int)i;
	}
	return -1;
}

/* Published without a `from`: open to everybody who comes by the published port. */
static bool open_port(const struct filter_case *c)
{
	if (!c->published || !c->to || !c->to->local || c->to->from.count || c->to->local->spec->isolated || c->plain)
		return false;
	const struct texts *list = &c->to->local->spec->publish;
	for (size_t i = 0; i < list->count; i++) {
		struct network_publish p;
		struct err e;
		if (network_parse_publish(list->items[i], &p, &e) >= 0 && p.inside == c->port &&
		    c->protocol == (p.udp ? RULE_UDP : RULE_TCP))
			return true;
	}
	return false;
}

/* On a bridge of the site: servers of names that the network has. */
static bool asks_names(const struct filter_case *c, const struct filter_interface *from)
{
	if (!from || !filter_interface_sited(from) || c->plain || c->port != 53 || c->protocol == RULE_ICMP)
		return false;
	const struct texts *dns = &from->network->network->dns;
	for (size_t i = 0; i < dns->count; i++) {
		struct filter_address a;
		if (filter_address_parse(dns->items[i], &a) == 0 && !filter_address_compare(&a, &c->to_address))
			return true;
	}
	return false;
}

static uint32_t leave(const struct filter_model *m, const struct filter_case *c, const struct filter_interface *from)
{
	int index;

	if (c->from->local->spec->isolated)
		return CODE_ISOLATED;
	if (asks_names(c, from))
		return CODE_NAMES;
	if ((index = match(m, &c->from->deny, c, true)) >= 0)
		return CODE_DENY + (uint32_t)index;
	if (c->from->allow.count)
		return (index = match(m, &c->from->allow, c, true)) >= 0 ? CODE_ALLOW + (uint32_t)index : CODE_DEFAULT;
	if (c->to && c->to->local && c->to->from.count && !c->to->local->spec->isolated)
		return CODE_ASKED;
	if (open_port(c))
		return CODE_PUBLISHED;
	return filter_is_wan(m, &c->to_address) ? CODE_WAN : CODE_DEFAULT;
}

static bool share_group(const struct filter_party *a, const struct filter_party *b)
{
	for (size_t i = 0; i < a->groups->count; i++)
		for (size_t k = 0; k < b->groups->count; k++)
			if (str_eq(a->groups->items[i], b->groups->items[k]))
				return true;
	return false;
}

static uint32_t reach(const struct filter_model *m, const struct filter_case *c)
{
	int index;

	if (c->to->local->spec->isolated)
		return CODE_ISOLATED;
	if ((index = match(m, &c->to->deny, c, false)) >= 0)
		return CODE_DENY + (uint32_t)index;
	if (c->to->from.count)
		return (index = match(m, &c->to->from, c, false)) >= 0 ? CODE_FROM + (uint32_t)index : CODE_DEFAULT;
	if (c->from && (c->from->owner_uid == c->to->owner_uid || share_group(c->from, c->to)))
		return CODE_SAME;
	return open_port(c) ? CODE_PUBLISHED : CODE_DEFAULT;
}

static const struct filter_interface *interface_at(const struct filter_party *p, const struct filter_address *a)
{
	for (size_t i = 0; p && i < p->interface_count; i++)
		if (p->interfaces[i].has[a->ipv6] && !memcmp(p->interfaces[i].address[a->ipv6].bytes, a->bytes, 16))
			return &p->interfaces[i];
	return NULL;
}

static bool sealed(const struct filter_interface *i)
{
	return i && i->network && i->network->network->kind == NETWORK_ISOLATED;
}

static const struct filter_network *network_of(const struct filter_interface *i) { return i ? i->network : NULL; }

uint32_t filter_judge_case(const struct filter_model *m, const struct filter_case *c, enum filter_side *ret_side,
			   const struct filter_party **ret_whose)
{
	bool leaves = c->from && c->from->local, arrives = c->to && c->to->local;
	const struct filter_interface *from = c->from_at ? c->from_at : interface_at(c->from, &c->from_address),
				      *to = c->to_at ? c->to_at : interface_at(c->to, &c->to_address);
	uint32_t code = CODE_DEFAULT;

	*ret_side = FILTER_OUT;
	*ret_whose = c->from;
	if (leaves) {
		code = sealed(from) && network_of(from) != network_of(to) ? CODE_SEALED : leave(m, c, from);
		if (!filter_code_allows(code) || !arrives)
			return code;
	}
	if (!arrives)
		return code;
	*ret_side = FILTER_IN;
	*ret_whose = c->to;
	if (sealed(to) && network_of(from) != network_of(to))
		return CODE_SEALED;
	bool outside = !leaves || (from && filter_interface_sited(from));
	if (outside && filter_model_ours(m, &c->from_address))
		return CODE_FORGED;
	if (outside && to && to->network && to->network->network->kind == NETWORK_NAT && !c->published)
		return CODE_NAT;
	return reach(m, c);
}

static int find_end(const struct filter_model *m, const struct filter_end *end, bool ipv6,
		    const struct filter_party **ret_party, struct filter_address *ret_address, struct err *e)
{
	*ret_party = NULL;
	if (!end->workspace) {
		/* Any global address decides alike; these are documentation's (RFC 5737, RFC 3849). */
		if (filter_address_parse(end->address ? end->address : ipv6 ? "2001:db8::1" : "203.0.113.1", ret_address) < 0)
			return err_set(e, ERR_INVALID, "'%.80s' is not an address", end->address);
		*ret_party = filter_model_at(m, ret_address);
		return 0;
	}
	const struct filter_party *p = filter_model_party(m, end->workspace);
	if (!p)
		return err_set(e, ERR_NOT_FOUND, "workspace %s is not known to this host", end->workspace);
	*ret_party = p;
	if (end->address)
		return filter_address_parse(end->address, ret_address) < 0 ?
			       err_set(e, ERR_INVALID, "'%.80s' is not an address", end->address) : 0;
	for (size_t i = 0; i < p->interface_count; i++)
		if (p->interfaces[i].has[ipv6]) {
			*ret_address = p->interfaces[i].address[ipv6];
			return 0;
		}
	return err_set(e, ERR_NOT_FOUND, "workspace %s has no IPv%c address", *p->name ? p->name : end->workspace,
		       ipv6 ? '6' : '4');
}

int filter_judge(const struct filter_intent *intent, const struct filter_question *q, struct filter_verdict *ret_verdict,
		 struct err *e)
{
	own_model struct filter_model m = { 0 };
	struct filter_case c = { .protocol = q->protocol, .port = q->port, .published = q->published };
	const char *text = q->from.address ? q->from.address : q->to.address;
	bool ipv6 = text ? strchr(text, ':') != NULL : q->ipv6;
	const struct filter_party *whose;

	if (filter_model_init(&m, intent, NULL, e) < 0 || find_end(&m, &q->from, ipv6, &c.from, &c.from_address, e) < 0 ||
	    find_end(&m, &q->to, ipv6, &c.to, &c.to_address, e) < 0)
		return -EINVAL;
	if (c.from_address.ipv6 != c.to_address.ipv6)
		return err_set(e, ERR_INVALID, "one end has an IPv4 address and the other an IPv6 address");
	struct filter_verdict v = { 0 };
	uint32_t code = filter_judge_case(&m, &c, &v.side, &whose);
	own_strbuf struct str words = { 0 };
	filter_code_text(code, whose && whose->local ? whose->local->spec : NULL, &words);
	v.allowed = filter_code_allows(code);
	(void)snprintf(v.workspace, sizeof v.workspace, "%s", whose ? whose->id : "");
	(void)snprintf(v.rule, sizeof v.rule, "%s", str_text(&words));
	*ret_verdict = v;
	return 0;
}

bool filter_may_talk(const struct filter_intent *intent, const char *from, const char *to, const char *network)
{
	own_model struct filter_model m = { 0 };
	struct filter_case c = { .any = true };
	const struct filter_party *whose;
	enum filter_side side;

	if (filter_model_init(&m, intent, NULL, NULL) < 0 || !(c.from = filter_model_party(&m, from)) ||
	    !(c.to = filter_model_party(&m, to)))
		return false;
	for (size_t i = 0; i < c.from->interface_count; i++)
		for (size_t k = 0; k < c.to->interface_count; k++)
			for (int f = 0; f < 2; f++) {
				const struct filter_interface *a = &c.from->interfaces[i], *b = &c.to->interfaces[k];
				const struct filter_network *there = network ? filter_model_network(&m, network) : NULL;
				if (!a->has[f] || !b->has[f] || (network && b->network != there && a->network != there))
					continue;
				c.from_address = a->address[f];
				c.to_address = b->address[f];
				if (filter_code_allows(filter_judge_case(&m, &c, &side, &whose)))
					return true;
			}
	return false;
}

bool filter_may_leave_site(const struct spec *spec)
{
	struct rule r;

	if (spec->isolated)
		return false;
	for (size_t i = 0; i < spec->deny.count; i++)
		if (rule_parse(spec->deny.items[i], &r, NULL) == 0 && !r.service_count &&
		    (r.peer == PEER_WAN || r.peer == PEER_ANY))
			return false;
	for (size_t i = 0; i < spec->allow.count; i++)
		if (rule_parse(spec->allow.items[i], &r, NULL) == 0 &&
		    (r.peer == PEER_WAN || r.peer == PEER_ANY || r.peer == PEER_SITE || r.peer == PEER_ADDRESS))
			return true;
	return !spec->allow.count;
}
