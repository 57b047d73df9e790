/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_HTTP_H
#define BASE_HTTP_H

/*
 * An HTTP client, blocking, one connection kept alive. Address: "unix:/run/carrel/carreld.sock" or "https://host:port" (plain
 * "http://" only to loopback). A unix socket is served by few lines of our own, all else by libcurl, which is loaded at its
 * first use: its 30 libraries cost 3 ms of every start, more than a whole local request.
 */

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "base/str.h"

struct http;

int http_new(const char *address, struct http **ret_http, struct err *e) must_check;
void http_free(struct http *h);
static inline void http_free_at(struct http **h)
{
	if (*h)
		http_free(*h);
}
#define own_http __attribute__((cleanup(http_free_at)))

struct http_answer {
	int status;
	struct str body;              /* at most 64 MiB */
	char etag[128], location[512];
	char operation[64];           /* Carrel-Operation: the operation that this answer is the work of */
};

struct http_request {
	const char *method, *path;    /* path with query, already encoded */
	const char *const *headers;   /* NULL-terminated "Name: value", or NULL */
	const void *body;
	size_t body_length;
	/* A body that is streamed instead: returns bytes put into buffer, 0 at the end, negative errno to abort. */
	long (*read)(void *data, char *buffer, size_t size);
	/* The answer as it arrives instead of into `ret_body`; non-zero aborts. Only called for 2xx. */
	int (*write)(void *data, const char *bytes, size_t length);
	/* before the first `write`: status and headers; may be NULL */
	void (*head)(void *data, const struct http_answer *answer);
	void (*tick)(void *data);     /* about twice a second while the peer is waited for; may be NULL */
	void *data;
	long timeout_ms;              /* for the whole request; 0: none */
	bool interruptible;           /* a signal handler that ran ends a wait for the peer: ERR_CANCELLED */
};

void http_answer_done(struct http_answer *a);
/* 0 for any HTTP status; an error only when there was no answer. */
int http_do(struct http *h, const struct http_request *request, struct http_answer *ret_answer, struct err *e) must_check;
/* Whether http_upgrade can work with the address: ERR_UNSUPPORTED with a hint for https (docs/decisions/0051). */
int http_check_upgrade(const char *address, struct err *e) must_check;
/* Opens a new connection, asks for the upgrade, and returns its descriptor (the caller's) with bytes that came early; a refusal
 * (any status but 101) becomes the error in the body. For ws_new(WS_CLIENT). */
int http_upgrade(const char *address, const char *path, int *ret_fd, struct str *ret_early, struct err *e) must_check;
/* The error object of the API ({"error":{kind,message,hint}}) as a struct err; returns its negative errno. */
int http_error(const struct http_answer *a, struct err *e);
void http_quote(struct str *out, const char *text); /* percent-encodes one path or query component */

#endif
