/* SPDX-License-Identifier: Apache-2.0 */
/* Frames of a peer that may be anything; the first byte says what the receiver does meanwhile. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/ws.h"

#define LONGEST_INPUT 65536
#define LONGEST_MESSAGE 1000

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct receiver {
	struct loop *loop;
	struct ws *ws;
	unsigned habits; /* 1: echo, 2: pause at each message, 4: close after the first, 8: free in it */
};

static void resume(void *data)
{
	struct receiver *x = data;
	if (x->ws)
		ws_resume(x->ws);
}

static void on_message(void *data, bool text, const char *bytes, size_t length)
{
	struct receiver *x = data;

	if (length > LONGEST_MESSAGE)
		abort();
	if (x->habits & 1)
		ws_send(x->ws, text, bytes, length);
	if (x->habits & 2) {
		ws_pause(x->ws);
		(void)loop_add_timer(x->loop, 0, resume, x);
	}
	if (x->habits & 4)
		ws_close(x->ws);
	if (x->habits & 8) {
		ws_free(x->ws);
		x->ws = NULL;
		loop_stop(x->loop);
	}
}

static void on_closed(void *data, const struct err *why)
{
	struct receiver *x = data;
	(void)why;
	ws_free(x->ws);
	x->ws = NULL;
	loop_stop(x->loop);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct ws_events events = { on_message, on_closed, NULL };
	int fds[2];

	if (size == 0 || size > LONGEST_INPUT || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
		return 0;
	struct receiver x = { .loop = loop_new(), .habits = data[0] };
	size_t early = size > 4 && (data[0] & 16) ? 3 : 0;
	(void)!send(fds[1], data + 1 + early, size - 1 - early, MSG_DONTWAIT | MSG_NOSIGNAL);
	(void)close(fds[1]);
	x.ws = ws_new(x.loop, fds[0], data[0] & 32 ? WS_CLIENT : WS_SERVER, LONGEST_MESSAGE, data + 1, early, &events, &x);
	(void)!loop_run(x.loop, NULL);
	ws_free(x.ws);
	loop_free(x.loop);
	return 0;
}
