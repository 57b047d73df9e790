/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. Who is in a group stands in the workspaces' specs; a group itself is only a name with an owner. It is made when a
 * workspace names it first. Its owner, those it is shared with and administrators put workspaces in; taking one's own workspace
 * out is everybody's right.
 */
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/own.h"
#include "db/network.h"
#include "service/event.h"
#include "service/handlers.h"
#include "service/network.h"
#include "service/routes.h"

#define GROUPS_MOST 4096

static struct group *find(const struct service *s, const char *name) { return map_get(&s->networks->groups, name); }

static struct group *make(struct service *s, const char *name, uint64_t owner_uid, uint64_t created_ms, json_t *shared)
{
	struct group *g = mem_alloc(sizeof *g);

	*g = (struct group){ .name = mem_strdup(name), .owner_uid = owner_uid, .created_ms = created_ms, .shared = shared };
	map_put(&s->networks->groups, g->name, g);
	return g;
}

static void forget(struct service *s, struct group *g)
{
	(void)map_remove(&s->networks->groups, g->name);
	json_decref(g->shared);
	free(g->name);
	free(g);
}

int groups_load(struct service *s, struct err *e)
{
	own_db_rows struct db_rows *rows = NULL;
	int r = db_group_query(s->db, &rows, e);

	while (r >= 0 && (r = db_next(rows, e)) > 0) {
		struct db_group row;
		db_group_row(rows, &row);
		struct group *old = find(s, row.name);
		json_t *shared = json_loads(row.shared, 0, NULL);
		if (old)
			forget(s, old);
		(void)make(s, row.name, row.owner_uid, row.created_ms, json_is_array(shared) ? shared : json_array());
	}
	return r;
}

static bool may_put(const struct group *g, const struct identity *who)
{
	json_t *uid;
	size_t i;
	bool shared = false;

	json_array_foreach(g->shared, i, uid) {
		shared |= json_integer_value(uid) == (json_int_t)who->uid;
	}
	return who->admin || g->owner_uid == who->uid || shared;
}

static bool listed(const struct spec *spec, const char *name)
{
	for (size_t i = 0; spec && i < spec->groups.count; i++)
		if (str_eq(spec->groups.items[i], name))
			return true;
	return false;
}

int group_check(const struct request *r, const struct spec *old, const struct spec *spec, struct err *e)
{
	size_t fresh = 0;

	for (size_t i = 0; i < spec->groups.count; i++) {
		const char *name = spec->groups.items[i];
		const struct group *g = find(r->service, name);
		fresh += !g;
		if (!g || listed(old, name) || may_put(g, &r->who))
			continue;
		(void)err_set(e, ERR_DENIED, "group '%s' belongs to user %llu: only its owner, those it is shared with and "
					     "administrators put workspaces in",
			      name, (unsigned long long)g->owner_uid);
		return err_hint(e, "ask for: carrel group share %s %u; or choose another name", name, r->who.uid);
	}
	if (r->service->networks->groups.count + fresh > GROUPS_MOST)
		return err_set(e, ERR_NO_CAPACITY, "the site has %d groups, the most", GROUPS_MOST);
	return 0;
}

void group_join(struct service *s, uint64_t owner_uid, const struct spec *spec, struct db_batch *b)
{
	for (size_t i = 0; i < spec->groups.count; i++) {
		struct group *g = find(s, spec->groups.items[i]);
		if (!g)
			g = make(s, spec->groups.items[i], owner_uid, service_now_ms(), json_array());
		own_str char *shared = json_dumps(g->shared, JSON_COMPACT);
		db_group_insert(b, &(struct db_group){ g->name, shared, g->owner_uid, g->created_ms });
	}
}

/* --- routes --- */

struct group_view {
	char *name, *created;
	uint64_t owner;
	json_t *shared;
	struct texts workspaces;
	uint64_t hidden;
};
#define G(member) offsetof(struct group_view, member)
static const struct field group_fields[] = {
	{ "name", FIELD_TEXT, G(name), "name", .required = true },
	{ "owner", FIELD_NUMBER, G(owner), "user id of its owner", .required = true },
	{ "shared", FIELD_JSON, G(shared), "user ids of those who may put workspaces in, too", .required = true },
	{ "workspaces", FIELD_TEXTS, G(workspaces), "names of the workspaces in it that you may see", .required = true },
	{ "hidden", FIELD_NUMBER, G(hidden), "how many more are in it", .required = true },
	{ "created", FIELD_TEXT, G(created), "when it was used first", .required = true },
	{ 0 },
};
const struct shape group_view_shape = { "group", sizeof(struct group_view), group_fields,
					"Workspaces that rules name together.", .open = true };

struct group_change {
	json_t *shared;
};
static const struct field change_fields[] = {
	{ "shared", FIELD_JSON, offsetof(struct group_change, shared), "list of user ids that replaces the one before",
	  .required = true },
	{ 0 },
};
const struct shape group_change_shape = { "group-change", sizeof(struct group_change), change_fields, "Who may use a group." };

static json_t *to_json(const struct service *s, const struct group *g, const struct identity *who)
{
	json_t *names = json_array();
	json_int_t hidden = 0;

	for (size_t i = 0; i < s->workspaces.count; i++) {
		const struct workspace *w = s->workspaces.items[i];
		if (!listed(w->wish.spec, g->name))
			continue;
		if (workspace_visible(w, who))
			(void)json_array_append_new(names, json_string(w->name));
		else
			hidden++;
	}
	json_t *json = json_pack("{s:s, s:I, s:O, s:o, s:I}", "name", g->name, "owner", (json_int_t)g->owner_uid, "shared",
				 g->shared, "workspaces", names, "hidden", hidden);
	own_str char *created = service_time_text(g->created_ms);
	(void)json_object_set_new(json, "created", json_string(created ? created : ""));
	return json;
}

