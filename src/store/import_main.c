/* SPDX-License-Identifier: Apache-2.0 */
/* carrel-import: brings one image into the store. How it is spoken with: import_wire.h. */
#include <stdio.h>
#include <curl/curl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/loop.h"
#include "base/own.h"
#include "store/cancel.h"
#include "store/import_job.h"
#include "store/import_wire.h"

struct reporter {
	uint64_t last_ms;
	char step[32];
};

/* At most ten a second, and each step at once. Who does not read misses some. */
static void report(void *data, const struct import_progress *p)
{
	struct reporter *reporter = data;
	uint64_t now = loop_now_ms();
	bool new_step = strncmp(reporter->step, p->step, sizeof reporter->step - 1) != 0;

	if (!new_step && now - reporter->last_ms < 100)
		return;
	reporter->last_ms = now;
	(void)snprintf(reporter->step, sizeof reporter->step, "%s", p->step);
	struct wire_progress w = { (char *)(uintptr_t)p->step, p->done_bytes, p->total_bytes, p->reused_bytes };
	struct wire_answer a = { .progress = &w };
	if (wire_send(STDOUT_FILENO, &wire_answer_shape, &a, NULL) < 0)
		reporter->last_ms = now + 1000;
}

/* The image is pinned until the service has recorded it. */
static void await_service(void)
{
	struct err e;
	while (cancel_poll(NULL, 0, -1, &e) >= 0)
		continue;
}

static int import_in_session(struct store *store, const struct import_wire *request, struct err *e)
{
	own_store_session struct store_session *session = NULL;
	struct reporter reporter = { 0 };
	struct image image = { 0 };

	int r = store_session_start(store, &session, e);
	if (r < 0)
		return r;
	own_job struct job *job = job_new(store, session, request, STDIN_FILENO, report, &reporter);
	r = job_run(job, &image, e);
	if (r < 0)
		return r;
	struct wire_answer a = { .image = &image };
	r = wire_send(STDOUT_FILENO, &wire_answer_shape, &a, e);
	image_done(&image);
	if (r == 0)
		await_service();
	return r;
}

static int import(struct err *e)
{
	own_store struct store *store = NULL;
	struct import_wire request = { 0 };

	int r = wire_receive(WIRE_REQUEST_FD, &import_wire_shape, &request, e);
	if (r == 0)
		r = cancel_start(WIRE_REQUEST_FD, e);
	/* before the children: they have no files to read OpenSSL's configuration from */
	if (r == 0 && request.format == IMPORT_REGISTRY && curl_global_init(CURL_GLOBAL_ALL) != CURLE_OK)
		r = err_set(e, ERR_INTERNAL, "libcurl does not start");
	if (r == 0)
		r = store_open(request.store, &store, e);
	if (r == 0)
		r = store_clean(store, e); /* what a killed import left */
	if (r == 0)
		r = import_in_session(store, &request, e);
	if (request.password)
		explicit_bzero(request.password, strlen(request.password));
	shape_done(&import_wire_shape, &request);
	return r;
}

int main(void)
{
	struct err e = { 0 };

	log_init("carrel-import", LOG_INFO);
	(void)signal(SIGPIPE, SIG_IGN);
	(void)umask(022);
	if (import(&e) == 0)
		return 0;
	/* nobody may listen any more: then the status has to do */
	if (wire_send_error(STDOUT_FILENO, &e, NULL) < 0)
		log_error(&e, "import");
	return err_kind_exit_code(e.kind);
}
