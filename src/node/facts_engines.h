/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NODE_FACTS_ENGINES_H
#define NODE_FACTS_ENGINES_H

#include <jansson.h>

#include "node/node.h"

/* One item for each engine and processor, as facts_read's. */
/* What memory goes on here: shape memory-facts. */
json_t *facts_resume(void);
void facts_add_engines(json_t *items, const struct node *n);

#endif
