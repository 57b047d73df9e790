/* SPDX-License-Identifier: Apache-2.0 */
#ifndef STORE_IMPORT_PRIVATE_H
#define STORE_IMPORT_PRIVATE_H

/*
 * What the two parts of an import of an image share: import_resolve.c reads the documents and fills `config` and `layers`; import_job.c brings
 * the layers and writes the image. All of it is one job's, in one thread.
 */

#include "store/import_job.h"
#include "store/import_layer.h"
#include "store/layout.h"
#include "store/oci_reader.h"
#include "store/registry.h"

#define IMPORT_CONVERSIONS 2

struct job_layer {
	struct digest digest, diff_id; /* of the bytes as they come; of the plain tar */
	bool has_diff_id;
	uint64_t size_bytes;
	enum oci_layer_kind kind;
	const char *file; /* docker save: name in the archive; else NULL */
	struct digest partition;
	uint64_t partition_bytes;
};

struct slot {
	struct layer_conversion *conversion; /* NULL: free */
	struct job_layer *layer;
	int partial_fd; /* lock of the download; -1: none */
};

struct job {
	struct store *store;
	struct store_session *session;
	const struct import_wire *request;
	int input_fd;
	job_progress_fn *report;
	void *report_data;
	struct import_progress progress;
	struct registry *registry;
	struct layout *layout;
	struct oci_config config;
	struct image_run kernel_run; /* of a kernel package: its label */
	char kernel_architecture[16];
	struct job_layer *layers;
	size_t layer_count;
	struct image_machine machine; /* of a disk */
	bool of_disks;                /* the layers are */
	uint64_t settled_bytes; /* of layers that are fetched or reused */
	uint64_t resumed_bytes; /* of the layer under way: what an earlier import had fetched */
	struct slot slots[IMPORT_CONVERSIONS];
};

/* Processor that the image shall be for. */
const char *import_architecture(const struct job *j);
/* From the bytes of an index or a manifest to configuration and layers; `tagged`: a name stands for it, so it may choose by processor. */
int import_resolve(struct job *j, const struct str *root, bool tagged, struct err *e) must_check;
/* From manifest.json of `docker save` to the same. */
int import_resolve_saved(struct job *j, const struct layout_file *manifest, struct err *e) must_check;

#endif
