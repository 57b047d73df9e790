/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. A job is a loop: look at wish and truth, do the one next thing, write the truth, look again. What is
 * waited for (a clean shutdown, the pause before a restart) is not waited for here: the job ends, and the event starts the next
 * one.
 *
 * Order of writing. Before a start, the truth says `starting` with the number of the run: a restarted agent then knows that
 * this run was begun, and the runner's status file tells whether it came to life. After any other task the truth is written
 * when it is done; a crash before that repeats the task, which is why each is safe to repeat.
 *
 * A restore that was interrupted while its copies took their places (snapshot.c) is finished before anything else.
 */
#include "node/task.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/fs.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"
#include "node/clone.h"
#include "node/network.h"
#include "node/snapshot.h"
#include "node/suspend.h"
#include "node/suspend_pack.h"
#include "node/travel.h"

const char *const task_names[] = { "none", "reap",  "stage",  "prepare",  "start",   "pause", "resume",
				   "suspend", "discard", "stop", "remove", "snapshot", "restore", "resize", NULL };

/* --- the decision --- */

static bool has_snapshot(const struct report *t, const char *id)
{
	for (size_t k = 0; k < t->snapshots.count; k++)
		if (str_eq(id, t->snapshots.items[k]))
			return true;
	return false;
}

static bool may_snapshot(const struct assignment_snapshot *wanted, enum state s);

/* The first that is wished, not there, and can be made or refused now. */
static const struct assignment_snapshot *missing_snapshot(const struct assignment *a, const struct report *t)
{
	const struct assignment_snapshot *wanted = a->snapshots.items;

	for (size_t i = 0; i < a->snapshots.count; i++)
		if (!has_snapshot(t, wanted[i].id) && may_snapshot(&wanted[i], (enum state)t->state))
			return &wanted[i];
	return NULL;
}

static bool has_unwanted_snapshot(const struct assignment *a, const struct report *t)
{
	for (size_t k = 0; k < t->snapshots.count; k++)
		if (!assignment_wants_snapshot(a, t->snapshots.items[k]))
			return true;
	return false;
}

/* Volumes exist and nobody writes them. */
static bool is_quiet(enum state s)
{
	return s == STATE_PREPARED || s == STATE_PAUSED || s == STATE_STOPPED || s == STATE_SUSPENDED || s == STATE_FAILED;
}

/* With memory also while it runs; at rest that is refused, by the one who makes it. */
static bool may_snapshot(const struct assignment_snapshot *wanted, enum state s)
{
	return is_quiet(s) || (wanted->memory && s == STATE_RUNNING);
}

/* ... and no memory knows what is on them. */
static bool may_change_volumes(enum state s) { return is_quiet(s) && s != STATE_PAUSED && s != STATE_SUSPENDED; }

/* What was changed while it was suspended was looked at, and is brought about when it goes on. */
#define SUSPENDED_SIZES "suspended "

static bool sizes_are(const struct truth *t, const struct assignment *wish)
{
	own_str char *wanted = wish->spec ? spec_sizes(wish->spec) : NULL;
	const char *is = t->sizes;

	if (is && t->report->state == STATE_SUSPENDED && str_starts(is, SUSPENDED_SIZES))
		is += strlen(SUSPENDED_SIZES);
	return !wanted || (is && str_eq(is, wanted));
}

static enum task data_task(const struct task_view *v)
{
	const struct report *t = v->truth->report;
	enum state s = (enum state)t->state;

	if (v->wish->wish == WISH_REMOVED || v->truth->gave_up == v->wish->generation)
		return TASK_NONE;
	if (may_change_volumes(s) && t->restore < v->wish->restore)
		return TASK_RESTORE;
	if (has_unwanted_snapshot(v->wish, t) || missing_snapshot(v->wish, t))
		return TASK_SNAPSHOT;
	if ((is_quiet(s) || s == STATE_RUNNING) && !sizes_are(v->truth, v->wish))
		return TASK_RESIZE;
	return TASK_NONE;
}

static enum task task_of(enum action a)
{
	switch (a) {
	case ACTION_STAGE:
		return TASK_STAGE;
	case ACTION_PREPARE:
		return TASK_PREPARE;
	case ACTION_START:
		return TASK_START;
	case ACTION_PAUSE:
		return TASK_PAUSE;
	case ACTION_RESUME:
		return TASK_RESUME;
	case ACTION_SUSPEND:
		return TASK_SUSPEND;
	case ACTION_DISCARD:
		return TASK_DISCARD;
	case ACTION_STOP:
		return TASK_STOP;
	case ACTION_REMOVE:
		return TASK_REMOVE;
	case ACTION_NONE:
	case ACTION_WAIT:
	case ACTION_COUNT:
		break;
	}
	return TASK_NONE;
}

