/* SPDX-License-Identifier: Apache-2.0 */
/* carrel-export: writes one image to a descriptor. How it is spoken with: import_wire.h. */
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/loop.h"
#include "base/own.h"
#include "store/cancel.h"
#include "store/export_job.h"
#include "store/import_wire.h"

static void report(void *data, const char *step, uint64_t done_bytes, uint64_t total_bytes)
{
	uint64_t *last_ms = data, now = loop_now_ms();

	if (now - *last_ms < 100)
		return;
	*last_ms = now;
	struct wire_progress w = { (char *)(uintptr_t)step, done_bytes, total_bytes, 0 };
	struct wire_answer a = { .progress = &w };
	if (wire_send(STDOUT_FILENO, &wire_answer_shape, &a, NULL) < 0)
		*last_ms = now + 1000;
}

static int export_in_session(struct store *store, const struct export_wire *request, struct err *e)
{
	own_store_session struct store_session *session = NULL;
	uint64_t last_ms = 0, sockets = 0;
	int r = store_session_start(store, &session, e);

	if (r == 0)
		r = export_job_run(store, session, request, WIRE_EXPORT_FD, report, &last_ms, &sockets, e);
	if (r < 0)
		return r;
	struct wire_answer a = { .complete = true, .sockets = sockets };
	return wire_send(STDOUT_FILENO, &wire_answer_shape, &a, e);
}

static int export(struct err *e)
{
	own_store struct store *store = NULL;
	struct export_wire request = { 0 };

	int r = wire_receive(WIRE_REQUEST_FD, &export_wire_shape, &request, e);
	if (r == 0)
		r = cancel_start(WIRE_REQUEST_FD, e);
	if (r == 0)
		r = store_open(request.store, &store, e);
	if (r == 0)
		r = export_in_session(store, &request, e);
	shape_done(&export_wire_shape, &request);
	return r;
}

int main(void)
{
	struct err e = { 0 };

	log_init("carrel-export", LOG_INFO);
	(void)signal(SIGPIPE, SIG_IGN);
	(void)umask(022);
	if (export(&e) == 0)
		return 0;
	if (wire_send_error(STDOUT_FILENO, &e, NULL) < 0)
		log_error(&e, "export");
	return err_kind_exit_code(e.kind);
}
