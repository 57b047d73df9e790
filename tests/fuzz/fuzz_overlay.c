/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A workspace's own disk that came from elsewhere: what is accepted can be read. A file would be mostly zeros, so the input is
 * what is written into an empty one: 4 bytes where (the last 4 bits times 64 KiB, the rest bytes), 1 byte how much, then that.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "store/disk.h"
#include "store/overlay.h"
#include "store/overlay_check.h"

#define DISK_BYTES_OF_IT (UINT64_C(1) << 30)
#define CLUSTERS 12

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

static void read_all(int fd)
{
	static uint8_t buffer[65536];
	own_disk struct disk *d = NULL;
	struct disk_window w;
	struct err e = { 0 };
	uint64_t n = 0;

	if (disk_window_of(fd, &w, &e) < 0 || disk_open(&w, DISK_QCOW2, NULL, &d, &e) < 0)
		abort();
	for (uint64_t at = 0; at < disk_bytes(d); at += n)
		if (disk_read(d, at, buffer, sizeof buffer, &n, &e) < 0 || n == 0)
			abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
	static char path[] = "/tmp/carrel-fuzz-overlay-XXXXXX";
	static int made = -1;
	own_fd int fd = memfd_create("fuzz", MFD_CLOEXEC);
	static uint8_t empty[CLUSTERS << 16];
	struct err e = { 0 };

	if (made < 0) {
		made = mkstemp(path);
		if (made < 0 || unlink(path) < 0 || overlay_make(path, DISK_BYTES_OF_IT, &e) < 0)
			abort();
		own_fd int first = open(path, O_RDONLY | O_CLOEXEC);
		if (first < 0 || read(first, empty, sizeof empty) <= 0)
			abort();
		(void)unlink(path);
	}
	if (fd < 0 || write(fd, empty, sizeof empty) != (ssize_t)sizeof empty)
		return 0;
	for (size_t at = 0; at + 5 <= length;) {
		uint32_t where;
		memcpy(&where, bytes + at, sizeof where);
		size_t n = bytes[at + 4] < length - at - 5 ? bytes[at + 4] : length - at - 5;
		uint64_t place = ((uint64_t)(where % 16) << 16) + (where / 16 & 0xffff);
		if (n && pwrite(fd, bytes + at + 5, n, (off_t)place) < 0)
			return 0;
		at += 5 + n;
	}
	if (overlay_check(fd, 0, &e) == 0)
		read_all(fd);
	else if (!e.message[0])
		abort();
	return 0;
}
