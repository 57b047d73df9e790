/* SPDX-License-Identifier: Apache-2.0 */
/* Disk images and archives of them: what the sandboxed reader does. */
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "store/disk_convert.h"

#define READS_MOST 256

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

static void complain(const struct err *e)
{
	if (!e->message[0])
		abort();
}

static void read_disk(const struct disk_window *w, enum disk_format format)
{
	static uint8_t buffer[65536];
	own_disk struct disk *d = NULL;
	struct err e = { 0 };

	if (disk_open(w, format, NULL, &d, &e) < 0) {
		complain(&e);
		return;
	}
	uint64_t at = 0, n = 0;
	for (unsigned reads = 0; at < disk_bytes(d) && reads < READS_MOST; reads++, at += n) {
		int r = disk_read(d, at, buffer, sizeof buffer, &n, &e);
		if (r < 0) {
			complain(&e);
			return;
		}
		if (n == 0 || n > disk_bytes(d) - at || (r == 1 && n > sizeof buffer))
			abort();
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
	own_fd int fd = memfd_create("fuzz", MFD_CLOEXEC);
	struct disk_upload u;
	struct err e = { 0 };

	if (fd < 0 || write(fd, bytes, length) != (ssize_t)length)
		return 0;
	if (disk_inspect(fd, false, &u, &e) < 0) {
		complain(&e);
		return 0;
	}
	if (disk_check_upload(&u, length, &e) < 0)
		abort();
	for (size_t i = 0; i < u.count; i++)
		read_disk(&(struct disk_window){ fd, u.parts[i].offset, u.parts[i].bytes },
			  (enum disk_format)u.parts[i].format);
	return 0;
}
