/* SPDX-License-Identifier: Apache-2.0 */
#include "node/template_failure.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/mem.h"
#include "base/str.h"

static struct template_failure *find(struct template_failure *list, const char *name)
{
	while (list && !str_eq(list->name, name))
		list = list->next;
	return list;
}

static struct template_failure *add(struct template_failure **list, const char *name)
{
	struct template_failure *f = mem_alloc(sizeof *f);

	*f = (struct template_failure){ .next = *list };
	(void)snprintf(f->name, sizeof f->name, "%s", name);
	return *list = f;
}

bool template_failures_add(struct template_failure **list, const char *name, bool of_no_use, uint64_t now_ms)
{
	struct template_failure *f = find(*list, name);

	if (!f)
		f = add(list, name);
	f->times++;
	if (!of_no_use && f->times < TEMPLATE_FAILURES_MOST)
		return false;
	if (of_no_use)
		f->until_ms = UINT64_MAX;
	else if (f->until_ms != UINT64_MAX)
		f->until_ms = now_ms + TEMPLATE_REST_MS;
	f->times = 0;
	return true;
}

void template_failures_end(struct template_failure *list, const char *name)
{
	struct template_failure *f = find(list, name);

	if (f)
		f->times = 0;
}

bool template_failures_allow(struct template_failure *list, const char *name, uint64_t now_ms)
{
	const struct template_failure *f = find(list, name);

	return !f || f->until_ms <= now_ms;
}

void template_failures_free(struct template_failure **list)
{
	for (struct template_failure *f; (f = *list);) {
		*list = f->next;
		free(f);
	}
}
