/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The shells know nothing but how to ask: each script calls `carrel __complete WORDS` and shows its lines, so the tables of
 * verbs and options are the only description there is. Words before the cursor are read as args.c reads them, without its
 * errors; what makes no sense has no candidates. Names of others (workspaces, images) are offered only when nothing in them
 * would have to be escaped.
 *
 * Asking the service has no progress, no error and no hint: a user who presses Tab wants an answer or silence.
 */
#include "cli/complete.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"
#include "cli/print.h"

static const char *const shell_names[] = { "bash", "zsh", "fish", NULL };

static const char bash_script[] =
	"# bash completion for carrel: asks the program itself\n"
	"_carrel() {\n"
	"	local cur words cword line kind= IFS=$'\\n'\n"
	"	_get_comp_words_by_ref -n =: cur words cword 2>/dev/null || { words=(\"${COMP_WORDS[@]}\"); cword=$COMP_CWORD; "
	"cur=${words[cword]}; }\n"
	"	COMPREPLY=()\n"
	"	while read -r line; do\n"
	"		case $line in\n"
	"		:file) compopt -o filenames 2>/dev/null; COMPREPLY+=($(compgen -f -- \"$cur\")) ;;\n"
	"		:folder) compopt -o filenames 2>/dev/null; COMPREPLY+=($(compgen -d -- \"$cur\")) ;;\n"
	"		*) COMPREPLY+=(\"${line%%$'\\t'*}\") ;;\n"
	"		esac\n"
	"	done < <(carrel __complete \"${words[@]:1:cword}\" 2>/dev/null)\n"
	"	[[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *[=:/] ]] && compopt -o nospace 2>/dev/null\n"
	"	type __ltrim_colon_completions &>/dev/null && __ltrim_colon_completions \"$cur\"\n"
	"	return 0\n"
	"}\n"
	"complete -F _carrel carrel\n";

static const char zsh_script[] =
	"#compdef carrel\n"
	"# zsh completion for carrel: asks the program itself\n"
	"_carrel() {\n"
	"	local line word text\n"
	"	local -a names plain open_ended\n"
	"	for line in \"${(@f)$(carrel __complete \"${(@)words[2,CURRENT]}\" 2>/dev/null)}\"; do\n"
	"		case $line in\n"
	"		'') ;;\n"
	"		:file) _files ;;\n"
	"		:folder) _files -/ ;;\n"
	"		*) word=${line%%$'\\t'*}; text=${line#*$'\\t'}\n"
	"			if [[ $word == *[=:/] ]]; then open_ended+=(\"$word\"); else "
	"names+=(\"${word//:/\\\\:}:$text\"); fi ;;\n"
	"		esac\n"
	"	done\n"
	"	(( ${#open_ended} )) && compadd -S '' -- \"${open_ended[@]}\"\n"
	"	(( ${#names} )) && _describe -V carrel names\n"
	"	return 0\n"
	"}\n"
	"if [[ ${funcstack[1]} == _carrel ]]; then _carrel \"$@\"; else compdef _carrel carrel; fi\n";

static const char fish_script[] =
	"# fish completion for carrel: asks the program itself\n"
	"function __carrel_complete\n"
	"	set -l words (commandline -opc) (commandline -ct)\n"
	"	for line in (carrel __complete $words[2..-1] 2>/dev/null)\n"
	"		switch $line\n"
	"			case ':file'\n"
	"				__fish_complete_path (commandline -ct)\n"
	"			case ':folder'\n"
	"				__fish_complete_directories (commandline -ct)\n"
	"			case '*'\n"
	"				echo $line\n"
	"		end\n"
	"	end\n"
	"end\n"
	"complete -c carrel -f -a '(__carrel_complete)'\n";

const char *complete_script(const char *shell)
{
	const char *const scripts[] = { bash_script, zsh_script, fish_script };

	for (size_t i = 0; shell_names[i]; i++)
		if (str_eq(shell_names[i], shell))
			return scripts[i];
	return NULL;
}