/* It ran, and the wish is another engine. */
static bool moves(const struct assignment *wish, const struct report *t)
{
	if (wish->spec->engine == ENGINE_AUTO)
		return t->engine && isolate_is_machine(wish) != isolate_ran_as_machine(t);
	return t->engine && !str_eq(spec_engine_names[wish->spec->engine], t->engine);
}

enum task task_next(const struct task_view *v)
{
	const struct report *t = v->truth->report;

	if (v->runner_gone && state_is_live((enum state)t->state) && !v->truth->restart_waits)
		return TASK_REAP;
	enum action action = assignment_next_action(v->wish, t);
	bool may_give_up = action == ACTION_PAUSE || action == ACTION_RESUME || action == ACTION_SUSPEND ||
			   (action == ACTION_START && t->state == STATE_SUSPENDED);
	if (may_give_up && v->truth->gave_up == v->wish->generation)
		action = ACTION_NONE;
	bool for_start = v->wish->wish == WISH_RUNNING || v->wish->wish == WISH_PAUSED;
	if (action == ACTION_STOP && for_start && v->truth->gave_up == v->wish->generation && moves(v->wish, t))
		action = ACTION_NONE; /* nothing is stopped for a start that cannot be */
	if (t->state == STATE_STOPPING && t->generation != v->wish->generation)
		return TASK_STOP; /* said again: the time-out may be shorter */
	enum task data = data_task(v);
	if (data == TASK_RESTORE || action == ACTION_NONE)
		return data != TASK_NONE ? data : v->truth->restart_waits && v->restart_due ? TASK_START : TASK_NONE;
	if (action == ACTION_WAIT)
		return v->truth->restart_waits && v->restart_due ? TASK_START : TASK_NONE;
	return task_of(action);
}

uint64_t task_restart_delay_ms(uint64_t failed) { return failed >= 9 ? 60000 : UINT64_C(125) << failed; }

bool task_wants_restart(const struct assignment *a, const struct truth *t, uint64_t exit_status)
{
	if (a->wish != WISH_RUNNING || t->report->run != a->run || t->report->state == STATE_STOPPING)
		return false;
	return a->spec->restart == RESTART_ALWAYS || (a->spec->restart == RESTART_ON_FAILURE && exit_status != 0);
}

/* --- the tasks --- */

static int set_state(struct work *w, enum state s)
{
	w->record->truth.report->state = s;
	return 0;
}

static int fail_step(struct work *w, const char *step, const struct err *why)
{
	record_set_error(w->record, step, why);
	log_error(why, "workspace %s: %s", w->record->id, step);
	return set_state(w, STATE_FAILED);
}

static void set_sizes(struct record *r, bool known)
{
	own_str char *sizes = spec_sizes(r->wish.spec);

	free(TAKE(r->truth.sizes));
	if (known)
		r->truth.sizes = mem_printf("%s%s", r->truth.report->state == STATE_SUSPENDED ? SUSPENDED_SIZES : "", sizes);
}

static int do_steps(struct work *w, enum action action, enum state then)
{
	const char *step = "";
	struct err why = { 0 };

	if (steps_do(w, action, &step, &why) < 0)
		return fail_step(w, step, &why);
	if (action != ACTION_STAGE)
		set_sizes(w->record, true);
	return set_state(w, then);
}

static int do_stage(struct work *w, struct err *e)
{
	(void)e;
	return do_steps(w, ACTION_STAGE, STATE_STAGED);
}

static int do_prepare(struct work *w, struct err *e)
{
	bool clone = clone_waits(w->record);
	struct err why = { 0 };

	(void)e;
	int r = do_steps(w, ACTION_PREPARE, STATE_PREPARED);
	if (r < 0 || !clone || w->record->truth.report->state != STATE_PREPARED)
		return r;
	return clone_take_memory(w, &why) < 0 ? fail_step(w, "clone", &why) : 0;
}

static int give_up(struct work *w, const char *step, const struct err *why)
{
	record_set_error(w->record, step, why);
	log_error(why, "workspace %s: %s", w->record->id, step);
	w->record->truth.gave_up = w->record->wish.generation;
	return 0;
}

