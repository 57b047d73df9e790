/* SPDX-License-Identifier: Apache-2.0 */
/* The tar that users copy into a workspace. What was understood is written by us and must be understood in the same way. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/mem.h"
#include "base/str.h"
#include "engine/workspace/tar.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct memory {
	const uint8_t *at;
	size_t left;
};

static ssize_t take(void *data, void *bytes, size_t most)
{
	struct memory *m = data;
	size_t n = most < m->left ? most : m->left;

	if (n)
		memcpy(bytes, m->at, n);
	m->at += n;
	m->left -= n;
	return (ssize_t)n;
}

static void check(bool holds)
{
	if (!holds)
		abort();
}

static void compare(const struct tar_entry *a, const struct tar_entry *b)
{
	check(a->mode == b->mode && str_eq(a->path, b->path) && str_eq(a->target, b->target) && a->hard_link == b->hard_link &&
	      a->size == b->size);
	check(a->seconds == b->seconds && a->uid == b->uid && a->gid == b->gid && a->major == b->major && a->minor == b->minor);
	check(a->xattr_count == b->xattr_count && a->piece_count == b->piece_count && a->sparse == b->sparse);
	for (size_t i = 0; i < a->xattr_count; i++)
		check(str_eq(a->xattrs[i].name, b->xattrs[i].name) && a->xattrs[i].length == b->xattrs[i].length &&
		      memcmp(a->xattrs[i].value, b->xattrs[i].value, a->xattrs[i].length) == 0);
	for (size_t i = 0; i < a->piece_count; i++)
		check(a->pieces[i].offset == b->pieces[i].offset && a->pieces[i].length == b->pieces[i].length);
}

/* What a tar can say of an entry but we never write: devices beyond seven digits, a folder by its last slash or a name longer
 * than a header takes. */
static bool is_ours(const struct tar_entry *entry)
{
	size_t most = TAR_EXTENDED_MOST / 4, total = strlen(entry->path) + (entry->target ? strlen(entry->target) : 0) + 256;

	for (size_t i = 0; i < entry->xattr_count; i++)
		total += strlen(entry->xattrs[i].name) + entry->xattrs[i].length + 32;
	return entry->major < 1u << 21 && entry->minor < 1u << 21 && total < most && (S_ISREG(entry->mode) || !entry->sparse) &&
	       !(S_ISREG(entry->mode) && str_ends(entry->path, "/")) && entry->seconds > -(INT64_C(1) << 60);
}

static void write_again(const struct tar_entry *entry)
{
	own_strbuf struct str out = { 0 };
	struct tar_entry again;
	struct err e;

	if (!is_ours(entry))
		return;
	tar_header(entry, &out);
	struct memory m = { (const uint8_t *)out.bytes, out.length };
	struct tar_reader r = { .read = take, .data = &m };
	check(tar_next(&r, &again, &e) == 1);
	compare(entry, &again);
	tar_entry_done(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct memory m = { data, size };
	struct tar_reader r = { .read = take, .data = &m };
	struct tar_entry entry;
	struct err e;
	char bytes[700];

	while (tar_next(&r, &entry, &e) > 0) {
		size_t n = r.left < sizeof bytes ? (size_t)r.left : sizeof bytes;
		bool there = tar_content(&r, bytes, n, &e) == 0;
		write_again(&entry);
		tar_entry_done(&entry);
		if (!there)
			break;
	}
	return 0;
}
