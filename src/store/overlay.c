/* SPDX-License-Identifier: Apache-2.0 */
#include "store/overlay.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/own.h"

#define CLUSTER_BITS 16
#define CLUSTER (UINT64_C(1) << CLUSTER_BITS)
#define DISK_BYTES_MOST (UINT64_C(16) << 40)
#define L1_ENTRIES (DISK_BYTES_MOST / (CLUSTER * (CLUSTER / 8))) /* 32,768 */
#define L1_CLUSTERS (L1_ENTRIES * 8 / CLUSTER)
#define SIZE_AT 24

/* Clusters: header, table of refcount blocks, one such block, then the first table. */
enum { HEADER, REFCOUNT_TABLE, REFCOUNT_BLOCK, L1_TABLE, CLUSTERS = L1_TABLE + L1_CLUSTERS };

static void put32(uint8_t *p, uint32_t v)
{
	v = htobe32(v);
	memcpy(p, &v, sizeof v);
}

static void put64(uint8_t *p, uint64_t v)
{
	v = htobe64(v);
	memcpy(p, &v, sizeof v);
}

static void fill_header(uint8_t h[112], uint64_t disk_bytes)
{
	memcpy(h, "QFI\xfb", 4);
	put32(h + 4, 3);
	put32(h + 20, CLUSTER_BITS);
	put64(h + SIZE_AT, disk_bytes);
	put32(h + 36, L1_ENTRIES);
	put64(h + 40, L1_TABLE * CLUSTER);
	put64(h + 48, REFCOUNT_TABLE * CLUSTER);
	put32(h + 56, 1);  /* clusters of the refcount table */
	put32(h + 96, 4);  /* refcounts of 2^4 bits */
	put32(h + 100, 104); /* the header's length; behind it the end of extensions */
}

static int put_at(int fd, const void *bytes, size_t length, uint64_t at, struct err *e)
{
	ssize_t n = pwrite(fd, bytes, length, (off_t)at);

	return n == (ssize_t)length ? 0 : err_errno(e, n < 0 ? errno : EIO, "write the disk");
}

static int fill(int fd, uint64_t disk_bytes, struct err *e)
{
	uint8_t header[112] = { 0 }, table[8], block[CLUSTERS * 2] = { 0 };

	fill_header(header, disk_bytes);
	put64(table, REFCOUNT_BLOCK * CLUSTER);
	for (unsigned i = 0; i < CLUSTERS; i++)
		block[2 * i + 1] = 1;
	int r = put_at(fd, table, sizeof table, REFCOUNT_TABLE * CLUSTER, e);
	if (r == 0)
		r = put_at(fd, block, sizeof block, REFCOUNT_BLOCK * CLUSTER, e);
	if (r == 0)
		r = put_at(fd, header, sizeof header, HEADER, e);
	if (r == 0 && ftruncate(fd, (off_t)(CLUSTERS * CLUSTER)) < 0)
		r = err_errno(e, errno, "write the disk");
	return r;
}

int overlay_make(const char *path, uint64_t disk_bytes, struct err *e)
{
	own_str char *unfinished = mem_printf("%s.new", path);

	if (disk_bytes > DISK_BYTES_MOST)
		return err_set(e, ERR_TOO_LARGE, "a disk of %llu bytes, at most %llu are possible",
			       (unsigned long long)disk_bytes, (unsigned long long)DISK_BYTES_MOST);
	if (access(path, F_OK) == 0)
		return 0;
	own_fd int fd = open(unfinished, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return err_errno(e, errno, "make %s", unfinished);
	int r = fill(fd, disk_bytes, e);
	if (r == 0 && rename(unfinished, path) < 0)
		r = err_errno(e, errno, "make %s", path);
	if (r < 0)
		(void)unlink(unfinished);
	return r < 0 ? r : 1;
}

static int open_checked(const char *path, int flags, int *ret_fd, uint64_t *ret_bytes, struct err *e)
{
	uint8_t h[32];
	uint64_t bytes;
	own_fd int fd = open(path, flags | O_CLOEXEC | O_NOFOLLOW);

	if (fd < 0)
		return err_errno(e, errno, "open %s", path);
	if (pread(fd, h, sizeof h, 0) != (ssize_t)sizeof h || memcmp(h, "QFI\xfb", 4) != 0)
		return err_set(e, ERR_CORRUPT, "%s is no qcow2", path);
	memcpy(&bytes, h + SIZE_AT, sizeof bytes);
	*ret_bytes = be64toh(bytes);
	if (*ret_bytes > DISK_BYTES_MOST)
		return err_set(e, ERR_CORRUPT, "%s says that it has %llu bytes", path, (unsigned long long)*ret_bytes);
	*ret_fd = TAKE_FD(fd);
	return 0;
}

int overlay_measure(const char *path, uint64_t *ret_disk_bytes, struct err *e)
{
	own_fd int fd = -1;
	uint64_t bytes = 0;
	int r = open_checked(path, O_RDONLY, &fd, &bytes, e);

	if (r == 0)
		*ret_disk_bytes = bytes;
	return r;
}

int overlay_grow(const char *path, uint64_t disk_bytes, struct err *e)
{
	own_fd int fd = -1;
	uint64_t bytes = 0;
	uint8_t text[8];
	int r = open_checked(path, O_RDWR, &fd, &bytes, e);

	if (r < 0)
		return r;
	if (disk_bytes < bytes || disk_bytes > DISK_BYTES_MOST)
		return err_set(e, ERR_INVALID, "a disk of %llu bytes cannot become one of %llu", (unsigned long long)bytes,
			       (unsigned long long)disk_bytes);
	put64(text, disk_bytes);
	r = put_at(fd, text, sizeof text, SIZE_AT, e);
	return r == 0 && fdatasync(fd) < 0 ? err_errno(e, errno, "write %s", path) : r;
}