static enum state wished_life(const struct record *r) { return r->wish.wish == WISH_PAUSED ? STATE_PAUSED : STATE_RUNNING; }

static void set_engine(struct report *report, const char *name)
{
	free(report->engine);
	report->engine = name ? mem_strdup(name) : NULL;
}

/* What it costs the workspace to be moved. */
static void tell_standstill(struct truth *t)
{
	struct report *report = t->report;
	uint64_t now = unix_ms(), since = t->stands_since_ms;

	t->stands_since_ms = 0;
	if (!since || report->state != STATE_RUNNING)
		return;
	report->stood_still_ms = now > since ? now - since : 1;
	own_str char *said = TAKE(report->notice);
	report->notice = mem_printf("%s%sit stood still for %.1f s", said ? said : "", said ? "; " : "",
				    (double)report->stood_still_ms / 1000);
}

/* The same run goes on, under the wished engine. Until it does, what fails leaves the workspace suspended; the runner takes the
 * manifest away when it lets it go. 1: not begun. */
static int try_from_memory(struct work *w, const struct memory_manifest *m, const char **ret_step, struct err *why,
			   struct err *e)
{
	struct report *report = w->record->truth.report;

	if (m->kind == MEMORY_CRIU)
		suspend_drop_unnamed(w->record, m);
	w->parts.memory = m;
	free(w->record->truth.boot_id);
	w->record->truth.boot_id = mem_strdup(boot_id());
	set_engine(report, isolate_engine_name(w->node, &w->record->wish));
	report->state = STATE_STARTING;
	int r = record_save_truth(w->record, e);
	if (r < 0) {
		report->state = STATE_SUSPENDED;
		w->parts.memory = NULL;
		return r;
	}
	r = steps_do(w, ACTION_START, ret_step, why);
	w->parts.memory = NULL;
	if (r == 0) {
		report->state = wished_life(w->record);
		report->memory_bytes = 0;
		w->record->pack_due_ms = 0;
		w->record->untidy = true;
		tell_standstill(&w->record->truth);
		if (report->began && str_eq(report->began, "clone") && report->state == STATE_RUNNING)
			clone_tell(w);
	} else if (suspend_is_there(w->record)) {
		report->state = STATE_SUSPENDED;
		suspend_pack_clean(w->record);
	} else { /* it went on, and ended: as a machine that is switched off */
		report->state = STATE_STOPPED;
		report->exit_status = 137;
		report->ended_ms = unix_ms();
	}
	return 0;
}

/* On its way no longer, and not running. */
static void stands_for_good(struct work *w)
{
	struct err why = { 0 };

	if (!w->record->truth.stands_since_ms)
		return;
	w->record->truth.stands_since_ms = 0;
	if (networks_detach(w->node->networks, w->record->id, &why) < 0)
		log_error(&why, "workspace %s", w->record->id);
}

/* Where it came from it goes on, when it cannot go on where it was to go. */
static int go_back(struct work *w, const struct memory_manifest *m, struct err *e)
{
	struct record *record = w->record;
	unsigned wished = record->wish.spec->engine;
	const char *step = "move";
	struct err why = { 0 };

	record->wish.spec->engine = m->engine;
	int r = try_from_memory(w, m, &step, &why, e);
	record->wish.spec->engine = wished;
	if (r == 0 && record->truth.report->state == STATE_SUSPENDED)
		log_error(&why, "workspace %s: back to the engine %s", record->id, spec_engine_names[m->engine]);
	return r;
}

static bool is_moving(const struct record *r, const struct memory_manifest *m)
{
	return r->wish.spec->travels && r->wish.spec->engine != ENGINE_AUTO && m->kind == MEMORY_CRIU &&
	       r->wish.spec->engine != m->engine;
}

