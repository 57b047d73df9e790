/* SPDX-License-Identifier: Apache-2.0 */
#ifndef STORE_EROFS_XATTRS_H
#define STORE_EROFS_XATTRS_H

/* Extended attributes as they stand behind an inode: header, then entries, each padded to 4 bytes. */

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "store/erofs_writer.h"

/* Sorted by name, so that the order in the archive does not matter. None: NULL and 0. The caller frees. */
int erofs_encode_xattrs(const struct erofs_xattr *xattrs, size_t count, uint8_t **ret_bytes, size_t *ret_length,
			struct err *e) must_check;

#endif
