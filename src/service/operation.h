/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SERVICE_OPERATION_H
#define SERVICE_OPERATION_H

/*
 * Operations: long work that can be watched, waited for and cancelled. One of a workspace runs at a time; a newer request on
 * the same workspace replaces it (state cancelled). An operation on a workspace outlives the service: the wish is durable, so
 * the host goes on and the report ends it. Work of the service's own children (images) ends with the service and is told as
 * failed.
 */

#include "service/service.h"

enum operation_state { OPERATION_RUNNING, OPERATION_DONE, OPERATION_FAILED, OPERATION_CANCELLED };
extern const char *const operation_state_names[];

struct operation {
	int64_t seq;
	char id[ID_SIZE];
	char *kind;       /* "deploy", "start", "image-import", ... */
	char *subject;    /* id of the workspace or name of the image */
	bool on_image;
	uint64_t owner_uid;
	enum operation_state state;
	char *step;       /* what it does now, or NULL */
	uint64_t done, total, reused; /* bytes */
	struct err error; /* OPERATION_FAILED, OPERATION_CANCELLED */
	json_t *result;
	uint64_t created_ms, ended_ms;
	struct waiter *waiters;
};

extern const struct shape operation_shape;

int operations_load(struct service *s, struct err *e) must_check;
/* `subject`: id or image name. Stored with the batch. */
struct operation *operation_start(struct service *s, struct db_batch *b, const char *kind, bool on_image, const char *subject,
				  uint64_t owner_uid);
/* What is known of the result from the start. Takes it; stored with the batch. */
void operation_set_result(struct operation *o, struct db_batch *b, json_t *result);
void operation_progress(struct operation *o, const char *step, uint64_t done, uint64_t total, uint64_t reused);
/* `failure` NULL: done. Takes result (may be NULL). Wakes who waits. */
void operation_end(struct service *s, struct db_batch *b, struct operation *o, const struct err *failure, json_t *result);
void operation_forget(struct service *s, struct operation *o); /* its batch was not committed */
struct operation *operation_by_id(struct service *s, const char *id);
json_t *operation_to_json(const struct operation *o);

#endif