static void offer(const char *typed, const char *word, const char *what)
{
	own_strbuf struct str text = { 0 };

	if (!str_starts(word, typed) || strpbrk(word, "\t\n"))
		return;
	print_escape(&text, what ? what : "");
	(void)printf("%s\t%s\n", word, str_text(&text));
}

/* --- names that the service knows --- */

static void offer_names(struct cli *cli, const char *typed, const char *list, const char *key, const char *what_key,
			const char *tail)
{
	struct client *client;
	own_json json_t *items = NULL;
	size_t i;
	json_t *item;

	if (cli_client(cli, &client, NULL) < 0 || client_list(client, list, &items, NULL) < 0)
		return;
	json_array_foreach(items, i, item) {
		const char *name = json_text_at(item, key, NULL);
		own_str char *word = name ? mem_printf("%s%s", name, tail) : NULL;
		own_strbuf struct str safe = { 0 };
		if (!word)
			continue;
		print_escape(&safe, word);
		if (str_eq(safe.bytes, word))
			offer(typed, word, json_text_at(item, what_key, ""));
	}
}

static void offer_value(struct cli *cli, enum complete kind, const char *typed, const char *ref)
{
	switch (kind) {
	case COMPLETE_NONE:
		break;
	case COMPLETE_IMAGE_OR_FILE:
		offer_names(cli, typed, "/v1/images" CLIENT_PAGE, "name", "architecture", "");
		(void)puts(":file");
		break;
	case COMPLETE_FILE:
		(void)puts(":file");
		break;
	case COMPLETE_FOLDER:
		(void)puts(":folder");
		break;
	case COMPLETE_WORKSPACE:
		offer_names(cli, typed, "/v1/workspaces" CLIENT_PAGE, "name", "state", "");
		break;
	case COMPLETE_COPY:
		offer_names(cli, typed, "/v1/workspaces" CLIENT_PAGE, "name", "state", ":");
		(void)puts(":file");
		break;
	case COMPLETE_IMAGE:
		offer_names(cli, typed, "/v1/images" CLIENT_PAGE, "name", "architecture", "");
		break;
	case COMPLETE_VOLUME:
		offer_names(cli, typed, "/v1/volumes", "name", "workspace", "");
		break;
	case COMPLETE_NETWORK:
		offer_names(cli, typed, "/v1/networks" CLIENT_PAGE, "name", "kind", "");
		break;
	case COMPLETE_KERNEL:
		offer_names(cli, typed, "/v1/kernels", "name", "release", "");
		break;
	case COMPLETE_TEMPLATE:
		offer_names(cli, typed, "/v1/templates", "id", "used", "");
		break;
	case COMPLETE_GROUP:
		offer_names(cli, typed, "/v1/groups" CLIENT_PAGE, "name", "created", "");
		break;
	case COMPLETE_OPERATION:
		offer_names(cli, typed, "/v1/operations" CLIENT_PAGE, "id", "kind", "");
		break;
	case COMPLETE_SNAPSHOT: {
		own_str char *path = client_path("/v1/workspaces/%s/snapshots", ref ? ref : "");
		offer_names(cli, typed, path, "name", "created", "");
		break;
	}
	case COMPLETE_SHELL:
		for (size_t i = 0; shell_names[i]; i++)
			offer(typed, shell_names[i], "");
		break;
	}
}

/* --- verbs and options --- */

static void offer_verbs(const char *noun, const char *typed)
{
	size_t skip = noun ? strlen(noun) + 1 : 0;

	for (const struct verb *const *v = cli_verbs; *v; v++) {
		bool inside = noun ? str_starts((*v)->name, noun) && (*v)->name[skip - 1] == ' ' : !strchr((*v)->name, ' ');
		if (inside && !(*v)->hidden)
			offer(typed, (*v)->name + skip, (*v)->summary);
	}
	for (const struct noun *n = cli_nouns; !noun && n->name; n++)
		offer(typed, n->name, n->summary);
}

