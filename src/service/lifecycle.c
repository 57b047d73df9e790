/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. Each request that moves a workspace becomes a new wish with a new generation, and an operation that ends when the
 * host reports that generation as reached (converge.c). What a request may ask for depends on the wish before it, not on the
 * moment's truth, so that two requests in a row do not race with the host.
 */
#include "service/lifecycle.h"

#include <string.h>

#include "base/mem.h"
#include "base/own.h"
#include "db/workspace.h"
#include "service/event.h"
#include "service/carry.h"
#include "service/handlers.h"
#include "service/host.h"
#include "service/kernels.h"
#include "service/views.h"

#define ATTACH_GRACE_MS 30000

struct operation *lifecycle_begin(struct change *c, struct workspace *w, const char *kind)
{
	struct err replaced;

	if (w->operation) {
		(void)err_set(&replaced, ERR_CANCELLED, "replaced by a newer request (%s)", kind);
		struct operation *old = w->operation;
		if (!str_eq(old->kind, "restore") || !str_eq(kind, "restore")) /* the newer one counts on from the older */
			converge_withdraw(w, old, c->batch);
		json_decref(old->result); /* of a snapshot that is not made */
		old->result = NULL;
		operation_end(c->service, c->batch, old, &replaced, NULL);
	}
	struct operation *o = operation_start(c->service, c->batch, kind, false, w->id, w->owner_uid);
	w->operation = o;
	(void)snprintf(c->workspace, sizeof c->workspace, "%s", w->id);
	(void)snprintf(c->operation, sizeof c->operation, "%s", o->id);
	return o;
}

void converge_wish(struct workspace *w, enum wish wish)
{
	if (w->wish.wish != wish)
		w->wish.stop_timeout_ms = FIELD_NO_PRESET; /* of the stop before */
	w->wish.wish = wish;
	w->wish.generation++;
}

/* Common end of all requests here: the wish is changed already. */
static void commit(struct request *r, struct workspace *w, const char *kind)
{
	struct change *c = change_new(r->service, r);

	(void)lifecycle_begin(c, w, kind);
	workspace_store(w, c->batch, false);
	c->status = 202;
	change_commit(c);
}

/* Nothing to do: an operation that is done. */
static void commit_done(struct request *r, struct workspace *w, const char *kind)
{
	struct change *c = change_new(r->service, r);
	struct operation *o = operation_start(r->service, c->batch, kind, false, w->id, w->owner_uid);

	(void)snprintf(c->operation, sizeof c->operation, "%s", o->id);
	operation_end(r->service, c->batch, o, NULL, NULL);
	c->status = 202;
	change_commit(c);
}

static int find_any(struct request *r, struct workspace **ret_workspace, struct err *e)
{
	int result = workspace_find(r, r->params[0], ret_workspace, e);

	if (result < 0)
		return result;
	if (!r->who.admin && (*ret_workspace)->owner_uid != r->who.uid)
		return err_set(e, ERR_DENIED, "workspace '%s' belongs to another user", (*ret_workspace)->name);
	if ((*ret_workspace)->wish.wish == WISH_REMOVED)
		return err_set(e, ERR_CONFLICT, "workspace '%s' is being removed", (*ret_workspace)->name);
	return 0;
}

int lifecycle_find(struct request *r, struct workspace **ret_workspace, struct err *e)
{
	int result = find_any(r, ret_workspace, e);
	return result < 0 ? result : carry_check(*ret_workspace, e);
}

static bool ended(const struct workspace *w)
{
	return w->truth.state == STATE_STOPPED || w->truth.state == STATE_FAILED;
}

/* Alive, or about to be. */
static bool wants_life(const struct workspace *w)
{
	bool wish = w->wish.wish == WISH_RUNNING || w->wish.wish == WISH_PAUSED;
	return wish && !(ended(w) && w->truth.run >= w->wish.run) && w->truth.state != STATE_FAILED;
}

/* Its memory state is there, or about to be: what would lose it must be asked for by name. */
static bool holds_memory(const struct workspace *w)
{
	bool there = w->truth.state == STATE_SUSPENDED || w->truth.state == STATE_SUSPENDING;
	return there || (w->wish.wish == WISH_SUSPENDED && !ended(w));
}

