/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. A lease is one attachment: it is in use (found by its place, "ID/eth0"), or it rests (found by network, owner and
 * name, and in a queue by the time of its release). Both hold their addresses in the pool and their MAC. The row goes into the
 * batch that carries the workspace's row, so a crash leaves both or none. What a failed batch leaves in memory is dropped and
 * read anew (network_reload); should that ever miss something, the UNIQUE columns refuse the batch that would give an address
 * twice.
 *
 * Addresses are given lowest first: they are short, and a range of them is easy to name in rules of the site. The rest before
 * reuse keeps a new workspace from getting what was meant for the old one.
 */
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/own.h"
#include "db/network.h"
#include "service/network.h"

/* The one of ethNUMBER. */
static struct lease *lease_at(const struct service *s, const char *workspace, unsigned number)
{
	char place[sizeof((struct lease *)0)->place];

	(void)snprintf(place, sizeof place, "%s/eth%u", workspace, number);
	return map_get(&s->networks->by_place, place);
}

/* --- memory --- */

static char *rest_key(const struct net *n, uint64_t owner_uid, const char *name)
{
	return mem_printf("%llu/%llu/%s", (unsigned long long)n->def.number, (unsigned long long)owner_uid, name);
}

static void hold(struct pool *p, const char *address, bool held)
{
	uint64_t number;

	if (!address || !pool_number(p, address, &number))
		return;
	if (held)
		(void)pool_take(p, number);
	else
		pool_give(p, number);
}

static void put_to_rest(struct service *s, struct lease *l)
{
	struct networks *all = s->networks;

	MEM_PUSH_ROOM(all->resting, all->resting_count, all->resting_capacity);
	size_t at = all->resting_count++;
	for (; at > 0 && all->resting[at - 1]->released_ms > l->released_ms; at--)
		all->resting[at] = all->resting[at - 1];
	all->resting[at] = l;
	free(l->rest_key);
	l->rest_key = rest_key(l->net, l->owner_uid, l->name);
	map_put(&all->by_rest, l->rest_key, l);
	l->net->resting++;
}

static void insert(struct service *s, struct lease *l)
{
	struct networks *all = s->networks;

	hold(&l->net->ipv4, l->at.ipv4, true);
	hold(&l->net->ipv6, l->at.ipv6, true);
	map_put(&all->by_mac, l->at.mac, l);
	(void)snprintf(l->place, sizeof l->place, "%s/%s", l->workspace, l->at.device);
	if (l->released_ms) {
		put_to_rest(s, l);
	} else {
		map_put(&all->by_place, l->place, l);
		l->net->used++;
	}
	if (l->at.number > all->last_attachment)
		all->last_attachment = l->at.number;
}

static void wake(struct networks *all, struct lease *l)
{
	for (size_t i = 0; i < all->resting_count; i++)
		if (all->resting[i] == l) {
			memmove(&all->resting[i], &all->resting[i + 1], (--all->resting_count - i) * sizeof(struct lease *));
			break;
		}
	if (map_get(&all->by_rest, l->rest_key) == l)
		(void)map_remove(&all->by_rest, l->rest_key);
	l->net->resting--;
}

static void drop(struct service *s, struct lease *l)
{
	struct networks *all = s->networks;

	if (l->released_ms) {
		wake(all, l);
	} else {
		(void)map_remove(&all->by_place, l->place);
		l->net->used--;
	}
	if (map_get(&all->by_mac, l->at.mac) == l)
		(void)map_remove(&all->by_mac, l->at.mac);
	hold(&l->net->ipv4, l->at.ipv4, false);
	hold(&l->net->ipv6, l->at.ipv6, false);
	shape_done(&attachment_shape, &l->at);
	free(l->name);
	free(l->rest_key);
	free(l);
}

static struct net *by_number(const struct service *s, uint64_t number)
{
	for (size_t i = 0; i < s->networks->count; i++)
		if (s->networks->items[i]->def.number == number)
			return s->networks->items[i];
	return NULL;
}

