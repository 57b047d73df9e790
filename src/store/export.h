/* SPDX-License-Identifier: Apache-2.0 */
#ifndef STORE_EXPORT_H
#define STORE_EXPORT_H

/* One export of an image to a descriptor (file, pipe or socket), done by a child program (libexec/carrel/carrel-export). */

#include "base/err.h"
#include "base/loop.h"
#include "model/image.h"

enum export_format {
	EXPORT_OCI,        /* a tar of an OCI image layout, layers as gzip-compressed tar: any OCI tool reads it */
	EXPORT_OCI_ZSTD,   /* the same with zstd */
	EXPORT_PARTITIONS, /* an OCI image layout whose layers are our partitions, unchanged */
	EXPORT_TAR,        /* one plain tar of the whole stack, whiteouts applied */
	EXPORT_RAW,        /* of an image that is a disk, from here on: its first disk, all bytes */
	EXPORT_QCOW2,      /* its first disk */
	EXPORT_VMDK,       /* its first disk, streamOptimized */
	EXPORT_OVA,        /* all its disks with a description */
};
/* "oci", "oci-zstd", "partitions", "tar", "raw", "qcow2", "vmdk", "ova"; NULL-terminated */
/* Whether an image can be exported so; the refusal says what it can be. */
int export_check(const struct image *image, enum export_format format, struct err *e) must_check;
extern const char *const export_format_names[];

struct export_request {
	const char *store;         /* STATE/store */
	const struct image *image; /* only read during export_start; its name becomes the tag in an OCI layout */
	enum export_format format;
	int output_fd;             /* stays the caller's, who may close it after export_start */
};

struct export;

struct export_events {
	/* of the partitions that were read */
	void (*progress)(void *data, const char *step, uint64_t done_bytes, uint64_t total_bytes);
	/* Once, last; failure NULL: complete, but for sockets, which have no form in a tar. */
	void (*done)(void *data, const struct err *failure, uint64_t sockets);
};

int export_start(struct loop *l, const struct export_request *request, const struct export_events *events, void *data,
		 struct export **ret_export, struct err *e) must_check;
void export_cancel(struct export *x); /* `done` follows with ERR_CANCELLED */
void export_free(struct export *x);   /* ends the child at once; no callback; NULL is fine */

#endif