static int refuse_suspended(const struct workspace *w, struct err *e)
{
	(void)err_set(e, ERR_CONFLICT, "workspace '%s' is suspended: its memory is kept", w->name);
	return err_hint(e, "carrel resume %s, or throw its memory away: carrel stop --discard-memory %s", w->name, w->name);
}

/* With its memory: what runs goes over at once, and what CRIU suspended goes on there at its resume. */
static int live_check(const struct workspace *w, struct err *e)
{
	bool suspended = w->truth.state == STATE_SUSPENDED && holds_memory(w),
	     by_criu = w->truth.engine && str_eq(w->truth.engine, "workspace");

	if (!w->wish.spec->travels) {
		(void)err_set(e, ERR_UNSUPPORTED, "workspace '%s' was not started to travel", w->name);
		return err_hint(e, "deploy it with --travels, or leave out --live: it is stopped, and started on the other "
				   "engine");
	}
	if (suspended && !by_criu) {
		(void)err_set(e, ERR_CONFLICT,
			      "workspace '%s' is suspended with its whole machine, which only that engine resumes", w->name);
		return err_hint(e, "carrel resume %s, then move it", w->name);
	}
	if (suspended || (w->wish.wish == WISH_RUNNING && w->truth.state == STATE_RUNNING && w->truth.run >= w->wish.run))
		return 0;
	(void)err_set(e, ERR_CONFLICT, "workspace '%s' is %s: only what runs, or is suspended, has memory that can be moved",
		      w->name, state_names[w->truth.state]);
	return err_hint(e, w->truth.state == STATE_PAUSED ? "carrel resume %s, then move it" : "leave out --live", w->name);
}

/* What cannot be moved, whatever its host can do. */
static int move_check(const struct workspace *w, const struct move_request *to, struct err *e)
{
	if (to->engine != ENGINE_WORKSPACE && to->engine != ENGINE_EMULATOR && to->engine != ENGINE_KVM) {
		(void)err_set(e, ERR_UNSUPPORTED, "a workspace is not moved to the engine '%s'", spec_engine_names[to->engine]);
		return err_hint(e, "to 'workspace', 'emulator' or 'kvm'");
	}
	if (to->engine == ENGINE_WORKSPACE && w->wish.spec->isolation == ISOLATION_MACHINE)
		return err_set(e, ERR_CONFLICT, "workspace '%s' asks for a machine (isolation: machine)", w->name);
	if (to->live)
		return live_check(w, e);
	if (holds_memory(w))
		return refuse_suspended(w, e);
	if (w->wish.spec->remove_on_exit) {
		(void)err_set(e, ERR_CONFLICT, "workspace '%s' is removed when it stops, so it cannot be moved", w->name);
		return err_hint(e, "deploy it without --rm");
	}
	return 0;
}

static uint64_t next_run(const struct workspace *w)
{
	return (w->truth.run > w->wish.run ? w->truth.run : w->wish.run) + 1;
}

int handle_workspace_start(struct request *r, struct err *e)
{
	struct workspace *w;
	int result = lifecycle_find(r, &w, e);

	if (result < 0)
		return result;
	if (holds_memory(w))
		return refuse_suspended(w, e);
	if (wants_life(w) && w->wish.wish == WISH_PAUSED) {
		(void)err_set(e, ERR_CONFLICT, "workspace '%s' is paused", w->name);
		return err_hint(e, "carrel resume %s", w->name);
	}
	if (wants_life(w)) {
		commit_done(r, w, "start");
		return 0;
	}
	if ((result = kernels_choose(r->service, w, e)) < 0)
		return result;
	w->wish.run = next_run(w);
	w->wish.held = false;
	converge_wish(w, WISH_RUNNING);
	commit(r, w, "start");
	return 0;
}

int handle_workspace_stop(struct request *r, struct err *e)
{
	const struct stop_request *body = r->value;
	struct workspace *w;
	int result = lifecycle_find(r, &w, e);

	if (result < 0)
		return result;
	if (holds_memory(w) && !body->discard_memory)
		return refuse_suspended(w, e);
	if (!wants_life(w) && !holds_memory(w) && !state_is_live((enum state)w->truth.state)) {
		commit_done(r, w, "stop");
		return 0;
	}
	converge_wish(w, WISH_STOPPED);
	w->wish.stop_timeout_ms = body->timeout_ms;
	commit(r, w, "stop");
	return 0;
}

