/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_SPEC_OPTIONS_H
#define CLI_SPEC_OPTIONS_H

/* The options of run and deploy that describe a workspace, and the spec that they and a file make. */

#include <jansson.h>

#include "cli/cli.h"

extern const struct option spec_options[];

/* `source` is an image, a spec file (.yaml, .yml, .json, or a path that begins with '.' or '/'), or "-". *ret_spec is a spec
 * that has passed all checks which need no service. */
int spec_from_args(const struct args *a, const char *source, json_t **ret_spec, struct err *e) must_check;

#endif
