/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. One job is one operation. Its ends come in any order: the upload has come whole or broke off; the import ended well
 * or not.
 * - An upload that broke off cancels the import before its pipe is closed, so half an archive is never taken for a whole one.
 * - An import that failed early is answered at once, when its end is stored, and the rest of the upload is not read. One that
 *   had all it
 *   needs drops what follows.
 * - The job goes when the import has ended, its row is committed (or nothing came of it), and no request points to it.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/own.h"
#include "db/image.h"
#include "service/event.h"
#include "service/handlers.h"
#include "service/images.h"
#include "service/kernels.h"
#include "service/operation.h"
#include "store/import.h"

struct image_job {
	struct service *service;
	struct image_job *next;
	char operation[ID_SIZE];
	char *name;
	uint64_t owner_uid;
	bool admin;                  /* may replace images of others */
	struct import *import;
	bool ended;                  /* the import; what still comes of the upload is dropped */
	bool settled;                /* and nothing more has to be committed */
	struct image image;          /* what came of it, until it is committed */
	struct err failure;          /* or why nothing came of it */
	/* the upload: */
	struct request *request;     /* that sends it; NULL: none, or it has come whole */
	int pipe_fd;                 /* -1: closed */
	struct str pending;          /* what the pipe did not take yet */
	struct loop_source *writable;
	uint64_t received_bytes;
};

static void close_pipe(struct image_job *j)
{
	loop_remove(TAKE(j->writable));
	if (j->pipe_fd >= 0)
		(void)close(TAKE_FD(j->pipe_fd));
	str_done(&j->pending);
}

static void job_free(struct image_job *j)
{
	for (struct image_job **at = &j->service->images->jobs; *at; at = &(*at)->next) {
		if (*at == j) {
			*at = j->next;
			break;
		}
	}
	close_pipe(j);
	import_free(j->import);
	image_done(&j->image);
	free(j->name);
	free(j);
}

static void job_free_if_over(struct image_job *j)
{
	if (j->settled && !j->request)
		job_free(j);
}

static struct operation *operation_of(const struct image_job *j) { return operation_by_id(j->service, j->operation); }

int images_cancel(struct service *s, const char *operation_id, struct err *e)
{
	if (images_export_cancel(s, operation_id))
		return 0;
	for (struct image_job *j = s->images->jobs; j; j = j->next) {
		if (str_eq(j->operation, operation_id)) {
			if (!j->ended)
				import_cancel(j->import);
			return 0;
		}
	}
	return err_set(e, ERR_CONFLICT, "the operation is not under way any more");
}

/* --- the end of an import --- */

static void settled(void *data, const struct err *failure)
{
	struct image_job *j = data;

	if (failure)
		log_error(failure, "the end of an operation was not stored");
	events_committed(j->service);
	j->settled = true;
	struct request *r = j->failure.kind ? TAKE(j->request) : NULL;
	if (r) {
		r->received = NULL;
		r->ended = NULL;
		request_fail_at_once(r, &j->failure);
	}
	job_free_if_over(j);
}

static void settle(struct image_job *j, const struct err *failure)
{
	struct db_batch *b = db_batch_new();
	struct operation *o = operation_of(j);
	json_t *result = failure ? NULL : json_pack("{s:s, s:s}", "name", j->name, "digest", j->image.digest);

	if (o)
		operation_end(j->service, b, o, failure, result);
	else
		json_decref(result);
	if (failure) {
		j->failure = *failure;
		images_collect_soon(j->service);
	}
	db_submit(j->service->db, b, j->service->loop, settled, j);
}

/* Only now may the pins go: the row names the image. */
static void recorded(void *data, const struct err *failure) { settle(data, failure); }

/* An import takes its time, and somebody else may have taken the name meanwhile: the row is put only when it is free or
 * ours. */
static void record(struct image_job *j, struct image *image)
{
	struct db_batch *b = db_batch_new();
	struct err e;

	j->image = *image;
	*image = (struct image){ 0 };
	free(j->image.name);
	j->image.name = mem_strdup(j->name);
	j->image.owner_uid = j->owner_uid;
	j->image.created_ms = service_now_ms();
	json_t *json = encode(&image_shape, &j->image);
	char *text = json_dumps(json, JSON_COMPACT);
	const struct db_image row = { j->name, j->image.digest, text, j->owner_uid, j->image.created_ms };
	db_image_put(b, &row, j->admin);
	if (j->image.kernel && j->admin && kernels_imported(j->service, b, &j->image, &e) < 0)
		log_error(&e, "kernel %s", j->name);
	event_add(j->service, b, j->image.kernel ? "kernel.imported" : "image.imported", j->name, j->owner_uid,
		  json_pack("{s:s}", "digest", j->image.digest));
	db_submit(j->service->db, b, j->service->loop, recorded, j);
	free(text);
	json_decref(json);
}

static void on_progress(void *data, const struct import_progress *p)
{
	struct image_job *j = data;
	struct operation *o = operation_of(j);

	/* while an upload comes, this side knows best how much there is of it */
	if (o)
		operation_progress(o, p->step, p->total_bytes || p->done_bytes ? p->done_bytes : j->received_bytes,
				   p->total_bytes, p->reused_bytes);
}