int handle_workspace_restart(struct request *r, struct err *e)
{
	struct workspace *w;
	int result = lifecycle_find(r, &w, e);

	if (result < 0)
		return result;
	if (holds_memory(w))
		return refuse_suspended(w, e);
	if ((result = kernels_choose(r->service, w, e)) < 0)
		return result;
	w->wish.run = next_run(w);
	w->wish.held = false;
	converge_wish(w, WISH_RUNNING);
	commit(r, w, "restart");
	return 0;
}

/* ?check=1: the host is asked what it would come to, and nothing changes. `to`: what it shall be, of a live move. */
static int check_suspend(struct request *r, struct workspace *w, const struct assignment *to, struct err *e)
{
	struct host *h = host_find(r->service, w->host);

	if (!h || !host_connected(h))
		return err_set(e, ERR_UNAVAILABLE, "host %s is not connected", w->host);
	if (w->operation && w->truth.state < STATE_RUNNING) { /* the host would answer when that is done, which may take long */
		(void)err_set(e, ERR_CONFLICT, "workspace '%s' is being started", w->name);
		return err_hint(e, "when it runs: carrel wait %s", w->name);
	}
	host_check_suspend(h, w->id, to, r);
	return 0;
}

/* The wish as it would be, for as long as the host is asked. */
static int check_move(struct request *r, struct workspace *w, const struct move_request *to, struct err *e)
{
	unsigned engine = w->wish.spec->engine;
	struct err why = { 0 };

	if (!to->live)
		return err_set(e, ERR_INVALID, "a check is about a live move");
	if (move_check(w, to, &why) < 0) {
		request_reply_json(r, 200,
				   json_pack("{s:s, s:s, s:s*, s:s*, s:s}", "level", "volumes", "reason", why.message, "hint",
					     why.hint[0] ? why.hint : NULL, "engine", w->truth.engine, "to",
					     spec_engine_names[to->engine]));
		return 0;
	}
	struct assignment_kernel *kernel = TAKE(w->wish.kernel);
	w->wish.spec->engine = to->engine;
	int result = kernels_choose(r->service, w, e);
	if (result >= 0)
		result = check_suspend(r, w, &w->wish, e);
	if (w->wish.kernel)
		shape_done(&assignment_kernel_shape, w->wish.kernel);
	free(w->wish.kernel);
	w->wish.kernel = kernel;
	w->wish.spec->engine = engine;
	return result;
}

/* Stopped there and started here: a newer run, in the order of the host's one line. What does not live is started here next
 * time. */
int handle_workspace_move(struct request *r, struct err *e)
{
	const struct move_request *body = r->value;
	struct workspace *w;
	int result = lifecycle_find(r, &w, e);

	if (result == 0)
		result = request_flag(r, "check") ? check_move(r, w, body, e) : move_check(w, body, e);
	if (result < 0 || request_flag(r, "check"))
		return result;
	bool live = state_is_live((enum state)w->truth.state) && w->truth.run >= w->wish.run;
	bool there = live && w->truth.engine && str_eq(w->truth.engine, spec_engine_names[body->engine]);
	if (w->wish.spec->engine == body->engine && (there || !wants_life(w))) {
		commit_done(r, w, "move");
		return 0;
	}
	unsigned before = w->wish.spec->engine;
	w->wish.spec->engine = body->engine;
	if ((result = kernels_choose(r->service, w, e)) < 0) {
		w->wish.spec->engine = before;
		return result;
	}
	w->wish.held = false;
	bool lives = wants_life(w) && !there && !body->live; /* "auto" may have chosen it already; a live move is no new run */
	if (lives)
		w->wish.run = next_run(w);
	converge_wish(w, (enum wish)w->wish.wish);
	if (lives)
		w->wish.stop_timeout_ms = body->timeout_ms;
	struct change *c = change_new(r->service, r);
	struct operation *o = lifecycle_begin(c, w, "move");
	if (body->live && w->truth.engine)
		operation_set_result(o, c->batch, json_pack("{s:s}", "from", w->truth.engine));
	workspace_store(w, c->batch, false);
	c->status = 202;
	change_commit(c);
	return 0;
}

