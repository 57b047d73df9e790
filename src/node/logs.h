/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NODE_LOGS_H
#define NODE_LOGS_H

/*
 * The output of a workspace, read from its log files (docs/formats/log.md) into a WebSocket: one binary frame per record,
 * channel 1 or 2 and the bytes, then the text {"exit":0}. Following goes on, woken by inotify, until the workspace has no
 * process any more.
 */

#include <stdbool.h>
#include <stdint.h>

#include "base/loop.h"
#include "base/ws.h"

struct logs;

struct logs_request {
	bool follow;
	int64_t tail;      /* last lines; negative: all */
	uint64_t since_ms; /* Unix time; 0: all */
};

/* `live` says whether more can come. `end` is called once, from a later turn of the loop, when all was sent. */
struct logs *logs_new(struct loop *l, const char *path, const struct logs_request *request, struct ws *ws,
		      bool (*live)(void *data), void (*end)(void *data), void *data);
void logs_free(struct logs *l); /* NULL is fine */
void logs_go_on(struct logs *l); /* the WebSocket can take more */

#endif
