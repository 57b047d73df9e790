/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NODE_FACTS_NETWORK_H
#define NODE_FACTS_NETWORK_H

/* Where this host's packets go already, and whose rules stand in the way of ours. */

#include <jansson.h>

/* Prefixes of this host's routes but the default, link-local, multicast and those by our own bridges: pools must not overlap
 * them. */
json_t *facts_routes(void);
/* One item for each rule of another program that drops our packets, as in facts.h. */
void facts_add_foreign_rules(json_t *items);
/* Whether packets between workspaces may take the short way (network/fast.h). */
void facts_add_short_way(json_t *items);

#endif
