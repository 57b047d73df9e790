/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_EROFS_CHECK_H
#define TESTS_EROFS_CHECK_H

/* What tests and fuzzers hold an image against. The service has no use for it: what it reads of an image it checks as it reads. */

#include <stdint.h>

#include "base/err.h"
#include "store/erofs_reader.h"

/* Walks the whole image: every name, inode, attribute and extent; one parent for each directory; link counts. */
struct erofs_counts {
	uint64_t entries, inodes, bytes;
};
int erofs_check(struct erofs_reader *r, struct erofs_counts *ret_counts, struct err *e) must_check;

#endif
