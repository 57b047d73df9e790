/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RUNNER_REQUEST_H
#define RUNNER_REQUEST_H

/* One request of the control socket (model/runner_protocol.h), taken apart and checked. */

#include <stddef.h>

#include "model/runner_protocol.h"

#define REQUEST_LONGEST (sizeof(struct runner_request) + RUNNER_TEXTS_LONGEST)

struct request {
	struct runner_request head;
	const char **texts; /* `count`, then NULL; they point into the message. One at least: "" when there are none */
	size_t count;
};

/* `bytes` has room for one more than `length`, a NUL, and must stay. RUNNER_EXEC has user, folder and at least one word of a
 * command. */
int request_decode(char *bytes, size_t length, struct request *ret_request, struct err *e) must_check;
void request_done(struct request *q);

#endif
