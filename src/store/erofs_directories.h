/* SPDX-License-Identifier: Apache-2.0 */
#ifndef STORE_EROFS_DIRECTORIES_H
#define STORE_EROFS_DIRECTORIES_H

/* All directories of an image, when what is in them is known. */

#include "store/erofs_output.h"
#include "store/erofs_tree.h"

/* Counts the links of the tree's inodes. The root's inode goes to `block_zero`, at EROFS_ROOT_AT. */
int erofs_write_directories(struct erofs_tree *t, struct erofs_output *o, uint8_t *block_zero, uint64_t *ret_count,
			    struct err *e) must_check;

#endif
