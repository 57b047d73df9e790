/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. An image is a row: name, digest, owner, JSON. Its bytes are in the store, which the programs of import and export
 * write and read; this file moves bytes between connections and their pipes and keeps the rows.
 *
 * An import is an operation. Its upload goes from the connection into a pipe; when the pipe is full the connection is
 * suspended, so an upload takes no memory here however fast it comes. The import's pins in the store are given back only after
 * the row is committed (or nothing came of it), so collecting garbage - in idle moments after an image or a workspace went away
 * - never takes what a row is about to name.
 *
 * What is collected: whatever no image and no workspace in memory names. A workspace keeps the partitions of its image though
 * the image was removed.
 */
#include "service/images.h"

#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/own.h"
#include "db/image.h"
#include "db/network.h"
#include "service/event.h"
#include "service/handlers.h"
#include "service/operation.h"
#include "service/service.h"
#include "service/workspace.h"

#define COLLECT_DELAY_MS 2000

/* --- rows --- */

int images_row(struct db_rows *rows, struct image *ret_image, struct err *e)
{
	struct db_image row;

	db_image_row(rows, &row);
	int r = decode_text(row.image, strlen(row.image), row.name, &image_shape, ret_image, e);
	if (r < 0)
		return r;
	free(ret_image->name);
	ret_image->name = mem_strdup(row.name);
	ret_image->owner_uid = row.owner_uid;
	ret_image->created_ms = row.created_ms;
	return 0;
}

int images_find(struct service *s, const char *reference, struct image *ret_image, struct err *e)
{
	own_db_rows struct db_rows *rows = NULL;

	int r = db_image_find(s->db, reference, &rows, e);
	if (r == 0)
		r = db_next(rows, e);
	if (r > 0) {
		int decoded = images_row(rows, ret_image, e);
		r = decoded < 0 ? decoded : 1;
	}
	return r;
}

static int not_found(struct service *s, const char *reference, struct err *e)
{
	own_db_rows struct db_rows *rows = NULL;
	own_strbuf struct str names = { 0 };
	struct db_image row;

	if (db_image_query(s->db, &rows, NULL) == 0)
		while (names.length < 200 && db_next(rows, NULL) > 0) {
			db_image_row(rows, &row);
			str_printf(&names, "%s%s", names.length ? ", " : "", row.name);
		}
	(void)err_set(e, ERR_NOT_FOUND, "there is no image '%.100s'", reference);
	return names.length ? err_hint(e, "there are: %s", str_text(&names)) :
			      err_hint(e, "import one: carrel image import NAME SOURCE");
}

int images_resolve(struct service *s, const char *reference, struct image *ret_image, struct err *e)
{
	int r = images_find(s, reference, ret_image, e);

	if (r == 0 && !strchr(reference, ':')) {
		own_str char *latest = mem_printf("%s:latest", reference);
		r = images_find(s, latest, ret_image, e);
	}
	return r == 0 ? not_found(s, reference, e) : r < 0 ? r : 0;
}

/* --- collecting --- */

struct keep {
	struct digest *items;
	size_t count, capacity;
};

static void keep_text(struct keep *k, const char *text)
{
	struct digest d;

	if (!text || digest_parse(text, &d, NULL) < 0)
		return;
	MEM_PUSH_ROOM(k->items, k->count, k->capacity);
	k->items[k->count++] = d;
}

/* The manifest is our own and names the configuration, which struct image does not. */
static void keep_config(struct images *images, struct keep *k, const char *manifest)
{
	own_strbuf struct str text = { 0 };
	own_fd int fd = -1;
	struct digest d;

	if (digest_parse(manifest, &d, NULL) < 0 || store_get(images->store, STORE_BLOB, &d, &fd, NULL, NULL) < 0 ||
	    fs_read_fd(fd, 4 << 20, &text, NULL) < 0)
		return;
	json_t *json = json_loadb(str_text(&text), text.length, 0, NULL);
	keep_text(k, json_string_value(json_object_get(json_object_get(json, "config"), "digest")));
	json_decref(json);
}

