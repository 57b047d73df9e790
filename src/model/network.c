/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Three kinds of things in one file, as they share the forms of addresses: checks of single texts (used by the tables of other
 * models as well), the few computations that service and host must not do differently (gateway, zone, published port), and the
 * tables.
 *
 * Texts stay texts: the checks make sure that a later inet_pton or strtoul cannot fail, and everyone who needs bytes parses
 * again. A name of an interface is stricter for those that are made here (letters and digits) than for those of the site,
 * which are as they are.
 */
#include "model/network.h"

#include <arpa/inet.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/str.h"
#include "model/name.h"

const char *const network_kind_names[] = { "nat", "routed", "isolated", "bridge", NULL };

static int family_of(const char *text, unsigned char ret_bytes[static 16])
{
	return inet_pton(AF_INET, text, ret_bytes) == 1 ? AF_INET : inet_pton(AF_INET6, text, ret_bytes) == 1 ? AF_INET6 : 0;
}

int network_check_mac(const char *text, struct err *e)
{
	unsigned b[6];
	int end = 0;

	if (strlen(text) != 17 ||
	    sscanf(text, "%2x:%2x:%2x:%2x:%2x:%2x%n", &b[0], &b[1], &b[2], &b[3], &b[4], &b[5], &end) != 6 || end != 17)
		return err_set(e, ERR_INVALID, "a MAC address is six bytes in hex, for example 02:00:00:00:00:01");
	return b[0] & 1 ? err_set(e, ERR_INVALID, "%s is a multicast address", text) : 0;
}

int network_check_address(const char *text, struct err *e)
{
	unsigned char bytes[16];
	return family_of(text, bytes) ? 0 : err_set(e, ERR_INVALID, "'%s' is neither an IPv4 nor an IPv6 address", text);
}

int network_check_prefix(const char *text, struct err *e)
{
	unsigned char bytes[16];
	char address[NETWORK_ADDRESS_SIZE];
	const char *slash = strchr(text, '/');
	char *end = NULL;

	network_address(text, address);
	int family = family_of(address, bytes);
	unsigned long length = slash && slash[1] >= '0' && slash[1] <= '9' ? strtoul(slash + 1, &end, 10) : 999;
	if (!family || length > (family == AF_INET ? 32 : 128) || (end && *end))
		return err_set(e, ERR_INVALID, "'%s': a prefix is ADDRESS/LENGTH, for example 10.88.0.0/24", text);
	return 0;
}

/* What the kernel takes (dev_valid_name), less what would have to be quoted somewhere: sites name theirs br_lan, vmbr0.100,
 * eno1np0. */
int network_check_device(const char *text, struct err *e)
{
	static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";

	if (*text == '.' || *text == '-' || !*text || text[strspn(text, letters)])
		return err_set(e, ERR_INVALID, "'%.40s' is not the name of an interface: letters, digits, '.', '_' and '-'",
			       text);
	return 0;
}

int network_check_range(const char *text, struct err *e)
{
	unsigned char low[16] = { 0 }, high[16] = { 0 };
	char first[INET6_ADDRSTRLEN];
	const char *dash = strchr(text, '-');

	if (strchr(text, '/'))
		return network_check_prefix(text, e);
	if (!dash)
		return network_check_address(text, e);
	if ((size_t)(dash - text) >= sizeof first)
		return err_set(e, ERR_INVALID, "'%s': a range is FIRST-LAST", text);
	memcpy(first, text, (size_t)(dash - text));
	first[dash - text] = '\0';
	int family = family_of(first, low);
	if (!family || family_of(dash + 1, high) != family || memcmp(low, high, sizeof low) > 0)
		return err_set(e, ERR_INVALID, "'%s': a range is FIRST-LAST, both IPv4 or both IPv6", text);
	return 0;
}

void network_address(const char *prefix, char ret_address[static NETWORK_ADDRESS_SIZE])
{
	size_t length = strcspn(prefix, "/");

	if (length >= NETWORK_ADDRESS_SIZE)
		length = NETWORK_ADDRESS_SIZE - 1;
	memcpy(ret_address, prefix, length);
	ret_address[length] = '\0';
}

