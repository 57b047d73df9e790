/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. A layout is a tar whose entries have their sizes in front, so a compressed layer is made in a file of the session
 * first; partitions go out as they are. The files of a layout come in the order oci-layout, layers, configuration, manifest,
 * index.json: each is named by its digest, which is known when it is written. Equal images give equal bytes: no times, no names
 * of people, one compression level.
 */
#include "store/export_job.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"
#include "store/cancel.h"
#include "store/disk_export.h"
#include "store/export.h"
#include "store/export_layer.h"
#include "store/oci.h"
#include "store/tar_header.h"

struct part {
	struct digest digest;
	uint64_t size_bytes;
	int fd;
};

struct job {
	struct store *store;
	struct store_session *session;
	const struct export_wire *request;
	int output_fd;
	export_progress_fn *report;
	void *report_data;
	struct part *parts;
	size_t part_count;
	uint64_t done_bytes, total_bytes;
	uint64_t settled_bytes, part_bytes; /* done with; and of the part under way */
	struct layer_watch watch;
};

static int put(struct job *j, const void *bytes, size_t length, struct err *e)
{
	struct pollfd out = { .fd = j->output_fd, .events = POLLOUT };

	for (const char *p = bytes; length > 0;) {
		size_t n = length < 65536 ? length : 65536;
		int r = cancel_poll(&out, 1, -1, e);
		if (r >= 0)
			r = fs_write_all(j->output_fd, p, n, e);
		if (r < 0)
			return r;
		p += n;
		length -= n;
	}
	return 0;
}

/* --- the outer tar --- */

static int put_header(struct job *j, const char *name, uint64_t bytes, struct err *e)
{
	uint8_t header[TAR_BLOCK];

	tar_header_fill(name, bytes, header);
	return put(j, header, sizeof header, e);
}

static int put_padding(struct job *j, uint64_t bytes, struct err *e)
{
	static const char zeros[TAR_BLOCK];
	return bytes % TAR_BLOCK ? put(j, zeros, TAR_BLOCK - bytes % TAR_BLOCK, e) : 0;
}

static int put_text(struct job *j, const char *name, const char *text, struct err *e)
{
	size_t length = strlen(text);
	int r = put_header(j, name, length, e);

	if (r == 0)
		r = put(j, text, length, e);
	return r == 0 ? put_padding(j, length, e) : r;
}

static char *blob_name(const struct digest *d)
{
	char hex[DIGEST_HEX_SIZE];
	return mem_printf("blobs/sha256/%s", digest_hex(d, hex));
}

static int put_blob_text(struct job *j, const char *text, struct digest *ret_digest, struct err *e)
{
	*ret_digest = hash_bytes(text, strlen(text));
	own_str char *name = blob_name(ret_digest);
	return put_text(j, name, text, e);
}

static void advance(struct job *j, uint64_t bytes)
{
	j->done_bytes += bytes;
	j->settled_bytes = j->done_bytes;
	j->report(j->report_data, "write", j->done_bytes, j->total_bytes);
}

/* A tar has about the bytes of its partition, which are what counts. */
static void packed(void *data, uint64_t plain_bytes)
{
	struct job *j = data;

	j->done_bytes = j->settled_bytes + (plain_bytes < j->part_bytes ? plain_bytes : j->part_bytes);
	j->report(j->report_data, j->request->format == EXPORT_TAR ? "write" : "pack", j->done_bytes, j->total_bytes);
}

static void begin_part(struct job *j, uint64_t bytes)
{
	j->settled_bytes = j->done_bytes;
	j->part_bytes = bytes;
}

static void end_part(struct job *j)
{
	j->done_bytes = j->settled_bytes;
	advance(j, j->part_bytes);
}

static int put_file(struct job *j, const struct digest *d, int fd, uint64_t bytes, bool counts, struct err *e)
{
	static char buffer[1 << 18];
	own_str char *name = blob_name(d);
	int r = put_header(j, name, bytes, e);

	for (uint64_t at = 0; r == 0 && at < bytes;) {
		size_t most = bytes - at < sizeof buffer ? (size_t)(bytes - at) : sizeof buffer;
		ssize_t n = pread(fd, buffer, most, (off_t)at);
		if (n <= 0)
			return err_errno(e, n < 0 ? errno : EIO, "read %s", name);
		r = put(j, buffer, (size_t)n, e);
		at += (uint64_t)n;
		if (counts)
			advance(j, (uint64_t)n);
	}
	return r == 0 ? put_padding(j, bytes, e) : r;
}