static void keep_image(struct images *images, struct keep *k, const struct image *image)
{
	const struct image_partition *p = image->partitions.items;

	keep_text(k, image->digest);
	keep_config(images, k, image->digest);
	for (size_t i = 0; i < image->partitions.count; i++)
		keep_text(k, p[i].digest);
}

static int keep_rows(struct service *s, struct keep *k, struct err *e)
{
	own_db_rows struct db_rows *rows = NULL;
	int r = db_image_query(s->db, &rows, e);

	while (r >= 0 && (r = db_next(rows, e)) > 0) {
		struct image image = { 0 };
		r = images_row(rows, &image, e);
		if (r == 0)
			keep_image(s->images, k, &image);
		image_done(&image);
	}
	return r;
}

static void collect(void *data)
{
	struct service *s = data;
	struct keep k = { 0 };
	uint64_t freed = 0;
	struct err e;

	s->images->collecting = NULL;
	int r = keep_rows(s, &k, &e);
	for (size_t i = 0; i < s->workspaces.count; i++) {
		const struct assignment *wish = &s->workspaces.items[i]->wish;
		if (wish->image)
			keep_image(s->images, &k, wish->image);
		if (wish->kernel)
			keep_text(&k, wish->kernel->digest);
	}
	if (r == 0)
		r = store_collect(s->images->store, k.items, k.count, &freed, &e);
	free(k.items);
	if (r < 0)
		log_error(&e, "store");
	else if (freed)
		log_info("%llu bytes that no image needs were removed from the store", (unsigned long long)freed);
}

void images_collect_soon(struct service *s)
{
	if (!s->images->collecting)
		s->images->collecting = loop_add_timer(s->loop, COLLECT_DELAY_MS, collect, s);
}

int images_open(struct service *s, struct err *e)
{
	struct images *images = mem_alloc(sizeof *images);

	s->images = images;
	images->store_path = mem_printf("%s/store", s->state_dir);
	int r = store_open(images->store_path, &images->store, e);
	if (r == 0)
		r = store_clean(images->store, e);
	if (r == 0)
		images_collect_soon(s);
	return r;
}

/* --- views --- */

struct image_view {
	char *name, *digest, *architecture, *created;
	bool init;
	uint64_t size_bytes, owner_uid;
	struct objects partitions;
	struct image_run *run;
	struct image_machine *machine;
};
#define V(member) offsetof(struct image_view, member)
static const struct field view_fields[] = {
	{ "name", FIELD_TEXT, V(name), "name[:tag]", .required = true },
	{ "digest", FIELD_TEXT, V(digest), "digest of the manifest", .required = true },
	{ "architecture", FIELD_TEXT, V(architecture), "processor, as OCI names it", .required = true },
	{ "init", FIELD_BOOL, V(init), "brings an init for a full system", .required = true },
	{ "size", FIELD_NUMBER, V(size_bytes), "bytes of all partitions", .required = true },
	{ "created", FIELD_TEXT, V(created), "time of the import", .required = true },
	{ "owner", FIELD_NUMBER, V(owner_uid), "user id of the owner", .required = true },
	{ "partitions", FIELD_OBJECTS, V(partitions), "lowest first", .required = true, .shape = &image_partition_shape },
	{ "run", FIELD_OBJECT, V(run), "what it runs", .shape = &image_run_shape },
	{ "machine", FIELD_OBJECT, V(machine), "it is made of disks, and what these need", .shape = &image_machine_shape },
	{ 0 },
};
const struct shape image_view_shape = { "image-view", sizeof(struct image_view), view_fields, "An image in the store." };

static json_t *view(const struct image *i)
{
	own_str char *created = service_time_text(i->created_ms);
	const struct image_view v = { i->name,      i->digest,     i->architecture ? i->architecture : i->name,
				      created,      i->init,       i->size_bytes,
				      i->owner_uid, i->partitions, i->run,
				      i->machine };
	return encode(&image_view_shape, &v);
}

