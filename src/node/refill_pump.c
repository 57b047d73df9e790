/* SPDX-License-Identifier: Apache-2.0 */
#include "node/refill_pump.h"

#include <errno.h>
#include <jansson.h>
#include <limits.h>
#include <poll.h>
#include <sys/socket.h>

#include "base/loop.h"
#include "base/mem.h"
#include "base/own.h"
#include "engine/runner_client.h"

/* 1: bytes in `frame`; 0: it ended well. */
static int receive(int fd, char *frame, size_t *ret_length, const char *who, const struct refill_limits *l, struct err *e)
{
	struct pollfd ready = { .fd = fd, .events = POLLIN };
	uint64_t now = loop_now_ms();
	ssize_t n;

	int got = now < l->until_ms ? poll(&ready, 1, (int)(l->until_ms - now < INT_MAX ? l->until_ms - now : INT_MAX)) : 0;
	if (got < 0 && errno != EINTR)
		return err_errno(e, errno, "wait for %s", who);
	if (got == 0)
		return err_set(e, ERR_TIMEOUT, "%s was not done in time", who);

	do
		n = recv(fd, frame, RUNNER_FRAME_LONGEST, 0);
	while (n < 0 && errno == EINTR);
	if (n < 0 && (errno == EAGAIN))
		return err_set(e, ERR_TIMEOUT, "%s has done nothing for too long", who);
	if (n <= 0)
		return err_set(e, ERR_UNAVAILABLE, "%s ended", who);
	*ret_length = (size_t)n;
	if (frame[0] != '{')
		return 1;
	json_t *answer = json_loadb(frame, (size_t)n, 0, NULL), *error = json_object_get(answer, "error");
	bool well = json_is_integer(json_object_get(answer, "exit")) &&
		    json_integer_value(json_object_get(answer, "exit")) == 0;
	int r = 0;
	if (!well)
		r = err_set(e, ERR_CORRUPT, "%s: %s", who, json_string_value(json_object_get(error, "message")) ?
			    json_string_value(json_object_get(error, "message")) : "it failed without a word");
	json_decref(answer);
	return r;
}

static int send_frame(int fd, const char *frame, size_t length, struct err *e)
{
	if (send(fd, frame, length, MSG_NOSIGNAL) == (ssize_t)length)
		return 0;
	return errno == EPIPE ? -EPIPE : err_errno(e, errno, "send files to the new volume");
}

int refill_pump(int from, int to, struct refill_limits *l, struct err *e)
{
	static const char reader[] = "the helper machine", writer[] = "the new volume";
	own_str char *frame = mem_alloc(RUNNER_FRAME_LONGEST + 1);
	size_t length = 0;
	int r, sent = 0;

	while (sent == 0 && (r = receive(from, frame, &length, reader, l, e)) > 0) {
		if (length > l->bytes)
			return err_set(e, ERR_TOO_LARGE, "%s sends more than its volume can hold", reader);
		l->bytes -= length;
		if (frame[0] != 1) /* warnings of the copy */
			continue;
		frame[0] = 0;
		sent = send_frame(to, frame, length, e);
	}
	if (sent < 0 && sent != -EPIPE)
		return sent;
	if (sent == 0 && r < 0)
		return r;
	frame[0] = 0;
	if (sent == 0 && (r = send_frame(to, frame, 1, e)) < 0 && r != -EPIPE) /* the end of its input */
		return r;
	do
		r = receive(to, frame, &length, writer, l, e); /* and why it hung up, if it did */
	while (r > 0);
	return r == 0 && sent < 0 ? err_set(e, ERR_INTERNAL, "%s hung up", writer) : r;
}
