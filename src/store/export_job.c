/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. A layout is a tar whose entries have their sizes in front, so a compressed layer is made in a file of the session first;
 * partitions go out as they are. The files of a layout come in the order oci-layout, layers, configuration, manifest, index.json: each
 * is named by its digest, which is known when it is written. Equal images give equal bytes: no times, no names of people, one
 * compression level.
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
#include "store/disk_write.h"
#include "store/export.h"
#include "store/export_layer.h"
#include "store/oci.h"

#define TAR_BLOCK 512

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

struct disk_job {
	struct job *job;
	int fd; /* -1: the output */
	struct hash *hash;
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

/* --- the outer tar: POSIX ustar, sizes past 8 GiB in GNU's base 256 --- */

struct tar_header {
	char name[100], mode[8], uid[8], gid[8], size[12], mtime[12], checksum[8], type, link[100], magic[6], version[2], owner[32],
		group[32], major[8], minor[8], prefix[155], pad[12];
};

static void tar_size(char out[12], uint64_t bytes)
{
	if (bytes < UINT64_C(1) << 33) {
		(void)snprintf(out, 12, "%011llo", (unsigned long long)bytes);
		return;
	}
	out[0] = (char)0x80;
	for (int i = 11; i > 0; i--, bytes >>= 8)
		out[i] = (char)(bytes & 0xff);
}

static int put_header(struct job *j, const char *name, uint64_t bytes, struct err *e)
{
	struct tar_header h = { .type = '0' };
	unsigned sum = 0;

	_Static_assert(sizeof h == TAR_BLOCK, "a tar header is one block");
	(void)snprintf(h.name, sizeof h.name, "%s", name);
	(void)snprintf(h.mode, sizeof h.mode, "%07o", 0644U);
	(void)snprintf(h.uid, sizeof h.uid, "%07o", 0U);
	(void)snprintf(h.gid, sizeof h.gid, "%07o", 0U);
	tar_size(h.size, bytes);
	(void)snprintf(h.mtime, sizeof h.mtime, "%011o", 0U);
	memcpy(h.magic, "ustar", 6);
	memcpy(h.version, "00", 2);
	memset(h.checksum, ' ', sizeof h.checksum);
	for (size_t i = 0; i < sizeof h; i++)
		sum += ((unsigned char *)&h)[i];
	(void)snprintf(h.checksum, sizeof h.checksum, "%06o", sum);
	return put(j, &h, sizeof h, e);
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
	*ret_layer = (struct oci_layer){ compression == LAYER_ZSTD ? MEDIA_OCI_LAYER "+zstd" : MEDIA_OCI_LAYER "+gzip", hash_end(hash),
					 p.bytes };
	return put_file(j, &ret_layer->digest, fd, p.bytes, false, e);
}

static int put_layer(struct job *j, size_t index, struct oci_layer *ret_layer, struct digest *ret_plain, struct err *e)
{
	const struct part *part = &j->parts[index];

	if (j->request->format != EXPORT_PARTITIONS)
		return put_packed(j, index, j->request->format == EXPORT_OCI_ZSTD ? LAYER_ZSTD : LAYER_GZIP, ret_layer, ret_plain, e);
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
	own_str char *config_text = oci_write_config(image->architecture ? image->architecture : oci_machine_architecture(), image->run, ids,
						     j->part_count);
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

static int put_disk_bytes(void *data, const void *bytes, size_t length, struct err *e)
{
	struct disk_job *x = data;

	if (x->fd < 0)
		return put(x->job, bytes, length, e);
	hash_add(x->hash, bytes, length);
	return fs_write_all(x->fd, bytes, length, e);
}

static void disk_advance(void *data, uint64_t done_bytes)
{
	struct disk_job *x = data;
	struct job *j = x->job;

	j->done_bytes = j->settled_bytes + (done_bytes < j->part_bytes ? done_bytes : j->part_bytes);
	j->report(j->report_data, x->fd < 0 ? "write" : "pack", j->done_bytes, j->total_bytes);
}

/* `fd` -1: to the output itself. */
static int put_disk(struct job *j, size_t index, unsigned format, const char *name, int fd, struct hash *hash, struct err *e)
{
	const struct part *part = &j->parts[index];
	struct disk_job x = { j, fd, hash };
	const struct disk_output out = { put_disk_bytes, disk_advance, &x };
	const struct disk_window w = { part->fd, 0, part->size_bytes };
	own_disk struct disk *d = NULL;
	uint32_t id;

	memcpy(&id, part->digest.bytes, sizeof id);
	begin_part(j, part->size_bytes);
	int r = disk_open(&w, DISK_RAW, NULL, &d, e);
	if (r == 0)
		r = format == EXPORT_RAW ? disk_write_raw(d, &out, e) : format == EXPORT_QCOW2 ? disk_write_qcow2(d, &out, e) :
									disk_write_vmdk(d, name, id, &out, e);
	if (r == 0)
		end_part(j);
	return r;
}

struct vmdk {
	char name[32];
	int fd;
	uint64_t bytes;
	struct digest digest;
};

static int make_vmdk(struct job *j, size_t index, struct vmdk *v, struct err *e)
{
	own_hash struct hash *hash = hash_new();
	struct stat st;

	(void)snprintf(v->name, sizeof v->name, "disk%zu.vmdk", index);
	int r = store_session_file(j->session, v->name, &v->fd, e);
	if (r == 0)
		r = put_disk(j, index, EXPORT_VMDK, v->name, v->fd, hash, e);
	if (r == 0 && fstat(v->fd, &st) < 0)
		r = err_errno(e, errno, "look at %s", v->name);
	if (r < 0)
		return r;
	v->bytes = (uint64_t)st.st_size;
	v->digest = hash_end(hash);
	return 0;
}

static int put_member(struct job *j, const struct vmdk *v, struct err *e)
{
	static char buffer[1 << 18];
	int r = put_header(j, v->name, v->bytes, e);

	for (uint64_t at = 0; r == 0 && at < v->bytes;) {
		ssize_t n = pread(v->fd, buffer, sizeof buffer, (off_t)at);
		if (n <= 0)
			return err_errno(e, n < 0 ? errno : EIO, "read %s", v->name);
		r = put(j, buffer, (size_t)n, e);
		at += (uint64_t)n;
	}
	return r == 0 ? put_padding(j, v->bytes, e) : r;
}

static void describe_ova(const struct job *j, const struct vmdk *disks, struct str *ret_ovf, struct str *ret_manifest)
{
	own_str struct disk_ovf_disk *list = mem_alloc_array(j->part_count, sizeof *list);
	const char *tag = j->request->tag ? j->request->tag : "machine";
	char hex[DIGEST_HEX_SIZE];

	for (size_t i = 0; i < j->part_count; i++)
		list[i] = (struct disk_ovf_disk){ disks[i].name, disks[i].bytes, j->parts[i].size_bytes };
	disk_write_ovf(tag, j->request->image->machine, list, j->part_count, ret_ovf);
	struct digest d = hash_bytes(ret_ovf->bytes, ret_ovf->length);
	str_printf(ret_manifest, "SHA256(machine.ovf)= %s\n", digest_hex(&d, hex));
	for (size_t i = 0; i < j->part_count; i++)
		str_printf(ret_manifest, "SHA256(%s)= %s\n", disks[i].name, digest_hex(&disks[i].digest, hex));
}

/* The description first, as the format wants it; so the disks are made before anything is written. */
static int put_ova(struct job *j, struct err *e)
{
	static const char zeros[2 * TAR_BLOCK];
	own_strbuf struct str ovf = { 0 }, manifest = { 0 };
	own_str struct vmdk *disks = mem_alloc_array(j->part_count, sizeof *disks);
	size_t made = 0;
	int r = 0;

	for (; r == 0 && made < j->part_count; made++) {
		disks[made].fd = -1;
		r = make_vmdk(j, made, &disks[made], e);
	}
	if (r == 0) {
		describe_ova(j, disks, &ovf, &manifest);
		r = put_text(j, "machine.ovf", str_text(&ovf), e);
	}
	if (r == 0)
		r = put_text(j, "machine.mf", str_text(&manifest), e);
	for (size_t i = 0; r == 0 && i < made; i++)
		r = put_member(j, &disks[i], e);
	for (size_t i = 0; i < made; i++)
		own_close(&disks[i].fd);
	return r == 0 ? put(j, zeros, sizeof zeros, e) : r;
}

static int put_disks(struct job *j, struct err *e)
{
	unsigned format = j->request->format;

	if (format == EXPORT_OVA)
		return put_ova(j, e);
	return put_disk(j, 0, format, "disk.vmdk", -1, NULL, e);
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
		r = request->format >= EXPORT_RAW ? put_disks(&j, e) : request->format == EXPORT_TAR ? put_tar(&j, e) : put_layout(&j, e);
	for (size_t i = 0; i < j.part_count; i++)
		(void)close(j.parts[i].fd);
	free(j.parts);
	if (r == 0)
		*ret_sockets = j.watch.sockets;
	return r;
}
