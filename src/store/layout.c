/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. The child reads the archive with libarchive and writes records to a pipe: a struct record, then `size_bytes` of
 * content. This side trusts neither: names are looked up, never opened; sizes are counted against what the archive's own bytes
 * allow; content is hashed as it is written to unnamed files of the session. Nothing of the archive but regular files (and
 * links between them) counts.
 */
#include "store/layout.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"
#include "store/cancel.h"
#include "store/child.h"
#include "store/oci.h"

#define NAME_MOST 200

struct record {
	enum { RECORD_FILE, RECORD_LINK, RECORD_END } type;
	uint64_t size_bytes;
	char name[NAME_MOST], target[NAME_MOST];
};

struct layout {
	struct store_session *session;
	struct layout_file *files;
	size_t count, capacity;
};

/* --- the child --- */

/* "./a/b" and "a/b" are one name; what is absolute or has ".." is none of ours and never found. */
static bool copy_name(char *out, const char *name)
{
	while (str_starts(name, "./"))
		name += 2;
	if (!*name || strlen(name) >= NAME_MOST)
		return false;
	memcpy(out, name, strlen(name) + 1);
	return true;
}

/* A link's target as a name from the root of the archive: "../a/layer.tar" in "b/layer.tar" is "a/layer.tar". */
static bool resolve_target(const char *name, const char *target, char *out)
{
	char folder[NAME_MOST];
	int length;

	(void)snprintf(folder, sizeof folder, "%s", name);
	char *slash = strrchr(folder, '/');
	*(slash ? slash : folder) = '\0';
	while (str_starts(target, "../")) {
		if (!folder[0])
			return false;
		slash = strrchr(folder, '/');
		*(slash ? slash : folder) = '\0';
		target += 3;
	}
	length = snprintf(out, NAME_MOST, "%s%s%s", folder, folder[0] ? "/" : "", target);
	return length > 0 && length < NAME_MOST;
}

static int archive_failure(struct archive *a, struct err *e)
{
	const char *why = archive_error_string(a);
	return err_set(e, ERR_CORRUPT, "the image archive cannot be read: %.200s", why ? why : "unknown format");
}

static int send_content(struct archive *a, const struct record *record, int output_fd, struct err *e)
{
	static char buffer[1 << 17];
	uint64_t left = record->size_bytes;

	while (left > 0) {
		la_ssize_t n = archive_read_data(a, buffer, left < sizeof buffer ? (size_t)left : sizeof buffer);
		if (n < 0)
			return archive_failure(a, e);
		if (n == 0)
			return err_set(e, ERR_CORRUPT, "the image archive ends within %s", record->name);
		int r = fs_write_all(output_fd, buffer, (size_t)n, e);
		if (r < 0)
			return r;
		left -= (uint64_t)n;
	}
	return 0;
}

static int send_entry(struct archive *a, struct archive_entry *entry, int output_fd, struct err *e)
{
	struct record record = { 0 };
	const char *name = archive_entry_pathname(entry);
	const char *hard = archive_entry_hardlink(entry), *soft = archive_entry_symlink(entry);

	if (!name || !copy_name(record.name, name))
		return 0;
	if (hard || soft) {
		record.type = RECORD_LINK;
		if (hard ? !copy_name(record.target, hard) : !resolve_target(record.name, soft, record.target))
			return 0;
	} else if (archive_entry_filetype(entry) != AE_IFREG) {
		return 0;
	}
	if (record.type == RECORD_FILE) {
		if (archive_entry_size(entry) < 0 || (uint64_t)archive_entry_size(entry) > OCI_LAYER_BYTES_MOST)
			return err_set(e, ERR_TOO_LARGE, "%s in the image archive is too large", record.name);
		record.size_bytes = (uint64_t)archive_entry_size(entry);
	}
	int r = fs_write_all(output_fd, &record, sizeof record, e);
	return r == 0 ? send_content(a, &record, output_fd, e) : r;
}

static int send_entries(struct archive *a, int input_fd, int output_fd, struct err *e)
{
	struct archive_entry *entry;
	int status, r = 0;

	if (archive_read_open_fd(a, input_fd, 1 << 17) != ARCHIVE_OK)
		return archive_failure(a, e);
	while (r == 0 && (status = archive_read_next_header(a, &entry)) != ARCHIVE_EOF) {
		if (status != ARCHIVE_OK && status != ARCHIVE_WARN)
			return archive_failure(a, e);
		r = send_entry(a, entry, output_fd, e);
	}
	const struct record end = { .type = RECORD_END };
	return r == 0 ? fs_write_all(output_fd, &end, sizeof end, e) : r;
}

int layout_unpack(int input_fd, int output_fd, struct err *e)
{
	struct archive *a = archive_read_new();

	if (!a)
		return err_set(e, ERR_INTERNAL, "libarchive does not start");
	(void)archive_read_support_filter_gzip(a);
	(void)archive_read_support_filter_xz(a);
	(void)archive_read_support_filter_zstd(a);
	(void)archive_read_support_format_tar(a);
	int r = send_entries(a, input_fd, output_fd, e);
	(void)archive_read_free(a);
	return r;
}

struct unpack {
	int input_fd, output_fd;
};

static int unpack(void *data, struct err *e)
{
	const struct unpack *u = data;

	cancel_in_child();
	return layout_unpack(u->input_fd, u->output_fd, e);
}

/* --- this side --- */

struct reading {
	struct layout *layout;
	int pipe;
	layout_progress_fn *progress;
	void *data;
	uint64_t done_bytes;
};

