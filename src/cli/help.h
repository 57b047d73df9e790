/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_HELP_H
#define CLI_HELP_H

/* --help and the manual pages, both from the tables. */

#include "base/str.h"
#include "cli/cli.h"

void help_verb(struct str *out, const struct verb *v);
void help_noun(struct str *out, const char *noun);
void help_all(struct str *out);
/* "carrel run [OPTIONS] IMAGE [COMMAND...]" */
void help_synopsis(struct str *out, const struct verb *v);

/* roff (man(7)): carrel(1), carrel-VERB(1), carrel-spec(5). */
void man_all(struct str *out);
void man_verb(struct str *out, const struct verb *v);
void man_spec(struct str *out);

#endif
