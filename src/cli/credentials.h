/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_CREDENTIALS_H
#define CLI_CREDENTIALS_H

/*
 * User name and password for a registry: from --username and --password-stdin, or the entry of that one registry in a password
 * file (--authfile, $REGISTRY_AUTH_FILE, $XDG_RUNTIME_DIR/containers/auth.json, ~/.docker/config.json). They travel in the body
 * of one request.
 */

#include "cli/cli.h"
#include "model/registry_login.h"

/* `source`: docker://... Empty when nobody knows any. registry_login_done it. */
int credentials_find(const struct args *a, const char *source, struct registry_login *ret_login, struct err *e) must_check;

#endif