int handle_workspace_pause(struct request *r, struct err *e)
{
	struct workspace *w;
	int result = lifecycle_find(r, &w, e);

	if (result < 0)
		return result;
	if (!wants_life(w)) {
		(void)err_set(e, ERR_CONFLICT, "workspace '%s' is not running (%s)", w->name, state_names[w->truth.state]);
		return err_hint(e, "only a running workspace can be paused: carrel %s %s", holds_memory(w) ? "resume" : "start",
				w->name);
	}
	if (w->wish.wish == WISH_PAUSED) {
		commit_done(r, w, "pause");
		return 0;
	}
	converge_wish(w, WISH_PAUSED);
	commit(r, w, "pause");
	return 0;
}

int handle_workspace_resume(struct request *r, struct err *e)
{
	struct workspace *w;
	int result = lifecycle_find(r, &w, e);

	if (result < 0)
		return result;
	if (holds_memory(w) && !wants_life(w)) {
		converge_wish(w, WISH_RUNNING);
		commit(r, w, "resume");
		return 0;
	}
	if (!wants_life(w)) {
		(void)err_set(e, ERR_CONFLICT, "workspace '%s' is not paused (%s)", w->name, state_names[w->truth.state]);
		return err_hint(e, "carrel start %s", w->name);
	}
	if (w->wish.wish == WISH_RUNNING) {
		commit_done(r, w, "resume");
		return 0;
	}
	converge_wish(w, WISH_RUNNING);
	commit(r, w, "resume");
	return 0;
}

int handle_workspace_suspend(struct request *r, struct err *e)
{
	struct workspace *w;
	int result = lifecycle_find(r, &w, e);

	if (result < 0)
		return result;
	if (request_flag(r, "check"))
		return check_suspend(r, w, NULL, e);
	if (holds_memory(w) && !wants_life(w) && w->truth.state == STATE_SUSPENDED) {
		commit_done(r, w, "suspend");
		return 0;
	}
	if (!wants_life(w) && !holds_memory(w)) {
		(void)err_set(e, ERR_CONFLICT, "workspace '%s' is not running (%s)", w->name, state_names[w->truth.state]);
		return err_hint(e, "only what runs or is paused has memory to keep");
	}
	converge_wish(w, WISH_SUSPENDED);
	commit(r, w, "suspend");
	return 0;
}

/* The host said no to a suspend or a resume, and the workspace is what it was before: so is the wish. */
void lifecycle_follow_memory(struct service *s, struct workspace *w)
{
	enum state state = (enum state)w->truth.state;
	bool lives = state == STATE_RUNNING || state == STATE_PAUSED;
	bool wishes_life = w->wish.wish == WISH_RUNNING || w->wish.wish == WISH_PAUSED;
	bool kept = state == STATE_SUSPENDED && wishes_life && w->truth.run >= w->wish.run;

	if (!w->truth.error || w->truth.generation != w->wish.generation ||
	    !((lives && w->wish.wish == WISH_SUSPENDED) || kept))
		return;
	struct change *c = change_new(s, NULL);
	(void)snprintf(c->workspace, sizeof c->workspace, "%s", w->id);
	converge_wish(w, kept ? WISH_SUSPENDED : state == STATE_PAUSED ? WISH_PAUSED : WISH_RUNNING);
	workspace_store(w, c->batch, false);
	change_commit(c);
}

int handle_workspace_remove(struct request *r, struct err *e)
{
	struct workspace *w;
	int result = find_any(r, &w, e);

	if (result == 0)
		result = workspace_check_match(r, w, e);
	if (result < 0)
		return result;
	if (!request_flag(r, "force") && holds_memory(w))
		return refuse_suspended(w, e);
	if (!request_flag(r, "force") && (wants_life(w) || state_is_live((enum state)w->truth.state))) {
		(void)err_set(e, ERR_CONFLICT, "workspace '%s' is %s", w->name, state_names[w->truth.state]);
		return err_hint(e, "stop it first, or remove it with --force");
	}
	converge_wish(w, WISH_REMOVED);
	if (request_flag(r, "force"))
		w->wish.stop_timeout_ms = 0; /* at once */
	commit(r, w, "remove");
	return 0;
}

/* --- cancel --- */

static bool cancel_live_move(struct workspace *w, const struct operation *o)
{
	const char *from = json_string_value(json_object_get(o->result, "from"));

	for (unsigned i = 0; from && spec_engine_names[i]; i++)
		if (str_eq(spec_engine_names[i], from)) {
			w->wish.spec->engine = i;
			converge_wish(w, (enum wish)w->wish.wish);
			return true;
		}
	return false;
}

