/* SPDX-License-Identifier: Apache-2.0 */
#ifndef STORE_EROFS_FORMAT_H
#define STORE_EROFS_FORMAT_H

/*
 * EROFS on disk, as far as our images use it: little-endian, blocks of 4096 bytes, no compression. Source: the kernel's
 * Documentation/filesystems/erofs.rst and the layout notes of erofs-utils. docs/formats/partition.md has every byte.
 *
 * Offsets into each structure are named instead of declaring packed structs: bytes from outside are never cast.
 */

#include <stddef.h>
#include <stdint.h>

#define EROFS_BLOCK_BITS 12
#define EROFS_BLOCK 4096U
#define EROFS_SLOT 32U /* inode numbers ("nid") count these from meta_blkaddr */
#define EROFS_NULL_BLOCK UINT32_MAX

/* Superblock, 128 bytes at offset 1024. */
#define EROFS_SB_AT 1024U
#define EROFS_MAGIC 0xE0F5E1E2U
enum {
	SB_MAGIC = 0, SB_CHECKSUM = 4, SB_FEATURE_COMPAT = 8, SB_BLOCK_BITS = 12, SB_ROOT_NID = 14, SB_INODES = 16,
	SB_BUILD_TIME = 24, SB_BUILD_NSEC = 32, SB_BLOCKS = 36, SB_META_BLOCK = 40, SB_XATTR_BLOCK = 44, SB_UUID = 48,
	SB_VOLUME_NAME = 64, SB_FEATURE_INCOMPAT = 80, SB_SIZE = 128,
};
#define EROFS_ROOT_AT (EROFS_SB_AT + SB_SIZE) /* where ours begins: the root's number has 16 bits */
enum { EROFS_COMPAT_CHECKSUM = 1, EROFS_COMPAT_MTIME = 2 };
enum { EROFS_INCOMPAT_CHUNKED_FILE = 4 };

/* Inode, extended form, 64 bytes. */
enum {
	INODE_FORMAT = 0, INODE_XATTR_COUNT = 2, INODE_MODE = 4, INODE_FILE_SIZE = 8, INODE_U = 16, INODE_INO = 20,
	INODE_UID = 24, INODE_GID = 28, INODE_MTIME = 32, INODE_MTIME_NSEC = 40, INODE_NLINK = 44, INODE_BYTES = 64,
};
enum { EROFS_FLAT_PLAIN = 0, EROFS_FLAT_INLINE = 2, EROFS_CHUNK_BASED = 4 }; /* format: 1 (extended) | layout << 1 */

/* Extended attributes behind the inode: a header of 12 bytes, then entries padded to 4. */
enum { XATTR_HEADER_BYTES = 12, XATTR_NAME_LENGTH = 0, XATTR_PREFIX = 1, XATTR_VALUE_LENGTH = 2, XATTR_ENTRY_BYTES = 4 };
enum { EROFS_XATTR_USER = 1, EROFS_XATTR_ACL_ACCESS = 2, EROFS_XATTR_ACL_DEFAULT = 3, EROFS_XATTR_TRUSTED = 4,
       EROFS_XATTR_SECURITY = 6 };

/* Directory entry, 12 bytes; names follow the entries of a block. */
enum { DIRENT_NID = 0, DIRENT_NAME_AT = 8, DIRENT_TYPE = 10, DIRENT_BYTES = 12 };
enum { EROFS_TYPE_REGULAR = 1, EROFS_TYPE_DIRECTORY, EROFS_TYPE_CHAR, EROFS_TYPE_BLOCK, EROFS_TYPE_FIFO, EROFS_TYPE_SOCKET,
       EROFS_TYPE_LINK };

static inline void put_le16(uint8_t *at, uint16_t v)
{
	at[0] = (uint8_t)v;
	at[1] = (uint8_t)(v >> 8);
}
static inline void put_le32(uint8_t *at, uint32_t v)
{
	put_le16(at, (uint16_t)v);
	put_le16(at + 2, (uint16_t)(v >> 16));
}
static inline void put_le64(uint8_t *at, uint64_t v)
{
	put_le32(at, (uint32_t)v);
	put_le32(at + 4, (uint32_t)(v >> 32));
}
static inline uint16_t get_le16(const uint8_t *at) { return (uint16_t)(at[0] | at[1] << 8); }
static inline uint32_t get_le32(const uint8_t *at) { return get_le16(at) | (uint32_t)get_le16(at + 2) << 16; }
static inline uint64_t get_le64(const uint8_t *at) { return get_le32(at) | (uint64_t)get_le32(at + 4) << 32; }

/* CRC-32C (Castagnoli), not inverted at the end, as the superblock's checksum has it. */
uint32_t erofs_crc32c(uint32_t crc, const uint8_t *bytes, size_t length);

#endif
