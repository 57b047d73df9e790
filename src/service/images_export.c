/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. The answer of an export is what the program writes into a pipe, and an operation tells how far it is (header
 * Carrel-Operation). The answer ends well only when the program said that it is complete; otherwise the connection breaks, so
 * that half an archive is not taken for a whole one.
 *
 * The operation ends once: done when the last byte was handed out, failed or cancelled at the program's word, cancelled when
 * the reader went away - whichever comes first. It is not resumed: docs/decisions/0050.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/own.h"
#include "db/db.h"
#include "service/event.h"
#include "service/handlers.h"
#include "service/images.h"
#include "service/operation.h"
#include "store/export.h"

struct sending {
	struct service *service;
	struct sending *next;
	struct request *request;
	struct export *export;
	char operation[ID_SIZE];
	int pipe_fd;
	struct loop_source *readable;
	bool drained, done, failed;
	uint64_t sockets;
	bool ended; /* the operation */
};

static void committed(void *data, const struct err *failure)
{
	if (failure)
		log_error(failure, "the end of an export was not stored");
	events_committed(data);
}

static void end(struct sending *x, const struct err *failure)
{
	struct operation *o = x->ended ? NULL : operation_by_id(x->service, x->operation);
	json_t *result = NULL;

	x->ended = true;
	if (!o)
		return;
	struct db_batch *b = db_batch_new();
	if (!failure && x->sockets)
		result = json_pack("{s:[o]}", "warnings",
				   json_sprintf("%llu %s left out: a tar has no form for sockets, and programs make them anew",
						(unsigned long long)x->sockets,
						x->sockets == 1 ? "socket was" : "sockets were"));
	operation_end(x->service, b, o, failure, result);
	db_submit(x->service->db, b, x->service->loop, committed, x->service);
}

static void on_readable(void *data, uint32_t events)
{
	struct sending *x = data;

	(void)events;
	loop_set_events(x->readable, 0);
	request_wake(x->request);
}

static void on_progress(void *data, const char *step, uint64_t done_bytes, uint64_t total_bytes)
{
	struct sending *x = data;
	struct operation *o = operation_by_id(x->service, x->operation);

	if (o && !x->ended)
		operation_progress(o, step ? step : "write", done_bytes, total_bytes, 0);
}

static void on_done(void *data, const struct err *failure, uint64_t sockets)
{
	struct sending *x = data;

	x->done = true;
	x->failed = failure != NULL;
	x->sockets = sockets;
	if (failure && failure->kind != ERR_CANCELLED)
		log_error(failure, "export");
	if (failure)
		end(x, failure);
	request_wake(x->request);
}

static long read_some(void *data, char *buffer, size_t size)
{
	struct sending *x = data;

	if (x->failed)
		return STREAM_BROKEN;
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
	end(x, NULL);
	return -1;
}

static void sending_free(void *data)
{
	struct sending *x = data;
	struct err gone;

	if (!x->ended) {
		(void)err_set(&gone, ERR_CANCELLED, "the reader of the archive went away");
		end(x, &gone);
	}
	for (struct sending **at = &x->service->images->exports; *at; at = &(*at)->next) {
		if (*at == x) {
			*at = x->next;
			break;
		}
	}
	loop_remove(x->readable);
	export_free(x->export);
	(void)close(x->pipe_fd);
	free(x);
}

bool images_export_cancel(struct service *s, const char *operation_id)
{
	struct sending *x = s->images->exports;

	while (x && !str_eq(x->operation, operation_id))
		x = x->next;
	if (x && !x->done)
		export_cancel(x->export);
	return x != NULL;
}

/* Durable from the start, like all operations: one that the service's end cut off is told as failed. */
static void begin(struct sending *x, const struct image *image)
{
	struct service *s = x->service;
	struct db_batch *b = db_batch_new();
	struct operation *o = operation_start(s, b, "image-export", true, image->name, x->request->who.uid);

	memcpy(x->operation, o->id, sizeof x->operation);
	db_submit(s->db, b, s->loop, NULL, NULL);
	x->request->operation = x->operation;
	x->next = s->images->exports;
	s->images->exports = x;
}

static int start(struct request *r, const struct image *image, enum export_format format, struct err *e)
{
	static const struct export_events events = { .progress = on_progress, .done = on_done };
	int pair[2];

	if (pipe2(pair, O_CLOEXEC) < 0)
		return err_errno(e, errno, "pipe");
	own_fd int reading = pair[0], writing = pair[1];
	(void)fcntl(reading, F_SETPIPE_SZ, 1 << 20);
	int result = fs_set_blocking(reading, false, e);
	struct sending *x = mem_alloc(sizeof *x);
	const struct export_request q = { r->service->images->store_path, image, format, writing };
	*x = (struct sending){ .service = r->service, .request = r, .pipe_fd = -1 };
	if (result == 0)
		result = export_start(r->service->loop, &q, &events, x, &x->export, e);
	if (result < 0) {
		free(x);
		return result;
	}
	x->pipe_fd = TAKE_FD(reading);
	x->readable = loop_add_fd(r->service->loop, x->pipe_fd, 0, on_readable, x);
	begin(x, image);
	request_reply_stream(r, image->machine && format != EXPORT_OVA ? "application/octet-stream" : "application/x-tar",
			     read_some, sending_free, x);
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
		return err_hint(e, "it is oci, oci-zstd, partitions or tar; of disks qcow2, vmdk, ova or raw");
	}
	int result = images_resolve(r->service, r->params[0], &image, e);
	if (result == 0)
		result = export_check(&image, format, e);
	if (result == 0 && r->head)
		request_reply_text(r, 200, "application/x-tar", mem_strdup(""), 0);
	else if (result == 0)
		result = start(r, &image, format, e);
	image_done(&image);
	return result;
}