static int compare(const void *a, const void *b)
{
	return strcmp((*(struct group *const *)a)->name, (*(struct group *const *)b)->name);
}

int handle_groups_list(struct request *r, struct err *e)
{
	const struct map *groups = &r->service->networks->groups;
	own_str struct group **sorted = mem_alloc_array(groups->count + 1, sizeof(struct group *));
	const char *after = request_query(r, "after");
	json_t *items = json_array(), *answer = json_pack("{s:o}", "items", items);
	uint64_t limit;
	size_t count = 0;
	int result = request_limit(r, &limit, e);

	if (result < 0) {
		json_decref(answer);
		return result;
	}
	for (size_t i = 0; i < groups->capacity; i++)
		if (groups->entries[i].key)
			sorted[count++] = groups->entries[i].value;
	qsort(sorted, count, sizeof *sorted, compare);
	const char *last = "";
	for (size_t i = 0; i < count; i++) {
		if (after && strcmp(sorted[i]->name, after) <= 0)
			continue;
		if (json_array_size(items) == limit) {
			(void)json_object_set_new(answer, "next", json_string(last));
			break;
		}
		last = sorted[i]->name;
		(void)json_array_append_new(items, to_json(r->service, sorted[i], &r->who));
	}
	request_reply_json(r, 200, answer);
	return 0;
}

static int need(struct request *r, bool owned, struct group **ret_group, struct err *e)
{
	struct group *g = find(r->service, r->params[0]);

	if (!g) {
		(void)err_set(e, ERR_NOT_FOUND, "no group '%.64s'", r->params[0]);
		return err_hint(e, "a group is made when a workspace names it: carrel group add NAME WORKSPACE");
	}
	if (owned && !r->who.admin && g->owner_uid != r->who.uid)
		return err_set(e, ERR_DENIED, "group '%s' belongs to user %llu", g->name, (unsigned long long)g->owner_uid);
	*ret_group = g;
	return owned ? request_check_match(r, to_json(r->service, g, &r->who), "the group", e) : 0;
}

int handle_group_show(struct request *r, struct err *e)
{
	struct group *g;
	int result = need(r, false, &g, e);

	if (result == 0)
		request_reply_tagged(r, 200, to_json(r->service, g, &r->who));
	return result;
}

struct group_commit {
	struct request *request;
	struct service *service;
	char *name;
	bool removed;
};

static void committed(void *data, const struct err *failure)
{
	struct group_commit *c = data;
	struct group *g = find(c->service, c->name);
	struct err e;

	if (failure) {
		if (g)
			forget(c->service, g);
		if (groups_load(c->service, &e) < 0)
			log_error(&e, "after a failed change");
		request_fail(c->request, failure);
	} else if (c->removed || !g) {
		request_reply_nothing(c->request);
	} else {
		request_reply_tagged(c->request, 200, to_json(c->service, g, &c->request->who));
	}
	events_committed(c->service);
	free(c->name);
	free(c);
}

static void commit(struct request *r, const char *name, bool removed, struct db_batch *b)
{
	struct group_commit *c = mem_alloc(sizeof *c);

	*c = (struct group_commit){ r, r->service, mem_strdup(name), removed };
	db_submit(r->service->db, b, r->service->loop, committed, c);
}

int handle_group_change(struct request *r, struct err *e)
{
	const struct group_change *body = r->value;
	struct group *g;
	json_t *uid;
	size_t i;
	int result = need(r, true, &g, e);

	if (result < 0)
		return result;
	if (!json_is_array(body->shared) || json_array_size(body->shared) > 1000)
		return err_set(e, ERR_INVALID, "shared must be a list of at most 1000 user ids");
	json_array_foreach(body->shared, i, uid) {
		if (!json_is_integer(uid) || json_integer_value(uid) < 0 || json_integer_value(uid) > UINT32_MAX)
			return err_set(e, ERR_INVALID, "shared must be a list of user ids");
	}
	json_decref(g->shared);
	g->shared = json_incref(body->shared);
	own_str char *shared = json_dumps(g->shared, JSON_COMPACT);
	struct db_batch *b = db_batch_new();
	db_group_update(b, &(struct db_group){ g->name, shared, g->owner_uid, g->created_ms });
	event_add(r->service, b, "group.changed", g->name, g->owner_uid, json_pack("{s:O}", "shared", g->shared));
	commit(r, g->name, false, b);
	return 0;
}

int handle_group_remove(struct request *r, struct err *e)
{
	struct group *g;
	int result = need(r, true, &g, e);

	if (result < 0)
		return result;
	for (size_t i = 0; i < r->service->workspaces.count; i++) {
		const struct workspace *w = r->service->workspaces.items[i];
		if (!listed(w->wish.spec, g->name))
			continue;
		if (!workspace_visible(w, &r->who))
			return err_set(e, ERR_CONFLICT, "a workspace of another user is in group '%s'", g->name);
		(void)err_set(e, ERR_CONFLICT, "workspace '%s' is in group '%s'", w->name, g->name);
		return err_hint(e, "take it out first: carrel group remove %s %s", g->name, w->name);
	}
	struct db_batch *b = db_batch_new();
	db_group_delete(b, g->name);
	event_add(r->service, b, "group.removed", g->name, g->owner_uid, json_object());
	own_str char *name = mem_strdup(g->name);
	forget(r->service, g);
	commit(r, name, true, b);
	return 0;
}
