/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_SHOW_H
#define CLI_SHOW_H

#include "cli/cli.h"
#include "cli/print.h"

/* Gets a path of the API (taken) and prints the object. */
int show_object(struct cli *cli, char *path, struct err *e) must_check;

/* Gets all pages of a list of the API and prints it: print_list. */
int show_list(struct cli *cli, const char *path, const struct column *columns, struct err *e) must_check;

#endif
