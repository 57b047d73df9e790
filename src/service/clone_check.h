/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SERVICE_CLONE_CHECK_H
#define SERVICE_CLONE_CHECK_H

/* What may be cloned, and what of its spec a clone has. */

#include "service/workspace.h"

/* *ret_memory: with its memory, or only with what is on its volumes. */
int clone_check(const struct workspace *w, bool *ret_memory, struct err *e) must_check;
/* Without names, addresses and published ports, which are one workspace's. */
int clone_spec(const struct spec *of, const char *name, struct spec **ret_spec, struct err *e) must_check;

#endif
