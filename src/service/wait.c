/* SPDX-License-Identifier: Apache-2.0 */
/* Requests that wait for a state of a workspace (?wait and ?state): answered by the report that brings it. */
#include <string.h>

#include "base/mem.h"
#include "service/routes.h"
#include "service/workspace.h"

#define WAIT_MOST_SECONDS 600

struct state_waiter {
	struct request *request;
	char workspace[ID_SIZE];
	unsigned states; /* bits by enum state */
	uint64_t run;    /* when it began to wait: another one is an answer, too */
	struct loop_source *timer;
	struct state_waiter *next;
};

static void answer(struct state_waiter *x)
{
	struct service *s = x->request->service;
	struct workspace *w = workspace_by_id(s, x->workspace);
	struct err e;

	for (struct state_waiter **at = &s->waiters; *at; at = &(*at)->next) {
		if (*at == x) {
			*at = x->next;
			break;
		}
	}
	loop_remove(x->timer);
	if (w) {
		workspace_reply(x->request, w);
	} else {
		(void)err_set(&e, ERR_NOT_FOUND, "workspace %s was removed", x->workspace);
		request_fail(x->request, &e);
	}
	free(x);
}

static void waited_long_enough(void *data)
{
	struct state_waiter *x = data;
	x->timer = NULL;
	answer(x);
}

static bool reached(const struct workspace *w, unsigned states, uint64_t run)
{
	return states & 1U << w->truth.state || w->truth.run != run;
}

void wait_changed(struct service *s, const char *id)
{
	const struct workspace *w = workspace_by_id(s, id);

	for (struct state_waiter *x = s->waiters, *next; x; x = next) {
		next = x->next;
		if (str_eq(x->workspace, id) && (!w || reached(w, x->states, x->run)))
			answer(x);
	}
}

/* "stopped,failed" */
static int parse_states(const char *text, unsigned *ret_states, struct err *e)
{
	unsigned states = 0;

	for (const char *at = text; *at;) {
		size_t length = strcspn(at, ",");
		unsigned i = 0;
		while (state_names[i] && (strlen(state_names[i]) != length || memcmp(state_names[i], at, length) != 0))
			i++;
		if (!state_names[i])
			return err_set(e, ERR_INVALID, "query parameter 'state': '%.*s' is no state",
				       length < 40 ? (int)length : 40, at);
		states |= 1U << i;
		at += length + (at[length] == ',');
	}
	*ret_states = states;
	return 0;
}

int wait_begin(struct request *r, const struct workspace *w, struct err *e)
{
	const char *text = request_query(r, "state");
	uint64_t seconds;
	unsigned states = 0;
	int result = request_number(r, "wait", 0, WAIT_MOST_SECONDS, &seconds, e);

	if (result == 0 && text)
		result = parse_states(text, &states, e);
	if (result == 0 && !text != !request_query(r, "wait"))
		result = err_set(e, ERR_INVALID, "query parameters 'wait' and 'state' belong together");
	if (result < 0 || seconds == 0 || reached(w, states, w->truth.run))
		return result;
	struct state_waiter *x = mem_alloc(sizeof *x);
	*x = (struct state_waiter){ .request = r, .states = states, .run = w->truth.run, .next = r->service->waiters };
	memcpy(x->workspace, w->id, sizeof x->workspace);
	x->timer = loop_add_timer(r->service->loop, seconds * 1000, waited_long_enough, x);
	r->service->waiters = x;
	return 1;
}
