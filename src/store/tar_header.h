/* SPDX-License-Identifier: Apache-2.0 */
#ifndef STORE_TAR_HEADER_H
#define STORE_TAR_HEADER_H

/* The header of a regular file in a tar that we write around other things: POSIX ustar, sizes past 8 GiB in GNU's base 256, no
 * time, nobody's. */

#include <stdint.h>

#define TAR_BLOCK 512

void tar_header_fill(const char *name, uint64_t bytes, uint8_t out[TAR_BLOCK]);

#endif
