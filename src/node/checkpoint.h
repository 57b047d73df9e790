/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NODE_CHECKPOINT_H
#define NODE_CHECKPOINT_H

/* What CRIU of this host can do. Found by doing it, with a time-out, and remembered until the program changes. From any
 * thread. */

#include <stdbool.h>

#include "base/err.h"

#define CHECKPOINT_VERSION_SIZE 32

/* Writes and makes again a small process with what workspaces have (a socket, a pipe, a timer). ERR_UNSUPPORTED says what went
 * wrong. */
int checkpoint_probe(char ret_version[CHECKPOINT_VERSION_SIZE], struct err *e) must_check;
/* A CRIU of this version reads what that one wrote: it is not older. */
bool checkpoint_reads(const char *version, const char *wrote);
/* The processor's, as /proc/cpuinfo names them, separated by spaces; the caller frees. */
char *checkpoint_features(void);

#endif
