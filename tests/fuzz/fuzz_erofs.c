/* SPDX-License-Identifier: Apache-2.0 */
/* An image from anybody: the check and the export refuse it or read it, and touch nothing outside. */
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/own.h"
#include "store/erofs_reader.h"
#include "store/tar_export.h"
#include "store/tar_writer.h"
#include "erofs_check.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

/* Sparse files may be large without costing anything; their tar is cut off. */
static int count(void *data, const void *bytes, size_t length, struct err *e)
{
	size_t *left = data;

	(void)bytes;
	if (length > *left)
		return err_set(e, ERR_TOO_LARGE, "enough");
	*left -= length;
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
	struct erofs_counts counts;
	struct err e;
	size_t left = 16 << 20;
	struct tar_writer w = { count, &left };
	own_fd int image = memfd_create("image", MFD_CLOEXEC);
	own_erofs_reader struct erofs_reader *r = NULL;

	if (fs_write_all(image, bytes, length, &e) < 0)
		abort();
	if (erofs_open(image, &r, &e) < 0)
		return 0;
	bool sound = erofs_check(r, &counts, &e) == 0;
	int exported = tar_export(&r, 1, false, &w, &e);
	if (sound && exported < 0 && e.kind != ERR_TOO_LARGE)
		abort();
	return 0;
}
