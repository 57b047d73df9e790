/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Parties are the workspaces of this host first, then the other members of the site; who is both is local, since only then its
 * own rules and interfaces are known. `only` resolves one workspace alone, for a change that touches no other: members are
 * left out then.
 *
 * Lookup by address is a sorted array and a binary search, as a model is built, asked thousands of times and thrown away. What
 * "wan" and "site" mean is decided here and nowhere else, from one table of ranges and the pools, of which the compiler makes
 * sets and the judge asks. Of the words for verdict codes there is one table too; the codes themselves are in the header.
 */
#include "network/filter_model.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

#include "base/map.h"
#include "base/mem.h"

const struct filter_range filter_ranges[] = {
	{ "0.0.0.0/8", false, false },      /* RFC 1122: this host */
	{ "10.0.0.0/8", false, true },      /* RFC 1918 */
	{ "100.64.0.0/10", false, true },   /* RFC 6598: behind a carrier's NAT */
	{ "127.0.0.0/8", false, false },    /* loopback */
	{ "169.254.0.0/16", false, false }, /* RFC 3927: link-local; the metadata address is in it */
	{ "172.16.0.0/12", false, true },   /* RFC 1918 */
	{ "192.0.0.0/24", false, false },   /* RFC 6890: protocol assignments */
	{ "192.168.0.0/16", false, true },  /* RFC 1918 */
	{ "224.0.0.0/3", false, false },    /* multicast and reserved */
	{ "fc00::/7", true, true },         /* RFC 4193; IPv6's others are outside of FILTER_WAN6 */
	{ NULL, false, false },
};

int filter_address_parse(const char *text, struct filter_address *ret_address)
{
	struct filter_address a = { 0 };
	char address[INET6_ADDRSTRLEN];
	size_t length = strcspn(text, "/");

	if (length >= sizeof address)
		return -EINVAL;
	memcpy(address, text, length);
	address[length] = '\0';
	a.ipv6 = memchr(address, ':', length) != NULL;
	if (inet_pton(a.ipv6 ? AF_INET6 : AF_INET, address, a.bytes) != 1)
		return -EINVAL;
	*ret_address = a;
	return 0;
}

char *filter_address_text(const struct filter_address *a, char out[static NETWORK_ADDRESS_SIZE])
{
	(void)inet_ntop(a->ipv6 ? AF_INET6 : AF_INET, a->bytes, out, NETWORK_ADDRESS_SIZE);
	return out;
}

bool filter_address_within(const struct filter_address *a, const struct filter_address *prefix, unsigned length)
{
	unsigned rest = length % 8;

	if (a->ipv6 != prefix->ipv6 || memcmp(a->bytes, prefix->bytes, length / 8) != 0)
		return false;
	return !rest || ((a->bytes[length / 8] ^ prefix->bytes[length / 8]) >> (8 - rest)) == 0;
}

static int parse_prefix(const char *text, struct filter_address *ret_prefix, unsigned *ret_length)
{
	const char *slash = strchr(text, '/');
	uint64_t length;

	if (!slash || filter_address_parse(text, ret_prefix) < 0 ||
	    str_to_u64(slash + 1, ret_prefix->ipv6 ? 128 : 32, &length) < 0)
		return -EINVAL;
	for (unsigned bit = (unsigned)length; bit < (ret_prefix->ipv6 ? 128U : 32U); bit++)
		ret_prefix->bytes[bit / 8] &= (unsigned char)~(0x80 >> bit % 8);
	*ret_length = (unsigned)length;
	return 0;
}

static int add_pool(struct filter_model *m, const struct filter_network *network, const char *text, struct err *e)
{
	if (!text)
		return 0;
	MEM_PUSH_ROOM(m->pools, m->pool_count, m->pool_room);
	struct filter_pool *p = &m->pools[m->pool_count];
	*p = (struct filter_pool){ .network = network };
	if (parse_prefix(text, &p->prefix, &p->length) < 0)
		return err_set(e, ERR_INVALID, "network '%s': '%s' is not a prefix", network->network->name, text);
	m->pool_count++;
	return 0;
}

static int parse_rules(const struct texts *texts, struct filter_rules *ret_rules, struct err *e)
{
	if (texts->count)
		ret_rules->items = mem_alloc_array(texts->count, sizeof *ret_rules->items);
	for (; ret_rules->count < texts->count; ret_rules->count++)
		if (rule_parse(texts->items[ret_rules->count], &ret_rules->items[ret_rules->count], e) < 0)
			return err_wrap(e, "rule '%s'", texts->items[ret_rules->count]);
	return 0;
}

static int set_addresses(struct filter_interface *i, const char *ipv4, const char *ipv6, const char *id, struct err *e)
{
	const char *texts[] = { ipv4, ipv6 };

	for (int f = 0; f < 2; f++)
		if (texts[f]) {
			if (filter_address_parse(texts[f], &i->address[f]) < 0 || i->address[f].ipv6 != (f == 1))
				return err_set(e, ERR_INVALID, "workspace %s: '%s' is not an IPv%c address", id, texts[f],
					       f ? '6' : '4');
			i->has[f] = true;
		}
	return 0;
}

