/* SPDX-License-Identifier: Apache-2.0 */
#include "store/export.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "store/worker.h"

struct export {
	struct worker *worker;
	struct export_events events;
	void *data;
};

static void on_answer(void *data, struct wire_answer *answer)
{
	struct export *x = data;

	if (answer->progress && x->events.progress)
		x->events.progress(x->data, answer->progress->step, answer->progress->done_bytes,
				   answer->progress->total_bytes);
}

static void on_end(void *data, const struct err *failure, struct wire_answer *answer)
{
	struct export *x = data;

	x->events.done(x->data, failure, failure ? 0 : answer->sockets);
}

/* "team/web:1" is tagged "1"; a name without a tag is the tag itself, as other tools do it. */
static const char *tag_of(const struct image *image)
{
	const char *colon = image->name ? strrchr(image->name, ':') : NULL;
	const char *slash = image->name ? strrchr(image->name, '/') : NULL;

	if (colon && (!slash || colon > slash))
		return colon + 1;
	return slash ? slash + 1 : image->name;
}

int export_start(struct loop *l, const struct export_request *q, const struct export_events *events, void *data,
		 struct export **ret_export, struct err *e)
{
	const struct export_wire wire = { (char *)(uintptr_t)q->store, (char *)(uintptr_t)tag_of(q->image), q->format,
					  (struct image *)(uintptr_t)q->image };
	struct export *x = mem_alloc(sizeof *x);
	*x = (struct export){ .events = *events, .data = data };
	const struct worker_start how = {
		.program = "carrel-export",
		.store = q->store,
		.input_fd = -1,
		.output_fd = q->output_fd,
		.shape = &export_wire_shape,
		.request = &wire,
		.answer = on_answer,
		.end = on_end,
		.data = x,
	};
	int r = worker_start(l, &how, &x->worker, e);
	if (r < 0) {
		free(x);
		return r;
	}
	*ret_export = x;
	return 0;
}

void export_cancel(struct export *x) { worker_cancel(x->worker); }

void export_free(struct export *x)
{
	if (!x)
		return;
	worker_free(x->worker);
	free(x);
}
