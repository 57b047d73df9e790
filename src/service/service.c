/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A change is one batch for the database and the memory that was altered ahead of it. From change_commit to `committed` the
 * workspaces it touched count it (`uncommitted`); others may be begun on top of it, and their batches are committed in the
 * same order. When one fails, what it touched is stale, and is read from the database again as soon as no commit of it is
 * under way: the database is always right.
 *
 * What follows from a change - the assignment to the host, the answer, the events - leaves in `committed`, in that order, so
 * that nobody outside knows of what could be forgotten.
 */
#include "service/service.h"

#include <string.h>
#include <time.h>

#include "base/fault.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/own.h"
#include "service/carry.h"
#include "service/event.h"
#include "service/host.h"
#include "service/network.h"
#include "service/operation.h"
#include "service/routes.h"
#include "service/workspace.h"

uint64_t service_now_ms(void)
{
	struct timespec now;
	(void)clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

char *service_time_text(uint64_t ms)
{
	time_t seconds = (time_t)(ms / 1000);
	struct tm tm;
	char text[32];

	if (ms == 0 || !gmtime_r(&seconds, &tm) || !strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &tm))
		return NULL;
	return mem_printf("%s.%03uZ", text, (unsigned)(ms % 1000));
}

const struct parameter page_query[] = { LIMIT_PARAMETER,
					{ "after", "cursor of the page before", false },
					{ 0 } };

int page_parse(const struct request *r, struct page *ret_page, struct err *e)
{
	struct page page = { 0 };
	uint64_t after = 0;
	int result = request_limit(r, &page.limit, e);

	if (result == 0)
		result = request_number(r, "after", 0, INT64_MAX, &after, e);
	if (result < 0)
		return result;
	page.after = (int64_t)after;
	*ret_page = page;
	return 0;
}

int service_load(struct service *s, struct err *e)
{
	int r = networks_load(s, e);

	if (r >= 0)
		r = workspaces_load(s, e);
	if (r >= 0)
		r = hosts_load(s, e);
	if (r >= 0)
		r = events_load(s, e);
	if (r >= 0)
		r = operations_load(s, e);
	if (r >= 0)
		r = images_open(s, e);
	if (r >= 0)
		carry_recover(s);
	return r;
}

struct change *change_new(struct service *s, struct request *r)
{
	struct change *c = mem_alloc(sizeof *c);
	c->service = s;
	c->request = r;
	c->batch = db_batch_new();
	return c;
}

void change_drop(struct change *c)
{
	db_batch_free(c->batch);
	free(c->others);
	free(c);
}

static void answer(struct change *c)
{
	struct workspace *w = workspace_by_id(c->service, c->workspace);
	struct operation *o = operation_by_id(c->service, c->operation);
	struct request *r = c->request;

	if (c->status == 202 && o) {
		request_reply_json(r, 202, operation_to_json(o));
	} else if (c->status == 204 || !w) {
		request_reply_nothing(r);
	} else {
		size_t length;
		char etag[32];
		const char *text = workspace_render(w, &length);
		workspace_etag(w, etag);
		request_reply_cached(r, c->status, text, length, r->route->flags & ROUTE_TAG ? etag : NULL);
	}
}

static void undo(struct change *c, const struct err *failure)
{
	struct operation *o = operation_by_id(c->service, c->operation);

	log_error(failure, "a change was not stored");
	if (o)
		operation_forget(c->service, o);
	if (c->request)
		request_fail(c->request, failure);
}

/* What one of the workspaces it touched is now. */
static void settle(struct change *c, const char *id, bool failed)
{
	struct workspace *w = workspace_by_id(c->service, id);

	if (w && w->uncommitted)
		w->uncommitted--;
	if (w && failed)
		w->stale = true;
	if (w && w->stale && w->uncommitted == 0)
		workspace_reload(c->service, id);
	if ((w = workspace_by_id(c->service, id)))
		network_tell(c->service, w);
	if (w && !failed)
		converge_assign(w, c->service);
}

static void change_free(struct change *c)
{
	free(c->others);
	free(c);
}

static void committed(void *data, const struct err *failure)
{
	struct change *c = data;

	if (failure)
		undo(c, failure);
	else
		(void)fault_point("service:committed");
	settle(c, c->workspace, failure != NULL);
	for (size_t i = 0; i < c->other_count; i++) {
		struct workspace *w = failure ? workspace_by_id(c->service, c->others[i]) : NULL;
		if (w && w->operation) /* made with it */
			operation_forget(c->service, TAKE(w->operation));
		settle(c, c->others[i], failure != NULL);
	}
	if (failure) {
		change_free(c);
		return;
	}
	if (c->deleted)
		host_send_forget(host_find(c->service, c->host), c->workspace);
	(void)fault_point("service:assigned");
	if (c->request)
		answer(c);
	events_committed(c->service);
	change_free(c);
}

void change_add(struct change *c, const char *workspace)
{
	c->others = mem_grow_array(c->others, c->other_count + 1, sizeof *c->others);
	(void)snprintf(c->others[c->other_count++], sizeof *c->others, "%s", workspace);
}

void change_commit(struct change *c)
{
	struct db_batch *batch = c->batch;
	struct workspace *w = workspace_by_id(c->service, c->workspace);

	if (w)
		w->uncommitted++;
	for (size_t i = 0; i < c->other_count; i++)
		if ((w = workspace_by_id(c->service, c->others[i])))
			w->uncommitted++;
	c->batch = NULL;
	(void)fault_point("service:before-commit");
	db_submit(c->service->db, batch, c->service->loop, committed, c);
}
