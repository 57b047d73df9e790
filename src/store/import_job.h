/* SPDX-License-Identifier: Apache-2.0 */
#ifndef STORE_IMPORT_JOB_H
#define STORE_IMPORT_JOB_H

/* The work of carrel-import: from a request to an image in the store. */

#include "base/err.h"
#include "model/image.h"
#include "store/import.h"
#include "store/import_wire.h"
#include "store/store.h"

struct job;

typedef void job_progress_fn(void *data, const struct import_progress *progress);
struct job *job_new(struct store *store, struct store_session *session, const struct import_wire *request, int input_fd,
		    job_progress_fn *progress, void *data);
void job_free(struct job *j); /* ends its children */
static inline void job_free_at(struct job **j)
{
	if (*j)
		job_free(*j);
}
#define own_job __attribute__((cleanup(job_free_at)))

int job_run(struct job *j, struct image *ret_image, struct err *e) must_check;

#endif
