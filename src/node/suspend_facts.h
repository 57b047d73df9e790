/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NODE_SUSPEND_FACTS_H
#define NODE_SUSPEND_FACTS_H

/*
 * What a workspace that runs has just now and CRIU cannot take along, and what of it is worth knowing before it is taken: for
 * the checks of a suspend and of a live move. Looked at from outside, while it runs; what is true a moment later is found by
 * CRIU itself.
 */

#include "node/node.h"
#include "node/record.h"

struct suspend_facts {
	struct texts obstacles; /* each a sentence: what is in the way */
	struct texts notes;     /* what goes along and may not like it */
};

/* `into_machine`: it is to go on under a processor that lacks what this one has. */
void suspend_facts_read(struct node *n, const struct record *r, bool into_machine, struct suspend_facts *ret_facts);
void suspend_facts_done(struct suspend_facts *f);

#endif
