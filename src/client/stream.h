/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLIENT_STREAM_H
#define CLIENT_STREAM_H

/*
 * The standard streams of a program in a workspace (or a tar on its way in or out) over one WebSocket. One frame is one piece:
 * binary with the channel in the first byte, text for control (resize, signal; exit and error from the other side).
 */

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "base/loop.h"

enum { STREAM_INPUT, STREAM_OUTPUT, STREAM_ERRORS };

struct stream;

struct stream_events {
	void (*output)(void *data, int channel, const char *bytes, size_t length);
	/* Once, from the loop. `why` NULL: the program ended with `status`; else no status is known. The stream may be freed
	 * here. */
	void (*end)(void *data, int status, const struct err *why);
	void (*drained)(void *data); /* may be NULL: input is taken again after stream_congested */
};

/* Connects to `path` and sends `request` (stays the caller's) as the first message. */
int stream_open(struct loop *l, const char *address, const char *path, const json_t *request,
		const struct stream_events *events, void *data, struct stream **ret_stream, struct err *e) must_check;
void stream_free(struct stream *s); /* NULL is fine; hangs up when it has not ended */

void stream_write(struct stream *s, const void *bytes, size_t length); /* to channel 0 */
void stream_end_input(struct stream *s);
void stream_resize(struct stream *s, unsigned rows, unsigned columns);
void stream_signal(struct stream *s, const char *name); /* "TERM" */
bool stream_congested(const struct stream *s);
void stream_pause(struct stream *s); /* no more output until stream_resume */
void stream_resume(struct stream *s);

#endif