static void on_done(void *data, const struct err *failure, struct image *image)
{
	struct image_job *j = data;

	j->ended = true;
	close_pipe(j);
	if (j->request && !failure)
		request_body_wake(j->request);
	if (failure)
		settle(j, failure);
	else
		record(j, image);
}

/* --- the upload --- */

/* What the pipe takes goes; the rest waits. A reader that is gone has a reason, which its last line tells. */
static void push(struct image_job *j)
{
	while (j->pending.length > 0) {
		ssize_t n = write(j->pipe_fd, j->pending.bytes, j->pending.length);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return;
		str_drop_front(&j->pending, n < 0 ? j->pending.length : (size_t)n);
	}
}

static void on_writable(void *data, uint32_t events)
{
	struct image_job *j = data;

	(void)events;
	push(j);
	if (j->pending.length > 0)
		return;
	loop_set_events(j->writable, 0);
	if (j->request)
		request_body_wake(j->request);
}

static int on_upload(struct request *r, const char *bytes, size_t length, struct err *e)
{
	struct image_job *j = r->data;

	(void)e;
	j->received_bytes += length;
	if (j->ended)
		return 0;
	str_add(&j->pending, bytes, length);
	push(j);
	if (j->pending.length == 0)
		return 0;
	loop_set_events(j->writable, EPOLLOUT);
	return 1;
}

static void on_upload_end(struct request *r, bool failed)
{
	struct image_job *j = r->data;
	struct operation *o = operation_of(j);
	struct err gone;

	j->request = NULL;
	if (failed) {
		if (!j->ended)
			import_cancel(j->import);
		(void)err_set(&gone, ERR_CANCELLED, "the upload broke off");
	} else {
		close_pipe(j); /* nothing is pending: the connection waited for that */
		if (o)
			request_reply_json(r, 202, operation_to_json(o));
		else
			request_fail(r, (err_set(&gone, ERR_INTERNAL, "the operation is gone"), &gone));
	}
	job_free_if_over(j);
}

/* --- the start --- */

struct image_add {
	char *name, *source, *architecture, *user, *password;
};
#define A(member) offsetof(struct image_add, member)
static const struct field add_fields[] = {
	{ "name", FIELD_TEXT, A(name), "name[:tag] that it gets", .required = true, .check = name_check_image,
	  .example = "debian:12" },
	{ "source", FIELD_TEXT, A(source), "docker://host[:port]/name[:tag|@digest]", .required = true,
	  .example = "docker://docker.io/library/debian:12" },
	{ "architecture", FIELD_TEXT, A(architecture), "processor; the service's own when absent", .max = 64,
	  .example = "arm64" },
	{ "user", FIELD_TEXT, A(user), "user name for the registry", .max = 1024 },
	{ "password", FIELD_TEXT, A(password), "password or token for the registry; kept nowhere", .max = 65536 },
	{ 0 },
};
const struct shape image_add_shape = { "image-add", sizeof(struct image_add), add_fields,
				       "An image to fetch from a registry." };

static int check_name(struct request *r, const char *name, bool kernel, struct err *e)
{
	struct image there = { 0 };
	int result = name_check_image(name, e);

	if (result == 0)
		result = images_find(r->service, name, &there, e);
	if (result > 0 && !r->who.admin && there.owner_uid != r->who.uid)
		result = err_set(e, ERR_EXISTS, "image '%s' exists and belongs to another user", name);
	if (result > 0 && (there.kernel != NULL) != kernel)
		result = err_set(e, ERR_EXISTS, "'%s' is the name of %s", name, there.kernel ? "a kernel" : "an image");
	image_done(&there);
	return result < 0 ? result : 0;
}

static int job_start(struct request *r, const char *name, struct import_request *q, struct image_job **ret_job, struct err *e)
{
	static const struct import_events events = { on_progress, on_done };
	struct service *s = r->service;
	struct image_job *j = mem_alloc(sizeof *j);

	*j = (struct image_job){ .service = s, .name = mem_strdup(name), .owner_uid = r->who.uid, .admin = r->who.admin,
				 .pipe_fd = -1 };
	q->store = s->images->store_path;
	q->limits = s->config.import;
	int result = import_start(s->loop, q, &events, j, &j->import, e);
	if (result < 0) {
		free(j->name);
		free(j);
		return result;
	}
	struct db_batch *b = db_batch_new();
	struct operation *o = operation_start(s, b, "image-import", true, name, r->who.uid);
	memcpy(j->operation, o->id, sizeof j->operation);
	db_submit(s->db, b, s->loop, NULL, NULL);
	j->next = s->images->jobs;
	s->images->jobs = j;
	*ret_job = j;
	return 0;
}

