/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_WORKSPACE_ARCHIVE_H
#define ENGINE_WORKSPACE_ARCHIVE_H

/* Files of a workspace as a tar stream, by a process that stands in the workspace already, as its root, and can reach nothing
 * else. */

#include "base/err.h"

/* The tar that `fd` gives is unpacked into the folder `path`: owners, permissions, times, extended attributes, hard links,
 * holes; never outside of it. */
int archive_unpack(const char *path, int fd, struct err *e) must_check;
/* `path`, and what is below it, goes to `fd` under its last name. */
int archive_pack(const char *path, int fd, struct err *e) must_check;

#endif
