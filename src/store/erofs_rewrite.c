/* SPDX-License-Identifier: Apache-2.0 */
#include "store/erofs_rewrite.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"
#include "store/erofs_reader.h"
#include "store/erofs_writer.h"
#include "store/tar_export.h"
#include "store/tar_reader.h"
#include "store/tar_writer.h"

#define MOVE_BYTES (1U << 20)

struct source {
	struct erofs_reader *reader;
	int fd, result;
	struct err error;
};

static int to_pipe(void *data, const void *bytes, size_t length, struct err *e)
{
	const struct source *s = data;
	return fs_write_all(s->fd, bytes, length, e);
}

static void *export_image(void *data)
{
	struct source *s = data;
	struct tar_writer w = { to_pipe, s };

	s->result = tar_export(&s->reader, 1, false, &w, &s->error);
	(void)close(s->fd);
	return NULL;
}

/* The bytes from `from` on become the file. */
static int move_down(int fd, uint64_t from, uint64_t length, struct err *e)
{
	own_str char *buffer = mem_alloc(MOVE_BYTES);

	for (uint64_t at = 0; at < length;) {
		size_t most = length - at < MOVE_BYTES ? (size_t)(length - at) : MOVE_BYTES;
		ssize_t n = pread(fd, buffer, most, (off_t)(from + at));
		if (n > 0)
			n = pwrite(fd, buffer, (size_t)n, (off_t)at);
		if (n <= 0)
			return err_errno(e, n < 0 ? errno : EIO, "move the partition");
		at += (uint64_t)n;
	}
	return ftruncate(fd, (off_t)length) < 0 ? err_errno(e, errno, "set the partition's length") : 0;
}

/* Reads the tar to a new image behind the old one; the reading end is closed first, so that the other thread ends in any
 * case. */
static int write_behind(int fd, uint64_t base, int tar_fd, uint64_t *ret_bytes, uint64_t *ret_inodes, struct err *e)
{
	struct tar_summary summary;
	own_erofs_writer struct erofs_writer *w = erofs_writer_new(fd, base, &erofs_default_limits);

	int r = tar_read(tar_fd, &tar_default_limits, w, &summary, e);
	(void)close(tar_fd);
	return r == 0 ? erofs_finish(w, ret_bytes, ret_inodes, e) : r;
}

int erofs_rewrite(int fd, const int pipe[2], uint64_t *size_bytes, uint64_t *inodes, struct err *e)
{
	own_erofs_reader struct erofs_reader *reader = NULL;
	struct source source = { .fd = pipe[1] };
	uint64_t new_bytes, new_inodes;
	pthread_t thread = 0;

	int r = erofs_open(fd, &reader, e);
	source.reader = reader;
	int failed = r == 0 ? pthread_create(&thread, NULL, export_image, &source) : 0;
	if (failed)
		r = err_errno(e, failed, "start a thread");
	if (r < 0) {
		(void)close(pipe[0]);
		(void)close(pipe[1]);
		return r;
	}
	r = write_behind(fd, *size_bytes, pipe[0], &new_bytes, &new_inodes, e);
	(void)pthread_join(thread, NULL);
	if (source.result < 0 && source.error.number != EPIPE) {
		*e = source.error;
		r = source.result;
	}
	if (r == 0)
		r = move_down(fd, *size_bytes, new_bytes, e);
	if (r == 0) {
		*size_bytes = new_bytes;
		*inodes = new_inodes;
	}
	return r < 0 ? err_wrap(e, "write the partition once more") : 0;
}
