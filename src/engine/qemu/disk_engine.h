/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_QEMU_DISK_ENGINE_H
#define ENGINE_QEMU_DISK_ENGINE_H

/* The engines for machines, when the image is a disk: engine.c hands over to these. */

#include <jansson.h>

#include "base/hash.h"
#include "engine/launch.h"

int disk_engine_plan(const struct launch *l, struct str *ret_plan, struct err *e) must_check;
int disk_engine_layout(const struct launch *l, char out[DIGEST_TEXT_SIZE], struct err *e) must_check;
int disk_engine_describe(const struct launch *l, json_t **ret_plan, struct err *e) must_check;

#endif