void network_gateway(const char *pool, char ret_address[static NETWORK_ADDRESS_SIZE], unsigned *ret_length)
{
	unsigned char bytes[16] = { 0 };
	char base[NETWORK_ADDRESS_SIZE];
	const char *slash = strchr(pool, '/');

	network_address(pool, base);
	int family = family_of(base, bytes);
	bytes[family == AF_INET ? 3 : 15] |= 1; /* a pool has no bits behind its length, and at least four addresses */
	(void)inet_ntop(family, bytes, ret_address, NETWORK_ADDRESS_SIZE);
	*ret_length = slash ? (unsigned)strtoul(slash + 1, NULL, 10) : 0;
}

static int parse_port(const char *text, size_t length, uint16_t *ret_port)
{
	unsigned value = 0;

	if (length < 1 || length > 5)
		return -1;
	for (size_t i = 0; i < length; i++) {
		if (text[i] < '0' || text[i] > '9')
			return -1;
		value = value * 10 + (unsigned)(text[i] - '0');
	}
	if (value < 1 || value > 65535)
		return -1;
	*ret_port = (uint16_t)value;
	return 0;
}

int network_parse_publish(const char *text, struct network_publish *ret_publish, struct err *e)
{
	struct network_publish p = { 0 };
	unsigned char bytes[16];
	const char *slash = strchr(text, '/');
	size_t length = slash ? (size_t)(slash - text) : strlen(text);
	const char *inside = memrchr(text, ':', length);
	const char *before = inside && inside > text ? memrchr(text, ':', (size_t)(inside - text)) : NULL;
	const char *outside = before ? before + 1 : text;

	p.udp = slash && str_eq(slash, "/udp");
	if (!inside || (slash && !p.udp && !str_eq(slash, "/tcp")) ||
	    parse_port(inside + 1, length - (size_t)(inside + 1 - text), &p.inside) < 0 ||
	    parse_port(outside, (size_t)(inside - outside), &p.outside) < 0)
		goto wrong;
	if (before) {
		bool boxed = text[0] == '[' && before[-1] == ']';
		const char *start = text + boxed;
		size_t count = (size_t)(before - text) - (boxed ? 2 : 0);
		if (count < 1 || count >= sizeof p.address)
			goto wrong;
		memcpy(p.address, start, count);
		if (family_of(p.address, bytes) != (boxed ? AF_INET6 : AF_INET))
			goto wrong;
	}
	*ret_publish = p;
	return 0;
wrong:
	return err_set(e, ERR_INVALID, "'%s': a published port is [ADDRESS:]OUTSIDE:INSIDE[/tcp|/udp], for example 8080:80",
		       text);
}

int network_check_publish(const char *text, struct err *e)
{
	struct network_publish p;
	return network_parse_publish(text, &p, e);
}

static int check_network_name(const char *name, struct err *e)
{
	if (str_eq(name, "none") || str_eq(name, "host") || str_eq(name, "auto"))
		return err_set(e, ERR_INVALID, "'%s' is a word of the spec and cannot name a network", name);
	return name_check(name, e);
}

static int check_zone(const char *zone, struct err *e)
{
	size_t label = 0;

	for (const char *p = zone; *p; p++) {
		bool letter = (*p >= 'a' && *p <= 'z') || (*p >= '0' && *p <= '9') || (*p == '-' && label);
		if (*p == '.' && label && p[1]) {
			label = 0;
			continue;
		}
		if (!letter || ++label > 63)
			return err_set(e, ERR_INVALID, "'%s': a DNS zone is labels of a-z, 0-9 and '-' with dots between them",
				       zone);
	}
	return *zone ? 0 : err_set(e, ERR_INVALID, "a DNS zone may not be empty");
}

static int check_device(const char *text, struct err *e)
{
	for (const char *p = text; *p; p++)
		if (!((*p >= 'a' && *p <= 'z') || (*p >= '0' && *p <= '9')))
			return err_set(e, ERR_INVALID, "'%s': an interface's name is letters and digits", text);
	return *text ? 0 : err_set(e, ERR_INVALID, "an interface's name may not be empty");
}

