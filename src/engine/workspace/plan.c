/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The format is the order of the lists in plan.h; encoder, decoder and release expand the same lists, so none can forget a
 * field. A decoded plan points into the bytes it was made of and owns the arrays only: the runner maps the agent's memory file
 * and never copies.
 *
 * The agent makes plans and the runner is of the same version, so numbers are the host's own; the decoder is strict all the
 * same (bounds, the exact end), because the runner is root and a fuzzer reads it too.
 */
#include "engine/workspace/plan.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

static void put_number(struct str *out, uint64_t n) { str_add(out, &n, sizeof n); }

static void put_text(struct str *out, const char *text)
{
	text = text ? text : "";
	str_add(out, text, strlen(text) + 1);
}

static void put_list(struct str *out, const char *const *list)
{
	uint64_t n = 0;

	while (list && list[n])
		n++;
	put_number(out, n);
	for (uint64_t i = 0; i < n; i++)
		put_text(out, list[i]);
}

void plan_encode(const struct plan *p, struct str *out)
{
	put_number(out, PLAN_MAGIC);
#define X(name) put_number(out, p->name);
	PLAN_NUMBERS(X)
#undef X
#define X(name) put_text(out, p->name);
	PLAN_TEXTS(X)
#undef X
#define X(name) put_list(out, p->name);
	PLAN_LISTS(X)
#undef X
	put_number(out, p->step_count);
	for (size_t i = 0; i < p->step_count; i++) {
		const struct step *s = &p->steps[i];
		put_number(out, s->kind);
		put_number(out, s->number);
		put_text(out, s->source);
		put_text(out, s->target);
		put_text(out, s->text);
	}
	put_number(out, p->filter_bytes);
	str_add(out, p->filter, p->filter_bytes);
}

/* A cursor that, once it fails, gives zeros and empty texts: checked once at the end. */
struct reader {
	const char *at, *end;
	bool failed;
};

static uint64_t get_number(struct reader *r)
{
	uint64_t n = 0;

	if ((size_t)(r->end - r->at) < sizeof n) {
		r->failed = true;
		return 0;
	}
	memcpy(&n, r->at, sizeof n);
	r->at += sizeof n;
	return n;
}

static const char *get_text(struct reader *r)
{
	const char *text = r->at;
	const char *nul = memchr(text, '\0', (size_t)(r->end - r->at));

	if (!nul) {
		r->failed = true;
		return "";
	}
	r->at = nul + 1;
	return text;
}

static uint64_t get_count(struct reader *r)
{
	uint64_t n = get_number(r);

	if (n > (uint64_t)(r->end - r->at)) { /* each element takes a byte at least */
		r->failed = true;
		return 0;
	}
	return n;
}

static const char **get_list(struct reader *r)
{
	uint64_t n = get_count(r);
	const char **list = mem_alloc_array(n + 1, sizeof *list);

	for (uint64_t i = 0; i < n; i++)
		list[i] = get_text(r);
	return list;
}

int plan_decode(const void *bytes, size_t length, struct plan *ret_plan, struct err *e)
{
	struct reader r = { .at = bytes, .end = (const char *)bytes + length };
	struct plan p = { 0 };

	if (get_number(&r) != PLAN_MAGIC)
		return err_set(e, ERR_INVALID, "this is not a plan for this runner (other version?)");
#define X(name) p.name = get_number(&r);
	PLAN_NUMBERS(X)
#undef X
#define X(name) p.name = get_text(&r);
	PLAN_TEXTS(X)
#undef X
#define X(name) p.name = get_list(&r);
	PLAN_LISTS(X)
#undef X
	p.step_count = get_count(&r);
	p.steps = mem_alloc_array(p.step_count, sizeof *p.steps);
	for (size_t i = 0; i < p.step_count; i++) {
		uint64_t kind = get_number(&r);
		r.failed |= kind > UINT32_MAX;
		p.steps[i].kind = (uint32_t)kind;
		p.steps[i].number = get_number(&r);
		p.steps[i].source = get_text(&r);
		p.steps[i].target = get_text(&r);
		p.steps[i].text = get_text(&r);
	}
	p.filter_bytes = get_count(&r);
	p.filter = r.at;
	r.at += p.filter_bytes;
	if (r.failed || r.at != r.end) {
		plan_release(&p);
		return err_set(e, ERR_CORRUPT, "plan of %zu bytes is cut or too long", length);
	}
	*ret_plan = p;
	return 0;
}

void plan_release(struct plan *p)
{
#define X(name) free(p->name);
	PLAN_LISTS(X)
#undef X
	free(p->steps);
	*p = (struct plan){ 0 };
}

void plan_encode_outside(const struct plan *p, struct str *out)
{
	struct plan outside = *p;

	outside.partitions = outside.argv = outside.environment = outside.volumes = NULL;
	outside.step_count = 0;
	outside.filter_bytes = 0;
	plan_encode(&outside, out);
}

void plan_set_variable(const char **list, size_t *count, const char *entry)
{
	size_t key = strcspn(entry, "=");

	for (size_t i = 0; i < *count; i++)
		if (strncmp(list[i], entry, key) == 0 && list[i][key] == '=') {
			list[i] = entry;
			return;
		}
	list[(*count)++] = entry;
}
