/* SPDX-License-Identifier: Apache-2.0 */
/*
 * List, show, deploy and change workspaces. What moves one between states is in lifecycle.c. A request is checked whole before
 * anything is altered; then memory is altered ahead of the database, as service.c says, and an address that is not to be had
 * takes it all back.
 *
 * A list is put together from the texts that the workspaces keep rendered, and its ETag from their versions, so a client that
 * polls gets 304 while nothing changes. An idempotency key stands for the digest of route, query and body: the same request is
 * answered with what it made, another one under that key is refused. A dry run goes the whole way up to the commit, on a
 * workspace that nobody else sees.
 */
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "base/own.h"
#include "db/journal.h"
#include "db/workspace.h"
#include "service/carry.h"
#include "service/event.h"
#include "service/handlers.h"
#include "service/host.h"
#include "service/kernels.h"
#include "service/lifecycle.h"
#include "service/network.h"
#include "service/routes.h"
#include "service/sizes.h"
#include "service/views.h"

/* --- list and show --- */

/* "key=value" or "key". */
static bool has_label(const struct workspace *w, const char *label)
{
	size_t length = strcspn(label, "=");
	const struct pairs *labels = &w->wish.spec->labels;

	for (size_t i = 0; i < labels->count; i++) {
		if (strlen(labels->items[i].key) != length || strncmp(labels->items[i].key, label, length) != 0)
			continue;
		return !label[length] || str_eq(labels->items[i].value, label + length + 1);
	}
	return false;
}