static int start_from_memory(struct work *w, struct err *e)
{
	struct report *report = w->record->truth.report;
	struct memory_manifest m = { 0 };
	const char *step = "resume";
	struct suspend_unpacking *unpacking = NULL;
	struct err why = { 0 }, cause = { 0 };

	int ready = suspend_verify(w->node, w->record, false, &m, &why);
	if (ready == 0)
		ready = suspend_unpack_begin(w->record, &m, &unpacking, &why);
	if (ready < 0) {
		memory_manifest_done(&m);
		stands_for_good(w);
		return give_up(w, step, &why);
	}
	bool moving = is_moving(w->record, &m);
	w->parts.whole = suspend_unpacking_whole(unpacking);
	int r = m.kind == MEMORY_CRIU && isolate_is_machine(&w->record->wish) && !travel_is_wished(&w->record->wish, false) ?
			err_set(&why, ERR_UNSUPPORTED, "the memory is of namespaces that were not started to travel") :
			try_from_memory(w, &m, &step, &why, e);
	w->parts.whole = 0;
	if (suspend_unpack_end(unpacking, &cause) < 0 && why.kind) /* the launch only waited for it */
		why = cause;
	if (why.kind && r != 0)
		r = 0;
	if (r == 0 && why.kind && report->state == STATE_SUSPENDED && moving)
		r = go_back(w, &m, e);
	if (r == 0 && report->state != STATE_RUNNING)
		stands_for_good(w);
	if (r == 0 && why.kind)
		(void)give_up(w, moving ? "move" : step, &why);
	if (r == 0 && report->state == STATE_STOPPED)
		r = suspend_discard(w->record, e);
	memory_manifest_done(&m);
	return r;
}

static int do_start(struct work *w, struct err *e)
{
	struct truth *t = &w->record->truth;
	struct report *report = t->report;

	if (report->state == STATE_SUSPENDED)
		return start_from_memory(w, e);
	if (clone_waits(w->record))
		return do_prepare(w, e); /* and then it is suspended */
	bool again = t->restart_waits && report->run == w->record->wish.run;
	uint64_t run = report->run;
	unsigned state = report->state;

	report->restarts = again ? report->restarts + 1 : 0;
	t->failed_starts = again ? t->failed_starts + 1 : 0;
	report->run = w->record->wish.run;
	free(report->engine);
	report->engine = mem_strdup(isolate_engine_name(w->node, &w->record->wish));
	report->exit_status = FIELD_NO_PRESET;
	report->started_ms = unix_ms();
	report->ended_ms = 0;
	report->stood_still_ms = t->stands_since_ms = 0;
	free(TAKE(report->notice));
	free(t->boot_id);
	t->boot_id = mem_strdup(boot_id());
	report->state = STATE_STARTING;
	t->restart_waits = false;
	int r = record_save_truth(w->record, e);
	if (r < 0) { /* not begun */
		report->run = run;
		report->state = state;
		t->restart_waits = again;
		return r;
	}
	(void)do_steps(w, ACTION_START, wished_life(w->record));
	w->record->untidy = true;
	return report->state == STATE_FAILED ? suspend_discard(w->record, e) : 0;
}

static void plan_restart(struct truth *t)
{
	struct report *report = t->report;

	if (report->ended_ms - report->started_ms >= TASK_STABLE_MS)
		t->failed_starts = 0;
	t->restart_waits = true;
	report->state = STATE_STARTING;
	free(report->step);
	report->step = mem_strdup("wait-to-restart");
}

/* The runner has put the manifest in its place and ended. */
static int become_suspended(struct work *w, struct err *e)
{
	struct report *report = w->record->truth.report;
	struct err why = { 0 };

	report->state = STATE_SUSPENDED;
	report->pid = 0;
	w->record->untidy |= suspend_pack_leave(w->record);
	suspend_count_bytes(w->record);
	w->record->pack_due_ms = suspend_pack_due(w->node, w->record);
	int saved = record_save_truth(w->record, e), undone = steps_undo_start(w, saved < 0 ? NULL : e);
	bool at_once = w->record->pack_due_ms && w->record->pack_due_ms <= unix_ms(); /* what is packed is sealed */
	bool goes_on = w->record->truth.stands_since_ms != 0;
	if (!at_once && !goes_on && suspend_seal(w->record, &why) < 0) /* it can be resumed all the same */
		log_error(&why, "workspace %s", w->record->id);
	return saved < 0 ? saved : undone;
}

