/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. A workspace has at most one job on the workers. `consider` starts one when there may be something to do;
 * the job (task_converge) decides what. Events that arrive while it runs - a new wish, the end of the runner, a timer - are
 * flags that the next job takes with it, so none is lost and none is handled twice.
 *
 * The end of a runner is the end of file on the connection to it, whoever started it: this agent or one before.
 *
 * Reports go out when a job is done, and while it runs at most every 100 ms: a deployment that takes 5 ms is one report.
 */
#include "node/agent.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"
#include "node/agent_private.h"
#include "node/kept.h"
#include "node/network.h"
#include "node/suspend.h"
#include "node/task.h"

#define TELL_EVERY_MS 100
#define RETRY_FIRST_MS 100
#define RETRY_LONGEST_MS 5000

static struct workspace **bucket_of(struct agent *a, const char *id)
{
	uint32_t hash = 2166136261;
	for (const char *c = id; *c; c++)
		hash = (hash ^ (uint8_t)*c) * 16777619;
	return &a->buckets[hash % AGENT_BUCKETS];
}

struct workspace *agent_find(struct agent *a, const char *id)
{
	struct workspace *w = *bucket_of(a, id);
	while (w && !str_eq(w->record->id, id))
		w = w->in_bucket;
	return w;
}

/* --- reports --- */

static void publish(struct workspace *w, json_t *report) /* takes it */
{
	if (w->report && json_equal(w->report, report)) {
		json_decref(report);
		return;
	}
	json_decref(w->report);
	w->report = report;
	w->agent->events->report(w->agent->data, report);
}

void agent_publish(struct workspace *w) { publish(w, encode(&report_shape, w->record->truth.report)); }

struct update {
	struct workspace *w;
	json_t *report;
	const char *step;
	uint64_t done, total;
};

static void on_update(void *data)
{
	struct update *u = data;

	publish(u->w, u->report);
	if (u->total && u->step)
		u->w->agent->events->progress(u->w->agent->data, u->w->record->id, u->step, u->done, u->total);
	free(u);
}

/* On a worker's thread; the job's `done` is posted after this, so the workspace is there when it arrives. */
static void tell(struct work *work)
{
	struct workspace *w = work->data;
	struct report *report = work->record->truth.report;
	uint64_t now = loop_now_ms();

	if (now - w->told_ms < TELL_EVERY_MS)
		return;
	w->told_ms = now;
	struct update *u = mem_alloc(sizeof *u);
	char *kept = report->step;
	uint64_t generation = report->generation;
	report->step = (char *)(uintptr_t)work->step;
	report->generation = work->answered; /* not before it is done */
	*u = (struct update){ w, encode(&report_shape, report), work->step, work->progress_done, work->progress_total };
	report->step = kept;
	report->generation = generation;
	loop_post(w->agent->node->loop, on_update, u);
}

/* --- jobs --- */

static void consider(struct workspace *w);

static void on_control(void *data, uint32_t events)
{
	struct workspace *w = data;
	char buffer[4096];
	ssize_t n = recv(w->control, buffer, sizeof buffer, MSG_DONTWAIT);

	(void)events;
	if (n > 0 && w->record->untidy) /* it may be past its memory now */
		consider(w);
	if (n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR)))
		return;
	loop_remove(TAKE(w->watch));
	own_close(&w->control);
	w->control = -1;
	w->gone = true;
	consider(w);
}

void agent_watch(struct workspace *w, int control)
{
	if (control < 0)
		return;
	loop_remove(TAKE(w->watch));
	own_close(&w->control);
	w->control = control;
	w->watch = loop_add_fd(w->agent->node->loop, control, EPOLLIN, on_control, w);
}

/* After a start. A program that has ended already leaves a runner that is gone or about to go. */
static void connect_runner(struct workspace *w)
{
	const struct truth *t = &w->record->truth;
	int control = -1;

	if (w->watch || w->gone || w->job_failed || t->restart_waits || !state_is_live((enum state)t->report->state))
		return;
	if (isolate_connect(w->agent->node, w->record->id, &control, NULL) == 0) {
		agent_watch(w, control);
		return;
	}
	w->gone = w->again = true;
}

static void on_restart(void *data)
{
	struct workspace *w = data;
	w->timer = NULL;
	w->restart_due = true;
	consider(w);
}