/* --- layers --- */

struct packing {
	int fd;
	struct hash *hash;
	uint64_t bytes;
};

static int pack(void *data, const void *bytes, size_t length, struct err *e)
{
	struct packing *p = data;

	hash_add(p->hash, bytes, length);
	p->bytes += length;
	return fs_write_all(p->fd, bytes, length, e);
}

static int put_packed(struct job *j, size_t index, enum layer_compression compression, struct oci_layer *ret_layer,
		      struct digest *ret_plain, struct err *e)
{
	own_hash struct hash *hash = hash_new();
	own_fd int fd = -1;
	struct packing p = { .hash = hash };
	const struct layer_source source = { &j->parts[index].fd, 1, false, compression, &j->watch };
	char name[32];

	begin_part(j, j->parts[index].size_bytes);
	(void)snprintf(name, sizeof name, "layer-%zu", index);
	int r = store_session_file(j->session, name, &fd, e);
	p.fd = fd;
	if (r == 0)
		r = layer_export(&source, pack, &p, ret_plain, e);
	int number = fault_point("export-packed");
	if (r == 0 && number)
		r = err_errno(e, number, "export-packed");
	if (r < 0)
		return r;
	end_part(j);
	*ret_layer = (struct oci_layer){ compression == LAYER_ZSTD ? MEDIA_OCI_LAYER "+zstd" : MEDIA_OCI_LAYER "+gzip",
					 hash_end(hash), p.bytes };
	return put_file(j, &ret_layer->digest, fd, p.bytes, false, e);
}

static int put_layer(struct job *j, size_t index, struct oci_layer *ret_layer, struct digest *ret_plain, struct err *e)
{
	const struct part *part = &j->parts[index];

	if (j->request->format != EXPORT_PARTITIONS)
		return put_packed(j, index, j->request->format == EXPORT_OCI_ZSTD ? LAYER_ZSTD : LAYER_GZIP, ret_layer,
				  ret_plain, e);
	*ret_layer = (struct oci_layer){ MEDIA_PARTITION_EROFS, part->digest, part->size_bytes };
	*ret_plain = part->digest;
	for (size_t i = 0; i < index; i++)
		if (digest_eq(&j->parts[i].digest, &part->digest))
			return 0; /* a layout holds each blob once */
	return put_file(j, &part->digest, part->fd, part->size_bytes, true, e);
}

static int put_layout(struct job *j, struct err *e)
{
	own_str struct oci_layer *layers = mem_alloc_array(j->part_count, sizeof *layers);
	own_str struct digest *ids = mem_alloc_array(j->part_count, sizeof *ids);
	const struct image *image = j->request->image;
	struct digest config, manifest;
	static const char zeros[2 * TAR_BLOCK];

	int r = put_text(j, "oci-layout", "{\"imageLayoutVersion\":\"1.0.0\"}", e);
	for (size_t i = 0; r == 0 && i < j->part_count; i++)
		r = put_layer(j, i, &layers[i], &ids[i], e);
	own_str char *config_text = oci_write_config(image->architecture ? image->architecture : oci_machine_architecture(),
						     image->run, ids, j->part_count);
	if (r == 0)
		r = put_blob_text(j, config_text, &config, e);
	own_str char *manifest_text = oci_write_manifest(&config, strlen(config_text), layers, j->part_count, NULL);
	if (r == 0)
		r = put_blob_text(j, manifest_text, &manifest, e);
	own_str char *index = oci_write_index(&manifest, strlen(manifest_text), j->request->tag);
	if (r == 0)
		r = put_text(j, "index.json", index, e);
	return r == 0 ? put(j, zeros, sizeof zeros, e) : r;
}

