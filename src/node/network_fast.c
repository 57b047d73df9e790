/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. The short way for packets (network/fast.h) is extra: nothing waits for it, and what fails in it is logged and tried
 * again with the next look at the networks. Changes only note what is due, on the loop's thread; one job at a time does it
 * under the lock:
 *
 *   ports   a little after a workspace came, so that a hundred that start together are one look at all ports
 *   learn   when the kernel has seen packets that may get flows, and not sooner than LEARN_MS after the last time
 *   care    every FAST_CARE_MS while there are flows, less often when there are very many
 */
#include <errno.h>
#include <stdlib.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/own.h"
#include "network/fast.h"
#include "node/network_private.h"

#define PORTS_MS   50
#define LEARN_MS   20
#define CARE_SHARE 20 /* of its own time that care of many flows leaves to others, who wait for the lock */

enum { DUE_PORTS = 1, DUE_LEARN = 2, DUE_CARE = 4 };

/* Guarantees hold only when everybody goes by the scheduler (network/shape.h). */
static bool is_guaranteed(const struct networks *s)
{
	for (size_t i = 0; i < s->locals.capacity; i++) {
		const struct local *l = s->locals.entries[i].key ? s->locals.entries[i].value : NULL;
		const struct attachment *a = l ? l->wish.attachments.items : NULL;
		for (size_t j = 0; l && j < l->wish.attachments.count; j++)
			if (a[j].rates && (a[j].rates->in_least || a[j].rates->out_least))
				return true;
	}
	return false;
}

/* Those of a machine are not veths, and a site's bridge is not routed. */
static size_t list_ports(const struct networks *s, const struct local *l, bool slow, struct fast_port *ports)
{
	const struct attachment *a = l->wish.attachments.items;
	size_t count = 0;

	for (size_t j = 0; j < l->wish.attachments.count && !l->machine; j++) {
		const struct carried *c = map_get(&s->carried, a[j].network);
		if (c && c->ours && fast_port_set(&ports[count], &a[j], c->bridge))
			ports[count++].slow = slow || a[j].rates;
	}
	return count;
}

static int set_ports(struct networks *s, struct err *e)
{
	struct fast_port *ports = mem_alloc_array(s->locals.count * NETWORK_INTERFACES + 1, sizeof *ports);
	bool slow = is_guaranteed(s);
	size_t count = 0;

	for (size_t i = 0; i < s->locals.capacity; i++)
		if (s->locals.entries[i].key)
			count += list_ports(s, s->locals.entries[i].value, slow, ports + count);
	int r = fast_set_ports(s->fast, ports, count, e);
	free(ports);
	return r;
}

/* Not before a workspace runs: an agent's start does not wait for programs that the kernel proves. */
static bool is_open(struct networks *s)
{
	struct err e = { 0 };

	if (s->fast || s->fast_lacking)
		return s->fast;
	s->fast_lacking = !s->locals.count ? false : fast_probe(&e) < 0 || fast_new(&s->fast, &e) < 0;
	if (s->fast_lacking)
		log_detail("%s", e.message);
	return s->fast;
}

static int work(struct networks *s, unsigned what, int *ret_flows, struct err *e)
{
	int r = what & DUE_PORTS ? set_ports(s, e) : 0;

	if (r >= 0 && (what & DUE_LEARN))
		r = fast_learn(s->fast, e);
	*ret_flows = 1; /* there may be some */
	if (r >= 0 && (what & (DUE_CARE | DUE_PORTS)))
		r = *ret_flows = fast_care(s->fast, e);
	return r < 0 ? r : 0;
}

static void job_run(void *data)
{
	struct networks *s = data;
	struct err e = { 0 };

	(void)pthread_mutex_lock(&s->lock);
	int r = is_open(s) ? work(s, s->fast_doing, &s->fast_flows, &e) : 0;
	(void)pthread_mutex_unlock(&s->lock);
	if (r < 0 && !s->fast_failed)
		log_warn("the short way for packets between workspaces: %s", e.message);
	s->fast_failed = r < 0;
}

static void job_done(void *data);

static void start(struct networks *s)
{
	if (s->fast_busy || !s->fast_due || !s->tell)
		return;
	s->fast_busy = true;
	s->fast_begun_ms = loop_now_ms();
	s->fast_doing = s->fast_due;
	s->fast_due = 0;
	workers_run(s->node->workers, job_run, job_done, s, true);
}

static void on_ports(void *data)
{
	struct networks *s = data;

	s->fast_ports = NULL;
	s->fast_due |= DUE_PORTS;
	start(s);
}

static void on_care(void *data)
{
	struct networks *s = data;

	s->fast_care = NULL;
	s->fast_due |= DUE_CARE;
	start(s);
}

static void on_samples(void *data, uint32_t events)
{
	struct networks *s = data;

	(void)events;
	loop_set_events(s->fast_samples, 0);
	s->fast_due |= DUE_LEARN;
	start(s);
}

static void on_rest(void *data)
{
	struct networks *s = data;

	s->fast_rest = NULL;
	loop_set_events(s->fast_samples, EPOLLIN);
}

static void job_done(void *data)
{
	struct networks *s = data;

	s->fast_busy = false;
	uint64_t took_ms = loop_now_ms() - s->fast_begun_ms;
	if (!s->tell)
		return;
	if (!s->fast_samples && s->fast && fast_fd(s->fast) >= 0)
		s->fast_samples = loop_add_fd(s->node->loop, fast_fd(s->fast), EPOLLIN, on_samples, s);
	if ((s->fast_doing & DUE_LEARN) && !s->fast_rest)
		s->fast_rest = loop_add_timer(s->node->loop, LEARN_MS, on_rest, s);
	if (s->fast_flows > 0 && !s->fast_care)
		s->fast_care = loop_add_timer(s->node->loop, FAST_CARE_MS + CARE_SHARE * took_ms, on_care, s);
	start(s);
}

void network_fast_due(void *data)
{
	struct networks *s = data;

	if (!s->fast_lacking && s->tell && !s->fast_ports)
		s->fast_ports = loop_add_timer(s->node->loop, PORTS_MS, on_ports, s);
}

void network_fast_changed(struct networks *s)
{
	struct err e;

	if (s->fast && fast_rules_changed(s->fast, &e) < 0)
		log_error(&e, "the short way for packets between workspaces"); /* its leases end by themselves */
}

void network_fast_stop(struct networks *s)
{
	loop_remove(TAKE(s->fast_samples));
	loop_remove(TAKE(s->fast_ports));
	loop_remove(TAKE(s->fast_care));
	loop_remove(TAKE(s->fast_rest));
}