void agent_restart_later(struct workspace *w)
{
	w->timer = loop_add_timer(w->agent->node->loop, task_restart_delay_ms(w->record->truth.failed_starts), on_restart, w);
}

static void on_retry(void *data)
{
	struct workspace *w = data;
	w->timer = NULL;
	consider(w);
}

static void take_wish(struct workspace *w)
{
	struct record *r = w->record;
	struct assignment empty = { 0 };

	if (!w->next.id)
		return;
	/* The image and so the partitions of a workspace never change: references that are held stay right. */
	assignment_done(&r->wish);
	r->wish = w->next;
	w->next = empty;
	if (state_is_live((enum state)r->truth.report->state))
		networks_update(w->agent->node->networks, &r->wish, r->truth.report);
	bool nothing_to_keep = r->wish.wish == WISH_REMOVED && !r->on_disk;
	w->job_failed = !nothing_to_keep && record_save_wish(r, &w->job_error) < 0;
}

static void job_run(void *data)
{
	struct workspace *w = data;

	if (!w->job_failed)
		w->job_failed = task_converge(&w->work, w->job_gone, w->job_restart, &w->job_error) < 0;
}

static void drop_workspace(struct workspace *w)
{
	struct workspace **at = bucket_of(w->agent, w->record->id);

	while (*at != w)
		at = &(*at)->in_bucket;
	*at = w->in_bucket;
	agent_pack_leave(w);
	agent_check_drop(w);
	loop_remove(w->watch);
	loop_remove(w->timer);
	own_close(&w->control);
	assignment_done(&w->next);
	json_decref(w->report);
	record_free(w->record);
	free(w);
}

/* The agent's own trouble, like a full disk under its records. What had not begun fails at once, with the reason, until there
 * is a newer wish; what runs is told about and tried again. */
static void after_failure(struct workspace *w)
{
	struct report *report = w->record->truth.report;

	log_error(&w->job_error, "workspace %s", w->record->id);
	record_set_error(w->record, "record", &w->job_error);
	if (report->state < STATE_STARTING && w->record->wish.wish != WISH_REMOVED && !w->record->restoring) {
		report->state = STATE_FAILED;
		report->generation = w->record->wish.generation;
		return;
	}
	if (w->record->restoring) /* no answer yet */
		report->generation = w->work.answered;
	w->gone |= w->job_gone;
	w->restart_due |= w->job_restart;
	if (!w->timer)
		w->timer = loop_add_timer(w->agent->node->loop, w->retry_ms, on_retry, w);
	w->retry_ms = w->retry_ms * 2 > RETRY_LONGEST_MS ? RETRY_LONGEST_MS : w->retry_ms * 2;
}

/* The runner of a workspace that was suspended has ended: as wished, and not to be told of later, when there is another one. */
static void leave_runner(struct workspace *w)
{
	loop_remove(TAKE(w->watch));
	own_close(&w->control);
	w->control = -1;
	w->gone = false;
}

static void job_done(void *data)
{
	struct workspace *w = data;
	struct truth *t = &w->record->truth;

	w->busy = false;
	if (w->job_failed)
		after_failure(w);
	else
		w->retry_ms = RETRY_FIRST_MS;
	agent_publish(w);
	if (t->report->state == STATE_SUSPENDED) {
		leave_runner(w);
		/* under another engine */
		w->again |= w->record->wish.wish == WISH_RUNNING && t->gave_up != w->record->wish.generation;
	}
	connect_runner(w);
	w->again |= !w->job_failed && suspend_is_untidy(w->record);
	if (!w->job_failed && t->restart_waits && !w->timer)
		agent_restart_later(w);
	w->agent->events->volumes(w->agent->data);
	agent_look_for_idle(w->agent);
	agent_refill(w->agent);
	agent_make_templates(w->agent);
	agent_idle(w);
}

void agent_idle(struct workspace *w)
{
	struct agent *a = w->agent;
	bool rests = w->record->pack_due_ms != 0;

	if (w->forget && w->record->truth.report->state == STATE_REMOVED) {
		agent_forget(a, w->record->id);
		return;
	}
	if (w->again)
		consider(w);
	if (!agent_check_next(w) && rests)
		agent_pack(a);
}

