/* SPDX-License-Identifier: Apache-2.0 */
#include "store/import.h"

#include "base/mem.h"
#include "store/import_wire.h"
#include "store/worker.h"

struct import {
	struct worker *worker;
	struct import_events events;
	void *data;
};

static void on_answer(void *data, struct wire_answer *answer)
{
	struct import *i = data;
	const struct wire_progress *p = answer->progress;

	if (p && i->events.progress)
		i->events.progress(i->data,
				   &(struct import_progress){ p->step, p->done_bytes, p->total_bytes, p->reused_bytes });
}

static void on_end(void *data, const struct err *failure, struct wire_answer *answer)
{
	struct import *i = data;
	struct err lost;

	if (!failure && !answer->image) {
		(void)err_set(&lost, ERR_INTERNAL, "carrel-import ended without an image");
		failure = &lost;
	}
	i->events.done(i->data, failure, failure ? NULL : answer->image);
}

int import_start(struct loop *l, const struct import_request *q, const struct import_events *events, void *data,
		 struct import **ret_import, struct err *e)
{
	const struct import_wire wire = {
		.store = (char *)(uintptr_t)q->store,
		.format = q->format,
		.init = q->init,
		.reference = (char *)(uintptr_t)q->reference,
		.architecture = (char *)(uintptr_t)q->architecture,
		.user = (char *)(uintptr_t)q->user,
		.password = (char *)(uintptr_t)q->password,
		.auth_file = (char *)(uintptr_t)q->auth_file,
		.limits = q->limits,
		.machine = (struct image_machine *)(uintptr_t)q->machine,
		.run = (struct image_run *)(uintptr_t)q->run,
	};
	struct import *i = mem_alloc(sizeof *i);
	*i = (struct import){ .events = *events, .data = data };
	const struct worker_start how = {
		.program = "carrel-import",
		.store = q->store,
		.input_fd = q->format == IMPORT_REGISTRY ? -1 : q->input_fd,
		.output_fd = -1,
		.shape = &import_wire_shape,
		.request = &wire,
		.answer = on_answer,
		.end = on_end,
		.data = i,
	};
	int r = worker_start(l, &how, &i->worker, e);
	if (r < 0) {
		free(i);
		return r;
	}
	*ret_import = i;
	return 0;
}

void import_cancel(struct import *i) { worker_cancel(i->worker); }

void import_free(struct import *i)
{
	if (!i)
		return;
	worker_free(i->worker);
	free(i);
}