static struct filter_party *add_party(struct filter_model *m)
{
	MEM_PUSH_ROOM(m->parties, m->party_count, m->party_room);
	m->parties[m->party_count] = (struct filter_party){ 0 };
	return &m->parties[m->party_count++];
}

static int add_local(struct filter_model *m, const struct filter_workspace *w, struct err *e)
{
	struct filter_party *p = add_party(m);

	*p = (struct filter_party){ .id = w->id, .name = w->spec->name ? w->spec->name : "", .owner_uid = w->owner_uid,
				    .groups = &w->spec->groups, .local = w };
	if (parse_rules(&w->spec->allow, &p->allow, e) < 0 || parse_rules(&w->spec->deny, &p->deny, e) < 0 ||
	    parse_rules(&w->spec->from, &p->from, e) < 0)
		return err_wrap(e, "workspace %s", w->id);
	for (size_t i = 0; i < w->attachment_count && i < NETWORK_INTERFACES; i++) {
		const struct attachment *a = &w->attachments[i];
		struct filter_interface *n = &p->interfaces[p->interface_count++];
		n->attachment = a;
		n->network = filter_model_network(m, a->network);
		if (!n->network || !n->network->bridge)
			return err_set(e, ERR_INVALID, "workspace %s: this host has no network '%s'", w->id, a->network);
		if (!a->port || !*a->port || strlen(a->port) > NETWORK_DEVICE_LENGTH || strpbrk(a->port, "\"*\\") || !a->mac ||
		    network_check_mac(a->mac, e) < 0)
			return err_set(e, ERR_INVALID, "workspace %s: interface without usable port and MAC address", w->id);
		n->learned = !a->ipv4 && w->learned && w->learned[i];
		if (set_addresses(n, n->learned ? w->learned[i] : a->ipv4, a->ipv6, w->id, e) < 0)
			return -EINVAL;
		m->sited |= filter_interface_sited(n);
	}
	return 0;
}

static int add_member(struct filter_model *m, const struct member *member, struct err *e)
{
	struct filter_party *p = add_party(m);

	*p = (struct filter_party){ .id = member->id, .name = member->name ? member->name : "", .owner_uid = member->owner_uid,
				    .groups = &member->groups };
	for (size_t i = 0; i < member->addresses.count && i < NETWORK_INTERFACES; i++) {
		const struct member_address *a = &((const struct member_address *)member->addresses.items)[i];
		struct filter_interface *n = &p->interfaces[p->interface_count++];
		n->network = filter_model_network(m, a->network);
		if (set_addresses(n, a->ipv4, a->ipv6, member->id, e) < 0)
			return -EINVAL;
	}
	return 0;
}

int filter_address_compare(const struct filter_address *a, const struct filter_address *b)
{
	return a->ipv6 != b->ipv6 ? (int)a->ipv6 - (int)b->ipv6 : memcmp(a->bytes, b->bytes, 16);
}

static int compare_places(const void *a, const void *b)
{
	const struct filter_place *left = a, *right = b;
	int order = filter_address_compare(&left->address, &right->address);
	return order ? order : left->party < right->party ? -1 : left->party > right->party;
}

static void index_parties(struct filter_model *m)
{
	for (size_t i = 0; i < m->party_count; i++)
		for (size_t k = 0; k < m->parties[i].interface_count; k++)
			for (int f = 0; f < 2; f++)
				if (m->parties[i].interfaces[k].has[f]) {
					MEM_PUSH_ROOM(m->places, m->place_count, m->place_room);
					m->places[m->place_count++] = (struct filter_place){
						m->parties[i].interfaces[k].address[f], i
					};
				}
	if (m->place_count)
		qsort(m->places, m->place_count, sizeof *m->places, compare_places);
}

int filter_model_init(struct filter_model *m, const struct filter_intent *intent, const char *only, struct err *e)
{
	*m = (struct filter_model){ .intent = intent, .follows = intent->follows };
	for (size_t i = 0; i < intent->network_count; i++)
		if (add_pool(m, &intent->networks[i], intent->networks[i].network->ipv4, e) < 0 ||
		    add_pool(m, &intent->networks[i], intent->networks[i].network->ipv6, e) < 0)
			return -EINVAL;
	for (size_t i = 0; i < intent->workspace_count; i++) {
		if (only && !str_eq(intent->workspaces[i].id, only))
			continue;
		if (add_local(m, &intent->workspaces[i], e) < 0)
			return -EINVAL;
		map_put(&m->by_id, intent->workspaces[i].id, (void *)(uintptr_t)m->party_count);
	}
	for (size_t i = 0; i < intent->member_count && !only; i++)
		if (!map_get(&m->by_id, intent->members[i].id)) {
			if (add_member(m, &intent->members[i], e) < 0)
				return -EINVAL;
			map_put(&m->by_id, intent->members[i].id, (void *)(uintptr_t)m->party_count);
		}
	index_parties(m);
	return 0;
}