static int put_bytes(void *data, const void *bytes, size_t length, struct err *e) { return put(data, bytes, length, e); }

static int put_tar(struct job *j, struct err *e)
{
	own_str int *fds = mem_alloc_array(j->part_count, sizeof *fds);
	struct digest plain;

	for (size_t i = 0; i < j->part_count; i++)
		fds[i] = j->parts[i].fd;
	const struct layer_source source = { fds, j->part_count, true, LAYER_PLAIN, &j->watch };
	begin_part(j, j->total_bytes);
	int r = layer_export(&source, put_bytes, j, &plain, e);
	if (r == 0)
		end_part(j);
	return r;
}

/* --- disks --- */

static int put_disk_bytes(void *data, const void *bytes, size_t length, struct err *e) { return put(data, bytes, length, e); }

static void disk_advance(void *data, const char *step, uint64_t done_bytes)
{
	struct job *j = data;
	j->report(j->report_data, step, done_bytes, j->total_bytes);
}

static int open_disk(struct job *j, size_t index, struct disk_export_disk *d, struct err *e)
{
	const struct part *part = &j->parts[index];
	const struct disk_window w = { part->fd, 0, part->size_bytes };
	own_str char *name = mem_printf("disk-%zu", index);

	d->scratch = -1;
	memcpy(&d->id, part->digest.bytes, sizeof d->id);
	int r = disk_open(&w, DISK_RAW, NULL, &d->disk, e);
	return r == 0 && j->request->format == EXPORT_OVA ? store_session_file(j->session, name, &d->scratch, e) : r;
}

static int put_disks(struct job *j, struct err *e)
{
	own_str struct disk_export_disk *disks = mem_alloc_array(j->part_count, sizeof *disks);
	size_t opened = 0;
	int r = 0;

	for (; r == 0 && opened < j->part_count; opened++)
		r = open_disk(j, opened, &disks[opened], e);
	const struct disk_export x = { .format = (enum export_format)j->request->format, .title = j->request->tag,
				       .machine = j->request->image->machine, .disks = disks, .count = j->part_count,
				       .put = put_disk_bytes, .advance = disk_advance, .data = j };
	if (r == 0)
		r = disk_export_write(&x, e);
	for (size_t i = 0; i < opened; i++) {
		if (disks[i].disk)
			disk_close(disks[i].disk);
		own_close(&disks[i].scratch);
	}
	return r;
}

/* Pinned, so that removing the image meanwhile takes nothing away. */
static int open_parts(struct job *j, struct err *e)
{
	const struct image_partition *partitions = j->request->image->partitions.items;
	size_t count = j->request->image->partitions.count;

	j->parts = mem_alloc_array(count, sizeof *j->parts);
	for (size_t i = 0; i < count; i++) {
		struct part *part = &j->parts[i];
		int r = digest_parse(partitions[i].digest, &part->digest, e);
		if (r == 0)
			r = store_pin(j->session, STORE_PARTITION, &part->digest, e);
		if (r >= 0)
			r = store_get(j->store, STORE_PARTITION, &part->digest, &part->fd, &part->size_bytes, e);
		if (r < 0)
			return r;
		j->part_count++;
		j->total_bytes += part->size_bytes;
	}
	return 0;
}

int export_job_run(struct store *store, struct store_session *session, const struct export_wire *request, int output_fd,
		   export_progress_fn *progress, void *data, uint64_t *ret_sockets, struct err *e)
{
	struct job j = { .store = store, .session = session, .request = request, .output_fd = output_fd, .report = progress,
			 .report_data = data };

	j.watch = (struct layer_watch){ .progress = packed, .data = &j };
	int r = open_parts(&j, e);
	if (r == 0)
		r = export_check(request->image, (enum export_format)request->format, e);
	if (r == 0)
		r = request->format >= EXPORT_RAW ? put_disks(&j, e) :
		    request->format == EXPORT_TAR ? put_tar(&j, e) :
						    put_layout(&j, e);
	for (size_t i = 0; i < j.part_count; i++)
		(void)close(j.parts[i].fd);
	free(j.parts);
	if (r == 0)
		*ret_sockets = j.watch.sockets;
	return r;
}