static int read_exactly(struct reading *g, void *bytes, size_t length, struct err *e)
{
	for (char *p = bytes; length > 0;) {
		struct pollfd fd = { .fd = g->pipe, .events = POLLIN };
		int r = cancel_poll(&fd, 1, -1, e);
		if (r < 0)
			return r;
		ssize_t n = read(g->pipe, p, length);
		if (n < 0)
			return err_errno(e, errno, "read from the archive's reader");
		if (n == 0)
			return err_set(e, ERR_CORRUPT, "the image archive ends too early");
		p += n;
		length -= (size_t)n;
	}
	return 0;
}

static int take_content(struct reading *g, struct layout_file *f, struct err *e)
{
	static char buffer[1 << 17];
	own_hash struct hash *hash = hash_new();
	own_fd int fd = -1;

	f->file = mem_printf("file-%zu", g->layout->count);
	int r = store_session_file(g->layout->session, f->file, &fd, e);
	for (uint64_t left = f->size_bytes; r == 0 && left > 0;) {
		size_t n = left < sizeof buffer ? (size_t)left : sizeof buffer;
		r = read_exactly(g, buffer, n, e);
		if (r == 0)
			r = fs_write_all(fd, buffer, n, e);
		if (r < 0)
			break;
		hash_add(hash, buffer, n);
		left -= n;
		g->progress(g->data, g->done_bytes += n);
	}
	f->digest = hash_end(hash);
	return r;
}

/* 1: there may be more. */
static int take_record(struct reading *g, struct err *e)
{
	struct layout *l = g->layout;
	struct record record;
	int r = read_exactly(g, &record, sizeof record, e);

	if (r < 0 || record.type == RECORD_END)
		return r;
	if (l->count == LAYOUT_FILES_MOST)
		return err_set(e, ERR_TOO_LARGE, "the image archive has more than %d files", LAYOUT_FILES_MOST);
	record.name[NAME_MOST - 1] = record.target[NAME_MOST - 1] = '\0';
	MEM_PUSH_ROOM(l->files, l->count, l->capacity);
	struct layout_file *f = &l->files[l->count];
	*f = (struct layout_file){ .name = mem_strdup(record.name), .size_bytes = record.size_bytes };
	if (record.type == RECORD_LINK)
		f->target = mem_strdup(record.target);
	else
		r = take_content(g, f, e);
	l->count++;
	return r < 0 ? r : 1;
}

int layout_read(struct store_session *session, int input_fd, layout_progress_fn *progress, void *data,
		struct layout **ret_layout, struct err *e)
{
	own_layout struct layout *l = mem_alloc(sizeof *l);
	own_fd int reading = -1, writing = -1;
	struct child c = { .pidfd = -1, .report_fd = -1 };
	int pair[2];

	if (pipe2(pair, O_CLOEXEC) < 0)
		return err_errno(e, errno, "pipe");
	reading = pair[0];
	writing = pair[1];
	struct unpack u = { input_fd, writing };
	const int fds[] = { input_fd, writing };
	int r = child_start("the reader of image archives", CHILD_PARSES, unpack, &u, fds, ARRAY_SIZE(fds), &c, e);
	if (r < 0)
		return r;
	(void)close(TAKE_FD(writing));
	l->session = session;
	struct reading g = { l, reading, progress, data, 0 };
	while ((r = take_record(&g, e)) > 0)
		continue;
	if (r == -EBADMSG) { /* an early end has its reason in the child */
		struct err theirs;
		int other = child_finish(&c, &theirs);
		if (other < 0 && e)
			*e = theirs;
		return other < 0 ? other : r;
	}
	if (r < 0) {
		child_kill(&c);
		return r;
	}
	r = child_finish(&c, e);
	if (r == 0)
		*ret_layout = TAKE(l);
	return r;
}

void layout_free(struct layout *l)
{
	for (size_t i = 0; i < l->count; i++) {
		free(l->files[i].name);
		free(l->files[i].target);
		free(l->files[i].file);
	}
	free(l->files);
	free(l);
}

const struct layout_file *layout_find(const struct layout *l, const char *name)
{
	for (int hops = 0; hops < 4; hops++) {
		const struct layout_file *found = NULL;
		for (size_t i = 0; i < l->count; i++)
			if (str_eq(l->files[i].name, name))
				found = &l->files[i]; /* as tar does: the last of equal names counts */
		if (!found || !found->target)
			return found;
		name = found->target;
	}
	return NULL;
}

int layout_blob(const struct layout *l, const struct digest *d, const struct layout_file **ret_file, struct err *e)
{
	char hex[DIGEST_HEX_SIZE], got[DIGEST_TEXT_SIZE];
	own_str char *name = mem_printf("blobs/sha256/%s", digest_hex(d, hex));
	const struct layout_file *f = layout_find(l, name);

	if (!f)
		return err_set(e, ERR_CORRUPT, "the image archive has no %s", name);
	if (!digest_eq(&f->digest, d))
		return err_set(e, ERR_CORRUPT, "%s in the image archive has the digest %s", name, digest_text(&f->digest, got));
	*ret_file = f;
	return 0;
}

int layout_open(const struct layout *l, const struct layout_file *f, int *ret_fd, struct err *e)
{
	return store_session_open(l->session, f->file, ret_fd, e);
}

int layout_document(const struct layout *l, const struct layout_file *f, struct str *ret_bytes, struct err *e)
{
	own_fd int fd = -1;
	int r = layout_open(l, f, &fd, e);

	if (r == 0)
		r = fs_read_fd(fd, OCI_DOCUMENT_BYTES_MOST, ret_bytes, e);
	return r < 0 ? err_wrap(e, "%s in the image archive", f->name) : 0;
}
