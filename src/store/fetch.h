/* SPDX-License-Identifier: Apache-2.0 */
#ifndef STORE_FETCH_H
#define STORE_FETCH_H

/*
 * The child that speaks with a registry: it has the network and no files. It answers one request at a time: HTTP with the
 * registry's authentication (Basic, or a bearer token from the server that the challenge names) and redirects (at most five;
 * never from https to http; plain http only when the registry is this machine; the Authorization header never to another
 * origin). What it says is not believed: the caller checks lengths and digests of all bytes.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct fetch;

struct fetch_server {
	char base[300];              /* "https://host[:port]" */
	const char *user, *password; /* NULL: anonymous */
};

int fetch_start(const struct fetch_server *server, struct fetch **ret_fetch, struct err *e) must_check;
void fetch_free(struct fetch *f);
static inline void fetch_free_at(struct fetch **f)
{
	if (*f)
		fetch_free(*f);
}
#define own_fetch __attribute__((cleanup(fetch_free_at)))

struct fetch_request {
	char path[700];       /* "/v2/NAME/blobs/sha256:..." */
	char accept[600];     /* empty: anything */
	uint64_t offset;      /* the bytes from here on are enough */
	uint64_t most_bytes;  /* more is an error */
	bool exact;           /* the body has most_bytes in all (offset counted): another announced length is refused at once */
	long timeout_ms;      /* for the whole answer; 0: as long as it flows */
};

struct fetch_head { /* of a successful answer, before its body */
	uint64_t offset;      /* where the body begins: as asked for, or 0 when the registry sends all */
	char media_type[128]; /* Content-Type without parameters, lower case */
};

struct fetch_sink {
	int (*begin)(void *data, const struct fetch_head *head, struct err *e);
	int (*write)(void *data, const void *bytes, size_t length, struct err *e);
	void *data;
};

/* A refusal by HTTP status, a broken connection or a sink that fails is an error. */
int fetch_do(struct fetch *f, const struct fetch_request *request, const struct fetch_sink *sink, struct err *e) must_check;

/* Between fetch.c and the child, on a SOCK_SEQPACKET socket; bodies go through a pipe beside it. */
struct fetch_message {
	enum { FETCH_HEAD, FETCH_END } type;
	struct fetch_head head;
	uint64_t body_bytes;  /* FETCH_END: written to the pipe */
	bool failed;
	struct err error;
};
struct fetch_channel {
	const struct fetch_server *server;
	const char *authorities; /* PEM: whom TLS trusts */
	size_t authorities_length;
	int socket, pipe;
};
int fetch_child_run(void *channel, struct err *e);

#endif
