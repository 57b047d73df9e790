/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. Each index is a list of keys and values, written twice: as text, for busybox and for people, and as the tree that
 * libkmod searches (libkmod/libkmod-index.c of kmod): a node has the part of the key that all below it share, children by the
 * next byte, and the values of the key that ends in it; offsets have flags in their upper four bits; numbers are big-endian.
 * The tree follows from the sorted list: what the first and the last key of a range share, all of the range share.
 *
 * In modules.dep the nearest stand first and what they need behind them: modprobe loads from the end.
 */
#include "store/kernel_index.h"

#include <endian.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/map.h"
#include "base/mem.h"
#include "base/own.h"

#define MAGIC           0xB007F457u
#define VERSION         0x00020001u
#define HAS_PREFIX      0x80000000u
#define HAS_VALUES      0x40000000u
#define HAS_CHILDREN    0x20000000u
#define DEPENDS_DEEPEST 64

struct key {
	char *key, *value;
	uint32_t priority; /* values of one key in this order */
};

struct index {
	struct key *keys;
	size_t count, room;
};

static void index_done(struct index *x)
{
	for (size_t i = 0; i < x->count; i++) {
		free(x->keys[i].key);
		free(x->keys[i].value);
	}
	free(x->keys);
}
#define own_index __attribute__((cleanup(index_done)))

static void add_key(struct index *x, char *key, char *value, size_t priority)
{
	MEM_PUSH_ROOM(x->keys, x->count, x->room);
	x->keys[x->count++] = (struct key){ key, value, (uint32_t)priority };
}

static int compare_keys(const void *a, const void *b)
{
	const struct key *x = a, *y = b;
	int order = strcmp(x->key, y->key);

	return order ? order : x->priority < y->priority ? -1 : x->priority > y->priority ? 1 : strcmp(x->value, y->value);
}

/* --- the tree --- */

static void put_u32(struct str *out, uint32_t n)
{
	n = htobe32(n);
	str_add(out, &n, sizeof n);
}

/* Keys that share their first `depth` bytes; returns the node's offset with its flags. */
static uint32_t put_node(struct str *out, const struct key *keys, size_t count, size_t depth)
{
	const char *first = keys[0].key, *last = keys[count - 1].key;
	uint32_t children[128] = { 0 }, flags = 0;
	size_t end = depth, values = 0, low = 128, high = 0;

	while (first[end] && first[end] == last[end])
		end++;
	while (values < count && !keys[values].key[end])
		values++;
	for (size_t i = values, next; i < count; i = next) {
		size_t byte = keys[i].key[end] & 0x7f;
		for (next = i + 1; next < count && keys[next].key[end] == keys[i].key[end];)
			next++;
		children[byte] = put_node(out, keys + i, next - i, end + 1);
		low = byte < low ? byte : low;
		high = byte > high ? byte : high;
	}
	uint32_t offset = (uint32_t)out->length;
	if (end > depth) {
		flags |= HAS_PREFIX;
		str_add(out, first + depth, end - depth);
		str_putc(out, '\0');
	}
	if (low < 128) {
		flags |= HAS_CHILDREN;
		str_putc(out, (char)low);
		str_putc(out, (char)high);
		for (size_t i = low; i <= high; i++)
			put_u32(out, children[i]);
	}
	if (values) {
		flags |= HAS_VALUES;
		put_u32(out, (uint32_t)values);
		for (size_t i = 0; i < values; i++) {
			put_u32(out, keys[i].priority);
			str_add(out, keys[i].value, strlen(keys[i].value) + 1);
		}
	}
	return offset | flags;
}

static int write_tree(struct index *x, const char *name, kernel_index_fn *fn, void *data, struct err *e)
{
	own_strbuf struct str out = { 0 };

	put_u32(&out, MAGIC);
	put_u32(&out, VERSION);
	put_u32(&out, 0);
	if (x->count) {
		qsort(x->keys, x->count, sizeof *x->keys, compare_keys);
		uint32_t root = htobe32(put_node(&out, x->keys, x->count, 0));
		memcpy(out.bytes + 8, &root, sizeof root);
	}
	return fn(data, name, &out, e);
}

/* --- what depends on what --- */

struct depends {
	const struct kernel_index_module *modules;
	struct map by_name;                        /* to the module */
	size_t *seen;                              /* of each module: number of the one for which it was seen last */
	const struct kernel_index_module **needed; /* of that one, the deepest first */
	size_t needed_count;
};

/* Each module once, so a circle ends. */
static void collect(struct depends *d, const struct kernel_index_module *m, size_t number, int depth)
{
	own_str char *names = mem_strdup(m->depends);
	char *save = NULL;

	d->seen[m - d->modules] = number;
	for (char *name = strtok_r(names, ",", &save); name && depth < DEPENDS_DEEPEST; name = strtok_r(NULL, ",", &save)) {
		const struct kernel_index_module *other = map_get(&d->by_name, name);
		if (!other || d->seen[other - d->modules] == number)
			continue;
		collect(d, other, number, depth + 1);
		d->needed[d->needed_count++] = other;
	}
}

static int write_depends(struct depends *d, size_t count, kernel_index_fn *fn, void *data, struct err *e)
{
	own_strbuf struct str text = { 0 };
	own_index struct index x = { 0 };

	for (size_t i = 0; i < count; i++) {
		const struct kernel_index_module *m = &d->modules[i];
		struct str line = { 0 };
		d->needed_count = 0;
		collect(d, m, i + 1, 0);
		str_printf(&line, "%s:", m->path);
		for (size_t n = d->needed_count; n-- > 0;)
			str_printf(&line, " %s", d->needed[n]->path);
		str_printf(&text, "%s\n", str_text(&line));
		add_key(&x, mem_strdup(m->name), str_take(&line), i);
	}
	int r = fn(data, "modules.dep", &text, e);
	return r < 0 ? r : write_tree(&x, "modules.dep.bin", fn, data, e);
}