int network_leases_load(struct service *s, const char *workspace, struct err *e)
{
	own_db_rows struct db_rows *rows = NULL;
	int r = db_attachment_query(s->db, workspace, &rows, e);

	while (r >= 0 && (r = db_next(rows, e)) > 0) {
		struct db_attachment row;
		db_attachment_row(rows, &row);
		struct net *n = by_number(s, row.network);
		if (!n)
			return err_set(e, ERR_CORRUPT, "database: attachment %llu is on no network",
				       (unsigned long long)row.number);
		if (map_get(&s->networks->by_mac, row.mac)) /* it is there */
			continue;
		struct lease *l = mem_alloc(sizeof *l);
		l->net = n;
		l->at = (struct attachment){ .network = mem_strdup(n->def.name), .number = row.number,
					     .device = mem_strdup(row.device), .port = mem_strdup(row.port),
					     .mac = mem_strdup(row.mac), .ipv4 = mem_strdup(row.ipv4),
					     .ipv6 = mem_strdup(row.ipv6) };
		(void)snprintf(l->workspace, sizeof l->workspace, "%s", row.workspace);
		l->owner_uid = row.owner_uid;
		l->name = mem_strdup(row.name);
		l->released_ms = row.released_ms;
		insert(s, l);
	}
	return r;
}

void network_reload(struct service *s, const char *workspace)
{
	char before[NETWORK_INTERFACES][ID_SIZE];
	size_t count = 0;
	struct err e;

	for (unsigned i = 0; i < NETWORK_INTERFACES; i++) {
		struct lease *l = lease_at(s, workspace, i);
		if (!l)
			continue;
		if (l->before[0])
			memcpy(before[count++], l->before, ID_SIZE);
		drop(s, l);
	}
	for (size_t i = s->networks->resting_count; i-- > 0;)
		if (str_eq(s->networks->resting[i]->workspace, workspace))
			drop(s, s->networks->resting[i]);
	int r = network_leases_load(s, workspace, &e);
	for (size_t i = 0; r >= 0 && i < count; i++)
		r = network_leases_load(s, before[i], &e);
	if (r < 0)
		log_error(&e, "after a failed change");
}

static const struct spec_interface *interface_of(const struct spec *spec, const char *network)
{
	const struct spec_interface *items = spec->networks.items;

	for (size_t i = 0; spec->network == NETWORK_AUTO && i < spec->networks.count; i++)
		if (str_eq(items[i].network, network))
			return &items[i];
	return NULL;
}

void network_sync(struct service *s, struct workspace *w)
{
	struct attachment *items = w->wish.attachments.items;
	size_t count = 0;

	for (size_t i = 0; i < w->wish.attachments.count; i++)
		shape_done(&attachment_shape, &items[i]);
	free(items);
	items = mem_alloc_array(NETWORK_INTERFACES, sizeof *items);
	for (unsigned i = 0; i < NETWORK_INTERFACES; i++) {
		const struct lease *l = lease_at(s, w->id, i);
		const struct spec_interface *wanted = l ? interface_of(w->wish.spec, l->at.network) : NULL;
		if (!l)
			continue;
		struct network_rates *rates = wanted && wanted->rates ? mem_dup(wanted->rates, sizeof *rates) : NULL;
		items[count++] = (struct attachment){ .network = mem_strdup(l->at.network), .number = l->at.number,
						      .device = mem_strdup(l->at.device), .port = mem_strdup(l->at.port),
						      .mac = mem_strdup(l->at.mac), .ipv4 = mem_strdup(l->at.ipv4),
						      .ipv6 = mem_strdup(l->at.ipv6), .rates = rates };
	}
	w->wish.attachments = (struct objects){ items, count };
}

/* --- asking: nothing is changed here --- */

static bool same_address(const char *asked, const char *prefix)
{
	char address[NETWORK_ADDRESS_SIZE] = "";
	struct pool one;
	uint64_t a, b;

	if (!asked)
		return true;
	if (!prefix)
		return false;
	network_address(prefix, address);
	own_str char *whole = mem_printf("%s/%s", address, strchr(address, ':') ? "64" : "8");
	pool_init(&one, whole, NULL);
	bool same = str_eq(asked, address);
	if (!same && one.ipv6) /* the same address may be written in several ways */
		same = pool_number(&one, asked, &a) && pool_number(&one, address, &b) && a == b;
	pool_done(&one);
	return same;
}