int lifecycle_cancel(struct request *r, struct operation *o, struct err *e)
{
	struct workspace *w = workspace_by_id(r->service, o->subject);
	struct err cancelled;

	if (!w || w->operation != o)
		return err_set(e, ERR_CONFLICT, "the operation has ended already");
	bool starts = str_eq(o->kind, "deploy") || str_eq(o->kind, "start") || str_eq(o->kind, "restart") ||
		      str_eq(o->kind, "resume") || (str_eq(o->kind, "move") && wants_life(w));
	if (!starts) {
		(void)err_set(e, ERR_CONFLICT, "'%s' cannot be cancelled", o->kind);
		return err_hint(e, "wait for its end, then ask for the opposite");
	}
	struct change *c = change_new(r->service, r);
	(void)err_set(&cancelled, ERR_CANCELLED, "cancelled by user %u", r->who.uid);
	operation_end(r->service, c->batch, o, &cancelled, NULL);
	w->operation = NULL;
	/* A move with memory is taken back: it goes on, or returns to, where it came from. */
	if (!cancel_live_move(w, o))
		converge_wish(w, str_eq(o->kind, "deploy") ? WISH_REMOVED : WISH_STOPPED);
	workspace_store(w, c->batch, false);
	(void)snprintf(c->workspace, sizeof c->workspace, "%s", w->id);
	(void)snprintf(c->operation, sizeof c->operation, "%s", o->id);
	c->status = 202;
	change_commit(c);
	return 0;
}

/* --- remove-on-exit --- */

static void linger_over(void *data)
{
	struct workspace *w = data;
	w->linger = NULL;
	w->was_attached = true;
	converge_streams_changed(w->service, w);
}

/* The stream that shows the program's output is let to its end before the workspace goes. */
void lifecycle_remove_ended(struct service *s, struct workspace *w)
{
	bool ended_run = w->truth.state == STATE_STOPPED && w->truth.run > 0;
	/* who waited for it was told the reason */
	bool never_ran = w->truth.state == STATE_FAILED && w->wish.held && w->was_attached;

	if (!w->wish.spec->remove_on_exit || w->wish.wish == WISH_REMOVED || w->attached || !(ended_run || never_ran))
		return;
	if (w->wish.held && !w->was_attached) {
		if (!w->linger)
			w->linger = loop_add_timer(s->loop, ATTACH_GRACE_MS, linger_over, w);
		return;
	}
	struct change *c = change_new(s, NULL);
	converge_wish(w, WISH_REMOVED);
	(void)lifecycle_begin(c, w, "remove");
	workspace_store(w, c->batch, false);
	change_commit(c);
}

/* --- snapshots --- */

static int find_resting(struct request *r, struct workspace **ret_workspace, const char *verb, struct err *e)
{
	int result = lifecycle_find(r, ret_workspace, e);
	const struct workspace *w = *ret_workspace;

	if (result < 0)
		return result;
	bool restore = str_eq(verb, "restored");
	enum state state = (enum state)w->truth.state;
	bool paused = state == STATE_PAUSED && w->wish.wish == WISH_PAUSED && !restore;
	if (restore && holds_memory(w))
		return refuse_suspended(w, e);
	if (!paused && (wants_life(w) || state_is_live(state))) {
		(void)err_set(e, ERR_CONFLICT, "workspace '%s' is %s: volumes are %s while nothing writes to them", w->name,
			      state_names[state], verb);
		return err_hint(e, restore ? "carrel stop %s" : "carrel pause %s, or stop it", w->name);
	}
	if (w->truth.state < STATE_PREPARED)
		return err_set(e, ERR_CONFLICT, "workspace '%s' has no volumes yet (%s)", w->name, state_names[state]);
	return 0;
}

static struct snapshot *snapshot_find(struct workspace *w, const char *reference)
{
	for (size_t i = 0; i < w->snapshots.count; i++)
		if (str_eq(w->snapshots.items[i].name, reference) || str_eq(w->snapshots.items[i].id, reference))
			return &w->snapshots.items[i];
	return NULL;
}

static int need_snapshot(struct request *r, struct workspace *w, struct snapshot **ret_snapshot, struct err *e)
{
	*ret_snapshot = snapshot_find(w, r->params[1]);
	if (*ret_snapshot)
		return 0;
	(void)err_set(e, ERR_NOT_FOUND, "workspace '%s' has no snapshot '%.64s'", w->name, r->params[1]);
	return err_hint(e, "carrel snapshot ls %s", w->name);
}

