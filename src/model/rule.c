/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A rule is normalized while it is read: bits past a prefix's length are cleared, ports sorted and joined. So rule_text gives
 * one text for all spellings of a peer or a service. Words are separated by blanks only; case counts; nothing is looked up, as
 * the names may belong to what does not exist yet.
 */
#include "model/rule.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

#include "base/mem.h"
#include "model/name.h"

#define EXPECTED "wan, site, any, none, group:NAME, workspace:NAME, network:NAME or ADDRESS[/LENGTH]"
#define EXPECTED_SERVICE "tcp/PORTS, udp/PORTS, tcp, udp or icmp"

const char *const rule_protocol_names[] = { "tcp", "udp", "icmp", NULL };

static const char *const peer_words[] = { "wan", "site", "any", "none", "group:", "workspace:", "network:" };

static int unknown_word(const char *word, const char *expected, const char *const *words, size_t count, struct err *e)
{
	const char *near = str_nearest(word, words, count);

	(void)err_set(e, ERR_INVALID, "'%.80s' is not known here: expected %s", word, expected);
	return near ? err_hint(e, "did you mean '%s'?", near) : -EINVAL;
}

static int parse_address(const char *word, struct rule *r, struct err *e)
{
	char address[INET6_ADDRSTRLEN];
	const char *slash = strchr(word, '/');
	size_t end = slash ? (size_t)(slash - word) : strlen(word);
	uint64_t length;

	if (end >= sizeof address)
		return err_set(e, ERR_INVALID, "'%.80s' is not an address", word);
	memcpy(address, word, end);
	address[end] = '\0';
	r->ipv6 = inet_pton(AF_INET6, address, r->address) == 1;
	if (!r->ipv6 && inet_pton(AF_INET, address, r->address) != 1)
		return unknown_word(word, EXPECTED, peer_words, ARRAY_SIZE(peer_words), e);
	length = r->ipv6 ? 128 : 32;
	if (slash && (str_to_u64(slash + 1, length, &length) < 0 || (slash[1] == '0' && slash[2])))
		return err_set(e, ERR_INVALID, "'%s': the length of an %s prefix is 0 to %d", word, r->ipv6 ? "IPv6" : "IPv4",
			       r->ipv6 ? 128 : 32);
	r->length = (unsigned)length;
	for (unsigned bit = r->length; bit < (r->ipv6 ? 128U : 32U); bit++)
		r->address[bit / 8] &= (unsigned char)~(0x80 >> bit % 8);
	r->peer = PEER_ADDRESS;
	return 0;
}

static int parse_peer(const char *word, struct rule *r, struct err *e)
{
	for (unsigned i = PEER_WAN; i <= PEER_NONE; i++)
		if (str_eq(word, peer_words[i])) {
			r->peer = i;
			return 0;
		}
	for (unsigned i = PEER_GROUP; i <= PEER_NETWORK; i++)
		if (str_starts(word, peer_words[i])) {
			const char *name = word + strlen(peer_words[i]);
			if (name_check(name, e) < 0)
				return err_wrap(e, "'%.80s'", word);
			r->peer = i;
			memcpy(r->name, name, strlen(name) + 1);
			return 0;
		}
	return parse_address(word, r, e);
}

static int parse_port(const char **at, uint16_t *ret_port)
{
	unsigned value = 0, digits = 0;

	for (; **at >= '0' && **at <= '9' && digits < 6; (*at)++, digits++)
		value = value * 10 + (unsigned)(**at - '0');
	if (!digits || value < 1 || value > 65535)
		return -EINVAL;
	*ret_port = (uint16_t)value;
	return 0;
}

/* Keeps the list ascending and joins what overlaps or touches. */
static int add_ports(struct rule_service *s, struct rule_ports p)
{
	unsigned at = 0;

	while (at < s->port_count && s->ports[at].last + 1 < p.first)
		at++;
	unsigned end = at;
	for (; end < s->port_count && s->ports[end].first <= p.last + 1; end++) {
		p.first = p.first < s->ports[end].first ? p.first : s->ports[end].first;
		p.last = p.last > s->ports[end].last ? p.last : s->ports[end].last;
	}
	if (end == at && s->port_count == RULE_PORTS)
		return -E2BIG;
	memmove(&s->ports[at + 1], &s->ports[end], (s->port_count - end) * sizeof *s->ports);
	s->port_count = s->port_count + 1 - (end - at);
	s->ports[at] = p;
	/* rules that mean the same are the same bytes */
	memset(&s->ports[s->port_count], 0, (RULE_PORTS - s->port_count) * sizeof *s->ports);
	return 0;
}

