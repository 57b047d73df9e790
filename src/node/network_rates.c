/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>

#include "base/mem.h"
#include "base/own.h"
#include "network/shape.h"
#include "node/network_private.h"

static bool has_rates(const struct networks *s)
{
	for (size_t i = 0; i < s->locals.capacity; i++) {
		const struct local *l = s->locals.entries[i].key ? s->locals.entries[i].value : NULL;
		const struct attachment *a = l ? l->wish.attachments.items : NULL;
		for (size_t j = 0; l && j < l->wish.attachments.count; j++)
			if (a[j].rates)
				return true;
	}
	return false;
}

/* Borrowed from the locals, but for the ports, which are the caller's to free. */
static struct shape_intent intent_of(const struct networks *s, struct shape_port **ret_ports)
{
	uint64_t bits = s->node->config.link_bits;
	size_t count = 0;

	for (size_t i = 0; i < s->locals.capacity; i++)
		count += s->locals.entries[i].key ? ((const struct local *)s->locals.entries[i].value)->wish.attachments.count :
						    0;
	struct shape_port *ports = *ret_ports = mem_alloc_array(count + 1, sizeof *ports);
	struct shape_intent intent = { .instance = s->instance, .link_bits = bits ? bits : shape_link_bits(), .ports = ports };
	for (size_t i = 0; i < s->locals.capacity; i++) {
		const struct local *l = s->locals.entries[i].key ? s->locals.entries[i].value : NULL;
		const struct attachment *a = l ? l->wish.attachments.items : NULL;
		for (size_t j = 0; l && j < l->wish.attachments.count; j++)
			ports[intent.port_count++] = (struct shape_port){ a[j].port, &a[j] };
	}
	return intent;
}

int network_check_rates(const struct networks *s, struct err *e)
{
	own_str struct shape_port *ports = NULL;
	struct shape_plan plan = { 0 };

	if (!has_rates(s))
		return 0;
	struct shape_intent intent = intent_of(s, &ports);
	int r = shape_plan(&intent, NULL, &plan, e);
	shape_plan_done(&plan);
	return r;
}

int network_keep_rates(struct networks *s, struct err *e)
{
	own_str struct shape_port *ports = NULL;

	s->shaped |= has_rates(s);
	if (!s->shaped)
		return 0;
	struct shape_intent intent = intent_of(s, &ports);
	return shape_apply(s->shaper, &intent, e);
}