static size_t first_after(const struct service *s, int64_t seq)
{
	size_t low = 0, high = s->workspaces.count;

	while (low < high) {
		size_t middle = (low + high) / 2;
		if (s->workspaces.items[middle]->seq <= seq)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

int handle_workspaces_list(struct request *r, struct err *e)
{
	own_strbuf struct str text = { 0 };
	const char *label = request_query(r, "label"), *state = request_query(r, "state");
	struct service *s = r->service;
	struct page page;
	int64_t last = 0;
	uint64_t count = 0, versions = 0;
	bool more = false;
	char etag[64];
	int result = page_parse(r, &page, e);

	if (result < 0)
		return result;
	str_puts(&text, "{\"items\":[");
	for (size_t i = first_after(s, page.after); i < s->workspaces.count; i++) {
		struct workspace *w = s->workspaces.items[i];
		size_t length;
		if (!workspace_visible(w, &r->who) || (label && !has_label(w, label)) ||
		    (state && !str_eq(state, state_names[w->truth.state])))
			continue;
		if ((more = count == page.limit))
			break;
		if (count++)
			str_putc(&text, ',');
		const char *item = workspace_render(w, &length);
		str_add(&text, item, length);
		last = w->seq;
		versions = versions * 31 + (uint64_t)w->seq * 1000003 + w->version;
	}
	str_putc(&text, ']');
	if (more)
		str_printf(&text, ",\"next\":\"%lld\"", (long long)last);
	str_putc(&text, '}');
	(void)snprintf(etag, sizeof etag, "\"%llx-%llx\"", (unsigned long long)count, (unsigned long long)versions);
	request_reply_cached(r, 200, text.bytes, text.length, etag);
	return 0;
}

void workspace_reply(struct request *r, struct workspace *w)
{
	char etag[32];
	size_t length;
	const char *text = workspace_render(w, &length);

	workspace_etag(w, etag);
	request_reply_cached(r, 200, text, length, etag);
}

int handle_workspace_show(struct request *r, struct err *e)
{
	struct workspace *w;
	int result = workspace_find(r, r->params[0], &w, e);

	if (result == 0)
		result = wait_begin(r, w, e);
	if (result == 0)
		workspace_reply(r, w);
	return result < 0 ? result : 0;
}

/* --- deploy --- */

static enum wish wish_of_rung(unsigned until)
{
	static const enum wish wishes[] = { [UNTIL_RUNNING] = WISH_RUNNING, [UNTIL_STAGED] = WISH_STAGED,
					    [UNTIL_PREPARED] = WISH_PREPARED, [UNTIL_PAUSED] = WISH_PAUSED };
	return wishes[until];
}

static int check_quota(const struct request *r, struct err *e)
{
	uint64_t count = 0, most = r->service->config.workspaces_per_user;

	if (r->who.admin)
		return 0;
	for (size_t i = 0; i < r->service->workspaces.count; i++)
		count += r->service->workspaces.items[i]->owner_uid == r->who.uid;
	if (count < most)
		return 0;
	(void)err_set(e, ERR_NO_CAPACITY, "you have %llu workspaces, as many as one user may have", (unsigned long long)count);
	return err_hint(e, "remove one, or ask an administrator to raise workspaces-per-user");
}

static int check_name_free(const struct request *r, const char *name, struct err *e)
{
	const struct workspace *other = map_get(&r->service->workspaces.by_name, name);

	if (!other)
		return 0;
	(void)err_set(e, ERR_EXISTS, "the name '%s' is taken%s", name,
		      workspace_visible(other, &r->who) ? "" : " by another user");
	return err_hint(e, "choose another name: names are unique in the whole service");
}

/* A kept volume that is there already can be used by one workspace at a time, and by its owner. */
static int check_volumes(const struct request *r, const struct spec *spec, struct err *e)
{
	const struct spec_volume *wanted = spec->volumes.items;

	for (size_t i = 0; i < spec->volumes.count; i++) {
		for (size_t j = 0; wanted[i].keep && j < r->service->workspaces.count; j++) {
			const struct workspace *w = r->service->workspaces.items[j];
			const struct spec_volume *used = w->wish.spec->volumes.items;
			if (w->owner_uid != r->who.uid)
				continue;
			for (size_t k = 0; k < w->wish.spec->volumes.count; k++)
				if (used[k].keep && str_eq(used[k].name, wanted[i].name))
					return err_set(e, ERR_CONFLICT, "the kept volume '%s' is used by workspace '%s'",
						       used[k].name, w->name);
		}
	}
	return 0;
}

static int check_spec(const struct request *r, const struct spec *spec, struct err *e)
{
	if (spec->engine != ENGINE_AUTO && spec->engine != ENGINE_WORKSPACE && spec->engine != ENGINE_KVM &&
	    spec->engine != ENGINE_EMULATOR) {
		(void)err_set(e, ERR_UNSUPPORTED, "engine '%s' is not available on any host", spec_engine_names[spec->engine]);
		return err_hint(e, "use engine 'workspace', 'kvm' or 'emulator', or leave it out");
	}
	int result = spec->name ? check_name_free(r, spec->name, e) : 0;
	if (result == 0)
		result = check_quota(r, e);
	if (result == 0)
		result = check_volumes(r, spec, e);
	if (result == 0)
		result = network_check_policy(r, NULL, spec, e);
	return result < 0 ? result : group_check(r, NULL, spec, e);
}

static int check_image(const struct spec *spec, const struct image *image, struct err *e)
{
	if (image->kernel)
		return err_set(e, ERR_INVALID, "'%s' is a kernel, no image of a workspace", image->name);
	if (spec->architecture && image->architecture && !str_eq(spec->architecture, image->architecture)) {
		(void)err_set(e, ERR_INVALID, "image '%s' is for %s, not for %s", image->name, image->architecture,
			      spec->architecture);
		return err_hint(e, "import it for that processor under another name: carrel image import NAME SOURCE --arch %s",
				spec->architecture);
	}
	return 0;
}

static struct workspace *make(struct request *r, struct create_request *body, struct image *image)
{
	struct service *s = r->service;
	struct workspace *w = mem_alloc(sizeof *w);
	const struct host *host = host_choose(s);

	id_new(w->id);
	w->seq = s->workspaces.last_seq + 1;
	w->created_ms = service_now_ms();
	w->owner_uid = w->wish.owner_uid = r->who.uid;
	w->host = mem_strdup(host ? host->name : "local");
	w->wish.id = mem_strdup(w->id);
	w->wish.spec = TAKE(body->spec);
	w->wish.stop_timeout_ms = FIELD_NO_PRESET;
	while (!w->wish.spec->name || map_get(&s->workspaces.by_name, w->wish.spec->name)) {
		free(w->wish.spec->name);
		w->wish.spec->name = name_make_up();
	}
	w->name = mem_strdup(w->wish.spec->name);
	w->wish.image = mem_dup(image, sizeof *image);
	w->wish.generation = 1;
	w->wish.wish = wish_of_rung(w->wish.spec->until);
	if (body->carried)
		carry_take(s, w, body->carried);
	w->wish.run = w->wish.wish == WISH_RUNNING || w->wish.wish == WISH_PAUSED;
	w->wish.held = body->held;
	w->truth.id = mem_strdup(w->id);
	w->truth.exit_status = FIELD_NO_PRESET;
	return w;
}

void workspace_request_digest(const struct request *r, char out[DIGEST_HEX_SIZE])
{
	own_hash struct hash *h = hash_new();

	hash_add(h, r->route->path, strlen(r->route->path) + 1);
	for (size_t i = 0; i < r->uri.query.count; i++) { /* a dry run is another request than the deployment */
		hash_add(h, r->uri.query.items[i].key, strlen(r->uri.query.items[i].key) + 1);
		hash_add(h, r->uri.query.items[i].value, strlen(r->uri.query.items[i].value) + 1);
	}
	hash_add(h, r->body.bytes, r->body.length);
	struct digest d = hash_end(h);
	(void)digest_hex(&d, out);
}

int workspace_known_key(struct request *r, const char *key, const char *digest, char subject[ID_SIZE], int *ret_status,
			struct err *e)
{
	own_db_rows struct db_rows *rows = NULL;
	struct db_answer known;
	int result = db_answer_find(r->service->db, r->who.uid, key, &rows, &known, e);

	if (result <= 0)
		return result;
	if (!str_eq(known.request, digest))
		return err_set(e, ERR_CONFLICT, "the idempotency key was used for another request");
	(void)snprintf(subject, ID_SIZE, "%s", known.subject);
	*ret_status = known.status;
	return 1;
}

/* 1: answered with what the key made before. */
static int answer_known_key(struct request *r, const char *key, const char *digest, struct err *e)
{
	char subject[ID_SIZE];
	int status, result = workspace_known_key(r, key, digest, subject, &status, e);

	if (result <= 0)
		return result;
	struct workspace *w = workspace_by_id(r->service, subject);
	if (!w)
		return err_set(e, ERR_NOT_FOUND, "the workspace that this idempotency key made was removed");
	size_t length;
	const char *text = workspace_render(w, &length);
	request_reply_cached(r, status, text, length, NULL);
	return 1;
}

static int deploy(struct request *r, struct workspace *w, const char *key, const char *digest, struct err *e)
{
	struct service *s = r->service;
	struct change *c = change_new(s, r);
	int result = network_attach(s, &r->who, w, c->batch, e);

	if (result < 0) {
		change_drop(c);
		workspace_discard(w);
		return result;
	}
	group_join(s, w->owner_uid, w->wish.spec, c->batch);
	s->workspaces.last_seq = w->seq;
	workspace_insert(s, w);
	workspace_store(w, c->batch, true);
	for (size_t i = 0; i < w->snapshots.count; i++)
		db_snapshot_insert(c->batch, &(struct db_snapshot){ w->snapshots.items[i].id, w->id, w->snapshots.items[i].name,
								    w->created_ms });
	(void)lifecycle_begin(c, w, "deploy");
	event_add(s, c->batch, "workspace.created", w->id, w->owner_uid,
		  json_pack("{s:s, s:s}", "name", w->name, "image", w->wish.spec->image));
	if (key)
		db_answer_insert(c->batch, &(struct db_answer){ .owner_uid = r->who.uid, .created_ms = w->created_ms,
								.key = key, .request = digest, .subject = w->id,
								.status = 201 });
	c->status = 201;
	change_commit(c);
	return 0;
}

static int plan(struct request *r, struct workspace *w, struct err *e)
{
	struct host *h = host_choose(r->service);
	if (h) { /* with the addresses that it would get at this moment */
		struct db_batch *unused = db_batch_new();
		int result = network_attach(r->service, &r->who, w, unused, e);
		if (result == 0)
			result = host_plan(h, &w->wish, r, e);
		db_batch_free(unused);
		network_reload(r->service, w->id);
		return result;
	}
	(void)err_set(e, ERR_UNAVAILABLE, "no host is connected that could make the plan");
	return err_hint(e, "start carrel-node on this machine");
}

int handle_workspaces_create(struct request *r, struct err *e)
{
	struct create_request *body = r->value;
	const char *key = request_header(r, "Idempotency-Key");
	struct image image = { 0 };
	char digest[DIGEST_HEX_SIZE];

	workspace_request_digest(r, digest);
	if (key && (!*key || strlen(key) > 255))
		return err_set(e, ERR_INVALID, "an idempotency key has 1 to 255 characters");
	int result = key ? answer_known_key(r, key, digest, e) : 0;
	if (result != 0)
		return result < 0 ? result : 0;
	network_preset(r->service, body->spec);
	result = check_spec(r, body->spec, e);
	if (result == 0)
		result = images_resolve(r->service, body->spec->image, &image, e);
	if (result == 0)
		result = check_image(body->spec, &image, e);
	if (result < 0) {
		image_done(&image);
		return result;
	}
	struct workspace *w = make(r, body, &image);
	if ((result = kernels_choose(r->service, w, e)) < 0) {
		workspace_discard(w);
		return result;
	}
	if (!request_flag(r, "dry-run"))
		return deploy(r, w, key, digest, e);
	result = plan(r, w, e);
	workspace_discard(w);
	return result;
}

/* --- change --- */

struct labels_only {
	struct pairs labels;
};
static const struct field labels_fields[] = {
	{ "labels", FIELD_PAIRS, offsetof(struct labels_only, labels), "labels", .check = name_check_key },
	{ 0 },
};
static const struct shape labels_shape = { "labels", sizeof(struct labels_only), labels_fields, "Labels." };

static int set_labels(struct spec *spec, json_t *given, struct err *e)
{
	struct labels_only l = { 0 };
	json_t *wrapped = json_pack("{s:O}", "labels", given);
	int result = decode_json(wrapped, "request body", &labels_shape, &l, e);

	json_decref(wrapped);
	if (result < 0)
		return result;
	pairs_done(&spec->labels);
	spec->labels = l.labels;
	return 0;
}

/* Whole keys; null takes one away. */
static void replace_keys(json_t *spec, const struct change_request *body)
{
	static const char *const keys[CHANGE_COUNT] = { "network", "networks", "groups",  "allow",     "deny",
							"from",	   "isolated", "publish", "user-data", "ssh-keys" };

	for (int i = 0; i < CHANGE_COUNT; i++) {
		if (json_is_null(body->given[i]))
			(void)json_object_del(spec, keys[i]);
		else if (body->given[i])
			(void)json_object_set(spec, keys[i], body->given[i]);
	}
}

static void spec_free(struct spec *s)
{
	if (s)
		spec_done(s);
	free(s);
}

/* A changed copy. */
static int change_spec(const struct spec *old, const struct change_request *body, struct spec **ret_spec, struct err *e)
{
	struct spec *spec = mem_alloc(sizeof *spec);
	json_t *json = encode(&spec_shape, old);
	replace_keys(json, body);
	int result = decode_json(json, "request body", &spec_shape, spec, e);

	json_decref(json);
	if (result == 0 && body->labels_given)
		result = set_labels(spec, body->labels_given, e);
	if (result == 0)
		result = sizes_change(spec, body, e);
	if (result < 0) {
		spec_done(spec);
		free(spec);
		return result;
	}
	*ret_spec = spec;
	return 0;
}

/* What the host has to do before the change is true: the name of the operation, or NULL. */
static const char *work_of(const struct change_request *body, const struct workspace *w, bool limits)
{
	if (limits)
		return "resize";
	if (body->resources || body->volumes)
		return "grow";
	for (int i = 0; i < CHANGE_COUNT; i++)
		if (body->given[i] && state_is_live((enum state)w->truth.state))
			return "connect";
	return NULL;
}

int handle_workspace_change(struct request *r, struct err *e)
{
	struct change_request *body = r->value;
	struct workspace *w;
	struct spec *spec = NULL;
	int result = workspace_find(r, r->params[0], &w, e);

	if (result == 0)
		result = workspace_check_match(r, w, e);
	if (result == 0 && body->name && !str_eq(body->name, w->name))
		result = check_name_free(r, body->name, e);
	if (result == 0 && !r->who.admin && w->owner_uid != r->who.uid)
		result = err_set(e, ERR_DENIED, "workspace '%s' belongs to another user", w->name);
	if (result == 0 && w->wish.wish == WISH_REMOVED)
		result = err_set(e, ERR_CONFLICT, "workspace '%s' is being removed", w->name);
	if (result == 0) /* its labels say that */
		result = carry_check(w, e);
	if (result == 0)
		result = change_spec(w->wish.spec, body, &spec, e);
	if (result == 0)
		result = sizes_check(r->service, w, spec, e);
	if (result == 0)
		result = group_check(r, w->wish.spec, spec, e);
	if (result == 0)
		result = network_check_policy(r, w, spec, e);
	if (result < 0) {
		spec_free(spec);
		return result;
	}
	bool limits = !sizes_same_limits(spec, w->wish.spec);
	struct change *c = change_new(r->service, r);
	struct spec *old = w->wish.spec;
	w->wish.spec = spec;
	result = network_attach(r->service, &r->who, w, c->batch, e);
	if (result < 0) {
		w->wish.spec = old;
		spec_free(spec);
		change_drop(c);
		return result;
	}
	json_t *before = limits ? sizes_of(old) : NULL;
	spec_free(old);
	group_join(r->service, w->owner_uid, w->wish.spec, c->batch);
	if (body->name && !str_eq(body->name, w->name))
		workspace_rename(r->service, w, body->name);
	(void)snprintf(c->workspace, sizeof c->workspace, "%s", w->id);
	w->wish.generation++;
	const char *work = work_of(body, w, limits);
	struct operation *o = work && !w->operation ? lifecycle_begin(c, w, work) : NULL;
	if (before) /* there was none under way: sizes_check */
		operation_set_result(o, c->batch, json_pack("{s:o}", "before", before));
	workspace_store(w, c->batch, false);
	event_add(r->service, c->batch, "workspace.changed", w->id, w->owner_uid, json_pack("{s:s}", "name", w->name));
	c->status = 200;
	change_commit(c);
	return 0;
}
