/* SPDX-License-Identifier: Apache-2.0 */
/* One message on a runner's control socket: whatever is accepted has all its texts inside the message, and a command where one
 * is needed. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/own.h"
#include "runner/request.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	own_str char *bytes = malloc(size + 1);
	struct request q;
	struct err e;
	size_t length = 0;

	if (!bytes)
		return 0;
	if (size)
		memcpy(bytes, data, size);
	bytes[size] = '\0';
	if (request_decode(bytes, size, &q, &e) < 0)
		return 0;
	for (size_t i = 0; i < q.count; i++)
		length += strlen(q.texts[i]) + 1;
	if (length > q.head.texts_length + 1 || q.texts[q.count])
		abort();
	if (q.head.kind == RUNNER_EXEC && (!q.head.commands || q.head.commands > q.count - 2 || !q.texts[2]))
		abort();
	request_done(&q);
	return 0;
}
