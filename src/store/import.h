/* SPDX-License-Identifier: Apache-2.0 */
#ifndef STORE_IMPORT_H
#define STORE_IMPORT_H

/*
 * One import of an image, as the service sees it: a child program (libexec/carrel/carrel-import) does the work, this side
 * starts it, hands its progress on, and can cancel it. Bytes from outside are never parsed in the caller's process.
 *
 * The store keeps what was imported from garbage collection until import_free: the caller records the image first.
 */

#include "base/err.h"
#include "base/loop.h"
#include "model/image.h"

enum import_format {
	IMPORT_TAR,      /* one layer: a tar, plain or compressed with gzip, xz or zstd */
	IMPORT_OCI,      /* a tar of an OCI image layout, or what `docker save` writes */
	IMPORT_DISK,     /* a disk image: qcow2, VMDK, VHDX, VHD, VDI, OVA, or a raw disk with a boot sector */
	IMPORT_RAW,      /* a raw disk, whatever it begins with */
	IMPORT_REGISTRY, /* docker://host[:port]/name[:tag|@digest], or a short form of docker.io */
	IMPORT_KERNEL,   /* a kernel package of Debian, or a tar of what it installs */
};

enum import_init { IMPORT_INIT_DETECT, IMPORT_INIT_YES, IMPORT_INIT_NO };

/* Of one layer; 0: as much as there can be (1 TiB unpacked, 8 million entries, 256 directories inside each other). */
struct import_limits {
	uint64_t layer_bytes, entries, depth;
};

struct import_request {
	const char *store;        /* STATE/store */
	enum import_format format;
	/* but for REGISTRY: the archive, read to its end; stays the caller's, who may close it after import_start */
	int input_fd;
	const char *reference;    /* REGISTRY; for OCI: the tag in the layout to take, NULL: the only one */
	const char *architecture; /* NULL: this machine's */
	/* DISK, RAW: what is not AUTO or 0 in it goes before what the upload says; or NULL */
	const struct image_machine *machine;
	const char *user, *password; /* REGISTRY: given to this registry only, never logged; NULL: anonymous */
	/* REGISTRY: like ~/.docker/config.json, of the service; used when no user is given; or NULL */
	const char *auth_file;
	enum import_init init;
	struct import_limits limits;
	const struct image_run *run; /* TAR: what the image runs, or NULL */
};

struct import_progress {
	const char *step;         /* "resolve", "fetch", "convert", "finish" */
	uint64_t done_bytes, total_bytes; /* total 0: not known yet (an upload: what was read so far) */
	uint64_t reused_bytes;    /* of done_bytes: what was here already */
};

struct import;

struct import_events {
	void (*progress)(void *data, const struct import_progress *progress); /* at most ten times a second */
	/* Once, last; then the import may be freed, here or later. `failure` NULL: *image is filled (name NULL) and the
	 * callback's to take or leave. */
	void (*done)(void *data, const struct err *failure, struct image *image);
};

int import_start(struct loop *l, const struct import_request *request, const struct import_events *events, void *data,
		 struct import **ret_import, struct err *e) must_check;
/* Asks the child to clean up and end; `done` follows with ERR_CANCELLED (or with success when it was faster). */
void import_cancel(struct import *i);
/* Ends the child at once when it still runs; no callback. What it left in tmp/ goes with the next store_clean. NULL is fine. */
void import_free(struct import *i);

#endif
