/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What templates take on disk: which are there, which go when there are too many, and what the site's administrators are shown
 * and remove. A template that goes is missed by nobody who uses it, for its memory has another link there.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/fs.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"
#include "model/memory.h"
#include "node/template_private.h"

#define MANIFEST_MOST (1u << 20)
#define PREFIX_LEAST 4 /* of a name, as of an id */

struct template_found {
	char name[DIGEST_HEX_SIZE];
	uint64_t bytes;
	struct timespec used;
};

static bool look(int folder, const char *name, struct template_found *ret_found)
{
	own_fd int fd = openat(folder, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	struct stat ram, state, manifest;

	if (fd < 0 || fstatat(fd, MEMORY_RAM, &ram, AT_SYMLINK_NOFOLLOW) < 0 ||
	    fstatat(fd, MEMORY_STATE, &state, AT_SYMLINK_NOFOLLOW) < 0 ||
	    fstatat(fd, MEMORY_MANIFEST, &manifest, AT_SYMLINK_NOFOLLOW) < 0)
		return false;
	*ret_found = (struct template_found){ .bytes = (uint64_t)(ram.st_blocks + state.st_blocks + manifest.st_blocks) * 512,
					      .used = manifest.st_mtim };
	(void)snprintf(ret_found->name, sizeof ret_found->name, "%s", name);
	return true;
}

/* What is there, in no order; free it. */
static struct template_found *found(const struct templates *t, size_t *ret_count)
{
	own_dir DIR *dir = opendir(t->folder);
	struct template_found *all = NULL;
	size_t count = 0;

	for (struct dirent *entry; dir && (entry = readdir(dir));) {
		struct digest d;
		if (digest_parse_hex(entry->d_name, &d) < 0)
			continue;
		all = mem_grow_array(all, count + 1, sizeof *all);
		count += look(dirfd(dir), entry->d_name, &all[count]);
	}
	*ret_count = count;
	return all;
}

static bool earlier(const struct timespec *a, const struct timespec *b)
{
	return a->tv_sec != b->tv_sec ? a->tv_sec < b->tv_sec : a->tv_nsec < b->tv_nsec;
}

void templates_prune(struct templates *t)
{
	size_t count = 0;
	own_str struct template_found *all = found(t, &count);
	uint64_t sum = 0;

	for (size_t i = 0; i < count; i++)
		sum += all[i].bytes;
	while (count && sum > t->node->config.template_bytes) {
		size_t oldest = 0;
		for (size_t i = 1; i < count; i++)
			if (earlier(&all[i].used, &all[oldest].used))
				oldest = i;
		log_info("template %s makes room", all[oldest].name);
		template_remove(t, all[oldest].name);
		sum -= all[oldest].bytes;
		all[oldest] = all[--count];
	}
}

/* What an agent left that died, and all if they are switched off. */
void templates_clean(struct templates *t)
{
	own_dir DIR *dir = opendir(t->folder);

	for (struct dirent *entry; dir && (entry = readdir(dir));)
		if (str_ends(entry->d_name, TEMPLATE_NEW))
			(void)!fs_remove_tree(dirfd(dir), entry->d_name, NULL);
	templates_prune(t);
}

/* --- for administrators --- */

static json_t *view(const struct templates *t, const struct template_found *f)
{
	own_str char *path = mem_printf("%s/%s/" MEMORY_MANIFEST, t->folder, f->name);
	own_strbuf struct str text = { 0 };
	struct memory_manifest m = { 0 };
	char used[LOG_UTC_SIZE];

	if (fs_read_file(AT_FDCWD, path, MANIFEST_MOST, &text, NULL) < 0 ||
	    memory_manifest_decode(str_text(&text), text.length, MEMORY_MANIFEST, &m, NULL) < 0)
		return NULL; /* it goes when it is used */
	own_str char *when = mem_printf("%s.000Z", log_utc(f->used.tv_sec, used));
	json_t *json = json_pack("{s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:s}", "id", f->name, "engine",
				 spec_engine_names[m.engine], "architecture", m.architecture, "emulator", m.version, "memory",
				 (json_int_t)m.memory_bytes, "processors", (json_int_t)m.processors, "size",
				 (json_int_t)f->bytes, "used", when);
	memory_manifest_done(&m);
	return json;
}

static int later_first(const void *a, const void *b)
{
	const struct template_found *one = a, *other = b;

	return earlier(&one->used, &other->used) ? 1 : earlier(&other->used, &one->used) ? -1 : strcmp(one->name, other->name);
}

json_t *templates_list(const struct templates *t)
{
	size_t count = 0;
	own_str struct template_found *all = found(t, &count);
	json_t *items = json_array();

	if (count)
		qsort(all, count, sizeof *all, later_first);
	for (size_t i = 0; i < count; i++) {
		json_t *json = view(t, &all[i]);
		if (json)
			(void)json_array_append_new(items, json);
	}
	return items;
}

int templates_drop(struct templates *t, const char *prefix, struct err *e)
{
	size_t count = 0, matches = 0, at = 0;
	own_str struct template_found *all = found(t, &count);

	for (size_t i = 0; strlen(prefix) >= PREFIX_LEAST && i < count; i++)
		if (str_starts(all[i].name, prefix)) {
			matches++;
			at = i;
		}
	if (matches == 0)
		return err_set(e, ERR_NOT_FOUND, "no template '%s' on this host", prefix);
	if (matches > 1)
		return err_set(e, ERR_CONFLICT, "%zu templates begin with '%s'", matches, prefix);
	template_remove(t, all[at].name);
	log_info("template %s was removed by an administrator", all[at].name);
	return 0;
}
