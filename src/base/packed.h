/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_PACKED_H
#define BASE_PACKED_H

#include <stdbool.h>
#include <stddef.h>

/* Whether a file that begins so is packed with gzip, xz, zstd or bzip2. */
bool packed_is(const void *head, size_t length);

#endif
