/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NODE_BUNDLE_H
#define NODE_BUNDLE_H

/*
 * Bundles of workspaces at rest (docs/formats/bundle.md): what is in one, and where its parts go. The bytes are carrel-bundle's
 * affair, in a sandbox. While an export or import is under way its record is borrowed and its volumes are locked.
 *
 * An import writes beside what is there, and its end lets the new files take their places, memory last. Interrupted before
 * that, nothing has changed; what it left is compared and kept by the next one of the same bundle, and removed with the
 * workspace.
 */

#include "node/steps.h"

struct bundle_job;

/* request: {"leave-out":[digests],"snapshots":bool,"from":{"stream","offset"}}. *ret_socket: frames of a bundle up to its last
 * chunk. Or {"format":"qcow2"|"vmdk"|"ova"|"raw"}: frames of the disks of a workspace that boots some. */
int bundle_export(struct work *w, const json_t *request, int *ret_socket, struct bundle_job **ret_job,
		  struct err *e) must_check;
/* request: {"header":HEADER}, as it stands in the bundle. *ret_socket takes frames of its chunks of volumes, snapshots and
 * memory. */
int bundle_import(struct work *w, const json_t *request, int *ret_socket, struct bundle_job **ret_job,
		  struct err *e) must_check;
bool bundle_is_import(const struct bundle_job *j);
/* The program said that all is there: it takes its place. */
int bundle_import_finish(struct work *w, struct bundle_job *j, struct err *e) must_check;
/* After the socket was closed. NULL is fine. */
void bundle_job_free(struct bundle_job *j);

#endif
