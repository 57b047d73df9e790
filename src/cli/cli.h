/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_CLI_H
#define CLI_CLI_H

/*
 * The command line. Each verb is one file with one `struct verb`; verbs.c lists them. Parsing, help, manual pages and
 * completion follow from these tables and from nothing else.
 */

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "base/own.h"
#include "client/client.h"

enum option_kind { OPTION_FLAG, OPTION_TEXT, OPTION_MANY };

/* What completes a value. */
enum complete { COMPLETE_NONE, COMPLETE_FILE, COMPLETE_FOLDER, COMPLETE_WORKSPACE, COMPLETE_IMAGE, COMPLETE_IMAGE_OR_FILE,
		COMPLETE_VOLUME, COMPLETE_OPERATION, COMPLETE_SNAPSHOT, COMPLETE_COPY, COMPLETE_SHELL, COMPLETE_NETWORK,
		COMPLETE_GROUP, COMPLETE_KERNEL, COMPLETE_TEMPLATE };

struct option {
	const char *name;
	char letter; /* 0: none */
	enum option_kind kind;
	const char *value; /* what help calls the value: "SIZE"; NULL for flags */
	const char *doc;
	const char *const *choices; /* NULL-terminated; NULL: any text */
	enum complete complete;
};

struct operand {
	const char *name; /* "NAME" */
	const char *doc;
	enum complete complete;
	bool optional, many;
	bool command; /* last one: all words that follow, also those that begin with '-' */
};

struct example {
	const char *command, *doc;
};

struct cli;
struct args;

struct verb {
	const char *name;    /* "run", "snapshot create" */
	const char *summary; /* a few words */
	const char *text;    /* paragraphs, separated by an empty line; may be NULL */
	const struct operand *operands; /* end with a NULL name; may be NULL */
	const struct option *options;   /* end with a NULL name; may be NULL */
	const struct option *more_options; /* a group that several verbs share; may be NULL */
	const struct example *examples;
	/* Exit status, or a negative errno with `e` filled. */
	int (*run)(struct cli *cli, const struct args *args, struct err *e);
	bool hidden;
	const char *more_title; /* heading of more_options in help; NULL: they stand with the others */
};

/* A word that only groups verbs: "image". */
struct noun {
	const char *name, *summary;
};

extern const struct verb *const cli_verbs[]; /* NULL-terminated, in the order of help */
extern const struct noun cli_nouns[];        /* end with a NULL name */
extern const struct option cli_options[];    /* every verb has them */

/* --- what was given (args.c) --- */

struct args {
	const struct verb *verb; /* NULL: help of the noun, or of all */
	const char *noun;
	struct given {
		const struct option *option;
		const char *value;
	} *given;
	size_t given_count;
	const char **operands;
	size_t operand_count;
	const char *const *command; /* words of the `command` operand; NULL-terminated */
	size_t command_count;
};

/* `words` without the program's name, NULL-terminated; they must outlive *ret_args. */
int args_parse(const char *const *words, struct args *ret_args, struct err *e) must_check;
void args_done(struct args *a);
const char *args_text(const struct args *a, const char *option); /* the last one given, or NULL */
bool args_flag(const struct args *a, const char *option);
/* The values of an option that may be given many times: the first at or after *at, which is moved on; NULL: no more. */
const char *args_next(const struct args *a, const char *option, size_t *at);
const char *args_operand(const struct args *a, size_t number); /* NULL: not given */
/* All options of a verb: its own, the shared group, the common ones; NULL past the end. */
const struct option *verb_option(const struct verb *v, size_t number);
const struct verb *verb_named(const char *name);

/* --- what a verb works with (main.c) --- */

enum format { FORMAT_TABLE, FORMAT_JSON, FORMAT_YAML };

struct cli {
	enum format format;
	bool quiet;
	bool output_terminal, error_terminal, color;
	const char *address; /* NULL: the default */
	struct client *client;
	int failure_status; /* exit status of a failure instead of the error's; 0: the error's */
};

/* Connects at the first call. */
int cli_client(struct cli *cli, struct client **ret_client, struct err *e) must_check;
/* A flag that SIGINT and SIGTERM set from now on; waiting calls of the client end then. A second signal ends the program. */
int cli_catch_interrupt(struct cli *cli, struct err *e) must_check;
extern volatile sig_atomic_t cli_interrupted;
void cli_report(const struct cli *cli, const struct err *e);

#endif
