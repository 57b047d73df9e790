/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/help.h"

#include <string.h>

#include "base/mem.h"
#include "base/own.h"

#define TEXT_WIDTH 96

void help_synopsis(struct str *out, const struct verb *v)
{
	str_printf(out, "carrel %s [OPTIONS]", v->name);
	for (const struct operand *o = v->operands; o && o->name; o++) {
		const char *more = o->many || o->command ? "..." : "";
		if (o->command)
			str_printf(out, o->optional ? " [-- %s%s]" : " [--] %s%s", o->name, more);
		else
			str_printf(out, o->optional ? " [%s]%s" : " %s%s", o->name, more);
	}
}

/* Breaks at spaces; the first line is indented by `first`, the others by `rest`. */
static void add_wrapped(struct str *out, const char *text, size_t rest, size_t column)
{
	for (const char *p = text; *p;) {
		size_t word = strcspn(p, " \n");
		if (column > rest && column + word + 1 > TEXT_WIDTH) {
			str_printf(out, "\n%*s", (int)rest, "");
			column = rest;
		} else if (p > text && p[-1] != '\n') {
			str_putc(out, ' ');
			column++;
		}
		str_add(out, p, word);
		column += word;
		p += word;
		if (*p == '\n') {
			str_printf(out, "\n%*s", (int)rest, "");
			column = rest;
		}
		p += *p != '\0';
	}
	str_putc(out, '\n');
}

static void add_option(struct str *out, const struct option *o)
{
	enum { column = 30 };
	own_strbuf struct str left = { 0 };
	own_strbuf struct str right = { 0 };

	if (o->letter)
		str_printf(&left, "  -%c, --%s", o->letter, o->name);
	else
		str_printf(&left, "      --%s", o->name);
	if (o->value)
		str_printf(&left, " %s", o->value);
	str_puts(&right, o->doc);
	for (size_t i = 0; o->choices && o->choices[i]; i++)
		str_printf(&right, "%s%s", i ? ", " : ": ", o->choices[i]);
	str_puts(out, left.bytes);
	if (left.length + 2 > column)
		str_printf(out, "\n%*s", column, "");
	else
		str_printf(out, "%*s", (int)(column - left.length), "");
	add_wrapped(out, right.bytes, column, column);
}

/* `title` NULL: goes on under the one before. */
static void add_options(struct str *out, const char *title, const struct option *options)
{
	if (!options || !options->name)
		return;
	if (title)
		str_printf(out, "\n%s:\n", title);
	for (const struct option *o = options; o->name; o++)
		add_option(out, o);
}

void help_verb(struct str *out, const struct verb *v)
{
	str_puts(out, "Usage: ");
	help_synopsis(out, v);
	str_printf(out, "\n\n%c%s.\n", v->summary[0] - 32, v->summary + 1);
	if (v->text) {
		str_putc(out, '\n');
		add_wrapped(out, v->text, 0, 0);
	}
	for (const struct operand *o = v->operands; o && o->name; o++) {
		if (o == v->operands)
			str_puts(out, "\nOperands:\n");
		str_printf(out, "  %-28s", o->name);
		add_wrapped(out, o->doc, 30, 30);
	}
	add_options(out, "Options", v->options);
	add_options(out, v->options && !v->more_title ? NULL : v->more_title ? v->more_title : "Options", v->more_options);
	add_options(out, "Common options", cli_options);
	for (const struct example *x = v->examples; x && x->command; x++)
		str_printf(out, "%s  %s\n      %s\n", x == v->examples ? "\nExamples:\n" : "", x->command, x->doc);
}

static void add_verbs(struct str *out, const char *noun)
{
	for (const struct verb *const *v = cli_verbs; *v; v++) {
		const char *space = strchr((*v)->name, ' ');
		bool wanted = noun ? space && strncmp((*v)->name, noun, strlen(noun)) == 0 && (*v)->name[strlen(noun)] == ' ' :
				     !space;
		if (wanted && !(*v)->hidden)
			str_printf(out, "  %-20s %s\n", (*v)->name, (*v)->summary);
	}
}

void help_noun(struct str *out, const char *noun)
{
	str_printf(out, "Usage: carrel %s VERB\n\nVerbs:\n", noun);
	add_verbs(out, noun);
	str_printf(out, "\ncarrel %s VERB --help says more.\n", noun);
}

void help_all(struct str *out)
{
	str_puts(out, "Usage: carrel VERB [OPTIONS]\n\nDeploys, uses and removes workspaces.\n\nVerbs for workspaces:\n");
	add_verbs(out, NULL);
	str_puts(out, "\nOther verbs:\n");
	for (const struct noun *n = cli_nouns; n->name; n++)
		str_printf(out, "  %-20s %s\n", n->name, n->summary);
	add_options(out, "Common options", cli_options);
	str_puts(out, "\ncarrel VERB --help says more, with examples.\n");
}