/* A prefix with host bits cleared; the decoder has checked its form. */
static bool has_host_bits(const char *prefix)
{
	unsigned char bytes[16] = { 0 };
	char address[INET6_ADDRSTRLEN] = "";
	const char *slash = strchr(prefix, '/');
	unsigned length = (unsigned)strtoul(slash + 1, NULL, 10);

	memcpy(address, prefix, (size_t)(slash - prefix));
	unsigned bits = family_of(address, bytes) == AF_INET ? 32 : 128;
	for (unsigned bit = length; bit < bits; bit++)
		if (bytes[bit / 8] & (0x80u >> bit % 8))
			return true;
	return false;
}

static int check_pool(const char *prefix, int family, unsigned least, unsigned most, struct err *e)
{
	unsigned length = prefix ? (unsigned)strtoul(strchr(prefix, '/') + 1, NULL, 10) : least;

	if (prefix && (strchr(prefix, ':') != NULL) != (family == AF_INET6))
		return err_set(e, ERR_INVALID, "%s is not an IPv%c pool", prefix, family == AF_INET6 ? '6' : '4');
	if (length < least || length > most)
		return err_set(e, ERR_INVALID, "pool %s: a length from /%u to /%u is expected", prefix, least, most);
	if (prefix && has_host_bits(prefix))
		return err_set(e, ERR_INVALID, "pool %s has bits set behind its length", prefix);
	return 0;
}

static int check_network(const void *value, struct err *e)
{
	const struct network *n = value;
	bool bridge = n->kind == NETWORK_BRIDGE;
	int r = check_pool(n->ipv4, AF_INET, 8, 30, e);

	if (r == 0)
		r = check_pool(n->ipv6, AF_INET6, 32, 120, e);
	if (r < 0)
		return r;
	if (bridge != (n->bridge != NULL))
		return err_set(e, ERR_INVALID,
			       bridge ?
				       "a network of kind bridge names the site's bridge it joins (bridge: br0, --bridge br0)" :
				       "only a network of kind bridge names a bridge (kind: bridge, --kind bridge)");
	if (n->vlan && !bridge)
		return err_set(e, ERR_INVALID, "only a network of kind bridge has a VLAN");
	if (n->ipv6 && n->mtu < 1280)
		return err_set(e, ERR_INVALID, "IPv6 needs an MTU of at least 1280");
	return 0;
}

#define N(member) offsetof(struct network, member)
static const struct field network_fields[] = {
	{ "name", FIELD_TEXT, N(name), "name, unique in the site", .required = true, .check = check_network_name,
	  .example = "lab" },
	{ "kind", FIELD_ENUM, N(kind),
	  "nat: hidden behind the host; routed: the site routes the pools here; isolated: no way out; bridge: joins a bridge "
	  "of the site",
	  .names = network_kind_names },
	{ "number", FIELD_NUMBER, N(number), "number in the site; given by the service", .max = 0xffffff },
	{ "ipv4", FIELD_TEXT, N(ipv4), "IPv4 pool; its first address is the gateway's", .check = network_check_prefix,
	  .example = "10.88.0.0/24" },
	{ "ipv6", FIELD_TEXT, N(ipv6), "IPv6 pool; its first address is the gateway's", .check = network_check_prefix,
	  .example = "\"fd00:88::/64\"" },
	{ "reserved", FIELD_TEXTS, N(reserved), "addresses and FIRST-LAST ranges that are not given out", .max = 256,
	  .check = network_check_range },
	{ "zone", FIELD_TEXT, N(zone), "DNS zone of its workspaces; NAME.carrel when missing", .max = 79, .check = check_zone },
	{ "bridge", FIELD_TEXT, N(bridge), "bridge of the site (kind bridge)", .max = NETWORK_DEVICE_LENGTH,
	  .check = network_check_device, .example = "br0" },
	{ "vlan", FIELD_NUMBER, N(vlan), "VLAN on it, or on any other interface of the site", .max = 4094 },
	{ "mtu", FIELD_NUMBER, N(mtu), "largest packet in bytes", .min = 576, .max = 65521, .preset = 1500 },
	{ "dns", FIELD_TEXTS, N(dns), "servers for names outside; the host's when missing", .max = 8,
	  .check = network_check_address },
	{ "labels", FIELD_PAIRS, N(labels), "free key-value pairs", .check = name_check_key },
	{ 0 },
};
const struct shape network_shape = { "network", sizeof(struct network), network_fields, "A network of the site.",
				     check_network };

