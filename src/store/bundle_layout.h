/* SPDX-License-Identifier: Apache-2.0 */
#ifndef STORE_BUNDLE_LAYOUT_H
#define STORE_BUNDLE_LAYOUT_H

/* The image of a bundle as a tar of an OCI image layout, without what was left out: so it is imported as any other image is. */

#include "store/bundle_reader.h"

int bundle_layout_write(struct bundle_reader *r, int fd, struct err *e) must_check;

#endif
