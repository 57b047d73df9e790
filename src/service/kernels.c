/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. A kernel is an image whose one partition is a kernel partition (docs/formats/kernel.md): it is imported, kept,
 * collected, exported and fetched from registries as images are, and names are shared with them. What is special is told by
 * image.kernel, its release. The default of a processor is one row of the site's table, "kernel-ARCHITECTURE".
 */
#include "service/kernels.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/own.h"
#include "db/image.h"
#include "db/network.h"
#include "service/event.h"
#include "service/handlers.h"
#include "service/images.h"
#include "service/views.h"

static char *default_key(const char *architecture) { return mem_printf("kernel-%s", architecture); }

/* The name, or NULL; the caller frees. */
static int find_default(struct service *s, const char *architecture, char **ret_name, struct err *e)
{
	own_db_rows struct db_rows *rows = NULL;
	own_str char *key = default_key(architecture);
	int r = db_site_query(s->db, &rows, e);

	*ret_name = NULL;
	while (r >= 0 && (r = db_next(rows, e)) > 0)
		if (str_eq(db_text(rows, 0), key) && db_text(rows, 1)[0]) {
			*ret_name = mem_strdup(db_text(rows, 1));
			return 0;
		}
	return r;
}

static int resolve(struct service *s, const char *name, struct image *ret_image, struct err *e)
{
	int r = images_resolve(s, name, ret_image, e);

	if (r == -ENOENT || (r >= 0 && !ret_image->kernel)) {
		if (r >= 0)
			image_done(ret_image);
		(void)err_set(e, ERR_NOT_FOUND, "there is no kernel '%.100s'", name);
		return err_hint(e, "carrel kernel ls shows them; carrel kernel import %.60s debian:bookworm makes one", name);
	}
	return r;
}

/* --- which one a workspace boots --- */

static bool must_be_machine(const struct spec *spec)
{
	return spec->isolation == ISOLATION_MACHINE || spec->engine == ENGINE_KVM || spec->engine == ENGINE_EMULATOR;
}

static int choose_name(struct service *s, const struct workspace *w, char **ret_name, struct err *e)
{
	const struct image *image = w->wish.image;
	const char *wanted = w->wish.spec->kernel;

	if (!wanted && image->run)
		wanted = pairs_get(&image->run->labels, IMAGE_LABEL_KERNEL);
	if (wanted) {
		*ret_name = mem_strdup(wanted);
		return 0;
	}
	return find_default(s, image->architecture ? image->architecture : "", ret_name, e);
}

static int no_kernel(const struct image *image, struct err *e)
{
	const char *architecture = image->architecture ? image->architecture : "?";

	(void)err_set(e, ERR_UNSUPPORTED, "the site has no kernel for machines of %s", architecture);
	return err_hint(e, "carrel kernel import linux-%s debian:bookworm --arch %s", architecture, architecture);
}

static void set_kernel(struct workspace *w, const struct image *kernel)
{
	const struct image_partition *p = kernel->partitions.items;

	w->wish.kernel = mem_alloc(sizeof *w->wish.kernel);
	*w->wish.kernel = (struct assignment_kernel){ .name = mem_strdup(kernel->name), .release = mem_strdup(kernel->kernel),
						      .digest = mem_strdup(p->digest), .size_bytes = p->size_bytes };
}

int kernels_choose(struct service *s, struct workspace *w, struct err *e)
{
	own_str char *name = NULL;
	struct image kernel = { 0 };
	int r = choose_name(s, w, &name, e);

	if (r < 0)
		return r;
	if (!name && must_be_machine(w->wish.spec) && !w->wish.image->machine) /* disks bring their own */
		return no_kernel(w->wish.image, e);
	if (name && (r = resolve(s, name, &kernel, e)) < 0)
		return r;
	if (name && w->wish.image->architecture && !str_eq(kernel.architecture, w->wish.image->architecture)) {
		r = err_set(e, ERR_INVALID, "kernel '%s' is for %s, the image for %s", kernel.name, kernel.architecture,
			    w->wish.image->architecture);
		image_done(&kernel);
		return r;
	}
	if (w->wish.kernel) {
		shape_done(&assignment_kernel_shape, w->wish.kernel);
		free(TAKE(w->wish.kernel));
	}
	if (name)
		set_kernel(w, &kernel);
	image_done(&kernel);
	return 0;
}

int kernels_imported(struct service *s, struct db_batch *b, const struct image *kernel, struct err *e)
{
	own_str char *name = NULL, *key = default_key(kernel->architecture);
	int r = find_default(s, kernel->architecture, &name, e);

	if (r >= 0 && !name)
		db_site_put(b, key, kernel->name);
	return r < 0 ? r : 0;
}