#define R(member) offsetof(struct network_rates, member)
static const struct field rate_fields[] = {
	{ "in-least", FIELD_RATE, R(in_least), "bits a second that are guaranteed towards the workspace", .example = "10M" },
	{ "in-most", FIELD_RATE, R(in_most), "most bits a second towards the workspace" },
	{ "out-least", FIELD_RATE, R(out_least), "bits a second that are guaranteed from the workspace" },
	{ "out-most", FIELD_RATE, R(out_most), "most bits a second from the workspace" },
	{ 0 },
};

static int check_rates(const void *value, struct err *e)
{
	const struct network_rates *r = value;
	bool wrong = (r->in_most && r->in_least > r->in_most) || (r->out_most && r->out_least > r->out_most);
	return wrong ? err_set(e, ERR_INVALID, "a guaranteed rate is above its limit") : 0;
}

const struct shape network_rates_shape = { "network-rates", sizeof(struct network_rates), rate_fields,
					   "Bandwidth of an interface.", check_rates };

#define A(member) offsetof(struct attachment, member)
static const struct field attachment_fields[] = {
	{ "network", FIELD_TEXT, A(network), "name of the network", .required = true, .check = name_check },
	{ "number", FIELD_NUMBER, A(number), "number in the site", .required = true, .min = 1, .max = 0xffffffff },
	{ "device", FIELD_TEXT, A(device), "name inside", .required = true, .max = NETWORK_DEVICE_LENGTH,
	  .check = check_device },
	{ "port", FIELD_TEXT, A(port), "name on the host", .required = true, .max = NETWORK_DEVICE_LENGTH,
	  .check = check_device },
	{ "mac", FIELD_TEXT, A(mac), "hardware address", .required = true, .check = network_check_mac },
	{ "ipv4", FIELD_TEXT, A(ipv4), "ADDRESS/LENGTH", .check = network_check_prefix },
	{ "ipv6", FIELD_TEXT, A(ipv6), "ADDRESS/LENGTH", .check = network_check_prefix },
	{ "rates", FIELD_OBJECT, A(rates), "bandwidth", .shape = &network_rates_shape },
	{ 0 },
};
const struct shape attachment_shape = { "attachment", sizeof(struct attachment), attachment_fields,
					"An interface on a network.", .open = true };

#define D(member) offsetof(struct member_address, member)
static const struct field address_fields[] = {
	{ "network", FIELD_TEXT, D(network), "name of the network", .required = true, .check = name_check },
	{ "number", FIELD_NUMBER, D(number), "number of the attachment", .required = true },
	{ "ipv4", FIELD_TEXT, D(ipv4), "IPv4 address", .check = network_check_address },
	{ "ipv6", FIELD_TEXT, D(ipv6), "IPv6 address", .check = network_check_address },
	{ "mac", FIELD_TEXT, D(mac), "hardware address", .check = network_check_mac },
	{ 0 },
};
static const struct shape address_shape = { "member-address", sizeof(struct member_address), address_fields,
					    "Addresses on one network.", .open = true };
#define M(field) offsetof(struct member, field)
static const struct field member_fields[] = {
	{ "id", FIELD_TEXT, M(id), "id of the workspace", .required = true, .max = ID_LENGTH },
	{ "name", FIELD_TEXT, M(name), "its name", .required = true, .check = name_check },
	{ "owner", FIELD_NUMBER, M(owner_uid), "user id of its owner" },
	{ "groups", FIELD_TEXTS, M(groups), "groups it is in", .check = name_check },
	{ "addresses", FIELD_OBJECTS, M(addresses), "one for each network", .shape = &address_shape },
	{ 0 },
};
const struct shape member_shape = { "member", sizeof(struct member), member_fields, "A workspace as rules see it.",
				    .open = true };

const char *network_zone(const struct network *n, char ret_zone[static 80])
{
	if (n->zone)
		return n->zone;
	(void)snprintf(ret_zone, 80, "%.63s.carrel", n->name);
	return ret_zone;
}

void network_done(struct network *n) { shape_done(&network_shape, n); }
void member_done(struct member *m) { shape_done(&member_shape, m); }
