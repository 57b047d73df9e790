/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_SPEC_EDIT_H
#define CLI_SPEC_EDIT_H

/* Lists of a workspace's spec that are changed while it runs: read, edited here, and replaced whole. */

#include <jansson.h>

#include "cli/cli.h"

/* The list as it is now: a new array, empty when the spec has none. */
int spec_edit_list(struct cli *cli, const char *workspace, const char *key, json_t **ret_list, struct err *e) must_check;
/* Replaces keys of the spec (takes body). */
int spec_edit_put(struct cli *cli, const struct args *a, const char *workspace, json_t *body, struct err *e) must_check;
void spec_edit_print(const struct cli *cli, const json_t *list); /* one a line */
bool spec_edit_remove(json_t *list, const char *text);           /* texts; false: not there */
bool spec_edit_add(json_t *list, const char *text);              /* false: there already */

#endif
