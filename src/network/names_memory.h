/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NETWORK_NAMES_MEMORY_H
#define NETWORK_NAMES_MEMORY_H

/*
 * What the agent decided about names since rules changed last, for as long as no agent is there: rules stand still then, so its
 * decisions do. A table of one size, where a new one takes the place of an old one. Starts as `{0}`.
 */

#include "network/question.h"

struct names_memory {
	struct {
		uint64_t key; /* of who asked what; 0: free */
		struct names_decision decision;
	} entries[256];
};

void names_memory_note(struct names_memory *m, const struct names_question *q, const struct names_decision *d);
/* Whether this was decided, or follows from what was: who was told one name outside is told others. */
bool names_memory_find(const struct names_memory *m, const struct names_question *q, struct names_decision *ret_decision);
void names_memory_clear(struct names_memory *m);

#endif