static int start_fetch(struct request *r, const struct image_add *body, bool kernel, struct err *e)
{
	struct import_request q = { .format = IMPORT_REGISTRY, .input_fd = -1, .reference = body->source,
				    .architecture = body->architecture, .user = body->user, .password = body->password,
				    .auth_file = r->service->config.registry_passwords };
	struct image_job *j;

	int result = check_name(r, body->name, kernel, e);
	if (result == 0)
		result = job_start(r, body->name, &q, &j, e);
	if (result == 0)
		request_reply_json(r, 202, operation_to_json(operation_of(j)));
	return result;
}

static int on_json(struct request *r, const char *bytes, size_t length, struct err *e)
{
	if (r->body.length + length > 1 << 20)
		return err_set(e, ERR_TOO_LARGE, "the request is longer than 1 MiB");
	str_add(&r->body, bytes, length);
	return 0;
}

static void end_json(struct request *r, bool failed, bool kernel)
{
	struct image_add body = { 0 };
	struct err e;

	if (failed)
		return;
	int result = decode_text(str_text(&r->body), r->body.length, "request body", &image_add_shape, &body, &e);
	if (result == 0)
		result = start_fetch(r, &body, kernel, &e);
	if (result < 0)
		request_fail(r, &e);
	if (body.password)
		explicit_bzero(body.password, strlen(body.password));
	if (r->body.length)
		explicit_bzero(r->body.bytes, r->body.length);
	shape_done(&image_add_shape, &body);
}

static void on_json_end(struct request *r, bool failed) { end_json(r, failed, false); }
static void on_kernel_json_end(struct request *r, bool failed) { end_json(r, failed, true); }

static int choose(const char *text, const char *const *names, const char *what, unsigned *ret_chosen, struct err *e)
{
	for (unsigned i = 0; names[i]; i++) {
		if (str_eq(text, names[i])) {
			*ret_chosen = i;
			return 0;
		}
	}
	(void)err_set(e, ERR_INVALID, "query parameter '%s' is '%.60s'", what, text);
	own_strbuf struct str all = { 0 };
	for (unsigned i = 0; names[i]; i++)
		str_printf(&all, "%s%s", i ? ", " : "", names[i]);
	return err_hint(e, "it is one of %s", str_text(&all));
}

static int choose_machine(struct request *r, struct image_machine *ret_machine, struct err *e)
{
	const struct {
		const char *name;
		const char *const *names;
		unsigned *to;
	} rows[] = { { "firmware", machine_firmware_names, &ret_machine->firmware },
		     { "disk-bus", machine_bus_names, &ret_machine->disk_bus },
		     { "nic", machine_nic_names, &ret_machine->nic } };
	int result = 0;

	for (size_t i = 0; result == 0 && i < ARRAY_SIZE(rows); i++) {
		const char *text = request_query(r, rows[i].name);
		if (text)
			result = choose(text, rows[i].names, rows[i].name, rows[i].to, e);
	}
	return result;
}

static int start_upload(struct request *r, const char *name, bool kernel, struct err *e)
{
	static const char *const formats[] = { "tar", "oci", "disk", "raw", NULL }, *const inits[] = { "detect", "yes", "no",
												       NULL };
	const char *format = request_query(r, "format"), *init = request_query(r, "init");
	struct image_machine machine = { 0 };
	unsigned chosen = kernel ? IMPORT_KERNEL : IMPORT_TAR, chosen_init = IMPORT_INIT_DETECT;
	struct image_job *j;
	int pair[2];

	int result = check_name(r, name, kernel, e);
	if (result == 0 && format)
		result = choose(format, formats, "format", &chosen, e);
	if (result == 0 && init)
		result = choose(init, inits, "init", &chosen_init, e);
	if (result == 0)
		result = choose_machine(r, &machine, e);
	if (result == 0 && pipe2(pair, O_CLOEXEC) < 0)
		result = err_errno(e, errno, "pipe");
	if (result < 0)
		return result;
	(void)fcntl(pair[1], F_SETPIPE_SZ, 1 << 20);
	own_fd int reading = pair[0], writing = pair[1];
	struct import_request q = { .format = chosen, .input_fd = reading, .reference = request_query(r, "tag"),
				    .architecture = request_query(r, "architecture"), .init = chosen_init,
				    .machine = &machine };
	result = fs_set_blocking(writing, false, e);
	if (result == 0)
		result = job_start(r, name, &q, &j, e);
	if (result != 0)
		return result;
	j->request = r;
	j->pipe_fd = TAKE_FD(writing);
	j->writable = loop_add_fd(r->service->loop, j->pipe_fd, 0, on_writable, j);
	r->data = j;
	r->received = on_upload;
	r->ended = on_upload_end;
	return 0;
}

/* An archive comes with ?name; without it the body is JSON. */
int handle_images_add(struct request *r, struct err *e)
{
	const char *name = request_query(r, "name");

	if (name)
		return start_upload(r, name, false, e);
	r->received = on_json;
	r->ended = on_json_end;
	return 0;
}

/* The same for a kernel: the body is a package. */
int handle_kernels_add(struct request *r, struct err *e)
{
	const char *name = request_query(r, "name");

	if (name)
		return start_upload(r, name, true, e);
	r->received = on_json;
	r->ended = on_kernel_json_end;
	return 0;
}