static void offer_options(const struct verb *v, const char *typed)
{
	const struct option *o;

	for (size_t i = 0; (o = verb_option(v, i)); i++) {
		own_str char *word = mem_printf("--%s", o->name);
		offer(typed, word, o->doc);
	}
}

static const struct option *option_of(const struct verb *v, const char *word)
{
	const struct option *o;
	size_t length = strcspn(word, "=");

	for (size_t i = 0; word[0] == '-' && (o = verb_option(v, i)); i++) {
		bool is_long = word[1] == '-' && strlen(o->name) + 2 == length && strncmp(o->name, word + 2, length - 2) == 0;
		if (is_long || (word[1] && word[1] == o->letter && !word[2]))
			return o;
	}
	return NULL;
}

static void offer_option_value(struct cli *cli, const struct option *o, const char *typed, const char *prefix)
{
	for (size_t i = 0; o->choices && o->choices[i]; i++) {
		own_str char *word = mem_printf("%s%s", prefix, o->choices[i]);
		offer(typed, word, "");
	}
	if (!o->choices)
		offer_value(cli, o->complete, typed, NULL);
}

static bool is_noun(const char *word)
{
	for (const struct noun *n = cli_nouns; n->name; n++)
		if (str_eq(n->name, word))
			return true;
	return false;
}

/* The verb among the words before the cursor; *at is moved behind it. False: there is a word that is no verb. */
static bool find_verb(struct cli *cli, const char *const *words, size_t count, size_t *at, const char **ret_noun,
		      const struct verb **ret_verb)
{
	while (*at < count && words[*at][0] == '-') {
		const struct option *o = option_of(NULL, words[*at]);
		const char *equals = strchr(words[*at], '=');
		*at += 1 + (o && o->kind != OPTION_FLAG && !equals);
		if (o && str_eq(o->name, "address") && *at <= count)
			cli->address = equals ? equals + 1 : words[*at - 1];
	}
	if (*at >= count)
		return true;
	const char *word = words[(*at)++];
	if (!is_noun(word)) {
		*ret_verb = verb_named(word);
		return *ret_verb != NULL;
	}
	*ret_noun = word;
	if (*at >= count)
		return true;
	own_str char *name = mem_printf("%s %s", word, words[(*at)++]);
	*ret_verb = verb_named(name);
	return *ret_verb != NULL;
}

void complete_print(struct cli *cli, const char *const *words, size_t count)
{
	const char *typed = count ? words[count - 1] : "", *noun = NULL, *first = NULL;
	size_t before = count ? count - 1 : 0, at = 0, operands = 0;
	const struct verb *v = NULL;

	if (!find_verb(cli, words, before, &at, &noun, &v))
		return;
	if (!v) {
		if (typed[0] == '-')
			offer_options(NULL, typed);
		else if (at >= before)
			offer_verbs(noun, typed);
		return;
	}
	for (; at < before; at++) {
		const struct option *o = option_of(v, words[at]);
		if (str_eq(words[at], "--"))
			return; /* the program's own words */
		if (o && o->kind != OPTION_FLAG && !strchr(words[at], '=')) {
			if (++at == before) {
				offer_option_value(cli, o, typed, "");
				return;
			}
		} else if (words[at][0] != '-') {
			first = operands++ ? first : words[at];
		}
	}
	const struct option *o = option_of(v, typed);
	if (o && strchr(typed, '=')) {
		own_str char *prefix = mem_strndup(typed, strcspn(typed, "=") + 1);
		offer_option_value(cli, o, typed, prefix);
	} else if (typed[0] == '-') {
		offer_options(v, typed);
	} else {
		const struct operand *x = v->operands;
		for (size_t i = 0; x && x->name && i < operands && !x->many; i++)
			x++;
		if (x && x->name && !x->command)
			offer_value(cli, x->complete, typed, first);
	}
}
