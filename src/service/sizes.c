/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. Limits of processor time, memory and processes are changed by a wish like any other, but the host may refuse it: what
 * is in use now is known there only. So the operation keeps the sizes that were, and when the host reports that it refused,
 * they are the wish again (converge_withdraw). All of it is in the rows of workspace and operation: a service that ends
 * between the two hears the report once more.
 *
 * Volumes only grow, and what they have been given stays.
 */
#include "service/sizes.h"

#include <stdlib.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "service/host.h"
#include "service/operation.h"

struct growth {
	char *name;
	uint64_t size_bytes;
};
static const struct field growth_fields[] = {
	{ "name", FIELD_TEXT, offsetof(struct growth, name), "volume", .required = true },
	{ "size", FIELD_BYTES, offsetof(struct growth, size_bytes), "new size", .required = true, .min = SPEC_DISK_LEAST,
	  .max = SPEC_DISK_MOST },
	{ 0 },
};
static const struct shape growth_shape = { "growth", sizeof(struct growth), growth_fields, "A volume that grows." };

static int grow(uint64_t *size_bytes, uint64_t wanted, const char *what, struct err *e)
{
	char is[16], asked[16];
	if (wanted < *size_bytes)
		return err_set(e, ERR_INVALID, "volume '%s' has %s and cannot shrink to %s", what,
			       str_bytes(is, sizeof is, *size_bytes), str_bytes(asked, sizeof asked, wanted));
	*size_bytes = wanted;
	return 0;
}

static int grow_volume(struct spec *spec, json_t *item, struct err *e)
{
	struct spec_volume *v = spec->volumes.items;
	struct growth g = { 0 };
	int result = decode_json(item, "request body: volumes", &growth_shape, &g, e);
	bool found = false;

	for (size_t i = 0; result == 0 && i < spec->volumes.count; i++) {
		if (!str_eq(v[i].name, g.name))
			continue;
		found = true;
		result = grow(&v[i].size_bytes, g.size_bytes, g.name, e);
	}
	if (result == 0 && !found)
		result = err_set(e, ERR_NOT_FOUND, "the workspace has no volume '%s'", g.name);
	shape_done(&growth_shape, &g);
	return result;
}

/* Keys that are given; null is the preset, which is no limit. */
static int set_resources(struct spec *spec, json_t *given, struct err *e)
{
	struct spec_resources before = spec_resources_or_default(spec), after = { 0 };
	json_t *json = encode(&spec_resources_shape, &before), *value;
	const char *key;

	if (!json_is_object(given)) {
		json_decref(json);
		return err_set(e, ERR_INVALID, "request body: resources must be an object");
	}
	json_object_foreach(given, key, value) {
		if (json_is_null(value))
			(void)json_object_del(json, key);
		else
			(void)json_object_set(json, key, value);
	}
	int result = decode_json(json, "request body: resources", &spec_resources_shape, &after, e);
	json_decref(json);
	if (result == 0)
		result = grow(&before.disk_bytes, after.disk_bytes, "root", e);
	if (result < 0)
		return result;
	if (!spec->resources)
		spec->resources = mem_alloc(sizeof *spec->resources);
	*spec->resources = after;
	return 0;
}

int sizes_change(struct spec *spec, const struct change_request *body, struct err *e)
{
	int result = 0;

	if (body->resources && (result = set_resources(spec, body->resources, e)) < 0)
		return result;
	if (body->volumes && !json_is_array(body->volumes))
		return err_set(e, ERR_INVALID, "request body: volumes must be a list");
	for (size_t i = 0; result == 0 && i < json_array_size(body->volumes); i++)
		result = grow_volume(spec, json_array_get(body->volumes, i), e);
	return result;
}

bool sizes_same_limits(const struct spec *a, const struct spec *b)
{
	struct spec_resources is = spec_resources_or_default(a), was = spec_resources_or_default(b);

	return is.cpu_milli == was.cpu_milli && is.memory_bytes == was.memory_bytes && is.processes == was.processes;
}

/* More than the host has is a limit that holds nothing, and a machine that cannot be. */
static int check_capacity(struct service *s, const struct workspace *w, const struct spec *spec, struct err *e)
{
	struct spec_resources is = spec_resources_or_default(spec), was = spec_resources_or_default(w->wish.spec);
	const struct host *h = host_find(s, w->host);
	uint64_t processors = h ? (uint64_t)json_integer_value(json_object_get(h->facts, "processors")) : 0,
		 memory = h ? (uint64_t)json_integer_value(json_object_get(h->facts, "memory")) : 0;
	char has[16], asked[16];

	if (processors && is.cpu_milli > was.cpu_milli && is.cpu_milli > processors * 1000)
		return err_set(e, ERR_NO_CAPACITY, "host '%s' has %llu processors, not %g", w->host,
			       (unsigned long long)processors, (double)is.cpu_milli / 1000);
	if (memory && is.memory_bytes > was.memory_bytes && is.memory_bytes > memory)
		return err_set(e, ERR_NO_CAPACITY, "host '%s' has %s of memory, not %s", w->host,
			       str_bytes(has, sizeof has, memory), str_bytes(asked, sizeof asked, is.memory_bytes));
	return 0;
}

int sizes_check(struct service *s, const struct workspace *w, const struct spec *spec, struct err *e)
{
	if (sizes_same_limits(spec, w->wish.spec))
		return 0;
	if (w->operation) {
		(void)err_set(e, ERR_CONFLICT, "workspace '%s' is busy: %s", w->name, w->operation->kind);
		return err_hint(e, "wait for it: carrel operation wait %s", w->operation->id);
	}
	return check_capacity(s, w, spec, e);
}

json_t *sizes_of(const struct spec *spec)
{
	json_t *json = encode(&spec_shape, spec), *sizes = json_object();

	(void)json_object_set(sizes, "resources", json_object_get(json, "resources"));
	(void)json_object_set(sizes, "volumes", json_object_get(json, "volumes"));
	json_decref(json);
	return sizes;
}

void sizes_restore(struct workspace *w, const json_t *sizes)
{
	json_t *json = encode(&spec_shape, w->wish.spec);
	struct spec *spec = mem_alloc(sizeof *spec);
	static const char *const keys[] = { "resources", "volumes" };
	struct err why = { 0 };

	for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
		json_t *value = json_object_get(sizes, keys[i]);
		(void)(value ? json_object_set(json, keys[i], value) : json_object_del(json, keys[i]));
	}
	if (decode_json(json, "operation", &spec_shape, spec, &why) < 0) {
		log_error(&why, "workspace %s: what it had before is not known", w->id);
	} else {
		struct spec *refused = w->wish.spec;
		w->wish.spec = spec;
		spec = refused;
	}
	spec_done(spec);
	free(spec);
	json_decref(json);
}
