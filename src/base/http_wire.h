/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_HTTP_WIRE_H
#define BASE_HTTP_WIRE_H

/*
 * HTTP/1.1 (RFC 9112) over a connected stream socket: what a client of our own service needs and no more. Bodies of either
 * direction by Content-Length, chunked, or (answers) until the end; no compression, no trailers, no redirects.
 */

#include "base/http.h"

struct http_wire {
	int fd;            /* non-blocking; -1: not connected */
	struct str input;  /* bytes that were read and not yet used */
	uint64_t due_ms;   /* 0: none */
	bool interruptible;
	void (*tick)(void *data);
	void *tick_data;
};

/* Connects to "unix:PATH" or "http://LOOPBACK[:PORT]". */
int http_wire_connect(struct http_wire *w, const char *address, struct err *e) must_check;
void http_wire_close(struct http_wire *w);
/* True when the idle connection can take another request. */
bool http_wire_usable(const struct http_wire *w);
/* 1: the service answered before it had taken all, and what was left is not sent. */
int http_wire_send(struct http_wire *w, const void *bytes, size_t length, struct err *e) must_check;
/* Sends the request and reads the answer; afterwards the connection is idle or closed. */
int http_wire_do(struct http_wire *w, const struct http_request *request, struct http_answer *ret_answer,
		 struct err *e) must_check;

struct http_head {
	int status;
	uint64_t content_length; /* UINT64_MAX: not given */
	bool chunked, close;
	char accept[64]; /* Sec-WebSocket-Accept */
};
/* Reads status line and headers; interim answers (1xx but 101) are skipped. */
int http_wire_read_head(struct http_wire *w, struct http_head *ret_head, struct http_answer *answer, struct err *e) must_check;
int http_wire_read_body(struct http_wire *w, const struct http_request *request, const struct http_head *head,
			struct http_answer *answer, struct err *e) must_check;

#endif
