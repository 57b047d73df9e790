/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NODE_TEMPLATE_FAILURE_H
#define NODE_TEMPLATE_FAILURE_H

/*
 * Templates that machines did not go on from. One whose state QEMU does not load is not made again while the agent lives. Any
 * other failure may be the host's, which was busy: the first is forgiven; with the second, and no success in between, it goes
 * and is not made for a while.
 */

#include <stdbool.h>
#include <stdint.h>

#include "base/hash.h"

#define TEMPLATE_FAILURES_MOST 2
#define TEMPLATE_REST_MS (UINT64_C(10) * 60 * 1000)

struct template_failure {
	char name[DIGEST_HEX_SIZE];
	unsigned times;    /* since the last success */
	uint64_t until_ms; /* it is not made before; UINT64_MAX: never */
	struct template_failure *next;
};

/* True: the template goes. `of_no_use`: it cannot be loaded. Times are of loop_now_ms. */
bool template_failures_add(struct template_failure **list, const char *name, bool of_no_use, uint64_t now_ms);
/* A machine went on from it. */
void template_failures_end(struct template_failure *list, const char *name);
/* It may be made. */
bool template_failures_allow(struct template_failure *list, const char *name, uint64_t now_ms);
void template_failures_free(struct template_failure **list);

#endif
