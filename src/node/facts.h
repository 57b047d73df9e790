/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NODE_FACTS_H
#define NODE_FACTS_H

/* What this host can do, for `carrel doctor`: a list of facts, each tried and not guessed, with what to do about those
 * missing. */

#include <jansson.h>

#include "node/node.h"

/* {"kernel":TEXT,"machine":TEXT,"processors":N,"memory":BYTES,
 * "items":[{"name","ok","need":"required|optional","detail","hint"}]}. Any thread. */
json_t *facts_read(const struct node *n);

#endif
