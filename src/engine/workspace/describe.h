/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_WORKSPACE_DESCRIBE_H
#define ENGINE_WORKSPACE_DESCRIBE_H

#include <jansson.h>

#include "engine/workspace/plan.h"

/* A plan for people and for golden files. A new reference. */
json_t *describe_plan(const struct plan *p);

#endif
