/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SERVICE_NETWORK_POOL_H
#define SERVICE_NETWORK_POOL_H

/*
 * The free addresses of one pool, as ascending ranges that do not touch: the lowest is found at once, any other by halving, and
 * a /8 or a /64 that nobody uses is one range. Addresses are counted from the pool's first; of a pool larger than a /64 the
 * first /64 is given out. Never free: the network, the gateway, the broadcast address (IPv4), and what the network reserves.
 */

#include "model/network.h"

#define POOL_TEXT_SIZE (NETWORK_ADDRESS_SIZE + 4) /* ADDRESS/LENGTH */

struct pool_range {
	uint64_t first, last;
};

struct pool {
	const char *prefix; /* the network's own text; NULL: no pool */
	bool ipv6;
	unsigned char base[16];
	unsigned length;
	uint64_t last; /* number of the last address */
	struct pool_range *free;
	size_t count, capacity;
	uint64_t room; /* addresses that could be given when nobody had one */
};

/* `prefix` is checked (network_shape) and outlives the pool; NULL makes a pool that has nothing. */
void pool_init(struct pool *p, const char *prefix, const struct texts *reserved);
void pool_done(struct pool *p);
bool pool_lowest(const struct pool *p, uint64_t *ret_number); /* false: exhausted */
bool pool_take(struct pool *p, uint64_t number);              /* false: not free */
void pool_give(struct pool *p, uint64_t number);              /* taken before */
uint64_t pool_left(const struct pool *p);
/* "10.0.0.7" or "10.0.0.7/24"; false: not within the pool. */
bool pool_number(const struct pool *p, const char *address, uint64_t *ret_number);
void pool_text(const struct pool *p, uint64_t number, char ret_text[static POOL_TEXT_SIZE]);

/* Whether two checked prefixes share an address. */
bool prefix_overlaps(const char *a, const char *b);

#endif
