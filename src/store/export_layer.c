/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. The partitions are read by a child without rights, which writes the (packed) tar to one pipe and its digest to
 * another in the end. libarchive's "raw" format packs: it has the filters, and gzip and zstd without times or names give equal
 * bytes for equal input.
 */
#include "store/export_layer.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"
#include "store/cancel.h"
#include "store/child.h"
#include "store/erofs_reader.h"
#include "store/tar_export.h"
#include "store/tar_writer.h"

#define OUTPUT_BYTES (1U << 18)
#define WATCH_MS 100

/* --- the child --- */

/* Memory that both see: how far the child is. */
struct shared {
	_Atomic uint64_t plain_bytes, sockets;
};

struct output {
	const struct layer_source *source;
	struct shared *shared;
	int fd, digest_fd;
	struct hash *hash;
	struct archive *packed; /* NULL: plain */
	char *buffer; /* small pieces are gathered */
	size_t length;
};

static int packing_failed(struct archive *a, struct err *e)
{
	const char *why = archive_error_string(a);
	return err_set(e, ERR_INTERNAL, "cannot pack the layer: %s", why ? why : "unknown error");
}

static int flush(struct output *o, struct err *e)
{
	size_t length = o->length;

	o->length = 0;
	if (length == 0)
		return 0;
	hash_add(o->hash, o->buffer, length);
	o->shared->plain_bytes += length;
	if (!o->packed)
		return fs_write_all(o->fd, o->buffer, length, e);
	return archive_write_data(o->packed, o->buffer, length) == (la_ssize_t)length ? 0 : packing_failed(o->packed, e);
}

static int gather(void *data, const void *bytes, size_t length, struct err *e)
{
	struct output *o = data;

	for (const char *p = bytes; length > 0;) {
		size_t room = OUTPUT_BYTES - o->length, n = length < room ? length : room;
		memcpy(o->buffer + o->length, p, n);
		o->length += n;
		p += n;
		length -= n;
		int r = o->length == OUTPUT_BYTES ? flush(o, e) : 0;
		if (r < 0)
			return r;
	}
	return 0;
}

static int start_packing(struct output *o, struct err *e)
{
	bool gzip = o->source->compression == LAYER_GZIP;

	if (o->source->compression == LAYER_PLAIN)
		return 0;
	struct archive *a = o->packed = archive_write_new();
	struct archive_entry *entry = archive_entry_new();
	archive_entry_set_filetype(entry, AE_IFREG);
	archive_entry_set_pathname(entry, "layer");
	bool ok = archive_write_set_format_raw(a) == ARCHIVE_OK && archive_write_set_bytes_per_block(a, 0) == ARCHIVE_OK &&
		  (gzip ? archive_write_add_filter_gzip(a) : archive_write_add_filter_zstd(a)) == ARCHIVE_OK &&
		  archive_write_set_options(a, gzip ? "gzip:compression-level=6,gzip:!timestamp" :
						      "zstd:compression-level=3") == ARCHIVE_OK &&
		  archive_write_open_fd(a, o->fd) == ARCHIVE_OK && archive_write_header(a, entry) == ARCHIVE_OK;
	archive_entry_free(entry);
	return ok ? 0 : packing_failed(a, e);
}

static int export_stack(struct output *o, struct err *e)
{
	own_str struct erofs_reader **readers = mem_alloc_array(o->source->count, sizeof *readers);
	struct tar_writer writer = { gather, o };
	size_t opened = 0;
	int r = 0;

	while (r == 0 && opened < o->source->count) {
		r = erofs_open(o->source->fds[opened], &readers[opened], e);
		opened += r == 0;
	}
	if (r == 0)
		r = tar_export(readers, o->source->count, o->source->whole, &writer, e);
	o->shared->sockets = writer.sockets;
	while (opened > 0)
		erofs_close(readers[--opened]);
	return r == 0 ? flush(o, e) : r;
}

