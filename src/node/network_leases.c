/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. On a bridge of the site without a pool of ours, the site's DHCP says which address a workspace has. The kernel's
 * filter lets the workspace use what it was given the moment it is given (network/filter_site.c); here it is learned, so that
 * rules of others can name the workspace, and taken back when its time is over, when the server refuses it, or when it is given
 * back: whoever kept it would be taken for the next one who gets it.
 *
 * Two sources: the filter's set, which also knows what was given while no agent ran (without its time, until it is renewed),
 * and the frames themselves (network/lease.h). They are read once a second and at most so many, so a workspace that sends more
 * of them costs nothing but its own lease: what was lost may have been a return. Nobody ends the lease of another: a return
 * counts by its holder alone, on his port, of his hardware address and an address that he has; only the server does, when it
 * gives the address to the next one.
 *
 * An address is named in rules only if nothing else of the site is called so: none of a pool, none that another one has, too.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/own.h"
#include "network/lease.h"
#include "network/link.h"
#include "node/network_private.h"

#define TICK_MS 1000
#define FRAMES_MOST 256 /* of a port at a time */

struct learned {
	char port[NETWORK_DEVICE_LENGTH + 1];
	struct lease_holder at; /* its hardware address, and all that the filter lets it use */
	size_t room;            /* in at.held */
	unsigned char address[4];
	char text[INET_ADDRSTRLEN]; /* of the address; "": it has none */
	int fd;                     /* listens; -1: not yet */
	bool heard;                 /* as it was given, so what came before is over */
	bool timed, here, over;     /* its end is known; its port is wanted; what it has is taken back */
	uint64_t look;              /* networks.lease_look of when it was given */
	uint64_t end_ms;
	char *bridge;               /* the site's, and the VLAN on it */
	uint64_t vlan;
};

