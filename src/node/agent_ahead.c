/* SPDX-License-Identifier: Apache-2.0 */
/* What is made ahead, and idle mounts: when nothing else is to be done. */
#include "base/log.h"
#include "node/agent_private.h"
#include "node/template.h"

#define READY_AFTER_MS 5   /* who has just started something waits for an answer, */
#define TEMPLATE_AFTER_MS 1000 /* the machine that had to boot for want of one has things to do */
#define BLANKS_AFTER_MS 150 /* and mkfs would take its processor */

static void refill_job(void *data)
{
	struct agent *a = data;
	struct err e = { 0 };

	int made = ready_refill(a->node->ready, &e);
	if (made < 0)
		log_error(&e, "make ready");
	if (made <= 0 && a->refill_blanks && (made = volume_pool_refill(a->node->pool, &e)) < 0)
		log_error(&e, "refill");
	a->refill_again = made > 0;
}

static void refill_done(void *data);
static void refill_now(void *data)
{
	struct agent *a = data;
	a->refill_timer = NULL;
	a->refilling = true;
	a->refill_blanks = a->blanks_due_ms && loop_now_ms() >= a->blanks_due_ms;
	workers_run(a->node->workers, refill_job, refill_done, a, true);
}

static void refill_done(void *data)
{
	struct agent *a = data;

	uint64_t now = loop_now_ms();

	a->refilling = false;
	if (a->refill_again) {
		refill_now(a);
		return;
	}
	if (a->refill_blanks)
		a->blanks_due_ms = 0;
	if (a->blanks_due_ms && !a->refill_timer)
		a->refill_timer = loop_add_timer(a->node->loop, a->blanks_due_ms > now ? a->blanks_due_ms - now : 1, refill_now,
						 a);
}

void agent_refill(struct agent *a)
{
	if (!a->blanks_due_ms)
		a->blanks_due_ms = loop_now_ms() + BLANKS_AFTER_MS;
	if (a->refilling)
		return;
	loop_remove(a->refill_timer);
	a->refill_timer = loop_add_timer(a->node->loop, READY_AFTER_MS, refill_now, a);
}

/* --- templates --- */

static void template_job(void *data)
{
	struct agent *a = data;
	struct err e = { 0 };

	if (templates_make(a->node->templates, &e) < 0)
		log_error(&e, "machines of this kind will boot");
}

static void template_done(void *data)
{
	struct agent *a = data;

	a->making_template = false;
	agent_make_templates(a);
}

static void make_template_now(void *data)
{
	struct agent *a = data;

	a->template_timer = NULL;
	a->making_template = true;
	workers_run(a->node->workers, template_job, template_done, a, true);
}

void agent_make_templates(struct agent *a)
{
	if (!a->making_template && !a->template_timer && templates_wanted(a->node->templates))
		a->template_timer = loop_add_timer(a->node->loop, TEMPLATE_AFTER_MS, make_template_now, a);
}

/* --- mounts --- */

static void on_idle(void *data)
{
	struct agent *a = data;
	uint64_t next = mounts_idle(a->node->mounts, a->node->config.keep_mounted_ms);

	a->idle_timer = next ? loop_add_timer(a->node->loop, next, on_idle, a) : NULL;
}

void agent_look_for_idle(struct agent *a)
{
	if (!a->idle_timer)
		a->idle_timer = loop_add_timer(a->node->loop, a->node->config.keep_mounted_ms + 1, on_idle, a);
}
