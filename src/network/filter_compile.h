/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NETWORK_FILTER_COMPILE_H
#define NETWORK_FILTER_COMPILE_H

/* The pure half between model and ruleset. */

#include "network/filter_model.h"
#include "network/filter_ruleset.h"

#define FILTER_TABLE 24
/* "carrel_INSTANCE"; refuses an instance that is not [a-z0-9]{1,8}. */
int filter_table_name(const char *instance, char ret_table[static FILTER_TABLE], struct err *e) must_check;

/* Base chains and what depends on networks only. */
void filter_compile_skeleton(const struct filter_model *m, const char *table, struct str *to);
/* What the table of family bridge has for bridges of the site; `follows`: the kernel follows connections there. */
void filter_compile_site_sets(bool follows, struct str *to);
void filter_compile_site_chains(uint64_t connections_most, bool follows, struct str *to);
/* Bit of the mark of what the host forwards to a bridge of the site for an address that is not a workspace's by pool. */
#define FILTER_FORWARDED "0x40000000"
/* Chains, sets of peers and elements of one workspace of this host, without its membership in sets of peers; `sited`: beside
 * others that are on a bridge of the site. */
void filter_compile_workspace(struct filter_ruleset *r, const struct filter_model *m, const struct filter_party *p, bool sited);
/* Its addresses as an element of those sets of peers that `known` has, and of the maps of owners. */
void filter_compile_member(struct filter_ruleset *r, const struct filter_ruleset *known, const struct filter_party *p);
/* Everything, sealed. */
void filter_compile_model(struct filter_ruleset *r, const struct filter_model *m, const char *table);

#endif