static bool fits(const struct spec_interface *wanted, const struct lease *l)
{
	return same_address(wanted->ipv4, l->at.ipv4) && same_address(wanted->ipv6, l->at.ipv6) &&
	       (!wanted->mac || strcasecmp(wanted->mac, l->at.mac) == 0);
}

static struct lease *own_rest(const struct service *s, const struct workspace *w, const struct net *n,
			      const struct spec_interface *wanted)
{
	own_str char *key = rest_key(n, w->owner_uid, w->name);
	struct lease *l = map_get(&s->networks->by_rest, key);
	return l && fits(wanted, l) ? l : NULL;
}

static int tell_holder(const struct service *s, const struct identity *who, const struct lease *l, const char *what,
		       struct err *e)
{
	const struct workspace *holder = workspace_by_id((struct service *)(uintptr_t)s, l->workspace);
	uint64_t now = service_now_ms(), until = l->released_ms + s->config.address_rest_ms;

	if (l->released_ms) {
		(void)err_set(e, ERR_CONFLICT, "%s rests for %llu seconds more: workspace '%s' had it", what,
			      (unsigned long long)(until > now ? (until - now + 999) / 1000 : 0), l->name);
		return err_hint(e, "wait, or give it to a workspace of the same name and owner");
	}
	if (holder && (!who || workspace_visible(holder, who)))
		return err_set(e, ERR_CONFLICT, "%s is taken by workspace '%s'", what, holder->name);
	return err_set(e, ERR_CONFLICT, "%s is taken by a workspace of another user", what);
}

static const struct lease *holder_of(const struct service *s, const struct net *n, bool ipv6, uint64_t number)
{
	const struct map *places = &s->networks->by_place;
	const struct pool *p = ipv6 ? &n->ipv6 : &n->ipv4;
	uint64_t its;

	for (size_t i = 0; i < places->capacity + s->networks->resting_count; i++) {
		const struct lease *l = i < places->capacity ? (places->entries[i].key ? places->entries[i].value : NULL) :
							       s->networks->resting[i - places->capacity];
		const char *address = !l || l->net != n ? NULL : ipv6 ? l->at.ipv6 : l->at.ipv4;
		if (address && pool_number(p, address, &its) && its == number)
			return l;
	}
	return NULL;
}

static bool is_free(const struct pool *p, uint64_t number)
{
	struct pool *writable = (struct pool *)(uintptr_t)p;
	bool taken = pool_take(writable, number);

	if (taken)
		pool_give(writable, number);
	return taken;
}

static int tell_exhausted(const struct service *s, const struct identity *who, const struct net *n, const struct pool *p,
			  struct err *e)
{
	own_strbuf struct str users = { 0 };

	network_users(s, n, who, &users);
	(void)err_set(e, ERR_NO_CAPACITY,
		      "network '%s' has no free address: pool %s has room for %llu, %zu are in use (%s), %zu rest", n->def.name,
		      p->prefix, (unsigned long long)p->room, n->used, users.length ? users.bytes : "nobody", n->resting);
	return err_hint(e, "remove workspaces or disconnect them, or create a larger network");
}

/* One family of one interface. */
static int check_family(const struct service *s, const struct identity *who, const struct net *n, bool ipv6, const char *asked,
			const struct lease *mine, struct err *e)
{
	const struct pool *p = ipv6 ? &n->ipv6 : &n->ipv4;
	uint64_t number;

	if (!asked)
		return !p->prefix || pool_lowest(p, &number) ? 0 : tell_exhausted(s, who, n, p, e);
	if (!p->prefix)
		return err_set(e, ERR_INVALID, "network '%s' has no IPv%c pool", n->def.name, ipv6 ? '6' : '4');
	if (!pool_number(p, asked, &number))
		return err_set(e, ERR_INVALID, "%s is not in the pool %s of network '%s'", asked, p->prefix, n->def.name);
	if (is_free(p, number))
		return 0;
	const struct lease *l = holder_of(s, n, ipv6, number);
	if (l && l == mine)
		return 0;
	if (l)
		return tell_holder(s, who, l, asked, e);
	return err_set(e, ERR_CONFLICT,
		       "%s is reserved in network '%s' (its own address, the gateway's, the broadcast address, or by its list)",
		       asked, n->def.name);
}

