/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MODEL_REGISTRY_LOGIN_H
#define MODEL_REGISTRY_LOGIN_H

/* User names and passwords of registries, as ~/.docker/config.json holds them (containers-auth.json(5)). */

#include <stddef.h>

#include "base/err.h"

struct registry_login {
	char *user, *password; /* NULL: anonymous */
};
void registry_login_done(struct registry_login *l); /* overwrites the password */

/* The entry of `host` in the text of a password file: auths.HOST.auth (base64 of user:password), or username and password. No
 * entry is no error: the login stays empty. Credential helpers are not run. */
int registry_login_find(const char *json, size_t length, const char *host, struct registry_login *ret_login,
			struct err *e) must_check;

#endif
