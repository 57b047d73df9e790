/* SPDX-License-Identifier: Apache-2.0 */
#include "runner/request.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

/* Texts end with a NUL, the last with ours if it did not bring one. */
static void split(const char *texts, size_t length, struct request *q)
{
	size_t room = 0;

	for (const char *at = texts; at < texts + length; at += strlen(at) + 1) {
		MEM_PUSH_ROOM(q->texts, q->count, room);
		q->texts[q->count++] = at;
	}
	if (!length) {
		MEM_PUSH_ROOM(q->texts, q->count, room);
		q->texts[q->count++] = texts;
	}
	MEM_PUSH_ROOM(q->texts, q->count, room);
	q->texts[q->count] = NULL;
}

int request_decode(char *bytes, size_t length, struct request *ret_request, struct err *e)
{
	struct request q = { 0 };

	if (length < sizeof q.head || length > REQUEST_LONGEST)
		return err_set(e, ERR_INVALID, "a request of %zu bytes", length);
	memcpy(&q.head, bytes, sizeof q.head);
	bytes[length] = '\0';
	if (q.head.version != RUNNER_VERSION || q.head.size != sizeof q.head || q.head.texts_length != length - sizeof q.head)
		return err_set(e, ERR_INVALID, "a request of version %u for runners of version %u, or of a wrong length",
			       q.head.version, RUNNER_VERSION);
	split(bytes + sizeof q.head, q.head.texts_length, &q);
	if (q.head.kind == RUNNER_EXEC && (q.count < 3 || q.head.commands == 0 || q.head.commands > q.count - 2)) {
		request_done(&q);
		return err_set(e, ERR_INVALID, "no command to execute");
	}
	*ret_request = q;
	return 0;
}

void request_done(struct request *q)
{
	free(q->texts);
	*q = (struct request){ 0 };
}
