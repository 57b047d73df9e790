/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Manual pages in man(7) macros, all made from tables: verbs and options, kinds of errors (exit codes), the fields of the
 * spec. A text is escaped once, where it enters a line: a dash may be taken for a hyphen, and a line that begins with '.' or
 * "'" gets "\&". The pages have a fixed date, so that a build gives the same bytes whenever it is made.
 */
#include <string.h>

#include "base/own.h"
#include "cli/help.h"
#include "model/spec.h"

static void add_text(struct str *out, const char *text)
{
	if (*text == '.' || *text == '\'')
		str_puts(out, "\\&");
	for (const char *p = text; *p; p++) {
		if (*p == '\\')
			str_puts(out, "\\e");
		else if (*p == '-')
			str_puts(out, "\\-");
		else
			str_putc(out, *p);
	}
}

static void add_paragraphs(struct str *out, const char *text)
{
	for (const char *p = text; *p;) {
		size_t length = strcspn(p, "\n");
		own_strbuf struct str line = { 0 };
		str_add(&line, p, length);
		if (length) {
			add_text(out, str_text(&line));
			str_putc(out, '\n');
		} else {
			str_puts(out, ".PP\n");
		}
		p += length + (p[length] == '\n');
	}
}

static void add_head(struct str *out, const char *page, int section, const char *summary)
{
	own_strbuf struct str title = { 0 };

	for (const char *p = page; *p; p++)
		str_putc(&title, (char)(*p >= 'a' && *p <= 'z' ? *p - 32 : *p == ' ' ? '-' : *p));
	str_printf(out, ".TH %s %d \"2026-11-21\" \"Carrel " CARREL_VERSION "\" \"Carrel\"\n.SH NAME\n", title.bytes, section);
	str_clear(&title);
	for (const char *p = page; *p; p++)
		str_putc(&title, (char)(*p == ' ' ? '-' : *p));
	add_text(out, title.bytes);
	str_puts(out, " \\- ");
	add_text(out, summary);
	str_putc(out, '\n');
}

static void add_option(struct str *out, const struct option *o)
{
	str_puts(out, ".TP\n");
	if (o->letter)
		str_printf(out, "\\fB\\-%c\\fR, ", o->letter);
	str_puts(out, "\\fB\\-\\-");
	add_text(out, o->name);
	str_puts(out, "\\fR");
	if (o->value) {
		str_puts(out, " \\fI");
		add_text(out, o->value);
		str_puts(out, "\\fR");
	}
	str_putc(out, '\n');
	add_text(out, o->doc);
	for (size_t i = 0; o->choices && o->choices[i]; i++) {
		str_puts(out, i ? ", " : ": ");
		add_text(out, o->choices[i]);
	}
	str_putc(out, '\n');
}

static void add_options(struct str *out, const char *title, const struct option *options)
{
	if (!options || !options->name)
		return;
	if (title)
		str_printf(out, ".SH %s\n", title);
	for (const struct option *o = options; o->name; o++)
		add_option(out, o);
}

static void add_item(struct str *out, const char *name, const char *doc)
{
	str_puts(out, ".TP\n\\fB");
	add_text(out, name);
	str_puts(out, "\\fR\n");
	add_text(out, doc);
	str_putc(out, '\n');
}

void man_verb(struct str *out, const struct verb *v)
{
	own_strbuf struct str page = { 0 };
	own_strbuf struct str synopsis = { 0 };

	str_printf(&page, "carrel %s", v->name);
	add_head(out, page.bytes, 1, v->summary);
	help_synopsis(&synopsis, v);
	str_puts(out, ".SH SYNOPSIS\n");
	add_text(out, synopsis.bytes);
	str_puts(out, "\n.SH DESCRIPTION\n");
	own_strbuf struct str first = { 0 };
	str_printf(&first, "%c%s.", v->summary[0] - 32, v->summary + 1);
	add_text(out, first.bytes);
	str_putc(out, '\n');
	if (v->text) {
		str_puts(out, ".PP\n");
		add_paragraphs(out, v->text);
	}
	for (const struct operand *o = v->operands; o && o->name; o++) {
		if (o == v->operands)
			str_puts(out, ".SH OPERANDS\n");
		add_item(out, o->name, o->doc);
	}
	add_options(out, "OPTIONS", v->options);
	add_options(out,
		    v->more_title ? "OPTIONS THAT DESCRIBE THE WORKSPACE" :
		    v->options    ? NULL :
				    "OPTIONS",
		    v->more_options);
	add_options(out, "COMMON OPTIONS", cli_options);
	for (const struct example *x = v->examples; x && x->command; x++) {
		if (x == v->examples)
			str_puts(out, ".SH EXAMPLES\n");
		add_item(out, x->command, x->doc);
	}
	str_puts(out, ".SH EXIT STATUS\nSee\n.BR carrel (1).\n.SH SEE ALSO\n.BR carrel (1),\n.BR carrel\\-spec (5)\n");
}