static bool has_work(const struct workspace *w)
{
	const struct record *r = w->record;
	struct task_view view = { .wish = &r->wish, .truth = &r->truth, .runner_gone = w->gone, .restart_due = w->restart_due };

	return w->next.id || suspend_is_untidy(r) || r->unsaved || r->restoring ||
	       r->truth.report->generation != r->wish.generation || task_next(&view) != TASK_NONE;
}

static void consider(struct workspace *w)
{
	if (w->busy) {
		w->again = true;
		return;
	}
	w->again = false;
	if (w->record->lost_wish || (!w->record->wish.id && !w->next.id) || !has_work(w))
		return;
	agent_pack_leave(w);
	w->busy = true;
	w->job_gone = w->gone;
	w->job_restart = w->restart_due;
	w->gone = w->restart_due = w->job_failed = false;
	loop_remove(TAKE(w->timer));
	w->work.node = w->agent->node;
	w->work.record = w->record;
	w->work.tell = tell;
	w->work.data = w;
	w->told_ms = loop_now_ms();
	take_wish(w);
	workers_run(w->agent->node->workers, job_run, job_done, w, false);
}

/* --- wishes --- */

struct workspace *agent_add(struct agent *a, struct record *r)
{
	struct workspace **bucket = bucket_of(a, r->id);
	struct workspace *w = mem_alloc(sizeof *w);

	w->agent = a;
	w->record = r;
	w->control = -1;
	w->retry_ms = RETRY_FIRST_MS;
	w->in_bucket = *bucket;
	*bucket = w;
	return w;
}

/* The service's copy of a wish that could not be read here; takes its content. */
static void adopt(struct workspace *w, struct assignment *wish)
{
	struct assignment empty = { 0 };
	json_t *copy = encode(&assignment_shape, wish);
	struct err e = { 0 };

	assignment_done(&w->record->wish);
	if (decode_json(copy, "record", &assignment_shape, &w->record->wish, &e) < 0) {
		log_error(&e, "workspace %s", w->record->id);
	} else {
		log_info("workspace %s: its record is replaced by the service's", w->record->id);
		w->record->lost_wish = false;
		agent_settle(w);
		w->next = *wish;
		*wish = empty;
		consider(w);
	}
	json_decref(copy);
}

void agent_assign(struct agent *a, struct assignment *wish)
{
	struct workspace *w = id_valid(wish->id) ? agent_find(a, wish->id) : NULL;
	struct assignment empty = { 0 };

	if (!w && id_valid(wish->id))
		w = agent_add(a, record_new(a->node->workspaces, wish->id));
	uint64_t known = !w                 ? UINT64_MAX :
			 w->next.id         ? w->next.generation :
			 w->record->wish.id ? w->record->wish.generation :
					      0;
	if (w)
		w->wished = true;
	if (w && w->record->lost_wish) {
		adopt(w, wish);
	} else if (w && wish->generation >= known && (wish->generation > known || !w->record->wish.id)) {
		assignment_done(&w->next);
		w->next = *wish;
		*wish = empty;
		consider(w);
	}
	assignment_done(wish);
}

void agent_mark(struct agent *a)
{
	for (size_t i = 0; i < AGENT_BUCKETS; i++)
		for (struct workspace *w = a->buckets[i]; w; w = w->in_bucket)
			w->wished = false;
}

/* Somebody removed it while this host was away: as if that had been said. */
static void wish_away(struct workspace *w)
{
	struct assignment wish = { 0 };
	json_t *copy = encode(&assignment_shape, w->next.id ? &w->next : &w->record->wish);

	if (decode_json(copy, "record", &assignment_shape, &wish, NULL) == 0) {
		wish.wish = WISH_REMOVED;
		wish.generation++;
		agent_assign(w->agent, &wish);
		w->forget = true;
	}
	json_decref(copy);
}

void agent_sweep(struct agent *a, bool authoritative)
{
	for (size_t i = 0; i < AGENT_BUCKETS; i++)
		for (struct workspace *w = a->buckets[i], *next; w; w = next) {
			next = w->in_bucket;
			if (w->wished || w->record->lost_wish)
				continue;
			if (authoritative && (w->next.id || w->record->wish.id))
				wish_away(w);
			else
				log_warn("workspace %s is not known to the service; it is left alone", w->record->id);
		}
}

void agent_forget(struct agent *a, const char *id)
{
	struct workspace *w = agent_find(a, id);
	struct err e = { 0 };

	if (!w)
		return;
	w->forget = true;
	if (w->busy || w->record->truth.report->state != STATE_REMOVED)
		return;
	if (record_forget(w->record, &e) < 0)
		log_error(&e, "forget workspace %s", id);
	drop_workspace(w);
}

