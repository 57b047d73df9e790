/* SPDX-License-Identifier: Apache-2.0 */
/* A superblock of anybody's: what is accepted lies inside its disk and asks for nothing that volumes do not have. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "store/ext4_super.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t block[EXT4_SUPER_BYTES] = { 0 };
	uint64_t disk = UINT64_C(64) << 20;
	struct ext4_super super;

	memcpy(block, data, size < sizeof block ? size : sizeof block);
	if (ext4_super_check(block, disk, &super, NULL) >= 0 &&
	    (super.bytes == 0 || super.bytes > disk || (block[0x61] & 0x80) || block[0x200]))
		abort();
	return 0;
}