static int do_reap(struct work *w, struct err *e)
{
	struct truth *t = &w->record->truth;
	struct report *report = t->report;
	struct isolate_status status = { 0 };
	bool known = isolate_status(w->node, w->record->id, &status, NULL) == 0 && status.run == report->run;

	report->pid = 0;
	if (suspend_is_there(w->record)) /* whoever was killed, and when: this is the truth */
		return become_suspended(w, e);
	if (report->state == STATE_STARTING && !(known && status.started_ms)) { /* the agent ended before there was a program */
		report->run--;
		report->started_ms = 0;
		report->state = STATE_STOPPED;
		return steps_undo_start(w, e);
	}
	/* A runner that was killed told nothing: 137, as a shell says of a killed program. */
	report->exit_status = known && status.ended ? (uint64_t)status.exit_status : 137;
	report->ended_ms = known && status.ended_ms ? status.ended_ms : unix_ms();
	if (known && status.started_ms)
		report->started_ms = status.started_ms;
	if (known && status.killed_for_memory) {
		free(report->notice);
		report->notice = mem_strdup("the kernel killed a process of it, which had reached the memory limit");
	}
	if (task_wants_restart(&w->record->wish, t, report->exit_status))
		plan_restart(t);
	else
		report->state = STATE_STOPPED;
	/* The status file goes with the run folder, so what it said is written first. */
	int saved = record_save_truth(w->record, e), undone = steps_undo_start(w, saved < 0 ? NULL : e);
	if (saved == 0 && undone == 0)
		undone = suspend_discard(w->record, e);
	return saved < 0 ? saved : undone;
}

static int do_pause(struct work *w, struct err *e)
{
	struct err why = { 0 };

	(void)e;
	return isolate_pause(w->node, w->record, &why) < 0 ? give_up(w, "pause", &why) : set_state(w, STATE_PAUSED);
}

static int do_resume(struct work *w, struct err *e)
{
	struct err why = { 0 };

	(void)e;
	return isolate_resume(w->node, w->record, &why) < 0 ? give_up(w, "resume", &why) : set_state(w, STATE_RUNNING);
}

/* Where and as it was. */
static int stays(struct work *w, const struct err *why)
{
	struct report *report = w->record->truth.report;
	bool moves = w->record->wish.wish == WISH_RUNNING;

	w->record->truth.stands_since_ms = 0;
	w->record->untidy = true;
	free(report->notice);
	report->notice = mem_printf("it goes on, and was not %s: %s", moves ? "moved" : "suspended", why->message);
	return give_up(w, moves ? "move" : "suspend", why);
}

static int do_suspend(struct work *w, struct err *e)
{
	struct report *report = w->record->truth.report;
	enum state before = (enum state)report->state;
	bool moves = w->record->wish.wish == WISH_RUNNING;
	struct err why = { 0 };

	if (moves && travel_ahead(w, &why) < 0)
		return stays(w, &why);
	w->step = task_names[TASK_SUSPEND];
	report->state = STATE_SUSPENDING;
	w->record->truth.stands_since_ms = moves ? unix_ms() : 0;
	free(TAKE(report->notice));
	int r = record_save_truth(w->record, e);
	if (r < 0) {
		report->state = before;
		return r;
	}
	w->tell(w);
	networks_hold(w->node->networks, w->record->id, true);
	if (suspend_do(w, &why) == 0)
		return become_suspended(w, e);
	networks_hold(w->node->networks, w->record->id, false);
	report->state = before;
	return stays(w, &why);
}

static int do_discard(struct work *w, struct err *e)
{
	struct report *report = w->record->truth.report;
	int r = suspend_discard(w->record, e);

	if (r < 0)
		return r;
	stands_for_good(w);
	report->memory_bytes = 0;
	report->exit_status = 137; /* as of a machine that is switched off */
	report->ended_ms = unix_ms();
	return set_state(w, STATE_STOPPED);
}

static int do_stop(struct work *w, struct err *e)
{
	struct truth *t = &w->record->truth;

	if (t->restart_waits) { /* no process */
		t->restart_waits = false;
		return set_state(w, STATE_STOPPED);
	}
	t->report->state = STATE_STOPPING;
	int r = record_save_truth(w->record, e);
	if (r == 0)
		r = isolate_stop(w->node, w->record, assignment_stop_timeout_ms(&w->record->wish), e);
	return r;
}

static int do_remove(struct work *w, struct err *e)
{
	struct truth *t = &w->record->truth;

	t->report->state = STATE_REMOVING;
	t->restart_waits = false;
	t->stands_since_ms = 0;
	int r = w->record->on_disk ? record_save_truth(w->record, e) : 0;
	if (r == 0)
		r = steps_undo_all(w, e);
	if (r == 0)
		r = record_remove_data(w->record, e);
	if (r < 0)
		return r;
	texts_done(&t->report->snapshots);
	record_clear_error(w->record);
	return set_state(w, STATE_REMOVED);
}

