/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SERVICE_SIZES_H
#define SERVICE_SIZES_H

/* How much a workspace has, and how a change request changes that. */

#include "service/views.h"
#include "service/workspace.h"

/* `resources` and `volumes` of the request into a spec that is a copy. */
int sizes_change(struct spec *spec, const struct change_request *body, struct err *e) must_check;
bool sizes_same_limits(const struct spec *a, const struct spec *b); /* all but disks */
/* Whether `w` may have the limits of `spec` now. The host may still refuse them, and then all sizes are again what they were:
 * so not while another operation is under way. */
int sizes_check(struct service *s, const struct workspace *w, const struct spec *spec, struct err *e) must_check;
/* For the operation, and back. */
json_t *sizes_of(const struct spec *spec);
void sizes_restore(struct workspace *w, const json_t *sizes);

#endif
