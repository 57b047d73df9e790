/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_SPEC_EDIT_H
#define CLI_SPEC_EDIT_H

/*
 * Parts of a workspace's spec that are changed while it runs: read, edited here, and replaced whole - but only when nobody else
 * changed the workspace in between; otherwise all of it is done again with what is there then, so that no change is lost.
 */

#include <jansson.h>

#include "cli/cli.h"

#define SPEC_EDIT_TRIES 256 /* each lost one is a change of somebody else */

/* Puts into `body` the keys of the spec that shall be replaced; none: there is nothing to do. May be called again with a newer
 * spec. */
typedef int spec_edit_fn(struct cli *cli, const struct args *a, const char *workspace, const json_t *spec, json_t *body,
			 struct err *e);
int spec_edit(struct cli *cli, const struct args *a, const char *workspace, spec_edit_fn *edit, struct err *e) must_check;

/* a copy of a list of the spec, empty when it has none; the caller's */
json_t *spec_edit_list(const json_t *spec, const char *key);
void spec_edit_print(const struct cli *cli, const json_t *list); /* one a line */
bool spec_edit_remove(json_t *list, const char *text);           /* texts; false: not there */
bool spec_edit_add(json_t *list, const char *text);              /* false: there already */

#endif
