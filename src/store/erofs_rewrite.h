/* SPDX-License-Identifier: Apache-2.0 */
#ifndef STORE_EROFS_REWRITE_H
#define STORE_EROFS_REWRITE_H

/*
 * An image in which entries replaced others is written once more from itself: the gaps are gone, and it is the image that its
 * own tar gives. Without this an exported partition would not be recognised when it comes back.
 */

#include <stdint.h>

#include "base/err.h"

/* `fd` holds an image of *size_bytes; the new one takes its place. `pipe` is an empty pipe (made before the sandbox was
 * entered); both ends are closed. SIGPIPE must be ignored. */
int erofs_rewrite(int fd, const int pipe[2], uint64_t *size_bytes, uint64_t *inodes, struct err *e) must_check;

#endif
