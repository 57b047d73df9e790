/* SPDX-License-Identifier: Apache-2.0 */
/* For the build: the manual pages, and the names of those there are. */
#include <stdio.h>

#include "base/own.h"
#include "cli/help.h"

static void list_pages(void)
{
	(void)puts("carrel.1\ncarrel-spec.5");
	for (const struct verb *const *v = cli_verbs; *v; v++) {
		if ((*v)->hidden)
			continue;
		(void)fputs("carrel-", stdout);
		for (const char *p = (*v)->name; *p; p++)
			(void)putchar(*p == ' ' ? '-' : *p);
		(void)puts(".1");
	}
}

/* "snapshot-create" */
static const struct verb *verb_of_page(const char *page)
{
	own_strbuf struct str name = { 0 };

	str_puts(&name, page);
	for (char *p = name.bytes; p && *p; p++)
		if (*p == '-')
			*p = ' ';
	return verb_named(str_text(&name));
}

static int man(struct cli *cli, const struct args *a, struct err *e)
{
	own_strbuf struct str out = { 0 };
	const char *page = args_operand(a, 0);
	(void)cli;

	if (!page) {
		list_pages();
		return 0;
	}
	const struct verb *v = verb_of_page(page);
	if (str_eq(page, "carrel"))
		man_all(&out);
	else if (str_eq(page, "spec"))
		man_spec(&out);
	else if (v)
		man_verb(&out, v);
	else
		return err_set(e, ERR_NOT_FOUND, "there is no page '%.40s'", page);
	(void)fputs(out.bytes, stdout);
	return 0;
}

static const struct operand operands[] = { { "PAGE", "carrel, spec, or a verb with '-' for spaces", .optional = true }, { 0 } };
const struct verb verb_man = { "__man", "print a manual page in roff", NULL, operands, NULL, NULL, NULL, man, .hidden = true };