static int check_interface(const struct service *s, const struct identity *who, const struct workspace *w,
			   const struct spec_interface *wanted, const struct lease *mine, struct err *e)
{
	const struct net *n = network_by_name(s, wanted->network);

	if (n && n->uncommitted && !mine)
		return err_set(e, ERR_CONFLICT, "network '%s' is just being created or removed", n->def.name);
	if (!n) {
		(void)err_set(e, ERR_NOT_FOUND, "no network '%s'", wanted->network);
		return err_hint(e, "carrel network ls");
	}
	if (mine && fits(wanted, mine))
		return 0;
	if (own_rest(s, w, n, wanted))
		return 0;
	const struct lease *mac = NULL;
	if (wanted->mac) {
		char lower[18] = "";
		for (size_t i = 0; i < sizeof lower - 1 && wanted->mac[i]; i++)
			lower[i] = (char)(wanted->mac[i] >= 'A' && wanted->mac[i] <= 'F' ? wanted->mac[i] + 32 :
											   wanted->mac[i]);
		mac = map_get(&s->networks->by_mac, lower);
	}
	if (mac && mac != mine)
		return tell_holder(s, who, mac, wanted->mac, e);
	if (mac) /* it goes to rest with its old address */
		return err_set(e, ERR_CONFLICT, "%s belongs to this workspace's interface %s: disconnect it first", wanted->mac,
			       mac->at.device);
	int r = check_family(s, who, n, false, wanted->ipv4, NULL, e);
	return r < 0 ? r : check_family(s, who, n, true, wanted->ipv6, NULL, e);
}

static struct lease *lease_on(const struct service *s, const struct workspace *w, const char *network)
{
	for (unsigned i = 0; i < NETWORK_INTERFACES; i++) {
		struct lease *l = lease_at(s, w->id, i);
		if (l && str_eq(l->at.network, network))
			return l;
	}
	return NULL;
}

static int check_all(const struct service *s, const struct identity *who, const struct workspace *w, struct err *e)
{
	const struct spec *spec = w->wish.spec;
	const struct spec_interface *wanted = spec->networks.items;
	int r = 0;

	for (size_t i = 0; spec->network == NETWORK_AUTO && r == 0 && i < spec->networks.count; i++) {
		for (size_t j = 0; j < i; j++)
			if (str_eq(wanted[i].network, wanted[j].network))
				return err_set(e, ERR_INVALID, "network '%s' is listed twice", wanted[i].network);
		r = check_interface(s, who, w, &wanted[i], lease_on(s, w, wanted[i].network), e);
	}
	return r;
}

/* --- doing: cannot fail any longer --- */

/* Rows and memory: what has rested long enough is free. */
static void trim(struct service *s, struct db_batch *b, uint64_t now)
{
	uint64_t before = now - s->config.address_rest_ms;

	db_attachment_trim(b, before);
	while (s->networks->resting_count && s->networks->resting[0]->released_ms <= before)
		drop(s, s->networks->resting[0]);
}

static void release(struct service *s, const struct workspace *w, struct lease *l, struct db_batch *b, uint64_t now)
{
	(void)map_remove(&s->networks->by_place, l->place);
	l->net->used--;
	l->released_ms = now;
	l->owner_uid = w->owner_uid;
	free(l->name);
	l->name = mem_strdup(w->name);
	put_to_rest(s, l);
	db_attachment_release(b, l->at.number, l->owner_uid, l->name, now);
}

static char *choose(struct pool *p, const char *asked)
{
	char text[POOL_TEXT_SIZE];
	uint64_t number;

	if (!p->prefix || !(asked ? pool_number(p, asked, &number) : pool_lowest(p, &number)))
		return NULL;
	pool_text(p, number, text);
	return mem_strdup(text);
}

static char *choose_mac(const struct service *s, const char *asked)
{
	for (;;) {
		char random[ID_SIZE];
		id_new(random);
		char *mac = asked ? mem_strdup(asked) :
				    mem_printf("02:%.2s:%.2s:%.2s:%.2s:%.2s", random, random + 2, random + 4, random + 6,
					       random + 8);
		for (char *c = mac; *c; c++)
			if (*c >= 'A' && *c <= 'F')
				*c = (char)(*c + ('a' - 'A'));
		if (asked || !map_get(&s->networks->by_mac, mac))
			return mac;
		free(mac);
	}
}