/* --- data --- */

static int do_snapshot(struct work *w, struct err *e)
{
	struct err why = { 0 };
	const struct assignment_snapshot *missing = missing_snapshot(&w->record->wish, w->record->truth.report);

	if (snapshots_do(w, missing, &why) < 0)
		(void)give_up(w, "snapshot", &why);
	return record_read_snapshots(w->record, e);
}

/* A snapshot with memory: it is as if the workspace had been suspended then. */
static int after_restore(struct work *w)
{
	if (!suspend_is_there(w->record))
		return 0;
	suspend_count_bytes(w->record);
	w->record->pack_due_ms = suspend_pack_due(w->node, w->record);
	return set_state(w, STATE_SUSPENDED);
}

static int do_restore(struct work *w, struct err *e)
{
	struct err why = { 0 };

	int r = restore_do(w, &why);

	if (r == 0)
		return after_restore(w);
	if (!w->record->restoring)
		return give_up(w, "restore", &why);
	*e = why; /* half done: tried again until it is whole */
	return r;
}

/* A machine is given its processors and its memory when it is switched on. */
static void tell_later(const struct work *w, struct str *out)
{
	const struct report *report = w->record->truth.report;
	struct launch_size is, wished;
	char now[16], then[16];

	if (!isolate_machine_sizes(w->record, &is, &wished))
		return;
	if (is.processors != wished.processors)
		str_printf(out, "processors: %u now, %u from the next start", is.processors, wished.processors);
	if (is.memory_bytes != wished.memory_bytes)
		str_printf(out, "%smemory: %s now, %s from the next start", out->length ? "; " : "",
			   str_bytes(now, sizeof now, is.memory_bytes), str_bytes(then, sizeof then, wished.memory_bytes));
	if (out->length && report->state == STATE_SUSPENDED)
		str_puts(out, ": a resume goes on with what it had");
}

static int resize(struct work *w, int *ret_waits, const char **ret_step, struct err *e)
{
	struct record *record = w->record;
	enum state s = (enum state)record->truth.report->state;
	int fault = fault_point("limits-change-begin"), r;

	*ret_step = "limits";
	r = fault ? err_errno(e, fault, "change the limits") : isolate_change_limits(w->node, record, e);
	if (r < 0 || s == STATE_SUSPENDED) /* its memory knows what is on its volumes */
		return r;
	*ret_step = "grow";
	if ((fault = fault_point("grow-begin")))
		return err_errno(e, fault, "grow");
	r = steps_grow(w, state_is_live(s), e);
	*ret_waits = r > 0;
	return r < 0 ? r : 0;
}

static int do_resize(struct work *w, struct err *e)
{
	struct report *report = w->record->truth.report;
	own_strbuf struct str notice = { 0 };
	const char *step = NULL;
	struct err why = { 0 };
	int waits = 0, r = resize(w, &waits, &step, &why);

	(void)e;
	set_sizes(w->record, r >= 0);
	free(TAKE(report->notice));
	tell_later(w, &notice);
	if (waits)
		str_printf(&notice, "%sthe new size takes effect at the next start: %s", notice.length ? "; " : "",
			   isolate_ran_as_machine(report) ? "the machine did not take it" :
							    "this host cannot resize file systems that are in use");
	if (notice.length)
		report->notice = str_take(&notice);
	return r < 0 ? give_up(w, step, &why) : 0;
}

/* A newer wish with another engine than that of the last run: what this host lacks for it is told before anything is
 * stopped. */
static int foresee_move(struct work *w)
{
	struct record *record = w->record;
	struct report *report = record->truth.report;
	struct err why = { 0 };
	int fault;

	if (report->error && report->error->step && str_eq(report->error->step, "move"))
		record_clear_error(record);
	bool ends = record->wish.wish == WISH_REMOVED ||
		    (record->wish.wish == WISH_STOPPED && state_is_live((enum state)report->state));
	if (ends || !moves(&record->wish, report))
		return 0;
	int r = (fault = fault_point("move-begin")) ? err_errno(&why, fault, "move") :
						      isolate_can_start(w->node, &record->wish, &why);
	if (r >= 0)
		return 0;
	record->unsaved = true;
	return give_up(w, "move", &why);
}