static int export_in_child(void *data, struct err *e)
{
	struct output *o = data;
	own_hash struct hash *hash = o->hash = hash_new();
	own_str char *buffer = o->buffer = mem_alloc(OUTPUT_BYTES);

	int r = start_packing(o, e);
	if (r == 0)
		r = export_stack(o, e);
	if (r == 0 && o->packed && archive_write_close(o->packed) != ARCHIVE_OK)
		r = packing_failed(o->packed, e);
	struct digest plain = hash_end(hash);
	return r == 0 ? fs_write_all(o->digest_fd, &plain, sizeof plain, e) : r;
}

/* --- the parent --- */

static void look(const struct layer_source *source, const struct shared *shared)
{
	struct layer_watch *watch = source->watch;

	if (watch && watch->progress)
		watch->progress(watch->data, shared->plain_bytes);
}

static int relay(const struct output *o, int fd, layer_sink_fn *sink, void *data, struct err *e)
{
	own_str char *buffer = mem_alloc(OUTPUT_BYTES);

	for (;;) {
		struct pollfd in = { .fd = fd, .events = POLLIN };
		int r = cancel_poll(&in, 1, WATCH_MS, e);
		if (r < 0)
			return r;
		look(o->source, o->shared);
		if (r == 0)
			continue;
		ssize_t n = read(fd, buffer, OUTPUT_BYTES);
		if (n < 0 && (errno == EINTR || errno == EAGAIN))
			continue;
		if (n <= 0)
			return n < 0 ? err_errno(e, errno, "read the layer") : 0;
		r = sink(data, buffer, (size_t)n, e);
		if (r < 0)
			return r;
	}
}

static int open_pipe(int *ret_read, int *ret_write, struct err *e)
{
	int pair[2];

	if (pipe2(pair, O_CLOEXEC) < 0)
		return err_errno(e, errno, "export a layer");
	*ret_read = pair[0];
	*ret_write = pair[1];
	return 0;
}

static int export_shared(const struct layer_source *source, struct shared *shared, layer_sink_fn *sink, void *data,
			 struct digest *ret_plain, struct err *e)
{
	own_fd int tar_read = -1, tar_write = -1, digest_read = -1, digest_write = -1;
	struct child child = { .pidfd = -1, .report_fd = -1 };
	struct digest plain;

	int r = open_pipe(&tar_read, &tar_write, e);
	if (r == 0)
		r = open_pipe(&digest_read, &digest_write, e);
	own_str int *fds = mem_alloc_array(source->count + 2, sizeof *fds);
	memcpy(fds, source->fds, source->count * sizeof *fds);
	fds[source->count] = tar_write;
	fds[source->count + 1] = digest_write;
	struct output o = { .source = source, .shared = shared, .fd = tar_write, .digest_fd = digest_write };
	if (r == 0)
		r = child_start("the exporter", CHILD_PARSES, export_in_child, &o, fds, source->count + 2, &child, e);
	if (r < 0)
		return r;
	(void)fcntl(tar_read, F_SETPIPE_SZ, 1 << 20); /* fewer switches; a limit of the user may forbid it */
	(void)close(TAKE_FD(tar_write));
	(void)close(TAKE_FD(digest_write));
	r = relay(&o, tar_read, sink, data, e);
	if (r < 0) {
		child_kill(&child);
		return r;
	}
	r = child_finish(&child, e);
	if (r == 0 && read(digest_read, &plain, sizeof plain) != (ssize_t)sizeof plain)
		r = err_set(e, ERR_INTERNAL, "the exporter gave no digest");
	if (r == 0)
		*ret_plain = plain;
	return r;
}

int layer_export(const struct layer_source *source, layer_sink_fn *sink, void *data, struct digest *ret_plain, struct err *e)
{
	struct shared *shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (shared == MAP_FAILED)
		return err_errno(e, errno, "export a layer");
	int r = export_shared(source, shared, sink, data, ret_plain, e);
	if (r == 0)
		look(source, shared);
	if (r == 0 && source->watch)
		source->watch->sockets += shared->sockets;
	(void)munmap(shared, sizeof *shared);
	return r;
}
