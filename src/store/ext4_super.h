/* SPDX-License-Identifier: Apache-2.0 */
#ifndef STORE_EXT4_SUPER_H
#define STORE_EXT4_SUPER_H

/*
 * The superblock of a volume that somebody else may have written, held against what our volumes are (docs/formats/volume.md):
 * no feature that makes a kernel do more than read and write this one file system, and no mount options of its own. Pure.
 */

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

#define EXT4_SUPER_AT    1024
#define EXT4_SUPER_BYTES 1024

struct ext4_super {
	uint64_t bytes;  /* of the file system */
	bool unfinished; /* it was not unmounted, or met an error: the journal and the list of orphans come first */
};

/* ERR_CORRUPT, or ERR_UNSUPPORTED for what may be whole and is not ours. */
int ext4_super_check(const uint8_t block[EXT4_SUPER_BYTES], uint64_t file_bytes, struct ext4_super *ret_super,
		     struct err *e) must_check;

#endif