/* A newer wish is answered when its interfaces are there. */
static int follow_networks(struct work *w)
{
	enum state s = (enum state)w->record->truth.report->state;
	struct err why = { 0 };

	if ((s != STATE_RUNNING && s != STATE_PAUSED) || networks_settle(w->node->networks, w->record->id, &why) == 0)
		return 0;
	return give_up(w, "network", &why);
}

/* --- the loop --- */

static int (*const doers[TASK_COUNT])(struct work *w, struct err *e) = {
	[TASK_REAP] = do_reap,	     [TASK_STAGE] = do_stage,	[TASK_PREPARE] = do_prepare,   [TASK_START] = do_start,
	[TASK_PAUSE] = do_pause,     [TASK_RESUME] = do_resume, [TASK_SUSPEND] = do_suspend,   [TASK_DISCARD] = do_discard,
	[TASK_STOP] = do_stop,	     [TASK_REMOVE] = do_remove, [TASK_SNAPSHOT] = do_snapshot, [TASK_RESTORE] = do_restore,
	[TASK_RESIZE] = do_resize,
};

static int do_task(struct work *w, enum task task, struct err *e)
{
	struct report *report = w->record->truth.report;
	own_str char *before = mem_printf("task-%s-begin", task_names[task]),
		     *after = mem_printf("task-%s-end", task_names[task]);

	(void)fault_point(before);
	/* A lent volume serves one run. What the task before this one opened is for this one. */
	if (task != TASK_REMOVE && task != TASK_REAP && !state_is_live((enum state)report->state) && !w->parts.volume_count) {
		own_str char *root = record_volume_path(w->record, w->node->kept, NULL);
		ready_let_go(w->node->ready, root);
	}
	if (report->state == STATE_FAILED && task != TASK_REMOVE && task != TASK_SNAPSHOT && task != TASK_RESTORE &&
	    task != TASK_RESIZE)
		report->state = STATE_DEFINED;
	if (report->state != STATE_FAILED && w->record->truth.gave_up != w->record->wish.generation)
		record_clear_error(w->record);
	free(TAKE(report->step));
	w->step = task_names[task];
	w->tell(w);
	int r = doers[task](w, e);
	w->step = NULL;
	w->progress_done = w->progress_total = 0;
	(void)fault_point(after);
	if (r < 0)
		return err_wrap(e, "workspace %s: %s", w->record->id, task_names[task]);
	/* most often the next task follows at once, and would be repeated with this one */
	if (task == TASK_STAGE || task == TASK_PREPARE) {
		w->record->unsaved = true;
		return 0;
	}
	return record_save_truth(w->record, e);
}

/* The runner of what was suspended is left before another one is made. */
static bool waits_after(enum task t) { return t == TASK_STOP || t == TASK_START || t == TASK_SUSPEND || t == TASK_NONE; }

int task_converge(struct work *w, bool runner_gone, bool restart_due, struct err *e)
{
	struct record *record = w->record;
	struct task_view view = { .wish = &record->wish, .truth = &record->truth, .runner_gone = runner_gone,
				  .restart_due = restart_due };
	bool rests = true, fresh = record->truth.report->generation != record->wish.generation;
	int r = 0;

	w->answered = record->truth.report->generation;
	if (record->restoring && record->wish.wish != WISH_REMOVED)
		r = restore_finish(w->node, record, e) < 0 ? -EIO : after_restore(w);
	if (r == 0 && fresh)
		r = foresee_move(w);
	for (enum task task; r == 0 && (task = task_next(&view)) != TASK_NONE;) {
		record->truth.report->generation = record->wish.generation;
		rests = false;
		r = do_task(w, task, e);
		view.runner_gone &= task != TASK_REAP;
		view.restart_due &= task != TASK_START && task != TASK_REAP;
		if (waits_after(task) && task != TASK_NONE &&
		    (task != TASK_STOP || state_is_live((enum state)record->truth.report->state)))
			break;
	}
	isolate_parts_done(&w->parts);
	suspend_tidy(record, !rests);
	if (r == 0 && fresh)
		r = follow_networks(w);
	if (r == 0 && (record->unsaved || record->truth.report->generation != record->wish.generation)) {
		record->truth.report->generation = record->wish.generation;
		r = record->on_disk ? record_save_truth(record, e) : 0;
	}
	if (!state_is_live((enum state)record->truth.report->state) && record->truth.report->state != STATE_STAGED &&
	    record->truth.report->state != STATE_PREPARED)
		steps_unstage(w);
	return r;
}
