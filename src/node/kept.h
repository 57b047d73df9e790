/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NODE_KEPT_H
#define NODE_KEPT_H

/* Volumes that outlive their workspaces: STATE/node/kept/OWNER/NAME.ext4. From any thread. */

#include <jansson.h>

#include "node/node.h"

/* A list of {owner, name, size, used, in-use}; a new reference. */
json_t *kept_list(const struct node *n);
/* ERR_CONFLICT while a workspace uses it. */
int kept_remove(const struct node *n, uint64_t owner, const char *name, struct err *e) must_check;
/* What an interrupted step left beside them goes. */
void kept_clean(const struct node *n);

#endif