static void add_exit_codes(struct str *out)
{
	str_puts(out, ".SH EXIT STATUS\n.TP\n\\fB0\\fR\nsuccess\n");
	for (int code = 1; code < 16; code++) {
		own_strbuf struct str names = { 0 };
		for (int k = ERR_NONE + 1; k < ERR_KIND_COUNT; k++)
			if (err_kind_exit_code((enum err_kind)k) == code)
				str_printf(&names, "%s%s", names.length ? ", " : "", err_kind_name((enum err_kind)k));
		if (!names.length)
			continue;
		str_printf(out, ".TP\n\\fB%d\\fR\n", code);
		add_text(out, names.bytes);
		str_putc(out, '\n');
	}
	str_puts(out, ".TP\n\\fB125, 126, 127\\fR\n\\fBrun\\fR and \\fBexec\\fR end with the status of the program; 125 is a "
		      "failure of their own, 126 a program that cannot be executed, 127 one that is not there, 128 and the "
		      "number of a signal one that died of it\n");
}

void man_all(struct str *out)
{
	add_head(out, "carrel", 1, "deploy, use and remove workspaces");
	str_puts(out, ".SH SYNOPSIS\n.B carrel\n.I VERB\n[\\fIOPTIONS\\fR]\n.SH DESCRIPTION\n"
		      "A workspace is a named, deployed image with its own disks, limits, processes and settings.\n"
		      "This program asks the service\n.BR carreld (8)\nfor everything; it needs no privileges of its own.\n");
	str_puts(out, ".SH VERBS\n");
	for (const struct verb *const *v = cli_verbs; *v; v++)
		if (!(*v)->hidden)
			add_item(out, (*v)->name, (*v)->summary);
	add_options(out, "COMMON OPTIONS", cli_options);
	add_exit_codes(out);
	str_puts(out, ".SH ENVIRONMENT\n");
	add_item(out, "CARREL_ADDRESS", "address of the service instead of " CLIENT_ADDRESS_DEFAULT);
	add_item(out, "CARREL_FORMAT", "what --format is without the option: table, json, yaml");
	add_item(out, "NO_COLOR", "when set, nothing is coloured");
	str_puts(out, ".SH SEE ALSO\n.BR carrel\\-run (1),\n.BR carrel\\-deploy (1),\n.BR carrel\\-spec (5),\n.BR carreld "
		      "(8),\n.BR carrel\\-node (8)\n");
}

/* --- carrel-spec(5) --- */

static const char *type_text(const struct field *f)
{
	switch (f->type) {
	case FIELD_TEXT:
		return "text";
	case FIELD_BOOL:
		return "true or false";
	case FIELD_NUMBER:
		return "number";
	case FIELD_RATE:
		return "bits a second: 10M, 1.5Gbit, or a number";
	case FIELD_BYTES:
		return "size: 512M, 2GiB, or bytes";
	case FIELD_DURATION:
		return "time: 500ms, 10s, 5m, 2h, 1d";
	case FIELD_MILLI:
		return "number with up to three decimals";
	case FIELD_ENUM:
		return "one of";
	case FIELD_TEXTS:
		return "list of texts";
	case FIELD_PAIRS:
		return "map of texts";
	case FIELD_OBJECT:
		return "map";
	case FIELD_OBJECTS:
		return "list of maps";
	case FIELD_JSON:
		return "anything";
	}
	return "";
}

static void add_field(struct str *out, const char *prefix, const struct field *f)
{
	own_strbuf struct str name = { 0 };
	own_strbuf struct str doc = { 0 };

	str_printf(&name, "%s%s", prefix, f->key);
	str_printf(&doc, "%s", type_text(f));
	for (size_t i = 0; f->type == FIELD_ENUM && f->names[i]; i++)
		str_printf(&doc, "%s%s%s", i ? ", " : " ", f->names[i], i == f->preset ? " (default)" : "");
	str_printf(&doc, "%s. %c%s.", f->required ? ", required" : "",
		   f->doc[0] >= 'a' && f->doc[0] <= 'z' ? f->doc[0] - 32 : f->doc[0], f->doc + 1);
	if (f->example)
		str_printf(&doc, " Example: %s", f->example);
	add_item(out, name.bytes, doc.bytes);
}

static void add_fields(struct str *out, const char *prefix, const struct shape *shape)
{
	for (const struct field *f = shape->fields; f->key; f++) {
		add_field(out, prefix, f);
		if (f->shape) {
			own_strbuf struct str inner = { 0 };
			str_printf(&inner, "%s%s%s.", prefix, f->key, f->type == FIELD_OBJECTS ? "[]" : "");
			add_fields(out, inner.bytes, f->shape);
		}
	}
}

void man_spec(struct str *out)
{
	add_head(out, "carrel-spec", 5, "description of a workspace");
	str_puts(
		out,
		".SH DESCRIPTION\nA spec is a YAML or JSON file that says what a workspace shall be:\n.BR carrel\\-deploy (1)\n"
		"and\n.BR carrel\\-run (1)\ntake it.\n.PP\n"
		"It is read strictly: an unknown or repeated key, a value of a wrong type or out of range is an error with "
		"line and column;\n"
		"anchors, aliases and tags of YAML are refused.\n.SH KEYS\n");
	add_fields(out, "", &spec_shape);
	str_puts(
		out,
		".SH EXAMPLE\n.nf\nname: web\nimage: debian\ncommand: [sleep, infinity]\nenvironment:\n  TZ: Europe/Berlin\n"
		"resources:\n  cpu: 1.5\n  memory: 2GiB\n  disk: 20GiB\n  processes: 500\nvolumes:\n  \\- name: data\n    "
		"size: 5GiB\n"
		"    mount: /srv/data\n    keep: true\nlabels:\n  team: blue\nrestart: on\\-failure\n.fi\n"
		".SH SEE ALSO\n.BR carrel (1),\n.BR carrel\\-deploy (1)\n");
}
