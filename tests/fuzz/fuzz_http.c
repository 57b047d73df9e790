/* SPDX-License-Identifier: Apache-2.0 */
/* Answers of a service that may be anything: heads, chunks, error objects. */
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/http_wire.h"

#define LONGEST 65536

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int take(void *data, const char *bytes, size_t length)
{
	size_t *total = data;
	(void)bytes;
	*total += length;
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	int fds[2];
	size_t total = 0;

	if (size > LONGEST || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
		return 0;
	struct http_wire wire = { .fd = fds[0] };
	const struct http_request request = { .method = "GET", .path = "/", .timeout_ms = 1000, .write = size % 2 ? take : NULL,
					      .data = &total };
	struct http_answer answer = { 0 };
	struct err e;
	if (send(fds[1], data, size, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)size) {
		(void)shutdown(fds[1], SHUT_WR);
		if (http_wire_do(&wire, &request, &answer, &e) == 0 && http_error(&answer, &e) >= 0)
			abort(); /* an error object is never a success */
	}
	if (total + answer.body.length > size)
		abort(); /* bytes out of nothing */
	http_answer_done(&answer);
	http_wire_close(&wire);
	(void)close(fds[1]);
	return 0;
}
