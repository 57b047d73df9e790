/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_PRINT_H
#define CLI_PRINT_H

/*
 * What goes to standard output. Texts of others (names, labels, messages) never reach a terminal as they are: control
 * characters are shown as \xNN.
 */

#include <jansson.h>
#include <stdio.h>

#include "base/str.h"
#include "cli/cli.h"

/* Adds text with control characters and bytes that are not UTF-8 shown as \xNN. */
void print_escape(struct str *out, const char *text);
/* Columns on a terminal or where a multi-byte text ends: counts characters. */
size_t print_width(const char *text);

void print_yaml(const json_t *json);
/* YAML or JSON as the format says; a table is YAML, too, for an object that has no better form. */
void print_object(const struct cli *cli, const json_t *json);

struct column {
	const char *title;
	const char *key; /* of the item: "name", or "spec.image" */
	/* Text for the value (NULL: not there); NULL: as it is. The caller of it frees. */
	char *(*text)(const json_t *item, const json_t *value);
};

/* `items` as a table with these columns (a NULL title ends them), or whole as JSON or YAML. */
void print_list(const struct cli *cli, const json_t *items, const struct column *columns);

const json_t *json_at(const json_t *item, const char *path); /* "spec.image"; NULL: not there */
const char *json_text_at(const json_t *item, const char *path, const char *without);

/* Texts for values. */
char *text_age(const json_t *item, const json_t *value);   /* RFC 3339 time: "3 minutes ago" */
char *text_bytes(const json_t *item, const json_t *value); /* number: "1.5 GiB" */
char *text_short(const json_t *item, const json_t *value); /* digest or id: 12 digits */
char *text_labels(const json_t *item, const json_t *value);

#endif
