/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Both families are counted in 64 bits: the low half of an IPv6 address, the whole of an IPv4 one; what a pool has above that
 * is its base and is never looked at again. Numbers 0 and 1 (network and gateway) are left out by beginning at 2.
 *
 * A range that is taken from its middle becomes two, one that is given back is joined with its neighbours; so the list is as
 * long as the usage is scattered, and shrinks again. Nothing here remembers who has an address: that is in the attachments
 * (network.c).
 */
#include "service/network_pool.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/str.h"

/* Bytes of "ADDRESS[/LENGTH]"; *ret_length is that of the address when none stands there. */
static bool parse(const char *text, bool *ret_ipv6, unsigned char ret_bytes[static 16], unsigned *ret_length)
{
	char address[NETWORK_ADDRESS_SIZE];
	const char *slash = strchr(text, '/');

	network_address(text, address);
	memset(ret_bytes, 0, 16);
	*ret_ipv6 = strchr(address, ':') != NULL;
	if (inet_pton(*ret_ipv6 ? AF_INET6 : AF_INET, address, ret_bytes) != 1)
		return false;
	*ret_length = slash ? (unsigned)strtoul(slash + 1, NULL, 10) : *ret_ipv6 ? 128 : 32;
	return true;
}

static uint64_t low_bits(const struct pool *p, const unsigned char *bytes)
{
	uint64_t number = 0;

	for (int i = p->ipv6 ? 8 : 0; i < (p->ipv6 ? 16 : 4); i++)
		number = number << 8 | bytes[i];
	return number;
}

bool pool_number(const struct pool *p, const char *address, uint64_t *ret_number)
{
	unsigned char bytes[16];
	unsigned length;
	bool ipv6;

	if (!p->prefix || !parse(address, &ipv6, bytes, &length) || ipv6 != p->ipv6 || (ipv6 && memcmp(bytes, p->base, 8) != 0))
		return false;
	uint64_t number = low_bits(p, bytes) - low_bits(p, p->base);
	if (number > p->last)
		return false;
	*ret_number = number;
	return true;
}

void pool_text(const struct pool *p, uint64_t number, char ret_text[static POOL_TEXT_SIZE])
{
	unsigned char bytes[16];
	uint64_t low = low_bits(p, p->base) + number;
	int end = p->ipv6 ? 16 : 4, begin = p->ipv6 ? 8 : 0;

	memcpy(bytes, p->base, sizeof bytes);
	for (int i = end - 1; i >= begin; i--, low >>= 8)
		bytes[i] = (unsigned char)low;
	(void)inet_ntop(p->ipv6 ? AF_INET6 : AF_INET, bytes, ret_text, NETWORK_ADDRESS_SIZE);
	(void)snprintf(ret_text + strlen(ret_text), 5, "/%u", p->length);
}

