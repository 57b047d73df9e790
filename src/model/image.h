/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MODEL_IMAGE_H
#define MODEL_IMAGE_H

/*
 * An image: an ordered stack of partitions and what to run. On disk it is an OCI image manifest and an OCI image configuration
 * (github.com/opencontainers/image-spec, manifest.md and config.md); this is the part of both that Carrel uses.
 */

#include "base/decode.h"
#include "base/hash.h"
#include "model/machine.h"

/* Media types of our own layers: a partition as it is, and packed (chunked zstd). */
#define MEDIA_PARTITION_EROFS "application/vnd.carrel.partition.v1.erofs"
#define MEDIA_PARTITION_RAW "application/vnd.carrel.partition.v1.raw"
#define MEDIA_OCI_MANIFEST "application/vnd.oci.image.manifest.v1+json"
#define MEDIA_OCI_INDEX "application/vnd.oci.image.index.v1+json"
#define MEDIA_OCI_CONFIG "application/vnd.oci.image.config.v1+json"

struct image_run { /* "config" of an OCI image configuration */
	struct texts entrypoint, command, environment; /* environment: "KEY=value" */
	char *user, *directory, *stop_signal;
	struct pairs labels;
};

struct image_partition {
	char *digest; /* sha256:... of the plain bytes */
	uint64_t size_bytes;
};

/* Labels. The kernel that an image wants to be booted with, by name; and of an image that is a kernel: its release. */
#define IMAGE_LABEL_KERNEL "carrel.kernel"
#define IMAGE_LABEL_KERNEL_RELEASE "carrel.kernel-release"

struct image {
	char *name;    /* NULL: only known by its digest */
	char *digest;  /* sha256:... of the manifest */
	char *architecture; /* amd64, arm64, riscv64, ... (OCI names) */
	struct objects partitions; /* struct image_partition, lowest first */
	struct image_run *run;
	struct image_machine *machine; /* its partitions are raw disks; NULL: file systems */
	/* release, when it is a kernel for machines (docs/formats/kernel.md) and no root of a workspace; else NULL */
	char *kernel;
	bool init;     /* has a full system: /sbin/init or a RUN label says so */
	uint64_t size_bytes; /* of all partitions */
	uint64_t created_ms; /* Unix time of the import */
	uint64_t owner_uid;
};

extern const struct shape image_shape, image_run_shape, image_partition_shape;

void image_done(struct image *i);
/* NULL: as if nothing were said. */
struct image_run *image_run_copy(const struct image_run *run);

#endif
