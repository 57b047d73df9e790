/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Parsing. The first word, or the first two, choose the verb. Options may stand before and after operands, as --name=VALUE,
 * --name VALUE, -n VALUE, -nVALUE, flags together as -it; "--" ends them. A `command` operand begins with the first word that
 * is no option after the operands before it are there, or after "--", and takes everything.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"
#include "cli/cli.h"

const struct option *verb_option(const struct verb *v, size_t number)
{
	const struct option *groups[] = { v ? v->options : NULL, v ? v->more_options : NULL, cli_options };

	for (size_t g = 0; g < ARRAY_SIZE(groups); g++)
		for (const struct option *o = groups[g]; o && o->name; o++)
			if (number-- == 0)
				return o;
	return NULL;
}

const struct verb *verb_named(const char *name)
{
	for (const struct verb *const *v = cli_verbs; *v; v++)
		if (str_eq((*v)->name, name))
			return *v;
	return NULL;
}

static bool is_noun(const char *word)
{
	for (const struct noun *n = cli_nouns; n->name; n++)
		if (str_eq(n->name, word))
			return true;
	return false;
}

/* Nearest visible verb or noun; within a noun its second words. The caller frees. */
static char *nearest_verb(const char *noun, const char *word)
{
	const char *names[128];
	size_t count = 0, skip = noun ? strlen(noun) + 1 : 0;

	for (const struct verb *const *v = cli_verbs; *v && count < ARRAY_SIZE(names); v++) {
		bool inside = noun && str_starts((*v)->name, noun) && (*v)->name[skip - 1] == ' ';
		if (!(*v)->hidden && (noun ? inside : !strchr((*v)->name, ' ')))
			names[count++] = (*v)->name + skip;
	}
	for (const struct noun *n = cli_nouns; !noun && n->name && count < ARRAY_SIZE(names); n++)
		names[count++] = n->name;
	const char *nearest = str_nearest(word, names, count);
	return nearest ? mem_printf("%s%s%s", noun ? noun : "", noun ? " " : "", nearest) : NULL;
}

static int unknown_verb(const char *noun, const char *word, struct err *e)
{
	own_str char *nearest = nearest_verb(noun, word);

	(void)err_set(e, ERR_INVALID, "unknown verb '%s%s%.80s'", noun ? noun : "", noun ? " " : "", word);
	return nearest ? err_hint(e, "did you mean 'carrel %s'?", nearest) :
			 err_hint(e, "carrel %s%s--help lists the verbs", noun ? noun : "", noun ? " " : "");
}

struct parser {
	struct args *args;
	const char *const *next; /* the words that are left */
	bool ended;              /* "--" was there */
	struct err *e;
};

static int usage_hint(struct parser *p, int r)
{
	const struct verb *v = p->args->verb;
	if (p->e && p->e->hint[0])
		return r;
	return err_hint(p->e, "carrel %s%s--help", v ? v->name : "", v ? " " : "");
}

static int check_choice(struct parser *p, const struct option *o, const char *value)
{
	own_strbuf struct str all = { 0 };
	size_t count = 0;

	for (; o->choices && o->choices[count]; count++) {
		if (str_eq(o->choices[count], value))
			return 0;
		str_printf(&all, "%s%s", count ? ", " : "", o->choices[count]);
	}
	if (!count)
		return 0;
	(void)err_set(p->e, ERR_INVALID, "--%s must be one of: %s", o->name, str_text(&all));
	const char *nearest = str_nearest(value, o->choices, count);
	return nearest ? err_hint(p->e, "did you mean '%s'?", nearest) : -EINVAL;
}

static int add_given(struct parser *p, const struct option *o, const char *value)
{
	struct args *a = p->args;
	int r = value ? check_choice(p, o, value) : 0;

	if (r < 0)
		return r;
	a->given = mem_grow_array(a->given, a->given_count + 1, sizeof *a->given);
	a->given[a->given_count++] = (struct given){ o, value };
	return 0;
}

static int unknown_option(struct parser *p, const char *name, size_t length)
{
	const char *names[128];
	size_t count = 0;
	const struct option *o;
	own_str char *word = mem_strndup(name, length);

	for (size_t i = 0; (o = verb_option(p->args->verb, i)) && count < ARRAY_SIZE(names); i++)
		names[count++] = o->name;
	(void)err_set(p->e, ERR_INVALID, "unknown option '--%.80s'", word);
	const char *nearest = str_nearest(word, names, count);
	return nearest ? err_hint(p->e, "did you mean '--%s'?", nearest) : -EINVAL;
}

static int parse_long(struct parser *p, const char *word)
{
	size_t length = strcspn(word, "=");
	const struct option *o;

	for (size_t i = 0; (o = verb_option(p->args->verb, i)); i++)
		if (strlen(o->name) == length && strncmp(o->name, word, length) == 0)
			break;
	if (!o)
		return unknown_option(p, word, length);
	const char *value = word[length] ? word + length + 1 : NULL;
	if (o->kind == OPTION_FLAG)
		return value ? err_set(p->e, ERR_INVALID, "--%s takes no value", o->name) : add_given(p, o, NULL);
	if (!value && !(value = *p->next))
		return err_set(p->e, ERR_INVALID, "--%s needs a value: %s", o->name, o->value);
	if (!word[length])
		p->next++;
	return add_given(p, o, value);
}