int handle_snapshots_list(struct request *r, struct err *e)
{
	struct workspace *w;
	int result = workspace_find(r, r->params[0], &w, e);

	if (result < 0)
		return result;
	json_t *items = json_array();
	for (size_t i = 0; i < w->snapshots.count; i++)
		(void)json_array_append_new(items, snapshot_to_json(w, &w->snapshots.items[i]));
	request_reply_json(r, 200, json_pack("{s:o}", "items", items));
	return 0;
}

/* With memory: there must be one. */
static int find_living(struct request *r, struct workspace **ret_workspace, struct err *e)
{
	int result = lifecycle_find(r, ret_workspace, e);
	const struct workspace *w = *ret_workspace;

	if (result < 0)
		return result;
	if (wants_life(w) && (w->truth.state == STATE_RUNNING || w->truth.state == STATE_PAUSED)) {
		if (workspace_is_machine(w))
			return 0;
		(void)err_set(e, ERR_UNSUPPORTED,
			      "workspace '%s' runs in namespaces: only a machine goes on while its memory is kept", w->name);
		return err_hint(e, "carrel suspend puts its memory on disk; a snapshot without --memory keeps its volumes");
	}
	(void)err_set(e, ERR_CONFLICT, "workspace '%s' is %s: it has no memory to keep", w->name, state_names[w->truth.state]);
	return err_hint(e, "a snapshot without --memory keeps its volumes");
}

int handle_snapshot_create(struct request *r, struct err *e)
{
	const struct snapshot_request *body = r->value;
	struct workspace *w;
	char id[ID_SIZE];
	int result = body->memory ? find_living(r, &w, e) : find_resting(r, &w, "kept", e);

	if (result < 0)
		return result;
	own_str char *name = body->name ? mem_strdup(body->name) : name_make_up();
	if (snapshot_find(w, name))
		return err_set(e, ERR_EXISTS, "workspace '%s' has a snapshot '%s' already", w->name, name);
	if (w->snapshots.count >= SNAPSHOTS_MOST)
		return err_set(e, ERR_NO_CAPACITY, "workspace '%s' has %d snapshots, the most", w->name, SNAPSHOTS_MOST);
	struct change *c = change_new(r->service, r);
	id_new(id);
	struct snapshot *n = workspace_add_snapshot(w, id, name, service_now_ms(), body->memory);
	db_snapshot_insert(c->batch, &(struct db_snapshot){ n->id, w->id, n->name, n->created_ms, n->memory });
	converge_wish(w, (enum wish)w->wish.wish);
	struct operation *o = lifecycle_begin(c, w, "snapshot");
	operation_set_result(o, c->batch, json_pack("{s:s, s:s}", "snapshot", id, "name", name));
	workspace_store(w, c->batch, false);
	c->status = 202;
	change_commit(c);
	return 0;
}

int handle_snapshot_remove(struct request *r, struct err *e)
{
	struct workspace *w;
	struct snapshot *n;
	int result = lifecycle_find(r, &w, e);

	if (result == 0)
		result = need_snapshot(r, w, &n, e);
	if (result < 0)
		return result;
	struct change *c = change_new(r->service, r);
	db_snapshot_delete(c->batch, n->id);
	workspace_drop_snapshot(w, n->id);
	converge_wish(w, (enum wish)w->wish.wish);
	(void)lifecycle_begin(c, w, "snapshot-remove");
	workspace_store(w, c->batch, false);
	c->status = 202;
	change_commit(c);
	return 0;
}

int handle_snapshot_restore(struct request *r, struct err *e)
{
	struct workspace *w;
	struct snapshot *n;
	int result = find_resting(r, &w, "restored", e);

	if (result == 0)
		result = need_snapshot(r, w, &n, e);
	if (result < 0)
		return result;
	w->wish.restore = (w->truth.restore > w->wish.restore ? w->truth.restore : w->wish.restore) + 1;
	free(w->wish.restore_from);
	w->wish.restore_from = mem_strdup(n->id);
	if (n->memory) { /* it goes on from there: the same run, not a new one */
		w->wish.run = w->truth.run > w->wish.run ? w->truth.run : w->wish.run;
		w->wish.held = false;
	}
	converge_wish(w, n->memory ? WISH_RUNNING : (enum wish)w->wish.wish);
	commit(r, w, "restore");
	return 0;
}
