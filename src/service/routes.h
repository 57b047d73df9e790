/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SERVICE_ROUTES_H
#define SERVICE_ROUTES_H

/* The one table of the API. Dispatch, permission, decoding of bodies and the OpenAPI file follow from it. */

#include "service/request.h"

enum need {
	NEED_READ,   /* administrators, users (their own), viewers */
	NEED_CHANGE, /* administrators, users (their own) */
	NEED_ADMIN,
	NEED_HOST,   /* uid 0: a host's agent */
};

enum {
	ROUTE_STREAM = 1,    /* the handler runs before the body and takes it in pieces (request.received, ended) */
	ROUTE_WEBSOCKET = 2, /* an upgrade */
	ROUTE_LIST = 4,      /* the answer is {"items": [response], "next": cursor} */
	ROUTE_TEXT = 8,      /* the answer is not JSON */
	ROUTE_KEY = 16,      /* takes an Idempotency-Key */
	ROUTE_TAG = 32,      /* answers with an ETag, or (changes) takes If-Match */
	ROUTE_OPTIONAL = 64, /* an empty body is {} */
};

struct route {
	const char *method, *path;
	enum need need;
	handler_fn *handle;
	const char *summary;
	const struct shape *request, *response;
	const struct parameter *query; /* ends with a NULL name; NULL: none */
	unsigned flags;
	int status; /* of success; 0: 200 */
};

extern const struct route routes[]; /* ends with a NULL method */

/* Sets r->route and r->params, and checks permission and the names of query parameters. 1: OPTIONS of an address that there is
 * (r->allow), and no route. ERR_METHOD: the address takes others (r->allow). */
int routes_find(struct request *r, const char *method, struct err *e) must_check;
/* Decodes the body and calls the handler. */
int routes_call(struct request *r, struct err *e) must_check;
void routes_done(struct request *r);

json_t *openapi_document(void);

#endif
