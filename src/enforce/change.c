/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. Limits of what lives. A file whose content is as planned is not written; the others are written as at the start, in
 * two passes (apply.c), and if one of them fails in the end all get their old content back, in the same way.
 *
 * Less memory than is in use: v1 refuses the write (EBUSY) after it has taken what can be taken, and so nothing is lost. v2
 * takes it and then kills. There memory.high comes first: it takes what can be taken too and holds back who wants more, and
 * kills nobody (cgroup-v2.rst, "Memory Interface Files"). Only when the rest fits is memory.max written. An agent that dies
 * between the two leaves memory.high low; the change is not reported then, and is done once more.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"
#include "enforce/private.h"

#define PAGE UINT64_C(4096)
#define NO_LIMIT (UINT64_C(1) << 62) /* v1 says it with the largest number of pages */

/* --- the plan --- */

/* As a number of bytes: limits of memory are in whole pages. False: it is none ("150000 100000"). */
static bool read_limit(const char *text, uint64_t *ret_limit)
{
	uint64_t number = UINT64_MAX;
	bool none = str_eq(text, "max") || str_eq(text, "-1");

	if (!none && str_to_u64(text, UINT64_MAX, &number) < 0)
		return false;
	*ret_limit = number >= NO_LIMIT ? UINT64_MAX : number;
	return true;
}

static bool is_memory(const struct enforce_write *w) { return strstr(w->path, "/memory.") != NULL; }

static bool same(const struct enforce_write *w, const char *now)
{
	uint64_t wanted, is;

	if (str_eq(w->text, now))
		return true;
	if (!read_limit(w->text, &wanted) || !read_limit(now, &is))
		return false;
	return is_memory(w) && wanted != UINT64_MAX && is != UINT64_MAX ? wanted / PAGE == is / PAGE : wanted == is;
}

static bool lowers(const struct enforce_write *w, const char *now)
{
	uint64_t wanted, is;

	return read_limit(w->text, &wanted) && read_limit(now, &is) && wanted < is;
}

size_t enforce_steps(const struct enforce_plan *p, char *const *now, struct enforce_step *ret_steps)
{
	size_t count = 0;

	for (size_t i = 0; i < p->write_count; i++) {
		const struct enforce_write *w = &p->writes[i];
		if (w->once || !now[i] || same(w, now[i]))
			continue;
		ret_steps[count++] = (struct enforce_step){
			.write = w, .before = now[i], .squeeze = str_ends(w->path, "/memory.max") && lowers(w, now[i])
		};
	}
	return count;
}

/* --- applying it --- */

static void read_all(const struct enforce_plan *p, char **now)
{
	for (size_t i = 0; i < p->write_count; i++) {
		own_strbuf struct str content = { 0 };
		if (p->writes[i].once || fs_read_file(AT_FDCWD, p->writes[i].path, 4096, &content, NULL) < 0)
			continue;
		now[i] = mem_strndup(str_text(&content), strcspn(str_text(&content), "\n"));
	}
}

static int refuse(const struct enforce_plan *p, const char *wanted, struct err *e)
{
	struct enforce_usage u = { .memory_bytes = UINT64_MAX };
	char in_use[16] = "more", asked[16];
	uint64_t limit = 0;

	(void)read_limit(wanted, &limit);
	if (enforce_usage(p, &u, NULL) == 0 && u.memory_bytes != UINT64_MAX)
		(void)str_bytes(in_use, sizeof in_use, u.memory_bytes);
	(void)err_set(e, ERR_CONFLICT, "%s of memory is in use, and cannot be held in %s", in_use,
		      str_bytes(asked, sizeof asked, limit));
	return err_hint(e, "end programs in it first, or stop it: a workspace that does not run takes any limit");
}

/* v2: until memory.max is written nobody is killed. */
static int squeeze(const struct enforce_plan *p, const char *wanted, const char *high, struct err *e)
{
	struct enforce_usage u;
	uint64_t limit = UINT64_MAX;
	int r = enforce_write_file(high, wanted);

	if (r < 0)
		return err_errno(e, -r, "write %s to %s", wanted, high);
	(void)read_limit(wanted, &limit);
	r = enforce_usage(p, &u, e);
	return r == 0 && u.memory_bytes > limit ? refuse(p, wanted, e) : r;
}

/* All or nothing. */
static int write_steps(const struct enforce_plan *p, const struct enforce_step *steps, size_t count, struct err *e)
{
	own_str struct enforce_write *forth = mem_alloc_array(count + 1, sizeof *forth),
				     *back = mem_alloc_array(count + 1, sizeof *back);
	const struct enforce_write *failed = NULL, *ignored = NULL;

	for (size_t i = 0; i < count; i++) {
		forth[i] = back[i] = *steps[i].write;
		back[i].text = (char *)(uintptr_t)steps[i].before;
	}
	int r = enforce_write_all(forth, count, &failed);
	if (r == 0)
		return 0;
	if (r == -EBUSY && is_memory(failed))
		(void)refuse(p, failed->text, e);
	else
		(void)err_errno(e, -r, "write %s to %s", failed->text, failed->path);
	(void)!enforce_write_all(back, count, &ignored);
	return r;
}

static int apply(const struct enforce_plan *p, const struct enforce_step *steps, size_t count, struct err *e)
{
	own_str char *high = NULL;
	int r = 0;

	for (size_t i = 0; i < count && r == 0; i++)
		if (steps[i].squeeze) {
			const char *max = steps[i].write->path;
			high = mem_printf("%.*shigh", (int)(strlen(max) - strlen("max")), max);
			r = squeeze(p, steps[i].write->text, high, e);
		}
	if (r == 0)
		r = write_steps(p, steps, count, e);
	if (high)
		(void)!enforce_write_file(high, "max");
	return r;
}

int enforce_change(const struct enforce_plan *p, struct err *e)
{
	char **now = mem_alloc_array(p->write_count + 1, sizeof *now);
	own_str struct enforce_step *steps = mem_alloc_array(p->write_count + 1, sizeof *steps);

	read_all(p, now);
	size_t count = enforce_steps(p, now, steps);
	int r = apply(p, steps, count, e);
	for (size_t i = 0; i < p->write_count; i++)
		free(now[i]);
	free(now);
	return r;
}