/* --- what modules say of themselves --- */

/* The next text "key=value" of the module with this key; *at moves. */
static const char *next_info(const struct kernel_index_module *m, const char *key, size_t *at)
{
	size_t n = strlen(key);

	while (*at < m->infos->length) {
		const char *text = m->infos->bytes + *at;
		*at += strlen(text) + 1;
		if (strncmp(text, key, n) == 0 && text[n] == '=')
			return text + n + 1;
	}
	return NULL;
}

/* As modprobe asks: '-' is '_', but for what stands in brackets. Bytes that no alias has are none. */
static char *alias_key(const char *alias)
{
	char *key = mem_strdup(alias);
	bool inside = false;

	for (char *at = key; *at; at++) {
		inside = *at == '[' ? true : *at == ']' ? false : inside;
		if (*at == '-' && !inside)
			*at = '_';
		if (*at & 0x80)
			*at = '?';
	}
	return key;
}

static int write_aliases(const struct depends *d, size_t count, kernel_index_fn *fn, void *data, struct err *e)
{
	own_strbuf struct str text = { 0 }, soft = { 0 };
	own_index struct index x = { 0 };

	str_puts(&text, "# Aliases extracted from modules themselves.\n");
	str_puts(&soft, "# Soft dependencies extracted from modules themselves.\n");
	for (size_t i = 0; i < count; i++) {
		const struct kernel_index_module *m = &d->modules[i];
		const char *value;
		for (size_t at = 0; (value = next_info(m, "alias", &at));) {
			str_printf(&text, "alias %s %s\n", value, m->name);
			add_key(&x, alias_key(value), mem_strdup(m->name), i);
		}
		for (size_t at = 0; (value = next_info(m, "softdep", &at));)
			str_printf(&soft, "softdep %s %s\n", m->name, value);
	}
	int r = fn(data, "modules.alias", &text, e);
	if (r >= 0)
		r = fn(data, "modules.softdep", &soft, e);
	return r < 0 ? r : write_tree(&x, "modules.alias.bin", fn, data, e);
}

/* Of "char-major-10-200" the "10-200"; not of one with a wildcard. */
static const char *one_number(const char *alias)
{
	static const char *const starts[] = { "char-major-", "block-major-" };

	for (size_t i = 0; i < ARRAY_SIZE(starts); i++) {
		const char *number = alias + strlen(starts[i]),
			   *dash = str_starts(alias, starts[i]) ? strchr(number, '-') : NULL;
		if (dash && dash[1] && strspn(number, "0123456789-") == strlen(number))
			return number;
	}
	return NULL;
}

/* Device files that load a module when they are opened: "tun net/tun c10:200". */
static int write_device_names(const struct depends *d, size_t count, kernel_index_fn *fn, void *data, struct err *e)
{
	own_strbuf struct str text = { 0 };

	str_puts(&text, "# Device nodes to trigger on-demand module loading.\n");
	for (size_t i = 0; i < count; i++) {
		const char *value, *name = NULL, *number = NULL;
		char kind = 'c';
		for (size_t at = 0; (value = next_info(&d->modules[i], "alias", &at));) {
			if (str_starts(value, "devname:"))
				name = value + strlen("devname:");
			else if (!number && (number = one_number(value)))
				kind = *value;
		}
		if (name && number)
			str_printf(&text, "%s %s %c%.*s:%s\n", d->modules[i].name, name, kind, (int)strcspn(number, "-"),
				   number, strchr(number, '-') + 1);
	}
	return fn(data, "modules.devname", &text, e);
}

/* "kernel/fs/fuse/fuse.ko", a line each: what is built in needs no loading. */
static int write_builtin(const char *builtin, kernel_index_fn *fn, void *data, struct err *e)
{
	own_str char *lines = mem_strdup(builtin);
	own_index struct index x = { 0 };
	char *save = NULL;

	for (char *line = strtok_r(lines, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		char *slash = strrchr(line, '/'), *name = slash ? slash + 1 : line, *end = strstr(name, ".ko");
		if (!end || end == name)
			continue;
		*end = '\0';
		add_key(&x, alias_key(name), mem_strdup(""), 0);
	}
	return write_tree(&x, "modules.builtin.bin", fn, data, e);
}

int kernel_index_write(const struct kernel_index_module *modules, size_t count, const char *builtin, kernel_index_fn *fn,
		       void *data, struct err *e)
{
	struct depends d = { .modules = modules,
			     .seen = mem_alloc_array(count + 1, sizeof *d.seen),
			     .needed = mem_alloc_array(count + 1, sizeof *d.needed) };
	own_index struct index none = { 0 };

	for (size_t i = 0; i < count; i++)
		map_put(&d.by_name, modules[i].name, (void *)(uintptr_t)&modules[i]);
	int r = write_depends(&d, count, fn, data, e);
	if (r >= 0)
		r = write_aliases(&d, count, fn, data, e);
	if (r >= 0)
		r = write_device_names(&d, count, fn, data, e);
	if (r >= 0)
		r = write_builtin(builtin, fn, data, e);
	if (r >= 0)
		r = write_tree(&none, "modules.symbols.bin", fn, data, e);
	if (r >= 0)
		r = write_tree(&none, "modules.builtin.alias.bin", fn, data, e);
	map_done(&d.by_name);
	free(d.seen);
	free(d.needed);
	return r;
}