/* --- the API --- */

struct kernel_view {
	char *name, *digest, *partition, *release, *architecture, *created;
	bool is_default;
	uint64_t size_bytes, owner_uid;
};
#define V(member) offsetof(struct kernel_view, member)
static const struct field view_fields[] = {
	{ "name", FIELD_TEXT, V(name), "name", .required = true },
	{ "release", FIELD_TEXT, V(release), "as uname(1) tells it", .required = true },
	{ "architecture", FIELD_TEXT, V(architecture), "processor, as OCI names it", .required = true },
	{ "default", FIELD_BOOL, V(is_default), "machines of this processor boot it when nothing else is asked for",
	  .required = true },
	{ "digest", FIELD_TEXT, V(digest), "digest of the manifest", .required = true },
	{ "partition", FIELD_TEXT, V(partition), "digest of the kernel partition", .required = true },
	{ "size", FIELD_NUMBER, V(size_bytes), "bytes of the partition", .required = true },
	{ "created", FIELD_TEXT, V(created), "time of the import", .required = true },
	{ "owner", FIELD_NUMBER, V(owner_uid), "user id of the owner", .required = true },
	{ 0 },
};
const struct shape kernel_view_shape = { "kernel", sizeof(struct kernel_view), view_fields, "A kernel for machines." };

static int view(struct service *s, const struct image *k, json_t **ret_json, struct err *e)
{
	own_str char *created = service_time_text(k->created_ms), *chosen = NULL;
	const struct image_partition *p = k->partitions.items;
	int r = find_default(s, k->architecture, &chosen, e);

	if (r < 0)
		return r;
	const struct kernel_view v = {
		k->name,       k->digest,   p->digest, k->kernel, k->architecture, created, chosen && str_eq(chosen, k->name),
		k->size_bytes, k->owner_uid
	};
	*ret_json = encode(&kernel_view_shape, &v);
	return 0;
}

static int add_views(struct request *r, json_t *items, struct err *e)
{
	own_db_rows struct db_rows *rows = NULL;
	int result = db_image_query(r->service->db, &rows, e);

	while (result >= 0 && (result = db_next(rows, e)) > 0) {
		struct image image = { 0 };
		json_t *json = NULL;
		result = images_row(rows, &image, e);
		if (result >= 0 && image.kernel)
			result = view(r->service, &image, &json, e);
		if (json)
			(void)json_array_append_new(items, json);
		image_done(&image);
	}
	return result;
}

int handle_kernels_list(struct request *r, struct err *e)
{
	json_t *items = json_array();
	int result = add_views(r, items, e);

	if (result < 0) {
		json_decref(items);
		return result;
	}
	request_reply_json(r, 200, json_pack("{s:o}", "items", items));
	return 0;
}

int handle_kernel_show(struct request *r, struct err *e)
{
	struct image kernel = { 0 };
	json_t *json = NULL;
	int result = resolve(r->service, r->params[0], &kernel, e);

	if (result < 0)
		return result;
	result = view(r->service, &kernel, &json, e);
	if (result >= 0)
		request_reply_json(r, 200, json);
	image_done(&kernel);
	return result;
}

int handle_kernel_remove(struct request *r, struct err *e)
{
	struct image kernel = { 0 };
	own_str char *chosen = NULL;
	int result = resolve(r->service, r->params[0], &kernel, e);

	if (result < 0)
		return result;
	result = find_default(r->service, kernel.architecture, &chosen, e);
	if (result >= 0 && chosen && str_eq(chosen, kernel.name) && !r->who.admin)
		result = err_set(e, ERR_DENIED, "kernel '%s' is the site's default", kernel.name);
	if (result >= 0) {
		own_str char *key = default_key(kernel.architecture);
		result = images_remove(r, &kernel, chosen && str_eq(chosen, kernel.name) ? key : NULL, e);
	}
	image_done(&kernel);
	return result;
}

static void chosen(void *data, const struct err *failure)
{
	struct request *r = data;

	if (failure) {
		request_fail(r, failure);
		return;
	}
	events_committed(r->service);
	request_reply_nothing(r);
}

int handle_kernel_default(struct request *r, struct err *e)
{
	struct image kernel = { 0 };
	int result = resolve(r->service, r->params[0], &kernel, e);

	if (result < 0)
		return result;
	own_str char *key = default_key(kernel.architecture);
	struct db_batch *b = db_batch_new();
	db_site_put(b, key, kernel.name);
	event_add(r->service, b, "kernel.default", kernel.name, r->who.uid,
		  json_pack("{s:s}", "architecture", kernel.architecture));
	db_submit(r->service->db, b, r->service->loop, chosen, r);
	image_done(&kernel);
	return 0;
}