/* Pages by name: the cursor is the name of the last item. */
int handle_images_list(struct request *r, struct err *e)
{
	own_db_rows struct db_rows *rows = NULL;
	const char *after = request_query(r, "after");
	json_t *items = json_array(), *json = json_pack("{s:o}", "items", items);
	uint64_t limit;

	int result = request_limit(r, &limit, e);
	if (result == 0)
		result = db_image_query(r->service->db, &rows, e);
	while (result >= 0 && (result = db_next(rows, e)) > 0) {
		struct image image = { 0 };
		result = images_row(rows, &image, e);
		bool wanted = result == 0 && !image.kernel && (!after || strcmp(image.name, after) > 0);
		if (wanted && json_array_size(items) == limit) {
			(void)json_object_set(json, "next", json_object_get(json_array_get(items, limit - 1), "name"));
			image_done(&image);
			break;
		}
		if (wanted)
			(void)json_array_append_new(items, view(&image));
		image_done(&image);
	}
	if (result < 0) {
		json_decref(json);
		return result;
	}
	request_reply_json(r, 200, json);
	return 0;
}

int handle_image_show(struct request *r, struct err *e)
{
	struct image image = { 0 };
	int result = images_resolve(r->service, r->params[0], &image, e);

	if (result < 0)
		return result;
	request_reply_json(r, 200, view(&image));
	image_done(&image);
	return 0;
}

/* --- removing --- */

/* The image has another name. */
static int has_other_name(struct service *s, const struct image *image, struct err *e)
{
	own_db_rows struct db_rows *rows = NULL;
	struct db_image row;
	int r = db_image_query(s->db, &rows, e);

	while (r >= 0 && (r = db_next(rows, e)) > 0) {
		db_image_row(rows, &row);
		if (str_eq(row.digest, image->digest) && !str_eq(row.name, image->name))
			return 1;
	}
	return r;
}

static int check_unused(struct service *s, const struct image *image, struct err *e)
{
	int r = has_other_name(s, image, e);

	if (r != 0)
		return r < 0 ? r : 0;
	for (size_t i = 0; i < s->workspaces.count; i++) {
		const struct workspace *w = s->workspaces.items[i];
		if (!w->wish.image || !str_eq(w->wish.image->digest, image->digest))
			continue;
		(void)err_set(e, ERR_CONFLICT, "image '%s' is used by workspace '%s'", image->name, w->name);
		return err_hint(e, "remove the workspace first: carrel rm %s", w->name);
	}
	return 0;
}

static void removed(void *data, const struct err *failure)
{
	struct request *r = data;

	if (failure) {
		request_fail(r, failure);
		return;
	}
	images_collect_soon(r->service);
	events_committed(r->service);
	request_reply_nothing(r);
}

int images_remove(struct request *r, const struct image *image, const char *site_key, struct err *e)
{
	if (!r->who.admin && image->owner_uid != r->who.uid)
		return err_set(e, ERR_DENIED, "%s '%s' belongs to user %llu", image->kernel ? "kernel" : "image", image->name,
			       (unsigned long long)image->owner_uid);
	struct db_batch *b = db_batch_new();
	db_image_delete(b, image->name);
	if (site_key)
		db_site_put(b, site_key, "");
	event_add(r->service, b, image->kernel ? "kernel.removed" : "image.removed", image->name, image->owner_uid,
		  json_pack("{s:s}", "digest", image->digest));
	db_submit(r->service->db, b, r->service->loop, removed, r);
	return 0;
}

int handle_image_remove(struct request *r, struct err *e)
{
	struct image image = { 0 };
	int result = images_resolve(r->service, r->params[0], &image, e);

	if (result >= 0 && image.kernel) {
		(void)err_set(e, ERR_CONFLICT, "'%s' is a kernel", image.name);
		result = err_hint(e, "carrel kernel rm %s", image.name);
	}
	if (result == 0)
		result = check_unused(r->service, &image, e);
	if (result == 0)
		result = images_remove(r, &image, NULL, e);
	image_done(&image);
	return result;
}
