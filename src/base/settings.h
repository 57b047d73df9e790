/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_SETTINGS_H
#define BASE_SETTINGS_H

/*
 * Settings of a daemon: one table (a shape of base/decode.h) describes them; each may stand in the configuration file as "key:
 * value" and on the command line as "--key VALUE" or "--key=VALUE", which wins. A setting of type FIELD_BOOL needs no value
 * there. --help and the manual page are printed from the table.
 */

#include "base/decode.h"
#include "base/str.h"

struct settings {
	const char *program;     /* "carrel-node" */
	const char *what;        /* one sentence for --help */
	const char *description; /* paragraphs of the manual page, separated by empty lines */
	const struct shape *shape;
	const char *config_path; /* default; absent is fine unless --config named it */
};

/* Fills *ret_value (zeroed). 1: --help, --version or --man was asked for and printed, the program shall end with status 0. */
int settings_read(const struct settings *s, int argc, char **argv, void *ret_value, struct err *e) must_check;
void settings_help(const struct settings *s, struct str *out);
/* The manual page, section 8, as roff. */
void settings_man(const struct settings *s, struct str *out);

#endif