/* The range that holds `number`, or the first behind it. */
static size_t find(const struct pool *p, uint64_t number)
{
	size_t low = 0, high = p->count;

	while (low < high) {
		size_t middle = (low + high) / 2;
		if (p->free[middle].last < number)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static void insert(struct pool *p, size_t at, struct pool_range range)
{
	MEM_PUSH_ROOM(p->free, p->count, p->capacity);
	memmove(&p->free[at + 1], &p->free[at], (p->count++ - at) * sizeof *p->free);
	p->free[at] = range;
}

static void erase(struct pool *p, size_t at)
{
	memmove(&p->free[at], &p->free[at + 1], (--p->count - at) * sizeof *p->free);
}

/* No longer free, as far as it was. */
static void cut(struct pool *p, uint64_t first, uint64_t last)
{
	size_t at = find(p, first);

	while (at < p->count && p->free[at].first <= last) {
		struct pool_range r = p->free[at];
		erase(p, at);
		if (r.last > last)
			insert(p, at, (struct pool_range){ last + 1, r.last });
		if (r.first < first)
			insert(p, at++, (struct pool_range){ r.first, first - 1 });
		if (r.last > last)
			break;
	}
}

/* A reserved range may begin before the pool and end behind it. */
static void reserve(struct pool *p, const char *text)
{
	const char *dash = strchr(text, '-');
	char from[NETWORK_ADDRESS_SIZE] = "";
	uint64_t first, last;

	if (strchr(text, '/')) {
		unsigned char bytes[16];
		unsigned length;
		bool ipv6;
		if (!prefix_overlaps(p->prefix, text) || !parse(text, &ipv6, bytes, &length))
			return;
		if (!pool_number(p, text, &first)) { /* the prefix is wider than the pool */
			cut(p, 0, p->last);
			return;
		}
		unsigned bits = (ipv6 ? 128 : 32) - length;
		last = bits >= 64 ? p->last : first + ((UINT64_C(1) << bits) - 1);
		cut(p, first, last < first || last > p->last ? p->last : last);
		return;
	}
	(void)snprintf(from, sizeof from, "%.*s", dash ? (int)(dash - text) : 45, text);
	const char *to = dash ? dash + 1 : from;
	unsigned char a[16], b[16];
	unsigned length;
	bool ipv6;
	if (!parse(from, &ipv6, a, &length) || ipv6 != p->ipv6 || !parse(to, &ipv6, b, &length))
		return;
	if (!pool_number(p, from, &first)) {
		if (memcmp(a, p->base, 16) > 0)
			return;
		first = 0;
	}
	if (!pool_number(p, to, &last)) {
		if (memcmp(b, p->base, 16) < 0)
			return;
		last = p->last;
	}
	cut(p, first, last);
}

void pool_init(struct pool *p, const char *prefix, const struct texts *reserved)
{
	*p = (struct pool){ .prefix = prefix };
	if (!prefix || !parse(prefix, &p->ipv6, p->base, &p->length))
		return;
	unsigned bits = (p->ipv6 ? 128 : 32) - p->length;
	p->last = bits >= 64 ? UINT64_MAX : (UINT64_C(1) << bits) - 1;
	insert(p, 0, (struct pool_range){ 2, p->ipv6 ? p->last : p->last - 1 });
	for (size_t i = 0; reserved && i < reserved->count; i++)
		reserve(p, reserved->items[i]);
	p->room = pool_left(p);
}

void pool_done(struct pool *p)
{
	free(p->free);
	*p = (struct pool){ 0 };
}

bool pool_lowest(const struct pool *p, uint64_t *ret_number)
{
	if (p->count)
		*ret_number = p->free[0].first;
	return p->count > 0;
}

bool pool_take(struct pool *p, uint64_t number)
{
	size_t at = find(p, number);

	if (at == p->count || p->free[at].first > number)
		return false;
	struct pool_range *r = &p->free[at];
	if (r->first == number && r->last == number) {
		erase(p, at);
	} else if (r->first == number) {
		r->first++;
	} else if (r->last == number) {
		r->last--;
	} else {
		struct pool_range behind = { number + 1, r->last };
		r->last = number - 1;
		insert(p, at + 1, behind);
	}
	return true;
}

void pool_give(struct pool *p, uint64_t number)
{
	size_t at = find(p, number);
	bool before = at > 0 && p->free[at - 1].last + 1 == number;
	bool behind = at < p->count && p->free[at].first == number + 1;

	if (at < p->count && p->free[at].first <= number)
		return; /* it is free */
	if (before && behind) {
		p->free[at - 1].last = p->free[at].last;
		erase(p, at);
	} else if (before) {
		p->free[at - 1].last = number;
	} else if (behind) {
		p->free[at].first = number;
	} else {
		insert(p, at, (struct pool_range){ number, number });
	}
}

uint64_t pool_left(const struct pool *p)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < p->count; i++)
		sum += p->free[i].last - p->free[i].first + 1;
	return sum;
}

bool prefix_overlaps(const char *a, const char *b)
{
	unsigned char x[16], y[16];
	unsigned long_a, long_b;
	bool six_a, six_b;

	if (!parse(a, &six_a, x, &long_a) || !parse(b, &six_b, y, &long_b) || six_a != six_b)
		return false;
	unsigned common = long_a < long_b ? long_a : long_b;
	if (memcmp(x, y, common / 8) != 0)
		return false;
	unsigned char mask = (unsigned char)(0xff00u >> common % 8);
	return common % 8 == 0 || ((x[common / 8] ^ y[common / 8]) & mask) == 0;
}
