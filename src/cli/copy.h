/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_COPY_H
#define CLI_COPY_H

/* Tar streams into and out of a workspace. */

#include "cli/cli.h"

/* From `fd` (a pipe or a file) into folder `path` of workspace `name`. */
int copy_in(struct cli *cli, const char *name, const char *path, int fd, struct err *e) must_check;
/* File or folder `path` of workspace `name` to `fd`. */
int copy_out(struct cli *cli, const char *name, const char *path, int fd, struct err *e) must_check;

enum copy_kind { COPY_ABSENT, COPY_FILE, COPY_FOLDER, COPY_LINK };
/* What is at `path`: asks for its tar and looks at the first header only. */
int copy_look(struct cli *cli, const char *name, const char *path, enum copy_kind *ret_kind, struct err *e) must_check;

#endif