json_t *agent_reports(struct agent *a)
{
	json_t *list = json_array();

	for (size_t i = 0; i < AGENT_BUCKETS; i++)
		for (struct workspace *w = a->buckets[i]; w; w = w->in_bucket) {
			if (!w->report && !w->busy)
				w->report = encode(&report_shape, w->record->truth.report);
			if (w->report && !w->record->lost_wish)
				(void)json_array_append(list, w->report);
		}
	return list;
}

bool agent_look(struct agent *a, const char *id, char **ret_folder, enum state *ret_state)
{
	struct workspace *w = agent_find(a, id);

	if (!w || w->record->lost_wish)
		return false;
	if (ret_folder)
		*ret_folder = mem_strdup(w->record->folder);
	const char *text = w->report ? json_string_value(json_object_get(w->report, "state")) : NULL;
	*ret_state = STATE_DEFINED;
	for (int s = 0; text && s < STATE_COUNT; s++)
		if (str_eq(state_names[s], text))
			*ret_state = (enum state)s;
	return true;
}

bool agent_exit_status(struct agent *a, const char *id, uint64_t *ret_status)
{
	struct workspace *w = agent_find(a, id);
	const json_t *status = w ? json_object_get(w->report, "exit-status") : NULL;

	if (!status)
		return false;
	*ret_status = (uint64_t)json_integer_value(status);
	return true;
}

int agent_borrow(struct agent *a, const char *id, bool suspended, struct record **ret_record, struct err *e)
{
	struct workspace *w = agent_find(a, id);
	const struct report *report = w ? w->record->truth.report : NULL;

	if (!w || w->record->lost_wish)
		return err_set(e, ERR_NOT_FOUND, "this host has no workspace %s", id);
	if (w->busy || w->record->restoring || state_is_live((enum state)report->state)) {
		(void)err_set(e, ERR_PRECONDITION, "the workspace is being worked on");
		return err_hint(e, "try again in a moment");
	}
	if (report->state == STATE_SUSPENDED && !suspended) {
		(void)err_set(e, ERR_CONFLICT,
			      "the workspace is suspended: what its memory knows of its files is not in its volumes");
		return err_hint(e, "carrel resume, then copy; or throw its memory away: carrel stop --discard-memory");
	}
	if (report->state != STATE_STOPPED && report->state != STATE_PREPARED &&
	    !(suspended && report->state == STATE_SUSPENDED))
		return err_set(e, ERR_CONFLICT, "the workspace is %s and has no files yet", state_names[report->state]);
	w->busy = true;
	*ret_record = w->record;
	return 0;
}

void agent_give_back(struct agent *a, const char *id)
{
	struct workspace *w = agent_find(a, id);

	if (!w)
		return;
	w->busy = false;
	if (!w->record->lost_wish && w->report)
		agent_publish(w); /* an import may have brought a memory state */
	agent_look_for_idle(a);
	w->again = true;
	agent_idle(w);
}

/* --- life --- */

static bool is_known(void *data, const char *id) { return agent_find(data, id) != NULL; }

int agent_new(struct node *n, const struct agent_events *events, void *data, struct agent **ret_agent, struct err *e)
{
	struct agent *a = mem_alloc(sizeof *a);

	a->node = n;
	a->events = events;
	a->data = data;
	int r = agent_load(a, e);
	if (r == 0)
		r = isolate_collect(n, is_known, a, e);
	if (r < 0) {
		agent_free(a);
		return r;
	}
	kept_clean(n);
	agent_look_for_idle(a);
	agent_refill(a);
	for (size_t i = 0; i < AGENT_BUCKETS; i++)
		for (struct workspace *w = a->buckets[i]; w; w = w->in_bucket)
			consider(w);
	agent_pack(a);
	*ret_agent = a;
	return 0;
}

void agent_free(struct agent *a)
{
	for (size_t i = 0; i < AGENT_BUCKETS; i++)
		while (a->buckets[i])
			drop_workspace(a->buckets[i]);
	loop_remove(a->idle_timer);
	loop_remove(a->refill_timer);
	loop_remove(a->pack_timer);
	loop_remove(a->template_timer);
	free(a);
}
