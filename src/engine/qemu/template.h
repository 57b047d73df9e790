/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_QEMU_TEMPLATE_H
#define ENGINE_QEMU_TEMPLATE_H

/*
 * A template: a machine that has started its kernel and carrel-init, and waits for its configuration. It has no disk and no
 * network: those of a workspace are there when it goes on, and are found by looking at its buses once more. So one template
 * serves all images and volumes; what it depends on is the kernel, carrel-init, QEMU, and the machine's memory and processors.
 * Pure.
 */

#include "base/hash.h"
#include "engine/launch.h"

/* The plan of a machine that becomes a template: l->memory is the file that it writes. */
int template_plan(const struct launch *l, struct str *ret_plan, struct err *e) must_check;
/* Whether a machine of this launch may go on from a template; it does, if there is one of this name: "sha256:HEX" over QEMU's
 * command line and the files that it boots. What else a host knows of them is for the caller to add. */
bool template_fits(const struct launch *l);
int template_words(const struct launch *l, char out[DIGEST_TEXT_SIZE], struct err *e) must_check;

#endif
