/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. Kept volumes are on hosts, which tell of them; here is only what they told last. A removal is a message to the host,
 * and its answer waits for the host's next list, or for its refusal: 204 means that the volume and its content are gone.
 */
#include <string.h>

#include "base/mem.h"
#include "service/handlers.h"
#include "service/host.h"
#include "service/routes.h"

#define REMOVAL_WAIT_MS 30000

static uint64_t number_of(const json_t *m, const char *key)
{
	json_int_t n = json_integer_value(json_object_get(m, key));
	return n > 0 ? (uint64_t)n : 0;
}

struct volume_view {
	char *name, *host, *workspace;
	uint64_t owner, size, used;
};
#define K(member) offsetof(struct volume_view, member)
static const struct field volume_fields[] = {
	{ "name", FIELD_TEXT, K(name), "name", .required = true },
	{ "owner", FIELD_NUMBER, K(owner), "user id of the owner", .required = true },
	{ "host", FIELD_TEXT, K(host), "host where it is", .required = true },
	{ "size", FIELD_NUMBER, K(size), "bytes it can hold", .required = true },
	{ "used", FIELD_NUMBER, K(used), "bytes it takes on the host", .required = true },
	{ "workspace", FIELD_TEXT, K(workspace), "id of the workspace that uses it" },
	{ 0 },
};
const struct shape volume_shape = { "kept-volume", sizeof(struct volume_view), volume_fields,
				    "A volume that outlives workspaces.", .open = true };

int handle_volumes_list(struct request *r, struct err *e)
{
	json_t *items = json_array(), *item;
	size_t i;

	(void)e;
	for (struct host *h = r->service->hosts; h; h = h->next) {
		json_array_foreach(h->volumes, i, item) {
			if (!r->who.admin && !r->who.viewer && number_of(item, "owner") != r->who.uid)
				continue;
			const char *name = json_string_value(json_object_get(item, "name"));
			const char *workspace = json_string_value(json_object_get(item, "workspace"));
			json_t *json = json_pack("{s:s, s:I, s:s, s:I, s:I}", "name", name ? name : "", "owner",
						 (json_int_t)number_of(item, "owner"), "host", h->name, "size",
						 (json_int_t)number_of(item, "size"), "used",
						 (json_int_t)number_of(item, "used"));
			if (workspace)
				(void)json_object_set_new(json, "workspace", json_string(workspace));
			(void)json_array_append_new(items, json);
		}
	}
	request_reply_json(r, 200, json_pack("{s:o}", "items", items));
	return 0;
}

/* --- removing --- */

/* A request that waits for its volume to go. */
struct removal {
	struct request *request;
	struct host *host;
	uint64_t owner_uid;
	char *name;
	struct loop_source *timer;
	struct removal *next;
};
static struct removal *removals;

static const json_t *find_volume(const struct host *h, uint64_t owner, const char *name)
{
	json_t *item;
	size_t i;

	json_array_foreach(h->volumes, i, item)
		if (number_of(item, "owner") == owner && str_eq(json_string_value(json_object_get(item, "name")), name))
			return item;
	return NULL;
}

/* `why` NULL: it is removed. */
static void answer(struct removal *x, const struct err *why)
{
	for (struct removal **at = &removals; *at; at = &(*at)->next) {
		if (*at == x) {
			*at = x->next;
			break;
		}
	}
	loop_remove(x->timer);
	if (why)
		request_fail(x->request, why);
	else
		request_reply_nothing(x->request);
	free(x->name);
	free(x);
}

static void too_late(void *data)
{
	struct removal *x = data;
	struct err e;

	x->timer = NULL;
	(void)err_set(&e, ERR_TIMEOUT, "host %s did not say that volume '%s' is removed", x->host->name, x->name);
	(void)err_hint(&e, "carrel volume ls shows whether it is");
	answer(x, &e);
}

void volumes_told(struct host *h)
{
	for (struct removal *x = removals, *next; x; x = next) {
		next = x->next;
		if (x->host == h && !find_volume(h, x->owner_uid, x->name))
			answer(x, NULL);
	}
}

void volumes_refused(struct host *h, uint64_t owner_uid, const char *name, const struct err *why)
{
	for (struct removal *x = removals, *next; x; x = next) {
		next = x->next;
		if (x->host == h && x->owner_uid == owner_uid && str_eq(x->name, name))
			answer(x, why);
	}
}

void volumes_host_gone(struct host *h)
{
	struct err e;

	for (struct removal *x = removals, *next; x; x = next) {
		next = x->next;
		if (x->host != h)
			continue;
		(void)err_set(&e, ERR_UNAVAILABLE, "host %s went away before it said that volume '%s' is removed", h->name,
			      x->name);
		answer(x, &e);
	}
}

/* The workspace that names the kept volume, by our own rows: the host's list may be a moment behind. */
static const struct workspace *user_of_volume(const struct service *s, uint64_t owner, const char *name)
{
	for (size_t i = 0; i < s->workspaces.count; i++) {
		const struct workspace *w = s->workspaces.items[i];
		const struct spec_volume *v = w->wish.spec->volumes.items;
		for (size_t j = 0; w->owner_uid == owner && j < w->wish.spec->volumes.count; j++)
			if (v[j].keep && str_eq(v[j].name, name))
				return w;
	}
	return NULL;
}

/* Waits for the host's word: it is removed when the host's list does not have it any longer. */
static void await_removal(struct request *r, struct host *h, uint64_t owner, const char *name)
{
	struct removal *x = mem_alloc(sizeof *x);

	*x = (struct removal){ .request = r, .host = h, .owner_uid = owner, .name = mem_strdup(name), .next = removals };
	removals = x;
	x->timer = loop_add_timer(r->service->loop, REMOVAL_WAIT_MS, too_late, x);
	host_send(h, json_pack("{s:s, s:I, s:s}", "type", "volume-remove", "owner", (json_int_t)owner, "name", name));
}

static int check_volume(const struct request *r, uint64_t owner, struct err *e)
{
	if (owner != r->who.uid && !r->who.admin)
		return err_set(e, ERR_DENIED, "volumes of others are removed by administrators only");
	const struct workspace *user_here = user_of_volume(r->service, owner, r->params[0]);
	if (!user_here)
		return 0;
	(void)err_set(e, ERR_CONFLICT, "volume '%s' is used by workspace '%s'", r->params[0], user_here->name);
	return err_hint(e, "remove the workspace first: carrel rm %s", user_here->name);
}

int handle_volume_remove(struct request *r, struct err *e)
{
	uint64_t owner;
	int result = request_number(r, "owner", r->who.uid, UINT32_MAX, &owner, e);

	if (result == 0)
		result = check_volume(r, owner, e);
	if (result < 0)
		return result;
	for (struct host *h = r->service->hosts; h; h = h->next) {
		const json_t *item = find_volume(h, owner, r->params[0]);
		if (!item)
			continue;
		const char *user = json_string_value(json_object_get(item, "workspace"));
		if (user)
			return err_set(e, ERR_CONFLICT, "volume '%s' is used by workspace %s", r->params[0], user);
		if (!host_connected(h))
			return err_set(e, ERR_UNAVAILABLE, "host %s, where volume '%s' is, is not connected", h->name,
				       r->params[0]);
		await_removal(r, h, owner, r->params[0]);
		return 0;
	}
	return err_set(e, ERR_NOT_FOUND, "no kept volume '%.64s'", r->params[0]);
}
