/* SPDX-License-Identifier: Apache-2.0 */
#ifndef STORE_EXPORT_JOB_H
#define STORE_EXPORT_JOB_H

/* The work of carrel-export: an image in the store becomes a stream of bytes. */

#include "base/err.h"
#include "store/import_wire.h"
#include "store/store.h"

typedef void export_progress_fn(void *data, const char *step, uint64_t done_bytes, uint64_t total_bytes);

/* *ret_sockets: files that were left out. */
int export_job_run(struct store *store, struct store_session *session, const struct export_wire *request, int output_fd,
		   export_progress_fn *progress, void *data, uint64_t *ret_sockets, struct err *e) must_check;

#endif
