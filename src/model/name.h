/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MODEL_NAME_H
#define MODEL_NAME_H

/* Names that people choose and ids that we make. Both are safe as file names, cgroup names and host names. */

#include "base/err.h"

#define NAME_LONGEST 63
#define ID_LENGTH 16
#define ID_SIZE (ID_LENGTH + 1)

/* Workspace, volume, network: a-z, 0-9 and '-', starts with a letter or digit, does not end with '-', 1..63 (RFC 1123
 * label). */
int name_check(const char *name, struct err *e) must_check;
/* Image: path components of name characters plus '.' and '_', joined by '/', then optionally ":tag"
 * ([A-Za-z0-9_][A-Za-z0-9._-]{0,127}). At most 255. */
int name_check_image(const char *name, struct err *e) must_check;
/* Labels and environment names: printable, without '='. */
int name_check_key(const char *key, struct err *e) must_check;
/* An absolute path without "." and ".." components, control characters and doubled slashes. */
int name_check_path(const char *path, struct err *e) must_check;

/* 16 random lower-case hex digits: workspaces, operations, snapshots. */
void id_new(char out[ID_SIZE]);
bool id_valid(const char *id);
/* "brave-otter": for a workspace that nobody named. */
char *name_make_up(void);

#endif
