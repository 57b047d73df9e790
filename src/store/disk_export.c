/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An OVA begins with its description, which names length and digest of every disk: so each is packed into its scratch file
 * first, hashed on the way, and copied out behind it. Progress counts the guest's bytes while they are packed. All other
 * formats are written straight to the output in one pass, which is why the writers (disk_write*.c) never seek.
 *
 * The tar is the plainest ustar, as some readers of OVAs know no extensions: names are short, and times are fixed, so equal
 * disks give equal bytes.
 */
#include "store/disk_export.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/hash.h"
#include "base/mem.h"
#include "base/own.h"
#include "store/tar_header.h"

struct one { /* the disk under way */
	const struct disk_export *x;
	uint64_t before_bytes;
	int fd; /* -1: the output */
	struct hash *hash;
};

static int put_bytes(void *data, const void *bytes, size_t length, struct err *e)
{
	struct one *o = data;

	if (o->fd < 0)
		return o->x->put(o->x->data, bytes, length, e);
	hash_add(o->hash, bytes, length);
	return fs_write_all(o->fd, bytes, length, e);
}

static void advance(void *data, uint64_t done_bytes)
{
	struct one *o = data;
	o->x->advance(o->x->data, o->fd < 0 ? "write" : "pack", o->before_bytes + done_bytes);
}

static int put_disk(struct one *o, const struct disk_export_disk *d, enum export_format format, const char *name, struct err *e)
{
	const struct disk_output out = { put_bytes, advance, o };

	if (format == EXPORT_RAW)
		return disk_write_raw(d->disk, &out, e);
	return format == EXPORT_QCOW2 ? disk_write_qcow2(d->disk, &out, e) : disk_write_vmdk(d->disk, name, d->id, &out, e);
}

/* --- OVA --- */

struct vmdk {
	char name[32];
	uint64_t bytes;
	struct digest digest;
};

static int make_vmdk(const struct disk_export *x, size_t index, uint64_t before_bytes, struct vmdk *v, struct err *e)
{
	own_hash struct hash *hash = hash_new();
	struct one o = { x, before_bytes, x->disks[index].scratch, hash };
	struct stat st;

	(void)snprintf(v->name, sizeof v->name, "disk%zu.vmdk", index);
	int r = put_disk(&o, &x->disks[index], EXPORT_VMDK, v->name, e);
	if (r == 0 && fstat(o.fd, &st) < 0)
		r = err_errno(e, errno, "look at %s", v->name);
	if (r < 0)
		return r;
	v->bytes = (uint64_t)st.st_size;
	v->digest = hash_end(hash);
	return 0;
}

static int put_header(const struct disk_export *x, const char *name, uint64_t bytes, struct err *e)
{
	uint8_t header[TAR_BLOCK];

	tar_header_fill(name, bytes, header);
	return x->put(x->data, header, sizeof header, e);
}

static int put_padding(const struct disk_export *x, uint64_t bytes, struct err *e)
{
	static const char zeros[TAR_BLOCK];
	return bytes % TAR_BLOCK ? x->put(x->data, zeros, TAR_BLOCK - bytes % TAR_BLOCK, e) : 0;
}

static int put_text(const struct disk_export *x, const char *name, const struct str *text, struct err *e)
{
	int r = put_header(x, name, text->length, e);

	if (r == 0)
		r = x->put(x->data, text->bytes, text->length, e);
	return r == 0 ? put_padding(x, text->length, e) : r;
}

static int put_member(const struct disk_export *x, const struct vmdk *v, int fd, struct err *e)
{
	static char buffer[1 << 18];
	int r = put_header(x, v->name, v->bytes, e);

	for (uint64_t at = 0; r == 0 && at < v->bytes;) {
		ssize_t n = pread(fd, buffer, sizeof buffer, (off_t)at);
		if (n <= 0)
			return err_errno(e, n < 0 ? errno : EIO, "read %s", v->name);
		r = x->put(x->data, buffer, (size_t)n, e);
		at += (uint64_t)n;
	}
	return r == 0 ? put_padding(x, v->bytes, e) : r;
}

static void describe(const struct disk_export *x, const struct vmdk *made, struct str *ret_ovf, struct str *ret_manifest)
{
	own_str struct disk_ovf_disk *list = mem_alloc_array(x->count, sizeof *list);
	char hex[DIGEST_HEX_SIZE];

	for (size_t i = 0; i < x->count; i++)
		list[i] = (struct disk_ovf_disk){ made[i].name, made[i].bytes, disk_bytes(x->disks[i].disk) };
	disk_write_ovf(x->title ? x->title : "machine", x->machine, list, x->count, ret_ovf);
	struct digest d = hash_bytes(ret_ovf->bytes, ret_ovf->length);
	str_printf(ret_manifest, "SHA256(machine.ovf)= %s\n", digest_hex(&d, hex));
	for (size_t i = 0; i < x->count; i++)
		str_printf(ret_manifest, "SHA256(%s)= %s\n", made[i].name, digest_hex(&made[i].digest, hex));
}

static int put_ova(const struct disk_export *x, struct err *e)
{
	static const char zeros[2 * TAR_BLOCK];
	own_strbuf struct str ovf = { 0 }, manifest = { 0 };
	own_str struct vmdk *made = mem_alloc_array(x->count, sizeof *made);
	uint64_t before = 0;
	int r = 0;

	for (size_t i = 0; r == 0 && i < x->count; before += disk_bytes(x->disks[i++].disk))
		r = make_vmdk(x, i, before, &made[i], e);
	if (r == 0) {
		describe(x, made, &ovf, &manifest);
		r = put_text(x, "machine.ovf", &ovf, e);
	}
	if (r == 0)
		r = put_text(x, "machine.mf", &manifest, e);
	for (size_t i = 0; r == 0 && i < x->count; i++)
		r = put_member(x, &made[i], x->disks[i].scratch, e);
	return r == 0 ? x->put(x->data, zeros, sizeof zeros, e) : r;
}

int disk_export_write(const struct disk_export *x, struct err *e)
{
	struct one o = { .x = x, .fd = -1 };

	return x->format == EXPORT_OVA ? put_ova(x, e) : put_disk(&o, &x->disks[0], x->format, "disk.vmdk", e);
}
