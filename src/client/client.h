/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLIENT_CLIENT_H
#define CLIENT_CLIENT_H

/*
 * Calls of the service's API (/v1): JSON in, JSON out, its error object as a struct err. One kept connection; for one thread.
 */

#include <jansson.h>
#include <signal.h>
#include <stdbool.h>

#include "base/err.h"
#include "base/http.h"

#define CLIENT_ADDRESS_DEFAULT "unix:/run/carrel/carreld.sock"

struct client;

/* `address` NULL: CARREL_ADDRESS, else the default. */
int client_new(const char *address, struct client **ret_client, struct err *e) must_check;
void client_free(struct client *c);
static inline void client_free_at(struct client **c)
{
	if (*c)
		client_free(*c);
}
#define own_client __attribute__((cleanup(client_free_at)))

static inline void client_json_free_at(json_t **json) { json_decref(*json); }
#define own_json __attribute__((cleanup(client_json_free_at)))

const char *client_address(const struct client *c);
/* While *flag is not zero, waiting calls end with ERR_CANCELLED at the next signal; NULL: signals do not matter. */
void client_set_interrupt(struct client *c, const volatile sig_atomic_t *flag);

/* A path of the API: each %s is percent-encoded; no other conversions. The caller frees. */
char *client_path(const char *fmt, ...) __attribute__((returns_nonnull));

/* `body` (may be NULL) stays the caller's. *ret_json (ret_json may be NULL) is a new reference, json null for an empty
 * answer. */
int client_call(struct client *c, const char *method, const char *path, const json_t *body, json_t **ret_json,
		struct err *e) must_check;
/* The same under the condition that what `path` names has this ETag still (NULL: none): ERR_PRECONDITION when not. ret_etag
 * (may be NULL) gets the answer's, "" without one. */
#define CLIENT_ETAG_SIZE 128
int client_call_if(struct client *c, const char *method, const char *path, const char *etag, const json_t *body,
		   json_t **ret_json, char *ret_etag, struct err *e) must_check;
/* The same with an archive or another stream as the body: `read` as in struct http_request. */
int client_upload(struct client *c, const char *path, long (*read)(void *data, char *buffer, size_t size), void *data,
		  json_t **ret_json, struct err *e) must_check;
struct client_sink {
	int (*write)(void *data, const char *bytes, size_t length);
	void (*operation)(void *data, const char *id); /* first: the operation that makes the bytes; may be NULL */
	void (*tick)(void *data);                      /* about twice a second while nothing comes; may be NULL */
	void *data;
};
int client_download(struct client *c, const char *path, const struct client_sink *sink, struct err *e) must_check;
/* All pages of a list; *ret_items is an array. `path` may have a query; CLIENT_PAGE is that of long lists: few round trips. */
#define CLIENT_PAGE "?limit=1000"
int client_list(struct client *c, const char *path, json_t **ret_items, struct err *e) must_check;

/* The id of the operation in an answer ("operation": ID or {"id":...}, or the answer itself); NULL when there is none. */
const char *client_operation_id(const json_t *answer);
/* Waits for an operation; `progress` (may be NULL) gets each new version of it. A failed operation is its error. */
int client_wait(struct client *c, const char *operation_id, void (*progress)(void *data, const json_t *operation), void *data,
		json_t **ret_operation, struct err *e) must_check;
/* Events as they come (server-sent events), after `after` (negative: only new ones); ends when `event` returns non-zero (0 is
 * returned then). */
int client_follow_events(struct client *c, long long after, int (*event)(void *data, const json_t *event), void *data,
			 struct err *e) must_check;

/* The error object {"kind","message","hint"} as a struct err; returns its negative errno. */
int client_error_of(const json_t *error, struct err *e);

#endif
