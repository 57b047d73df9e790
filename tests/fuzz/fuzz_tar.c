/* SPDX-License-Identifier: Apache-2.0 */
/* An archive from anybody becomes a partition or an error; a partition that was made passes the strict check. */
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/own.h"
#include "store/erofs_reader.h"
#include "store/erofs_writer.h"
#include "store/tar_reader.h"
#include "erofs_check.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
	const struct erofs_limits limits = { .entries = 2000, .image_bytes = 16 << 20 };
	const struct tar_limits plain = { .plain_bytes = 8 << 20 };
	struct tar_summary summary;
	struct erofs_counts counts;
	struct err e;
	uint64_t size, inodes;
	own_fd int tar = memfd_create("tar", MFD_CLOEXEC), image = memfd_create("image", MFD_CLOEXEC);
	own_erofs_writer struct erofs_writer *w = erofs_writer_new(image, 0, &limits);
	own_erofs_reader struct erofs_reader *r = NULL;

	if (fs_write_all(tar, bytes, length, &e) < 0 || lseek(tar, 0, SEEK_SET) != 0)
		abort();
	if (tar_read(tar, &plain, w, &summary, &e) < 0 || erofs_finish(w, &size, &inodes, &e) < 0)
		return 0;
	if (erofs_open(image, &r, &e) < 0 || erofs_check(r, &counts, &e) < 0)
		abort();
	return 0;
}
