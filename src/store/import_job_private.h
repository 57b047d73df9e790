/* SPDX-License-Identifier: Apache-2.0 */
/* The work of carrel-import as its parts see it: where an image comes from (import_source.c), and what is made of it
 * (import_job.c). */
#ifndef STORE_IMPORT_JOB_PRIVATE_H
#define STORE_IMPORT_JOB_PRIVATE_H

#include "store/import_job.h"
#include "store/import_layer.h"
#include "store/layout.h"
#include "store/oci_reader.h"
#include "store/registry.h"

#define CONVERSIONS 2 /* beside the next download */

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
	struct slot slots[CONVERSIONS];
};

void job_step(struct job *j, const char *name);
void job_uploaded(void *job, uint64_t done_bytes); /* the archive comes from a client */
const char *job_architecture(const struct job *j); /* that is wanted */

/* The documents, and with them `config` and `layers`; the layers' bytes are for later. */
int job_open_registry(struct job *j, struct err *e) must_check;
int job_open_layout(struct job *j, struct err *e) must_check;

#endif