void filter_model_done(struct filter_model *m)
{
	for (size_t i = 0; i < m->party_count; i++) {
		free(m->parties[i].allow.items);
		free(m->parties[i].deny.items);
		free(m->parties[i].from.items);
	}
	free(m->parties);
	free(m->pools);
	free(m->places);
	map_done(&m->by_id);
	*m = (struct filter_model){ 0 };
}

const struct filter_party *filter_model_party(const struct filter_model *m, const char *id)
{
	uintptr_t index = (uintptr_t)map_get(&m->by_id, id);
	return index ? &m->parties[index - 1] : NULL;
}

const struct filter_party *filter_model_at(const struct filter_model *m, const struct filter_address *a)
{
	size_t low = 0, high = m->place_count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (filter_address_compare(&m->places[middle].address, a) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low < m->place_count && !filter_address_compare(&m->places[low].address, a) ? &m->parties[m->places[low].party] :
											     NULL;
}

/* In which pools: -1: any, 0: of our own networks, 1: of the site's bridges. */
static bool pooled(const struct filter_model *m, const struct filter_address *a, int site)
{
	for (size_t i = 0; i < m->pool_count; i++)
		if ((site < 0 || site == (m->pools[i].network->network->kind == NETWORK_BRIDGE)) &&
		    filter_address_within(a, &m->pools[i].prefix, m->pools[i].length))
			return true;
	return false;
}

static bool of_any(const struct filter_model *m, const struct filter_address *a) { return pooled(m, a, -1); }
bool filter_model_ours(const struct filter_model *m, const struct filter_address *a) { return pooled(m, a, 0); }

const struct filter_network *filter_model_network(const struct filter_model *m, const char *name)
{
	for (size_t i = 0; i < m->intent->network_count; i++)
		if (str_eq(m->intent->networks[i].network->name, name))
			return &m->intent->networks[i];
	return NULL;
}

static bool in_prefix(const struct filter_address *a, const char *text)
{
	struct filter_address prefix;
	unsigned length;
	return parse_prefix(text, &prefix, &length) == 0 && filter_address_within(a, &prefix, length);
}

static bool in_ranges(const struct filter_address *a, bool site)
{
	for (const struct filter_range *r = filter_ranges; r->prefix; r++)
		if (r->ipv6 == a->ipv6 && (!site || r->site) && in_prefix(a, r->prefix))
			return true;
	return false;
}

bool filter_is_wan(const struct filter_model *m, const struct filter_address *a)
{
	return (a->ipv6 ? in_prefix(a, FILTER_WAN6) : !in_ranges(a, false)) && !of_any(m, a);
}

bool filter_is_site(const struct filter_model *m, const struct filter_address *a)
{
	return (in_ranges(a, true) || pooled(m, a, 1)) && !filter_model_ours(m, a);
}

bool filter_code_allows(uint32_t code)
{
	return (code >= CODE_WAN && code <= CODE_NAMES) || (code >= CODE_ALLOW && code < CODE_DENY) || code >= CODE_FROM;
}

void filter_code_text(uint32_t code, const struct spec *spec, struct str *to)
{
	static const char *const words[] = {
		[CODE_DEFAULT] = "default", [CODE_ISOLATED] = "isolated", [CODE_SEALED] = "isolated network",
		[CODE_CONNECTIONS] = "too many connections", [CODE_NAT] = "not published",
		[CODE_FORGED] = "forged source address", [CODE_HOST] = "the host itself",
		[CODE_INVALID] = "belongs to no connection", [CODE_WAN] = "default: wan",
		[CODE_SAME] = "default: same owner or group", [CODE_PUBLISHED] = "published port",
		[CODE_ASKED] = "default: whose from names it", [CODE_NAMES] = "names", [CODE_MAC] = "spoofed MAC address",
		[CODE_IPV4] = "spoofed IPv4 address", [CODE_IPV6] = "spoofed IPv6 address", [CODE_ARP] = "spoofed ARP",
		[CODE_ND] = "spoofed neighbour discovery", [CODE_ROUTER] = "router advertisement or redirect",
		[CODE_DHCP] = "DHCP server", [CODE_TYPE] = "frame that is neither IP nor ARP",
		[CODE_UNANNOUNCED] = "port that is not known", [CODE_PIECE] = "fragment of what was not let through",
		[CODE_REQUEST] = "spoofed DHCP request",
	};
	const struct texts *list = !spec             ? NULL :
				   code >= CODE_FROM ? &spec->from :
				   code >= CODE_DENY ? &spec->deny :
						       &spec->allow;
	size_t index = code & 0xffff;

	if (code < ARRAY_SIZE(words) && words[code]) {
		str_puts(to, words[code]);
		return;
	}
	str_puts(to, code >= CODE_FROM ? "from " : code >= CODE_DENY ? "deny " : "allow ");
	if (code >= CODE_ALLOW && list && index < list->count)
		str_puts(to, list->items[index]);
	else
		str_printf(to, "%zu", index);
}
