/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/own.h"
#include "network/shape.h"

#define MINOR_FIRST 2 /* 1 is the class above all */
#define MINOR_LAST 0xfffe
#define UNKNOWN_BITS (UINT64_C(400) * 1000 * 1000 * 1000) /* nobody is bound by it */

static const struct network_rates no_rates;

static const struct network_rates *rates_of(const struct shape_port *p)
{
	return p->attachment->rates ? p->attachment->rates : &no_rates;
}

static uint64_t least(const struct network_rates *r, int d) { return d == SHAPE_IN ? r->in_least : r->out_least; }
static uint64_t most(const struct network_rates *r, int d) { return d == SHAPE_IN ? r->in_most : r->out_most; }

static int by_number(const void *a, const void *b)
{
	const struct shape_class *x = a, *y = b;

	return x->number < y->number ? -1 : x->number > y->number;
}

static int add_up(const struct shape_intent *intent, bool ret_guaranteed[SHAPE_DIRECTIONS], struct err *e)
{
	static const char *const words[] = { "towards workspaces", "from workspaces" };

	for (int d = 0; d < SHAPE_DIRECTIONS; d++) {
		uint64_t sum = 0, last = 0;
		for (size_t i = 0; i < intent->port_count; i++) {
			last = least(rates_of(&intent->ports[i]), d);
			if (__builtin_add_overflow(sum, last, &sum))
				sum = UINT64_MAX;
		}
		ret_guaranteed[d] = sum > 0;
		if (sum && !intent->link_bits) {
			(void)err_set(e, ERR_UNSUPPORTED,
				      "a guaranteed rate is a share of the host's link, and the speed of that is not known");
			return err_hint(e, "say it in the configuration of the host");
		}
		if (sum > intent->link_bits)
			return err_set(e, ERR_NO_CAPACITY, "%" PRIu64 " bit/s are guaranteed %s, the host's link has %" PRIu64,
				       sum, words[d], intent->link_bits);
	}
	return 0;
}

static void fill(struct shape_class *c, const struct shape_port *p, const bool guaranteed[SHAPE_DIRECTIONS], uint64_t total)
{
	const struct network_rates *r = rates_of(p);

	*c = (struct shape_class){ .number = p->attachment->number };
	(void)snprintf(c->port, sizeof c->port, "%s", p->port);
	for (int d = 0; d < SHAPE_DIRECTIONS; d++) {
		c->least_bits[d] = least(r, d);
		c->most_bits[d] = most(r, d) && most(r, d) < total ? most(r, d) : total;
		if (c->most_bits[d] < c->least_bits[d])
			c->most_bits[d] = c->least_bits[d];
		c->used[d] = guaranteed[d] || most(r, d);
	}
}

/* Numbers of classes have 16 bits, those of attachments more: a port keeps what it has, a new one takes the lowest that is
 * free. */
static int give_minors(struct shape_plan *plan, const struct shape_plan *before, struct err *e)
{
	own_str uint8_t *taken = mem_alloc(MINOR_LAST + 1);
	uint32_t next = MINOR_FIRST;

	for (size_t i = 0; before && i < before->count; i++)
		taken[before->classes[i].minor] = 1; /* also of those that go now: their packets may be on the way */
	for (size_t i = 0; i < plan->count; i++) {
		struct shape_class *c = &plan->classes[i];
		const struct shape_class *had =
			before && before->count ? bsearch(c, before->classes, before->count, sizeof *c, by_number) : NULL;
		if (had) {
			c->minor = had->minor;
			continue;
		}
		while (next <= MINOR_LAST && taken[next])
			next++;
		if (next > MINOR_LAST)
			return err_set(e, ERR_NO_CAPACITY, "more than %d interfaces with rates on one host",
				       MINOR_LAST - MINOR_FIRST + 1);
		c->minor = next++;
	}
	return 0;
}

int shape_plan(const struct shape_intent *intent, const struct shape_plan *before, struct shape_plan *ret_plan, struct err *e)
{
	bool guaranteed[SHAPE_DIRECTIONS];
	struct shape_plan plan = { .total_bits = intent->link_bits };
	int r = add_up(intent, guaranteed, e);

	if (r < 0)
		return r;
	if (!guaranteed[SHAPE_IN] && !guaranteed[SHAPE_OUT])
		plan.total_bits = UNKNOWN_BITS; /* only limits: workspaces may be faster among themselves than the link */
	plan.classes = mem_alloc_array(intent->port_count, sizeof *plan.classes);
	for (size_t i = 0; i < intent->port_count; i++) {
		struct shape_class c;
		fill(&c, &intent->ports[i], guaranteed, plan.total_bits);
		if (c.used[SHAPE_IN] || c.used[SHAPE_OUT])
			plan.classes[plan.count++] = c;
	}
	qsort(plan.classes, plan.count, sizeof *plan.classes, by_number);
	if ((r = give_minors(&plan, before, e)) < 0) {
		shape_plan_done(&plan);
		return r;
	}
	*ret_plan = plan;
	return 0;
}

void shape_plan_done(struct shape_plan *plan)
{
	free(plan->classes);
	*plan = (struct shape_plan){ 0 };
}
