/* SPDX-License-Identifier: Apache-2.0 */
/* Offsets and features: the kernel's Documentation/filesystems/ext4/super.rst. */
#include "store/ext4_super.h"

#include <inttypes.h>
#include <string.h>

#include "base/mem.h"

enum {
	BLOCKS_LOW = 0x4,
	LOG_BLOCK = 0x18,
	LOG_CLUSTER = 0x1c,
	MAGIC = 0x38,
	STATE = 0x3a,
	REVISION = 0x4c,
	INODE_BYTES = 0x58,
	COMPATIBLE = 0x5c,
	INCOMPATIBLE = 0x60,
	READ_ONLY = 0x64,
	JOURNAL_INODE = 0xe0,
	JOURNAL_DEVICE = 0xe4,
	LAST_ORPHAN = 0xe8,
	DESCRIPTOR_BYTES = 0xfe,
	BLOCKS_HIGH = 0x150,
	MOUNT_OPTIONS = 0x200,
	MOUNT_OPTIONS_BYTES = 64,
};

enum { STATE_CLEAN = 1, STATE_ERRORS = 2 };
#define NEEDS_RECOVERY  0x4U
#define ORPHANS_PRESENT 0x10000U

/* What mkfs.ext4 makes for a volume, and what a kernel adds to it by itself. */
static const struct {
	const char *name;
	unsigned at;
	uint32_t known;
} features[] = {
	/* has_journal ext_attr resize_inode dir_index sparse_super2 fast_commit orphan_file */
	{ "compatible", COMPATIBLE, 0x4 | 0x8 | 0x10 | 0x20 | 0x200 | 0x400 | 0x1000 },
	/* filetype needs_recovery meta_bg extents 64bit flex_bg csum_seed large_dir */
	{ "incompatible", INCOMPATIBLE, 0x2 | 0x4 | 0x10 | 0x40 | 0x80 | 0x200 | 0x2000 | 0x4000 },
	/* sparse_super large_file huge_file gdt_csum dir_nlink extra_isize metadata_csum orphan_present */
	{ "read-only compatible", READ_ONLY, 0x1 | 0x2 | 0x8 | 0x10 | 0x20 | 0x40 | 0x400 | ORPHANS_PRESENT },
};

static uint32_t get16(const uint8_t *at) { return (uint32_t)at[0] | (uint32_t)at[1] << 8; }
static uint32_t get32(const uint8_t *at) { return get16(at) | get16(at + 2) << 16; }

static int check_features(const uint8_t *block, struct err *e)
{
	for (size_t i = 0; i < ARRAY_SIZE(features); i++) {
		uint32_t unknown = get32(block + features[i].at) & ~features[i].known;
		if (unknown)
			return err_set(e, ERR_UNSUPPORTED,
				       "the file system has %s features that a volume does not have (0x%" PRIx32 ")",
				       features[i].name, unknown);
	}
	/* A journal of its own, in the inode that is meant for it, and on no other device. */
	if (!(get32(block + COMPATIBLE) & 0x4) || get32(block + JOURNAL_INODE) != 8 || get32(block + JOURNAL_DEVICE))
		return err_set(e, ERR_UNSUPPORTED, "the file system's journal is not where a volume has it");
	for (size_t i = 0; i < MOUNT_OPTIONS_BYTES; i++)
		if (block[MOUNT_OPTIONS + i])
			return err_set(e, ERR_UNSUPPORTED, "the file system brings mount options of its own");
	return 0;
}

int ext4_super_check(const uint8_t block[EXT4_SUPER_BYTES], uint64_t file_bytes, struct ext4_super *ret_super, struct err *e)
{
	uint64_t blocks = (uint64_t)get32(block + BLOCKS_HIGH) << 32 | get32(block + BLOCKS_LOW);
	uint32_t state = get16(block + STATE);

	if (get16(block + MAGIC) != 0xef53)
		return err_set(e, ERR_CORRUPT, "it holds no ext4 file system");
	if (get32(block + LOG_BLOCK) != 2 || get32(block + LOG_CLUSTER) != 2 || get32(block + REVISION) != 1)
		return err_set(e, ERR_UNSUPPORTED, "the file system has another block size or revision than a volume");
	if (get16(block + INODE_BYTES) != 256)
		return err_set(e, ERR_UNSUPPORTED, "the file system has inodes of another size than a volume");
	if (blocks == 0 || blocks > file_bytes / 4096)
		return err_set(e, ERR_CORRUPT, "the file system says it has %" PRIu64 " blocks, and its disk has %" PRIu64,
			       blocks, file_bytes / 4096);
	int r = check_features(block, e);
	if (r < 0)
		return r;
	*ret_super = (struct ext4_super){
		.bytes = blocks * 4096,
		.unfinished = (get32(block + INCOMPATIBLE) & NEEDS_RECOVERY) || (get32(block + READ_ONLY) & ORPHANS_PRESENT) ||
			      !(state & STATE_CLEAN) || (state & STATE_ERRORS) || get32(block + LAST_ORPHAN),
	};
	return 0;
}
