/* SPDX-License-Identifier: Apache-2.0 */
#include "service/network.h"

#include <string.h>

#include "base/mem.h"
#include "base/own.h"
#include "db/network.h"
#include "service/event.h"

struct net *network_by_name(const struct service *s, const char *name) { return map_get(&s->networks->by_name, name); }

void network_insert(struct service *s, struct net *n)
{
	struct networks *all = s->networks;

	MEM_PUSH_ROOM(all->items, all->count, all->capacity);
	all->items[all->count++] = n;
	map_put(&all->by_name, n->def.name, n);
	pool_init(&n->ipv4, n->def.ipv4, &n->def.reserved);
	pool_init(&n->ipv6, n->def.ipv6, &n->def.reserved);
	if (n->def.number > all->last_network)
		all->last_network = n->def.number;
}

void network_free(struct service *s, struct net *n)
{
	struct networks *all = s->networks;

	for (size_t i = 0; i < all->count; i++)
		if (all->items[i] == n) {
			memmove(&all->items[i], &all->items[i + 1], (--all->count - i) * sizeof(struct net *));
			break;
		}
	(void)map_remove(&all->by_name, n->def.name);
	pool_done(&n->ipv4);
	pool_done(&n->ipv6);
	network_done(&n->def);
	free(n);
}

void network_users(const struct service *s, const struct net *n, const struct identity *who, struct str *to)
{
	size_t named = 0, others = 0;

	for (size_t i = 0; i < s->workspaces.count; i++) {
		const struct workspace *w = s->workspaces.items[i];
		const struct attachment *a = w->wish.attachments.items;
		bool on = false;
		for (size_t j = 0; j < w->wish.attachments.count; j++)
			on |= str_eq(a[j].network, n->def.name);
		if (!on)
			continue;
		if (named == 5 || (who && !workspace_visible(w, who)))
			others++;
		else
			str_printf(to, "%s%s", named++ ? ", " : "", w->name);
	}
	if (others)
		str_printf(to, "%s%zu %s", named ? " and " : "", others, named ? "more" : "of other users");
}

/* --- loading --- */

static int load_rows(struct service *s, struct err *e)
{
	own_db_rows struct db_rows *rows = NULL;
	int r = db_network_query(s->db, &rows, e);

	while (r >= 0 && (r = db_next(rows, e)) > 0) {
		struct net *n = mem_alloc(sizeof *n);
		struct db_network row;
		db_network_row(rows, &row);
		r = decode_text(row.network, strlen(row.network), "network", &network_shape, &n->def, e);
		if (r < 0) {
			free(n);
			return err_wrap(e, "database: network %s", row.name);
		}
		n->created_ms = row.created_ms;
		network_insert(s, n);
	}
	return r;
}

/* What the site decides once: random, so that two sites that meet do not share names and prefixes. */
static int decide_site(struct service *s, struct err *e)
{
	struct networks *all = s->networks;
	struct db_batch *b;
	char random[ID_SIZE];

	if (all->site[0] && all->prefix[0])
		return 0;
	id_new(random);
	(void)snprintf(all->site, sizeof all->site, "%.4s", random);
	(void)snprintf(all->prefix, sizeof all->prefix, "fd%.2s:%.4s:%.4s", random + 4, random + 6, random + 10);
	b = db_batch_new();
	db_site_put(b, "id", all->site);
	db_site_put(b, "prefix", all->prefix);
	return db_commit(s->db, b, e);
}

static int load_site(struct service *s, struct err *e)
{
	own_db_rows struct db_rows *rows = NULL;
	struct networks *all = s->networks;
	int r = db_site_query(s->db, &rows, e);

	while (r >= 0 && (r = db_next(rows, e)) > 0) {
		const char *key = db_text(rows, 0), *value = db_text(rows, 1);
		uint64_t *number = str_eq(key, "network")    ? &all->last_network :
				   str_eq(key, "attachment") ? &all->last_attachment :
							       NULL;
		if (number && str_to_u64(value, UINT32_MAX, number) < 0)
			return err_set(e, ERR_CORRUPT, "database: site: %s is '%s'", key, value);
		if (str_eq(key, "id"))
			(void)snprintf(all->site, sizeof all->site, "%s", value);
		if (str_eq(key, "prefix"))
			(void)snprintf(all->prefix, sizeof all->prefix, "%s", value);
	}
	return r;
}

int networks_load(struct service *s, struct err *e)
{
	s->networks = mem_alloc(sizeof *s->networks);
	int r = load_site(s, e);

	if (r >= 0)
		r = decide_site(s, e);
	if (r >= 0)
		r = load_rows(s, e);
	if (r >= 0)
		r = network_leases_load(s, NULL, e);
	if (r >= 0)
		r = groups_load(s, e);
	return r;
}