static int parse_ports(const char *text, struct rule_service *s, struct err *e)
{
	for (const char *at = text;; at++) {
		struct rule_ports p;
		if (parse_port(&at, &p.first) < 0)
			break;
		p.last = p.first;
		if (*at == '-') {
			at++;
			if (parse_port(&at, &p.last) < 0)
				break;
		}
		if (p.last < p.first)
			return err_set(e, ERR_INVALID, "'%.80s': a range of ports goes upwards", text);
		if (add_ports(s, p) < 0)
			return err_set(e, ERR_INVALID, "'%.80s': more than %d ranges of ports", text, RULE_PORTS);
		if (!*at)
			return 0;
		if (*at != ',')
			break;
	}
	return err_set(e, ERR_INVALID, "'%.80s': ports are 1 to 65535, for example 22,80-90", text);
}

int rule_parse_service(const char *text, struct rule_service *ret_service, struct err *e)
{
	struct rule_service s = { 0 };
	const char *slash = strchr(text, '/');
	size_t length = slash ? (size_t)(slash - text) : strlen(text);
	bool known = false;

	for (unsigned i = 0; rule_protocol_names[i] && !known; i++)
		if (strlen(rule_protocol_names[i]) == length && !memcmp(text, rule_protocol_names[i], length)) {
			s.protocol = i;
			known = true;
		}
	if (!known)
		return unknown_word(text, EXPECTED_SERVICE, rule_protocol_names, 3, e);
	if (slash && s.protocol == RULE_ICMP)
		return err_set(e, ERR_INVALID, "'%.80s': icmp has no ports", text);
	if (slash && parse_ports(slash + 1, &s, e) < 0)
		return -EINVAL;
	*ret_service = s;
	return 0;
}

int rule_parse(const char *text, struct rule *ret_rule, struct err *e)
{
	struct rule r = { 0 };
	char words[RULE_LONGEST + 1], *rest = words, *word;
	size_t length = strlen(text);
	bool peer = false;

	if (length > RULE_LONGEST)
		return err_set(e, ERR_INVALID, "a rule has at most %d characters", RULE_LONGEST);
	memcpy(words, text, length + 1);
	while ((word = strsep(&rest, " "))) {
		if (!*word)
			continue;
		if (!peer) {
			if (parse_peer(word, &r, e) < 0)
				return -EINVAL;
			peer = true;
		} else if (r.peer == PEER_NONE) {
			return err_set(e, ERR_INVALID, "'none' stands alone");
		} else if (r.service_count == RULE_SERVICES) {
			return err_set(e, ERR_INVALID, "a rule has at most %d services", RULE_SERVICES);
		} else if (rule_parse_service(word, &r.services[r.service_count++], e) < 0) {
			return -EINVAL;
		}
	}
	if (!peer)
		return err_set(e, ERR_INVALID, "a rule is PEER [SERVICE...], PEER = " EXPECTED);
	*ret_rule = r;
	return 0;
}

int rule_check(const char *text, struct err *e)
{
	struct rule r;
	return rule_parse(text, &r, e);
}

static void service_text(const struct rule_service *s, struct str *to)
{
	str_puts(to, rule_protocol_names[s->protocol]);
	for (unsigned i = 0; i < s->port_count; i++) {
		str_printf(to, "%c%u", i ? ',' : '/', s->ports[i].first);
		if (s->ports[i].last > s->ports[i].first)
			str_printf(to, "-%u", s->ports[i].last);
	}
}

void rule_text(const struct rule *r, struct str *to)
{
	char address[INET6_ADDRSTRLEN];

	if (r->peer == PEER_ADDRESS) {
		(void)inet_ntop(r->ipv6 ? AF_INET6 : AF_INET, r->address, address, sizeof address);
		str_puts(to, address);
		if (r->length < (r->ipv6 ? 128U : 32U))
			str_printf(to, "/%u", r->length);
	} else {
		str_printf(to, "%s%s", peer_words[r->peer], r->name);
	}
	for (unsigned i = 0; i < r->service_count; i++) {
		str_putc(to, ' ');
		service_text(&r->services[i], to);
	}
}

bool rule_serves(const struct rule *r, enum rule_protocol protocol, uint16_t port)
{
	for (unsigned i = 0; i < r->service_count; i++) {
		const struct rule_service *s = &r->services[i];
		if (s->protocol != protocol)
			continue;
		if (!s->port_count)
			return true;
		for (unsigned k = 0; k < s->port_count; k++)
			if (port >= s->ports[k].first && port <= s->ports[k].last)
				return true;
	}
	return !r->service_count;
}
