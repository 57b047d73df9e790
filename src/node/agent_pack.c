/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. A level: a suspended workspace whose memory is plain, and has rested long enough, has it packed. One at
 * a time, by a process on all processors that gives way to others, beside the jobs: the workspace is not busy with it, and
 * whatever shall be done with it ends the packing first. Only the last step, which takes a moment, is a job.
 */
#include <errno.h>
#include <sys/epoll.h>

#include "base/log.h"
#include "node/agent_private.h"
#include "node/suspend.h"
#include "node/suspend_pack.h"

#define NEXT_MS 1       /* after one that was left */
#define AGAIN_MS 600000 /* after a failure: a full disk may have room then */

static void on_due(void *data)
{
	struct agent *a = data;

	a->pack_timer = NULL;
	agent_pack(a);
}

void agent_pack_leave(struct workspace *w)
{
	struct agent *a = w->agent;

	if (a->packed != w || w->placing)
		return;
	loop_remove(a->pack_watch);
	a->pack_watch = NULL;
	suspend_packing_free(a->packing);
	a->packing = NULL;
	a->packed = NULL;
	if (!a->pack_timer) /* others may wait for their turn */
		a->pack_timer = loop_add_timer(a->node->loop, NEXT_MS, on_due, a);
}

static void place_job(void *data)
{
	struct workspace *w = data;
	struct record *r = w->record;

	w->pack_failed = suspend_pack_finish(r, w->agent->packing, &w->pack_error) < 0;
	r->pack_due_ms = w->pack_failed ? unix_ms() + AGAIN_MS : suspend_pack_due(w->agent->node, r);
	if (w->pack_failed)
		return;
	suspend_count_bytes(r);
	w->pack_failed = record_save_truth(r, &w->pack_error) < 0;
}

static void place_done(void *data)
{
	struct workspace *w = data;
	struct agent *a = w->agent;

	w->busy = w->placing = false;
	if (w->pack_failed)
		log_error(&w->pack_error, "workspace %s: pack its memory", w->record->id);
	agent_pack_leave(w);
	agent_publish(w);
	agent_idle(w);
	agent_pack(a);
}

static void on_packed(void *data, uint32_t events)
{
	struct workspace *w = data;
	struct agent *a = w->agent;

	(void)events;
	loop_remove(a->pack_watch);
	a->pack_watch = NULL;
	if (w->busy) { /* a copy of it is being taken: its end looks again */
		agent_pack_leave(w);
		return;
	}
	w->busy = w->placing = true;
	workers_run(a->node->workers, place_job, place_done, w, false);
}

static void begin(struct agent *a, struct workspace *w)
{
	struct err e = { 0 };
	int r = suspend_pack_begin(w->record, &a->packing, &e);

	if (r == 0) {
		a->packed = w;
		a->pack_watch = loop_add_fd(a->node->loop, suspend_packing_pidfd(a->packing), EPOLLIN, on_packed, w);
		return;
	}
	w->record->pack_due_ms = e.kind == ERR_NOT_FOUND ? 0 : unix_ms() + AGAIN_MS;
	if (w->record->pack_due_ms)
		log_error(&e, "workspace %s: pack its memory", w->record->id);
}

static struct workspace *first_due(struct agent *a)
{
	struct workspace *first = NULL;

	for (size_t i = 0; i < AGENT_BUCKETS; i++)
		for (struct workspace *w = a->buckets[i]; w; w = w->in_bucket)
			if (!w->busy && w->record->pack_due_ms && w->record->truth.report->state == STATE_SUSPENDED &&
			    (!first || w->record->pack_due_ms < first->record->pack_due_ms))
				first = w;
	return first;
}

void agent_pack(struct agent *a)
{
	while (!a->packed) {
		struct workspace *w = first_due(a);
		uint64_t now = unix_ms();
		loop_remove(a->pack_timer);
		a->pack_timer = NULL;
		if (!w)
			return;
		if (w->record->pack_due_ms > now) {
			a->pack_timer = loop_add_timer(a->node->loop, w->record->pack_due_ms - now, on_due, a);
			return;
		}
		begin(a, w);
	}
}
