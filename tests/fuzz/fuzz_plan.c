/* SPDX-License-Identifier: Apache-2.0 */
/* The launch plan as carrel-run, carrel-copy and carrel-init read it: what was understood is written the same way again. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/own.h"
#include "base/str.h"
#include "engine/workspace/plan.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void touch_list(const char *const *list, size_t *seen)
{
	for (; *list; list++)
		*seen += strlen(*list);
}

/* Everything is inside the bytes, or the sanitizer says so. */
static void touch(const struct plan *p)
{
	static volatile size_t sink;
	size_t seen = 0;

#define X(name) seen += strlen(p->name);
	PLAN_TEXTS(X)
#undef X
#define X(name) touch_list((const char *const *)p->name, &seen);
	PLAN_LISTS(X)
#undef X
	for (size_t i = 0; i < p->step_count; i++)
		seen += strlen(p->steps[i].source) + strlen(p->steps[i].target) + strlen(p->steps[i].text);
	for (size_t i = 0; i < p->filter_bytes; i++)
		seen += ((const uint8_t *)p->filter)[i];
	sink = seen;
	(void)sink;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	own_str uint8_t *copy = malloc(size ? size : 1); /* of just that size, so that a byte too far is noticed */
	own_strbuf struct str again = { 0 };
	struct plan p;
	struct err e;

	if (!copy)
		return 0;
	if (size)
		memcpy(copy, data, size);
	if (plan_decode(copy, size, &p, &e) < 0)
		return 0;
	touch(&p);
	plan_encode(&p, &again);
	if (again.length != size || memcmp(again.bytes, copy, size) != 0)
		abort();
	plan_release(&p);
	return 0;
}
