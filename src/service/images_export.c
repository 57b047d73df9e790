/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The answer of an export is what the program writes into a pipe. The answer ends well only when the program said that it is
 * complete; otherwise the connection breaks, so that half an archive is not taken for a whole one.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/own.h"
#include "service/handlers.h"
#include "service/images.h"
#include "store/export.h"

struct sending {
	struct request *request; /* NULL: the connection is gone */
	struct export *export;
	int pipe_fd;
	struct loop_source *readable;
	bool drained, done, failed;
};

static void on_readable(void *data, uint32_t events)
{
	struct sending *x = data;

	(void)events;
	loop_set_events(x->readable, 0);
	request_wake(x->request);
}

static void on_done(void *data, const struct err *failure)
{
	struct sending *x = data;

	x->done = true;
	x->failed = failure != NULL;
	if (failure && failure->kind != ERR_CANCELLED)
		log_error(failure, "export");
	request_wake(x->request);
}

static long read_some(void *data, char *buffer, size_t size)
{
	struct sending *x = data;

	if (!x->drained) {
		ssize_t n = read(x->pipe_fd, buffer, size);
		if (n > 0)
			return n;
		if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
			loop_set_events(x->readable, EPOLLIN);
			return 0;
		}
		x->drained = true;
		loop_remove(TAKE(x->readable));
	}
	if (!x->done)
		return 0;
	return x->failed ? STREAM_BROKEN : -1;
}

static void sending_free(void *data)
{
	struct sending *x = data;

	loop_remove(x->readable);
	export_free(x->export);
	(void)close(x->pipe_fd);
	free(x);
}

static int start(struct request *r, const struct image *image, enum export_format format, struct err *e)
{
	static const struct export_events events = { .done = on_done };
	int pair[2];

	if (pipe2(pair, O_CLOEXEC) < 0)
		return err_errno(e, errno, "pipe");
	own_fd int reading = pair[0], writing = pair[1];
	(void)fcntl(reading, F_SETPIPE_SZ, 1 << 20);
	int result = fs_set_blocking(reading, false, e);
	struct sending *x = mem_alloc(sizeof *x);
	const struct export_request q = { r->service->images->store_path, image, format, writing };
	*x = (struct sending){ .request = r, .pipe_fd = -1 };
	if (result == 0)
		result = export_start(r->service->loop, &q, &events, x, &x->export, e);
	if (result < 0) {
		free(x);
		return result;
	}
	x->pipe_fd = TAKE_FD(reading);
	x->readable = loop_add_fd(r->service->loop, x->pipe_fd, 0, on_readable, x);
	request_reply_stream(r, "application/x-tar", read_some, sending_free, x);
	return 0;
}

int handle_image_export(struct request *r, struct err *e)
{
	const char *text = request_query(r, "format");
	struct image image = { 0 };
	unsigned format = 0;

	while (text && export_format_names[format] && !str_eq(export_format_names[format], text))
		format++;
	if (!export_format_names[format]) {
		(void)err_set(e, ERR_INVALID, "query parameter 'format' is '%.60s'", text);
		return err_hint(e, "it is oci, oci-zstd, partitions or tar");
	}
	int result = images_resolve(r->service, r->params[0], &image, e);
	if (result == 0)
		result = start(r, &image, format, e);
	image_done(&image);
	return result;
}
