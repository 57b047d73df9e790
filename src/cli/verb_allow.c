/* SPDX-License-Identifier: Apache-2.0 */
/*
 * allow and deny: one rule more or less on a workspace that may run. A list that is empty means its default, so the first
 * `allow` keeps the default beside it ("wan"), and the last one that is taken away leaves "none" - otherwise fewer rules would
 * allow more.
 */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/str.h"
#include "cli/change.h"
#include "cli/print.h"
#include "cli/spec_edit.h"
#include "model/rule.h"

/* The rules of the words: a word that is a service belongs to the rule before it. Written in the one way that rules have. */
static int read_rules(const struct args *a, json_t **ret_rules, struct err *e)
{
	own_json json_t *rules = json_array();
	own_strbuf struct str text = { 0 };

	for (size_t i = 1; i <= a->operand_count; i++) {
		const char *word = args_operand(a, i);
		struct rule_service service;
		struct rule rule;
		bool goes_on = word && text.length && rule_parse_service(word, &service, NULL) == 0;
		if (text.length && !goes_on) {
			own_strbuf struct str canonical = { 0 };
			int r = rule_parse(text.bytes, &rule, e);
			if (r < 0)
				return r;
			rule_text(&rule, &canonical);
			(void)json_array_append_new(rules, json_string(str_text(&canonical)));
			str_clear(&text);
		}
		if (word)
			str_printf(&text, "%s%s", text.length ? " " : "", word);
	}
	*ret_rules = json_incref(rules);
	return 0;
}

/* Rules that a spec brought may be written in another way. */
static void canonical(json_t *list)
{
	size_t i;
	json_t *item;

	json_array_foreach(list, i, item) {
		own_strbuf struct str text = { 0 };
		struct rule rule;
		if (!json_is_string(item) || rule_parse(json_string_value(item), &rule, NULL) < 0)
			continue;
		rule_text(&rule, &text);
		(void)json_array_set_new(list, i, json_string(str_text(&text)));
	}
}

struct lists {
	json_t *open, *deny; /* `open`: allow or from */
	const char *key;
	bool open_changed, deny_changed;
};

static void allow_one(struct lists *l, const char *rule)
{
	l->deny_changed |= spec_edit_remove(l->deny, rule);
	if (!json_array_size(l->open) && str_eq(l->key, "allow") && !str_eq(rule, "none"))
		(void)spec_edit_add(l->open, "wan");
	if (!str_eq(rule, "none"))
		l->open_changed |= spec_edit_remove(l->open, "none");
	l->open_changed |= spec_edit_add(l->open, rule);
}

static void deny_one(struct lists *l, const char *rule)
{
	if (spec_edit_remove(l->open, rule)) {
		l->open_changed = true;
		if (!json_array_size(l->open))
			(void)spec_edit_add(l->open, "none");
		return;
	}
	l->deny_changed |= spec_edit_add(l->deny, rule);
}

static int change(struct cli *cli, const struct args *a, const json_t *spec, void (*one)(struct lists *l, const char *rule),
		  json_t *body, struct err *e)
{
	struct lists l = { .key = args_flag(a, "from") ? "from" : "allow" };
	own_json json_t *rules = NULL, *open = spec_edit_list(spec, l.key), *deny = spec_edit_list(spec, "deny");
	size_t i;
	json_t *rule;
	int r = read_rules(a, &rules, e);

	if (r < 0)
		return r;
	if (a->operand_count == 1) {
		spec_edit_print(cli, one == allow_one ? open : deny);
		return 0;
	}
	canonical(open);
	canonical(deny);
	bool first = !json_array_size(open);
	l.open = open;
	l.deny = deny;
	json_array_foreach(rules, i, rule) {
		one(&l, json_string_value(rule));
	}
	if (l.open_changed)
		(void)json_object_set(body, l.key, open);
	if (l.deny_changed)
		(void)json_object_set(body, "deny", deny);
	if (first && l.open_changed && args_flag(a, "from") && !cli->quiet)
		(void)fputs("note: from now on only these rules say who may connect; before, workspaces of the same owner or "
			    "group might\n", stderr);
	return 0;
}

static int add_rules(struct cli *cli, const struct args *a, const char *name, const json_t *spec, json_t *body, struct err *e)
{
	(void)name;
	return change(cli, a, spec, allow_one, body, e);
}

static int take_rules(struct cli *cli, const struct args *a, const char *name, const json_t *spec, json_t *body, struct err *e)
{
	(void)name;
	return change(cli, a, spec, deny_one, body, e);
}

static int allow(struct cli *cli, const struct args *a, struct err *e)
{
	return spec_edit(cli, a, args_operand(a, 0), add_rules, e);
}

static int deny(struct cli *cli, const struct args *a, struct err *e)
{
	return spec_edit(cli, a, args_operand(a, 0), take_rules, e);
}

static const char rules_text[] =
	"RULE is who, then perhaps which services: wan, site, any, none, group:NAME, workspace:NAME, network:NAME, or an "
	"address; tcp/22,80-90, udp/53, icmp. Without a rule, what is there is listed. Changes act within a second; "
	"connections that stay allowed go on.";
static const struct operand operands[] = { { "WORKSPACE", "workspace", COMPLETE_WORKSPACE },
					   { "RULE", "rule: who, then services", .optional = true, .many = true },
					   { 0 } };
static const struct option allow_options[] = {
	{ "from", 0, OPTION_FLAG, NULL, "who may connect to it, instead of where it may connect to" },
	{ 0 },
};
static const struct option deny_options[] = {
	{ "from", 0, OPTION_FLAG, NULL, "take the rule out of those that say who may connect to it" },
	{ 0 },
};
static const struct example allow_examples[] = {
	{ "carrel allow web workspace:db tcp/5432", "web may open connections to db's port 5432, and to the WAN as before" },
	{ "carrel allow --from db group:lab-a tcp/5432", "workspaces of the group may connect to db" },
	{ "carrel allow web", "list where web may connect to" },
	{ 0 },
};
static const struct example deny_examples[] = {
	{ "carrel deny web workspace:db tcp/5432", "takes that rule away" },
	{ "carrel deny web 192.0.2.0/24", "an exception: no rule says so, so one that denies is added" },
	{ 0 },
};
const struct verb verb_allow = { "allow",        "let a workspace talk to others, or others to it",
				 rules_text,     operands,
				 allow_options,  change_options,
				 allow_examples, allow };
const struct verb verb_deny = {
	"deny", "take a rule away, or add an exception", rules_text, operands, deny_options, change_options, deny_examples, deny
};
