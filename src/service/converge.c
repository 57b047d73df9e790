/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. Two levels meet here. Outwards: the newest wish of a workspace goes to its host once it is committed and whenever the
 * host (re)connects. Inwards: each report replaces the truth, whatever came before; a step that the state table does not know
 * is counted and believed, for a host that was away may have passed several states. When the truth has the wish's generation
 * and nothing is left to do, the operation under way ends.
 */
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/own.h"
#include "db/workspace.h"
#include "service/clone.h"
#include "service/event.h"
#include "service/host.h"
#include "service/lifecycle.h"
#include "service/network.h"
#include "service/sizes.h"
#include "service/views.h"

void converge_assign(struct workspace *w, struct service *s)
{
	struct host *h = host_find(s, w->host);

	if (!h || !host_connected(h) || w->uncommitted || w->sent_generation >= w->wish.generation || !clone_may_begin(s, w))
		return;
	w->sent_generation = w->wish.generation;
	host_send(h, json_pack("{s:s, s:[o]}", "type", "assignments", "items", encode(&assignment_shape, &w->wish)));
}

static void failure_of(const struct workspace *w, struct err *ret_failure)
{
	const struct report_error *error = w->truth.error;

	(void)err_set(ret_failure, error ? err_kind_from_name(error->kind ? error->kind : "") : ERR_INTERNAL, "%s",
		      error && error->message ? error->message : "the host told no reason");
	if (error && error->step)
		(void)err_wrap(ret_failure, "step %s", error->step);
	if (error && error->hint)
		(void)err_hint(ret_failure, "%s", error->hint);
}

static bool refused_at(const struct workspace *w, const char *step)
{
	return w->truth.error && w->truth.error->step && str_eq(w->truth.error->step, step);
}

/* What a failed operation wished and did not get is not wished any longer. */
void converge_withdraw(struct workspace *w, const struct operation *o, struct db_batch *b)
{
	if (str_eq(o->kind, "snapshot") || str_eq(o->kind, "clone")) {
		const char *id = json_string_value(json_object_get(o->result, "snapshot"));
		if (id) {
			db_snapshot_delete(b, id);
			workspace_drop_snapshot(w, id);
		}
	} else if (str_eq(o->kind, "restore")) {
		w->wish.restore = w->truth.restore;
	} else if (str_eq(o->kind, "move") && refused_at(w, "move")) {
		/* The host refused before it changed anything: the wish is again what is. */
		for (unsigned i = 0; w->truth.engine && spec_engine_names[i]; i++)
			if (str_eq(spec_engine_names[i], w->truth.engine))
				w->wish.spec->engine = i;
		if (state_is_live((enum state)w->truth.state))
			w->wish.run = w->truth.run;
		converge_wish(w, (enum wish)w->wish.wish); /* goes out when this is stored: reports_committed */
	} else if (str_eq(o->kind, "resize") && refused_at(w, "limits")) { /* they come first: nothing of it was made */
		sizes_restore(w, json_object_get(o->result, "before"));
		converge_wish(w, (enum wish)w->wish.wish);
		event_add(w->service, b, "workspace.changed", w->id, w->owner_uid, json_pack("{s:s}", "name", w->name));
	} else {
		return;
	}
	workspace_store(w, b, false);
}

static void end_operation(struct service *s, struct workspace *w, struct db_batch *b)
{
	struct operation *o = w->operation;
	struct err failure;
	json_t *result = str_eq(o->kind, "resize") ? NULL : json_incref(o->result);

	w->operation = NULL;
	bool unsuspended = str_eq(o->kind, "suspend") && w->truth.state != STATE_SUSPENDED;
	if (w->truth.state == STATE_FAILED || w->truth.error || unsuspended) {
		if (w->truth.error || !unsuspended)
			failure_of(w, &failure);
		else
			(void)err_set(&failure, ERR_CONFLICT, "the workspace ended before it was suspended (%s)",
				      state_names[w->truth.state]);
		converge_withdraw(w, o, b);
		json_decref(o->result);
		o->result = NULL;
		json_decref(result);
		operation_end(s, b, o, &failure, NULL);
		return;
	}
	json_decref(o->result);
	o->result = NULL;
	if (w->truth.exit_status != FIELD_NO_PRESET && !state_is_live((enum state)w->truth.state) && !result)
		result = json_pack("{s:I}", "exit_status", (json_int_t)w->truth.exit_status);
	if (w->truth.notice && !result)
		result = json_object();
	if (w->truth.notice && !json_object_get(result, "exit_status"))
		(void)json_object_set_new(result, "notice", json_string(w->truth.notice));
	if (str_eq(o->kind, "move") && w->truth.stood_still_ms && json_object_get(result, "from"))
		(void)json_object_set_new(result, "stood_still_ms", json_integer((json_int_t)w->truth.stood_still_ms));
	operation_end(s, b, o, NULL, result);
}

static void tell_state(struct service *s, struct workspace *w, struct db_batch *b)
{
	own_str char *kind = mem_printf("workspace.%s", state_names[w->truth.state]);
	json_t *body = json_pack("{s:s, s:I}", "name", w->name, "run", (json_int_t)w->truth.run);

	if (w->truth.state == STATE_STOPPED && w->truth.exit_status != FIELD_NO_PRESET)
		(void)json_object_set_new(body, "exit_status", json_integer((json_int_t)w->truth.exit_status));
	if (w->truth.error)
		(void)json_object_set_new(body, "error", error_of_report(w->truth.error));
	event_add(s, b, kind, w->id, w->owner_uid, body);
}

static void remove_row(struct service *s, struct host *h, struct workspace *w, struct db_batch *b, json_t *forget)
{
	if (w->operation)
		end_operation(s, w, b);
	network_release(s, w, b);
	db_workspace_delete(b, w->id);
	(void)json_array_append_new(forget, json_string(w->id));
	(void)h;
	streams_workspace_changed(s, w);
	char id[ID_SIZE];
	memcpy(id, w->id, sizeof id);
	workspace_remove(s, w);
	wait_changed(s, id);
}

void converge_report(struct service *s, struct host *h, struct report *r, struct db_batch *b, json_t *forget)
{
	struct workspace *w = workspace_by_id(s, r->id);

	s->reports++;
	if (!w || !str_eq(w->host, h->name)) {
		if (r->state == STATE_REMOVED)
			(void)json_array_append_new(forget, json_string(r->id));
		else
			log_warn("host %s reports workspace %s, which is not in the database; it is left alone", h->name,
				 r->id);
		return;
	}
	bool changed = !w->reported || w->truth.state != r->state || w->truth.run != r->run;
	if (w->reported && !state_may_follow((enum state)w->truth.state, (enum state)r->state))
		s->jumps++;
	report_done(&w->truth);
	w->truth = *r;
	*r = (struct report){ 0 };
	w->reported = true;
	if (changed)
		tell_state(s, w, b);
	if (w->wish.wish == WISH_REMOVED && w->truth.state == STATE_REMOVED) {
		remove_row(s, h, w, b, forget);
		return;
	}
	if (w->operation && workspace_settled(w))
		end_operation(s, w, b);
	lifecycle_follow_memory(s, w);
	clone_follow(s, w);
	workspace_store_truth(w, b);
	wait_changed(s, w->id);
	streams_workspace_changed(s, w);
	lifecycle_remove_ended(s, w);
}

/* A stream opened or ended: remove-on-exit may go on. */
void converge_streams_changed(struct service *s, struct workspace *w) { lifecycle_remove_ended(s, w); }