/* Time that goes on while the host sleeps. */
static uint64_t now_ms(void)
{
	struct timespec t;
	(void)clock_gettime(CLOCK_BOOTTIME, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void forget(struct learned *l)
{
	own_close(&l->fd);
	free(l->at.held);
	free(l->bridge);
	free(l);
}

static bool asks_the_site(const struct networks *s, const struct attachment *a)
{
	const struct network *w = map_get(&s->directory.networks, a->network);
	return w && w->kind == NETWORK_BRIDGE && !a->ipv4;
}

bool network_has_learners(const struct networks *s, const struct local *l)
{
	const struct attachment *all = l->wish.attachments.items;

	for (size_t i = 0; i < l->wish.attachments.count; i++)
		if (asks_the_site(s, &all[i]))
			return true;
	return false;
}

/* --- who may have one --- */

static void want(struct networks *s, const struct attachment *a)
{
	const struct network *w = map_get(&s->directory.networks, a->network);
	struct learned *l = map_get(&s->learned, a->port);

	if (!l) {
		l = mem_alloc(sizeof *l);
		*l = (struct learned){ .fd = -1, .bridge = mem_strdup(w->bridge), .vlan = w->vlan };
		(void)snprintf(l->port, sizeof l->port, "%s", a->port);
		map_put(&s->learned, l->port, l);
	}
	for (int i = 0; i < 6; i++)
		l->at.mac[i] = (unsigned char)strtoul(a->mac + (ptrdiff_t)3 * i, NULL, 16);
	l->here = true;
	if (l->fd < 0 && link_index(l->port) && lease_listen(l->port, l->at.mac, &l->fd, NULL) < 0)
		l->fd = -1; /* it has just gone; else the next time */
}

static void list_ports(struct networks *s)
{
	for (size_t i = 0; i < s->locals.capacity; i++) {
		const struct local *l = s->locals.entries[i].key ? s->locals.entries[i].value : NULL;
		const struct attachment *all = l ? l->wish.attachments.items : NULL;
		for (size_t j = 0; l && l->pid && j < l->wish.attachments.count; j++)
			if (asks_the_site(s, &all[j]))
				want(s, &all[j]);
	}
}

/* --- what was said --- */

static struct lease_held *held_of(const struct learned *l, const unsigned char address[static 4])
{
	for (size_t i = 0; i < l->at.count; i++)
		if (memcmp(l->at.held[i].address, address, sizeof l->at.held[i].address) == 0)
			return &l->at.held[i];
	return NULL;
}

static struct lease_held *hold(struct learned *l, const unsigned char address[static 4])
{
	struct lease_held *h = held_of(l, address);

	if (!h) {
		MEM_PUSH_ROOM(l->at.held, l->at.count, l->room);
		h = &l->at.held[l->at.count++];
		*h = (struct lease_held){ 0 };
		memcpy(h->address, address, sizeof h->address);
	}
	return h;
}

static bool is_named(const struct learned *l, const unsigned char address[static 4])
{
	return *l->text && memcmp(l->address, address, sizeof l->address) == 0;
}

static void name(const struct networks *s, struct learned *l, const unsigned char address[static 4])
{
	memcpy(l->address, address, sizeof l->address);
	(void)inet_ntop(AF_INET, l->address, l->text, sizeof l->text);
	l->over = l->heard = l->timed = false;
	l->look = s->lease_look;
}

/* The server gave it to somebody else. What both were given since the last look has no order: nobody is named by it until one
 * asks again. */
static void end_elsewhere(struct networks *s, const struct learned *mine)
{
	for (size_t i = 0; i < s->learned.capacity; i++) {
		struct learned *l = s->learned.entries[i].key ? s->learned.entries[i].value : NULL;
		struct lease_held *h = l && l != mine && str_eq(l->bridge, mine->bridge) && l->vlan == mine->vlan ?
					       held_of(l, mine->address) :
					       NULL;
		bool named = h && is_named(l, h->address);
		if (!h || (named && l->look == s->lease_look))
			continue;
		h->over = true;
		l->over |= named;
	}
}

static void give(struct networks *s, struct learned *l, const struct lease_said *said)
{
	hold(l, said->address)->over = false;
	name(s, l, said->address);
	l->heard = true;
	l->timed = said->seconds != UINT32_MAX;
	l->end_ms = now_ms() + (uint64_t)said->seconds * 1000;
	end_elsewhere(s, l);
}

static void hear_one(struct networks *s, struct learned *l, const struct lease_said *said)
{
	if (!lease_counts(said, &l->at))
		return;
	if (said->word == LEASE_GIVEN) {
		give(s, l, said);
	} else if (said->word == LEASE_REFUSED) {
		l->over = true;
	} else {
		hold(l, said->address)->over = true;
		l->over |= is_named(l, said->address);
	}
}

static void hear(struct networks *s, struct learned *l)
{
	struct lease_said said;
	int r = 1;

	for (int i = 0; i < FRAMES_MOST && l->fd >= 0 && (r = lease_next(l->fd, &said)) > 0; i++)
		hear_one(s, l, &said);
	if (r == -ENETDOWN)
		own_close(&l->fd);
	if (r == -ENETDOWN)
		l->fd = -1;
	if (r == -ENOBUFS && *l->text) {
		log_warn("port %s sends more DHCP than is listened to: its address %s is taken back until it asks again",
			 l->port, l->text);
		l->over = true;
	}
	if (l->timed && *l->text && now_ms() >= l->end_ms)
		l->over = true;
}

/* --- what the filter lets be used --- */

static void hold_one(void *context, const struct filter_lease *lease)
{
	struct networks *s = context;
	struct learned *l = map_get(&s->learned, lease->port);

	if (l && memcmp(lease->mac, l->at.mac, sizeof lease->mac) == 0) /* else it goes with its port's elements */
		(void)hold(l, lease->address);
}

/* Before anything is heard: an answer that passes meanwhile is not there yet, and not taken for an older one. */
static int read_held(struct networks *s, struct err *e)
{
	for (size_t i = 0; i < s->learned.capacity; i++)
		if (s->learned.entries[i].key)
			((struct learned *)s->learned.entries[i].value)->at.count = 0;
	return s->learned.count ? filter_leases(s->filter, hold_one, s, e) : 0;
}

/* Of several that nobody listened to, each may be the newest: they all stay, and one is named. */
static bool is_over(const struct networks *s, struct learned *l, const struct lease_held *h)
{
	if (!*l->text && !l->over && !h->over)
		name(s, l, h->address);
	return h->over || l->over || (l->heard && !is_named(l, h->address));
}

static int take_back(struct networks *s, struct learned *l, struct err *e)
{
	int r = 0;

	for (size_t i = 0; i < l->at.count && r == 0; i++) {
		struct filter_lease lease = { 0 };
		if (!is_over(s, l, &l->at.held[i]))
			continue;
		(void)snprintf(lease.port, sizeof lease.port, "%s", l->port);
		memcpy(lease.mac, l->at.mac, sizeof lease.mac);
		memcpy(lease.address, l->at.held[i].address, sizeof lease.address);
		log_detail("port %s: the address that the site's DHCP gave is used no longer", l->port);
		r = filter_end_lease(s->filter, &lease, e);
	}
	if (r < 0)
		l->over = true; /* which one it was is not remembered */
	return r;
}

static void clear_over(struct networks *s)
{
	for (size_t i = 0; i < s->learned.capacity; i++) {
		struct learned *l = s->learned.entries[i].key ? s->learned.entries[i].value : NULL;
		if (l && l->over) {
			l->over = l->timed = l->heard = false;
			*l->text = '\0';
			memset(l->address, 0, sizeof l->address);
		}
	}
}

static void sweep(struct networks *s)
{
	for (size_t i = 0; i < s->learned.capacity;) {
		struct learned *l = s->learned.entries[i].key ? s->learned.entries[i].value : NULL;
		if (l && !l->here) {
			forget(map_remove(&s->learned, l->port));
			i = 0; /* others may have moved */
			continue;
		}
		i++;
	}
}

/* Which addresses of which ports, in no order: whether it is as before. */
static uint64_t sum(const struct networks *s)
{
	uint64_t all = 0;

	for (size_t i = 0; i < s->learned.capacity; i++) {
		const struct learned *l = s->learned.entries[i].key ? s->learned.entries[i].value : NULL;
		if (!l || !*l->text)
			continue;
		own_str char *text = mem_printf("%s %s", l->port, l->text);
		struct digest d = hash_bytes(text, strlen(text));
		uint64_t one;
		memcpy(&one, &d, sizeof one);
		all += one;
	}
	return all;
}

int network_look_at_leases(struct networks *s, struct err *e)
{
	uint64_t before = sum(s);

	for (size_t i = 0; i < s->learned.capacity; i++)
		if (s->learned.entries[i].key)
			((struct learned *)s->learned.entries[i].value)->here = false;
	list_ports(s);
	sweep(s);
	s->learners = s->learned.count > 0;
	s->lease_look++;
	int r = read_held(s, e);
	for (size_t i = 0; r == 0 && i < s->learned.capacity; i++)
		if (s->learned.entries[i].key)
			hear(s, s->learned.entries[i].value);
	for (size_t i = 0; r == 0 && i < s->learned.capacity; i++)
		if (s->learned.entries[i].key)
			r = take_back(s, s->learned.entries[i].value, e);
	if (r < 0)
		return r;
	clear_over(s);
	return sum(s) != before;
}

/* --- what they are called --- */

static bool in_pool(const char *pool, const unsigned char address[static 4])
{
	char text[NETWORK_ADDRESS_SIZE];
	struct in_addr base;
	uint32_t one, other;
	const char *slash = pool ? strchr(pool, '/') : NULL;

	if (!slash)
		return false;
	network_address(pool, text);
	if (inet_pton(AF_INET, text, &base) != 1)
		return false;
	unsigned length = (unsigned)strtoul(slash + 1, NULL, 10);
	memcpy(&other, address, sizeof other);
	one = ntohl(base.s_addr);
	other = ntohl(other);
	return length == 0 || (one ^ other) >> (32 - length) == 0;
}

static bool is_special(const unsigned char a[static 4])
{
	return a[0] == 0 || a[0] == 127 || a[0] >= 224 || (a[0] == 169 && a[1] == 254);
}

static bool is_member_s(const struct networks *s, const struct learned *l)
{
	for (size_t i = 0; i < s->directory.members.capacity; i++) {
		const struct member *m = s->directory.members.entries[i].key ? s->directory.members.entries[i].value : NULL;
		const struct member_address *a = m ? m->addresses.items : NULL;
		for (size_t j = 0; m && j < m->addresses.count; j++) {
			const struct network *w = map_get(&s->directory.networks, a[j].network);
			if (w && w->ipv4 && str_eq(a[j].ipv4, l->text))
				return true;
		}
	}
	return false;
}

/* Pools on the same bridge are the same site's: only whom they were given to counts. */
static bool is_taken(const struct networks *s, const struct learned *l)
{
	for (size_t i = 0; i < s->directory.networks.capacity; i++) {
		const struct network *w = s->directory.networks.entries[i].key ? s->directory.networks.entries[i].value : NULL;
		bool beside = w && w->kind == NETWORK_BRIDGE && str_eq(w->bridge, l->bridge) && w->vlan == l->vlan;
		if (w && !beside && in_pool(w->ipv4, l->address))
			return true;
	}
	if (is_member_s(s, l))
		return true;
	for (size_t i = 0; i < s->learned.capacity; i++) {
		const struct learned *other = s->learned.entries[i].key ? s->learned.entries[i].value : NULL;
		if (other && other != l && memcmp(other->address, l->address, sizeof l->address) == 0)
			return true;
	}
	return false;
}

const char *network_learned(const struct networks *s, const char *port)
{
	const struct learned *l = s->learned.count ? map_get(&s->learned, port) : NULL;

	return l && *l->text && !is_special(l->address) && !is_taken(s, l) ? l->text : NULL;
}

void network_learned_free(struct networks *s)
{
	for (size_t i = 0; i < s->learned.capacity; i++)
		if (s->learned.entries[i].key)
			forget(s->learned.entries[i].value);
	map_done(&s->learned);
}

/* --- once a second, as long as there is anybody --- */

static void leases_run(void *data)
{
	struct networks *s = data;
	struct err e = { 0 };

	(void)pthread_mutex_lock(&s->lock);
	int r = network_look_at_leases(s, &e);
	if (r > 0 && s->applied && (r = network_apply(s, NULL, &e)) == 0)
		s->lease_traffic = network_read_traffic(s);
	(void)pthread_mutex_unlock(&s->lock);
	if (r < 0)
		log_error(&e, "addresses by the site's DHCP");
}

static void on_tick(void *data);

static void leases_done(void *data)
{
	struct networks *s = data;

	s->lease_busy = false;
	s->learners |= s->lease_again;
	s->lease_again = false;
	if (s->lease_traffic && s->tell)
		s->tell(s->tell_data, json_pack("{s:s, s:o}", "type", "traffic", "items", TAKE(s->lease_traffic)));
	if (s->learners && s->tell)
		s->lease_timer = loop_add_timer(s->node->loop, TICK_MS, on_tick, s);
}

static void on_tick(void *data)
{
	((struct networks *)data)->lease_timer = NULL;
	network_leases_begin(data);
}

void network_leases_begin(void *networks)
{
	struct networks *s = networks;

	loop_remove(TAKE(s->lease_timer));
	s->lease_again = s->lease_busy;
	if (s->lease_busy || !s->tell)
		return;
	s->lease_busy = true;
	workers_run(s->node->workers, leases_run, leases_done, s, true);
}