static int parse_letters(struct parser *p, const char *word)
{
	for (const char *c = word; *c; c++) {
		const struct option *o;
		for (size_t i = 0; (o = verb_option(p->args->verb, i)); i++)
			if (o->letter == *c)
				break;
		if (!o)
			return err_set(p->e, ERR_INVALID, "unknown option '-%c'", *c);
		if (o->kind == OPTION_FLAG) {
			int r = add_given(p, o, NULL);
			if (r < 0)
				return r;
			continue;
		}
		const char *value = c[1] ? c + 1 : *p->next;
		if (!value)
			return err_set(p->e, ERR_INVALID, "-%c needs a value: %s", *c, o->value);
		if (!c[1])
			p->next++;
		return add_given(p, o, value);
	}
	return 0;
}

static const struct operand *operand_at(const struct verb *v, size_t number)
{
	for (const struct operand *o = v ? v->operands : NULL; o && o->name; o++)
		if (number-- == 0 || o->many || o->command)
			return o;
	return NULL;
}

static int parse_operand(struct parser *p, const char *word)
{
	struct args *a = p->args;
	const struct operand *o = operand_at(a->verb, a->operand_count);

	if (!o)
		return err_set(p->e, ERR_INVALID, "'%.80s' is one word too many", word);
	if (o->command) {
		a->command = p->next - 1;
		while (a->command[a->command_count])
			a->command_count++;
		p->next = a->command + a->command_count;
		return 0;
	}
	a->operands = mem_grow_array(a->operands, a->operand_count + 1, sizeof *a->operands);
	a->operands[a->operand_count++] = word;
	return 0;
}

static int parse_word(struct parser *p)
{
	const char *word = *p->next++;
	const struct operand *first = operand_at(p->args->verb, 0);

	if (p->ended || word[0] != '-' || word[1] == '\0' || (first && first->command))
		return parse_operand(p, word);
	if (!str_eq(word, "--"))
		return word[1] == '-' ? parse_long(p, word + 2) : parse_letters(p, word + 1);
	p->ended = true;
	const struct operand *o = operand_at(p->args->verb, p->args->operand_count);
	if (o && o->command && *p->next) {
		p->next++;
		return parse_operand(p, p->next[-1]);
	}
	return 0;
}

static int check_operands(struct parser *p)
{
	const struct args *a = p->args;
	size_t number = 0;

	for (const struct operand *o = a->verb->operands; o && o->name; o++, number++) {
		bool there = o->command ? a->command_count > 0 : number < a->operand_count;
		if (!o->optional && !there)
			return err_set(p->e, ERR_INVALID, "%s is missing", o->name);
	}
	return 0;
}

static bool wants_help(const struct args *a) { return args_flag(a, "help") || args_flag(a, "version"); }

/* Words before the verb may be common options. */
static int parse_verb(struct parser *p)
{
	struct args *a = p->args;
	int r = 0;

	while (r == 0 && *p->next && **p->next == '-' && !a->verb)
		r = parse_word(p);
	if (r < 0 || !*p->next)
		return r;
	const char *word = *p->next++;
	if (!is_noun(word)) {
		a->verb = verb_named(word);
		return a->verb ? 0 : unknown_verb(NULL, word, p->e);
	}
	a->noun = word;
	while (r == 0 && *p->next && **p->next == '-')
		r = parse_word(p);
	if (r < 0 || !*p->next)
		return r;
	own_str char *name = mem_printf("%s %s", word, *p->next);
	a->verb = verb_named(name);
	return a->verb ? (p->next++, 0) : unknown_verb(word, *p->next, p->e);
}

int args_parse(const char *const *words, struct args *ret_args, struct err *e)
{
	struct args a = { 0 };
	struct parser p = { .args = &a, .next = words, .e = e };
	int r = parse_verb(&p);

	while (r == 0 && a.verb && *p.next)
		r = parse_word(&p);
	if (r == 0 && a.verb && !wants_help(&a))
		r = check_operands(&p);
	if (r < 0) {
		r = usage_hint(&p, r);
		args_done(&a);
		return r;
	}
	*ret_args = a;
	return 0;
}

void args_done(struct args *a)
{
	free(a->given);
	free(a->operands);
	*a = (struct args){ 0 };
}

const char *args_text(const struct args *a, const char *option)
{
	for (size_t i = a->given_count; i > 0; i--)
		if (str_eq(a->given[i - 1].option->name, option))
			return a->given[i - 1].value;
	return NULL;
}

bool args_flag(const struct args *a, const char *option)
{
	for (size_t i = 0; i < a->given_count; i++)
		if (str_eq(a->given[i].option->name, option))
			return true;
	return false;
}

const char *args_next(const struct args *a, const char *option, size_t *at)
{
	while (*at < a->given_count) {
		const struct given *g = &a->given[(*at)++];
		if (str_eq(g->option->name, option))
			return g->value;
	}
	return NULL;
}

const char *args_operand(const struct args *a, size_t number) { return number < a->operand_count ? a->operands[number] : NULL; }
