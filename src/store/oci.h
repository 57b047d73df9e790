/* SPDX-License-Identifier: Apache-2.0 */
#ifndef STORE_OCI_H
#define STORE_OCI_H

/*
 * The documents of OCI images (github.com/opencontainers/image-spec v1.1: manifest.md, image-index.md, config.md) and of
 * Docker's schema 2, as far as Carrel reads and writes them. Pure: bytes in, structs out. Bytes from outside are given to
 * oci_parse_* only in a child without rights (oci_reader.h).
 */

#include "base/decode.h"
#include "base/hash.h"
#include "model/image.h"

#define MEDIA_DOCKER_MANIFEST "application/vnd.docker.distribution.manifest.v2+json"
#define MEDIA_DOCKER_INDEX    "application/vnd.docker.distribution.manifest.list.v2+json"
#define MEDIA_OCI_LAYER       "application/vnd.oci.image.layer.v1.tar"

#define OCI_DOCUMENT_BYTES_MOST (UINT64_C(4) << 20)
#define OCI_LAYERS_MOST         128
#define OCI_LAYER_BYTES_MOST    (UINT64_C(1) << 40)

struct oci_platform {
	char *architecture, *os, *variant;
};

struct oci_descriptor {
	char *media_type, *digest;
	uint64_t size_bytes;
	struct oci_platform *platform;
	struct pairs annotations;
};

/* A manifest or an index: exactly one of both, which oci_parse_document checks. */
struct oci_document {
	char *media_type;
	uint64_t schema;
	struct oci_descriptor *config; /* a manifest has it, an index has not */
	struct objects layers;         /* struct oci_descriptor, lowest first */
	struct objects manifests;      /* struct oci_descriptor */
	struct pairs annotations;
};

struct oci_rootfs {
	char *type;
	struct texts diff_ids;
};

struct oci_config {
	char *architecture, *os, *variant;
	struct image_run *run;
	struct oci_rootfs *rootfs;
};

/* One image of a docker-archive's manifest.json; `images` is the whole file. */
struct oci_saved_image {
	char *config;
	struct texts tags, layers; /* layers: file names */
};
struct oci_saved {
	struct objects images;
};

extern const struct shape oci_document_shape, oci_config_shape, oci_saved_shape;

/* `source` names the bytes in errors. Done with shape_done(). */
int oci_parse_document(const char *bytes, size_t length, const char *source, struct oci_document *ret_document,
		       struct err *e) must_check;
int oci_parse_config(const char *bytes, size_t length, const char *source, struct oci_config *ret_config,
		     struct err *e) must_check;
int oci_parse_saved(const char *bytes, size_t length, const char *source, struct oci_saved *ret_saved,
		    struct err *e) must_check;

static inline bool oci_is_index(const struct oci_document *d) { return d->config == NULL; }

/* "amd64", or "arm/v7" with a variant. This machine's, as OCI names it. */
const char *oci_machine_architecture(void);
/* The manifest of an index for linux and `architecture` ("arm64", "arm/v7"). The refusal lists what there is. */
int oci_select(const struct oci_document *index, const char *architecture, const struct oci_descriptor **ret_chosen,
	       struct err *e) must_check;
/* The manifest of a layout's index that is tagged `tag`; without a tag the only one. */
int oci_select_tag(const struct oci_document *index, const char *tag, const struct oci_descriptor **ret_chosen,
		   struct err *e) must_check;

enum oci_layer_kind { OCI_LAYER_TAR, OCI_LAYER_PARTITION, OCI_LAYER_DISK };
/* Compression is not told here: the bytes tell it. Layers that are no part of a file system are refused. */
int oci_layer_kind(const struct oci_descriptor *layer, enum oci_layer_kind *ret_kind, struct err *e) must_check;

/* --- what we write: compact JSON with sorted keys, so that equal images have equal digests --- */

/* The configuration of an image whose layers have these digests when they are plain. The caller frees. */
char *oci_write_config(const char *architecture, const struct image_run *run, const struct digest *diff_ids, size_t count);
struct oci_layer {
	const char *media_type;
	struct digest digest;
	uint64_t size_bytes;
};
/* The one with this tag (NULL: the only one) of what `docker save` wrote. */
int oci_choose_saved(const struct oci_saved *saved, const char *tag, const struct oci_saved_image **ret_image,
		     struct err *e) must_check;
/* What annotations of a manifest say of it; nothing: all zeros. */
int oci_read_machine(const struct pairs *annotations, struct image_machine *ret_machine, struct err *e) must_check;
/* `machine` (NULL: none) becomes annotations. */
char *oci_write_manifest(const struct digest *config, size_t config_bytes, const struct oci_layer *layers, size_t count,
			 const struct image_machine *machine);
/* index.json of a layout with one manifest, tagged when `tag` is not NULL. */
char *oci_write_index(const struct digest *manifest, size_t manifest_bytes, const char *tag);

#endif
