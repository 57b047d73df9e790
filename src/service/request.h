/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SERVICE_REQUEST_H
#define SERVICE_REQUEST_H

/*
 * One HTTP request from its first line to its answer. A handler runs when the body is complete; it answers with one of the
 * request_reply calls, now or later (the connection is suspended until then), or returns a failure, which becomes the error
 * answer. The request lives until MHD has sent the answer: never touch it after a reply.
 */

#include <jansson.h>

#include "base/str.h"
#include "base/ws.h"
#include "service/config.h"
#include "service/uri.h"

#define STREAM_BROKEN (-2)

struct service;
struct route;
struct request;

struct parameter { /* of the query */
	const char *name, *doc;
	bool number;
	unsigned least, most, preset; /* of a number; most 0: any */
};

#define LIMIT_PRESET 100
#define LIMIT_MOST 1000
#define LIMIT_PARAMETER { "limit", "most items of the answer: 1 to 1000; 100 when missing", true, 1, LIMIT_MOST, LIMIT_PRESET }

typedef int handler_fn(struct request *r, struct err *e);

struct request {
	struct service *service;
	const struct route *route;
	const char *allow;      /* of a known address: the methods it takes, "GET, HEAD, POST, OPTIONS" */
	const char *operation;  /* set before the answer: the operation that makes it (header Carrel-Operation) */
	bool head;              /* HEAD: as GET, and the body is not sent */
	struct identity who;
	struct uri uri;
	const char *params[3];  /* what stood in the {places} of the route's path, in order */
	struct str body;
	void *connection;       /* MHD's; NULL: a synthetic request of a test */
	void *value;            /* the decoded body: the struct of route->request, zeroed and filled; NULL without body */
	/* ROUTE_STREAM: bytes of the body as they come, set by the handler, which runs before them; 1: they are taken, but no
	 * more are wanted until request_body_wake. `ended` when all have come (failed: the peer went away). `data` is the
	 * handler's. */
	int (*received)(struct request *r, const char *bytes, size_t length, struct err *e);
	void (*ended)(struct request *r, bool failed);
	void *data;
	/* --- the server's --- */
	bool started, suspended, answered, failed_early, cut;
	int status;
	void *response;
	struct upgrade *upgrade; /* asked for and not there yet */
	struct str methods;
};

/* Texts from the request; NULL: not given. Valid as long as the request. */
const char *request_query(const struct request *r, const char *name);
const char *request_header(const struct request *r, const char *name);
bool request_flag(const struct request *r, const char *name); /* ?name or ?name=1, true */
/* A number within [0, max] that the query gives, else `preset`. */
int request_number(const struct request *r, const char *name, uint64_t preset, uint64_t max, uint64_t *ret_number,
		   struct err *e) must_check;
/* The query parameter `limit` of lists: 1 to 1000, 100 when missing. */
int request_limit(const struct request *r, uint64_t *ret_limit, struct err *e) must_check;

void request_reply_json(struct request *r, int status, json_t *json); /* takes json */
void request_reply_text(struct request *r, int status, const char *type, char *text, size_t length); /* takes text */
/* The same for many readers of one text: copied. `etag` may be NULL; answers 304 when If-None-Match has it. */
void request_reply_cached(struct request *r, int status, const char *text, size_t length, const char *etag);
/* Takes json; its digest is the ETag: for what is shown rarely. */
void request_reply_tagged(struct request *r, int status, json_t *json);
/* If-Match, where the request has it, against what would be shown now (takes json): ERR_PRECONDITION when it is another. `what`
 * names it. */
int request_check_match(const struct request *r, json_t *json, const char *what, struct err *e) must_check;
void request_reply_nothing(struct request *r); /* 204 */
void request_fail(struct request *r, const struct err *e);
/* The same while the body still comes: answers at once and closes the connection; the rest of the body is not read. */
void request_fail_at_once(struct request *r, const struct err *e);
void request_body_wake(struct request *r); /* more of the body is wanted */
/* A body of unknown length: `read` fills up to `size` bytes; 0: nothing now (call request_wake later), -1: the end,
 * STREAM_BROKEN: there should be more, and the connection is cut so that the peer knows. `free_fn` is called once when the
 * connection ends. */
void request_reply_stream(struct request *r, const char *type, long (*read)(void *data, char *buffer, size_t size),
			  void (*free_fn)(void *data), void *data);
void request_wake(struct request *r); /* of a stream: there is more */
/* Becomes a WebSocket; `opened` gets it and owns it: ws_free it, and then call request_upgrade_end(handle). A peer that is gone
 * before that is told by `abandoned` (may be NULL); one of the two is called, once. */
void request_reply_upgrade(struct request *r, size_t longest_message, const struct ws_events *events,
			   void (*opened)(void *data, struct ws *ws, void *handle), void (*abandoned)(void *data), void *data);
void request_upgrade_end(void *handle);
bool request_is_upgrade(const struct request *r);

void request_done(struct request *r); /* frees it: the end of all requests */

json_t *error_to_json(const struct err *e); /* {"error": {...}} */

#endif