static void store(const struct lease *l, struct db_batch *b)
{
	const struct attachment *a = &l->at;
	db_attachment_insert(b, &(struct db_attachment){ .number = a->number, .network = l->net->def.number,
							 .owner_uid = l->owner_uid, .workspace = l->workspace, .name = l->name,
							 .device = a->device, .port = a->port, .mac = a->mac, .ipv4 = a->ipv4,
							 .ipv6 = a->ipv6 });
}

static void take(struct service *s, const struct workspace *w, const struct spec_interface *wanted, struct db_batch *b)
{
	struct networks *all = s->networks;
	struct net *n = network_by_name(s, wanted->network);
	struct lease *rested = own_rest(s, w, n, wanted), *l = mem_alloc(sizeof *l);
	unsigned device = 0;

	while (lease_at(s, w->id, device))
		device++;
	l->net = n;
	(void)snprintf(l->workspace, sizeof l->workspace, "%s", w->id);
	l->owner_uid = w->owner_uid;
	l->name = mem_strdup(w->name);
	if (rested) {
		(void)snprintf(l->before, sizeof l->before, "%s", rested->workspace);
		l->at.ipv4 = mem_strdup(rested->at.ipv4);
		l->at.ipv6 = mem_strdup(rested->at.ipv6);
		l->at.mac = mem_strdup(rested->at.mac);
		db_attachment_take_back(b, rested->at.number);
		drop(s, rested);
	} else {
		l->at.ipv4 = choose(&n->ipv4, wanted->ipv4);
		l->at.ipv6 = choose(&n->ipv6, wanted->ipv6);
		l->at.mac = choose_mac(s, wanted->mac);
	}
	l->at.network = mem_strdup(n->def.name);
	l->at.number = ++all->last_attachment;
	l->at.device = mem_printf("eth%u", device);
	l->at.port = mem_printf("cr%s%llx", all->site, (unsigned long long)l->at.number);
	insert(s, l);
	store(l, b);
	own_str char *last = mem_printf("%llu", (unsigned long long)all->last_attachment);
	db_site_put(b, "attachment", last);
}

int network_attach(struct service *s, const struct identity *who, struct workspace *w, struct db_batch *b, struct err *e)
{
	const struct spec_interface *wanted = w->wish.spec->networks.items;
	uint64_t now = service_now_ms();
	bool automatic = w->wish.spec->network == NETWORK_AUTO;

	trim(s, b, now);
	int r = check_all(s, who, w, e);
	if (r < 0)
		return r;
	for (unsigned i = 0; i < NETWORK_INTERFACES; i++) {
		struct lease *l = lease_at(s, w->id, i);
		const struct spec_interface *on = l ? interface_of(w->wish.spec, l->at.network) : NULL;
		if (l && !(on && fits(on, l)))
			release(s, w, l, b, now);
	}
	for (size_t i = 0; automatic && i < w->wish.spec->networks.count; i++)
		if (!lease_on(s, w, wanted[i].network))
			take(s, w, &wanted[i], b);
	network_sync(s, w);
	return 0;
}

void network_release(struct service *s, struct workspace *w, struct db_batch *b)
{
	for (unsigned i = 0; i < NETWORK_INTERFACES; i++) {
		struct lease *l = lease_at(s, w->id, i);
		if (l)
			release(s, w, l, b, service_now_ms());
	}
	network_sync(s, w);
}

void network_leave_rest(struct service *s, const struct net *n)
{
	for (size_t i = s->networks->resting_count; i-- > 0;)
		if (s->networks->resting[i]->net == n)
			drop(s, s->networks->resting[i]);
}

void network_preset(const struct service *s, struct spec *spec)
{
	if (spec->network != NETWORK_AUTO || spec->networks.count || !network_by_name(s, NETWORK_DEFAULT))
		return;
	struct spec_interface *one = mem_alloc(sizeof *one);
	one->network = mem_strdup(NETWORK_DEFAULT);
	spec->networks = (struct objects){ one, 1 };
}
