/* SPDX-License-Identifier: Apache-2.0 */
#include "store/disk_unpack.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/own.h"
#include "store/disk_private.h"

#define BUFFER_BYTES (1U << 20)
#define TELL_EVERY (UINT64_C(16) << 20)

static int failed(struct archive *a, struct err *e)
{
	const char *why = archive_error_string(a);
	return err_set(e, ERR_CORRUPT, "the packed disk cannot be read: %s", why ? why : "unknown error");
}

static int open_packed(struct archive *a, int fd, struct err *e)
{
	struct archive_entry *entry;

	(void)archive_read_support_filter_gzip(a);
	(void)archive_read_support_filter_xz(a);
	(void)archive_read_support_filter_zstd(a);
	(void)archive_read_support_filter_bzip2(a);
	(void)archive_read_support_format_raw(a);
	if (lseek(fd, 0, SEEK_SET) < 0)
		return err_errno(e, errno, "read the upload");
	if (archive_read_open_fd(a, fd, BUFFER_BYTES) != ARCHIVE_OK || archive_read_next_header(a, &entry) != ARCHIVE_OK)
		return failed(a, e);
	return 0;
}

/* Whole buffers, so that what is zero is told apart at the same places as in a file that came unpacked. */
static la_ssize_t fill(struct archive *a, uint8_t *buffer)
{
	size_t done = 0;
	la_ssize_t n = 1;

	while (n > 0 && done < BUFFER_BYTES) {
		n = archive_read_data(a, buffer + done, BUFFER_BYTES - done);
		done += n > 0 ? (size_t)n : 0;
	}
	return n < 0 ? n : (la_ssize_t)done;
}

static int copy(struct archive *a, int fd, uint64_t bytes_most, disk_progress_fn *progress, void *data, struct err *e)
{
	own_str uint8_t *buffer = mem_alloc(BUFFER_BYTES);
	struct disk_progress p = { 0 };
	la_ssize_t n;
	int r = 0;

	while (r >= 0 && (n = fill(a, buffer)) != 0) {
		if (n < 0)
			return failed(a, e);
		if (p.done_bytes + (uint64_t)n > bytes_most)
			return err_set(e, ERR_TOO_LARGE, "the disk has more than %llu bytes", (unsigned long long)bytes_most);
		r = disk_write_data(fd, buffer, (size_t)n, p.done_bytes, e);
		p.done_bytes += (uint64_t)n;
		if (r >= 0 && p.done_bytes % TELL_EVERY == 0)
			r = progress(data, &p, e);
	}
	if (r >= 0 && ftruncate(fd, (off_t)p.done_bytes) < 0)
		r = err_errno(e, errno, "write the disk");
	p.complete = true;
	return r < 0 ? r : progress(data, &p, e);
}

int disk_unpack_file(int input_fd, int output_fd, uint64_t bytes_most, disk_progress_fn *progress, void *data, struct err *e)
{
	struct archive *a = archive_read_new();
	int r = open_packed(a, input_fd, e);

	if (r == 0)
		r = copy(a, output_fd, bytes_most, progress, data, e);
	(void)archive_read_free(a);
	return r;
}
