/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SERVICE_KERNELS_H
#define SERVICE_KERNELS_H

/* Kernels for machines: images of a kind of their own, and for each processor the site's default. */

#include "service/workspace.h"

/* What this workspace boots when its next run is one of a machine goes into its wish: the spec's kernel, else the one that its
 * image asks for, else the default for its processor. ERR_UNSUPPORTED when it must be a machine and there is none. */
int kernels_choose(struct service *s, struct workspace *w, struct err *e) must_check;
/* A new kernel becomes the default of a processor that has none. */
int kernels_imported(struct service *s, struct db_batch *b, const struct image *kernel, struct err *e) must_check;

#endif
