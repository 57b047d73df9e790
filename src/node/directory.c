/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A message is decoded into a directory of its own first and then moved over, so one with a wrong item changes nothing. Keys
 * of the maps are the values' own texts: an entry is removed before its value is freed. The file is a full message, as the
 * service would send it, and read by the same function; it is a copy of what can be had again, and therefore not synced.
 */
#include "node/directory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"

#define FILE_MOST ((size_t)256 << 20)

static void network_free(struct network *n)
{
	if (n)
		network_done(n);
	free(n);
}

static void member_free(struct member *m)
{
	if (m)
		member_done(m);
	free(m);
}

void directory_done(struct directory *d)
{
	for (size_t i = 0; i < d->networks.capacity; i++)
		if (d->networks.entries[i].key)
			network_free(d->networks.entries[i].value);
	for (size_t i = 0; i < d->members.capacity; i++)
		if (d->members.entries[i].key)
			member_free(d->members.entries[i].value);
	map_done(&d->networks);
	map_done(&d->members);
}

static int read_networks(struct directory *d, json_t *list, struct err *e)
{
	json_t *item;
	size_t i;

	json_array_foreach(list, i, item) {
		struct network *n = mem_alloc(sizeof *n);
		int r = decode_json(item, "network from the service", &network_shape, n, e);
		if (r < 0) {
			free(n);
			return r;
		}
		network_free(map_remove(&d->networks, n->name));
		map_put(&d->networks, n->name, n);
	}
	return 0;
}

static int read_members(struct directory *d, json_t *list, struct err *e)
{
	json_t *item;
	size_t i;

	json_array_foreach(list, i, item) {
		struct member *m = mem_alloc(sizeof *m);
		int r = decode_json(item, "member from the service", &member_shape, m, e);
		if (r < 0) {
			free(m);
			return r;
		}
		member_free(map_remove(&d->members, m->id));
		map_put(&d->members, m->id, m);
	}
	return 0;
}

/* Moves all of `from` into `to`. */
static void merge(struct directory *to, struct directory *from)
{
	for (size_t i = 0; i < from->networks.capacity; i++)
		if (from->networks.entries[i].key) {
			struct network *n = from->networks.entries[i].value;
			network_free(map_remove(&to->networks, n->name));
			map_put(&to->networks, n->name, n);
		}
	for (size_t i = 0; i < from->members.capacity; i++)
		if (from->members.entries[i].key) {
			struct member *m = from->members.entries[i].value;
			member_free(map_remove(&to->members, m->id));
			map_put(&to->members, m->id, m);
		}
	map_done(&from->networks);
	map_done(&from->members);
}

int directory_take(struct directory *d, json_t *message, struct err *e)
{
	struct directory fresh = { 0 };
	json_t *item;
	size_t i;
	int r = read_networks(&fresh, json_object_get(message, "networks"), e);

	if (r == 0)
		r = read_members(&fresh, json_object_get(message, "members"), e);
	if (r < 0) {
		directory_done(&fresh);
		return r;
	}
	if (json_is_true(json_object_get(message, "full")))
		directory_done(d);
	json_array_foreach(json_object_get(message, "gone"), i, item)
		if (json_is_string(item))
			member_free(map_remove(&d->members, json_string_value(item)));
	json_array_foreach(json_object_get(message, "gone-networks"), i, item)
		if (json_is_string(item))
			network_free(map_remove(&d->networks, json_string_value(item)));
	merge(d, &fresh);
	return 0;
}

json_t *directory_encode(const struct directory *d)
{
	json_t *networks = json_array(), *members = json_array();

	for (size_t i = 0; i < d->networks.capacity; i++)
		if (d->networks.entries[i].key)
			(void)json_array_append_new(networks, encode(&network_shape, d->networks.entries[i].value));
	for (size_t i = 0; i < d->members.capacity; i++)
		if (d->members.entries[i].key)
			(void)json_array_append_new(members, encode(&member_shape, d->members.entries[i].value));
	return json_pack("{s:b, s:o, s:o}", "full", 1, "networks", networks, "members", members);
}

int directory_load(struct directory *d, const char *path, struct err *e)
{
	struct str text = { 0 };
	json_error_t why;

	if (!fs_exists(AT_FDCWD, path))
		return 0;
	int r = fs_read_file(AT_FDCWD, path, FILE_MOST, &text, e);
	if (r < 0)
		return r;
	json_t *message = json_loadb(text.bytes, text.length, 0, &why);
	r = message ? directory_take(d, message, e) : err_set(e, ERR_INTERNAL, "%s: %s", path, why.text);
	json_decref(message);
	str_done(&text);
	return r;
}

int directory_save(const json_t *all, const char *path, struct err *e)
{
	own_str char *text = json_dumps(all, JSON_COMPACT | JSON_SORT_KEYS);

	return fs_write_file(AT_FDCWD, path, text, strlen(text), 0600, false, e);
}

const void **directory_list(const struct map *m)
{
	const void **list = mem_alloc_array(m->count + 1, sizeof *list);
	size_t count = 0;

	for (size_t i = 0; i < m->capacity; i++)
		if (m->entries[i].key)
			list[count++] = m->entries[i].value;
	return list;
}
