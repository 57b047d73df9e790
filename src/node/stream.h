/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NODE_STREAM_H
#define NODE_STREAM_H

/*
 * Streams: attach, console, exec, copies and logs. The service asks for one on the host channel; the agent opens a WebSocket of
 * its own for it at /v1/hosts/NAME/streams/STREAM. Frames are relayed between that and the runner's socket, unchanged. Whoever
 * does not read stops the other: nothing is buffered without bound.
 */

#include <jansson.h>

#include "node/agent.h"

void stream_open(struct node *n, struct agent *a, const char *stream, const char *id, const char *kind,
		 const json_t *request);
/* Closes all that are left. */
void stream_close_all(void);

#endif
