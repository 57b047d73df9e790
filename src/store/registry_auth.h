/* SPDX-License-Identifier: Apache-2.0 */
#ifndef STORE_REGISTRY_AUTH_H
#define STORE_REGISTRY_AUTH_H

/*
 * What a registry asks for and what we know: the WWW-Authenticate challenge (RFC 9110, 11.6.1), the token answer
 * (distribution.github.io/distribution/spec/auth/token).
 */

#include <stddef.h>

#include "base/err.h"

struct registry_challenge {
	enum { CHALLENGE_NONE, CHALLENGE_BASIC, CHALLENGE_BEARER } kind;
	char realm[1024], service[256], scope[1024];
};

/* The value of one WWW-Authenticate header, which may hold several challenges: the best that we can answer (Bearer, then
 * Basic). CHALLENGE_NONE when there is none of them; ERR_INVALID when it is not a list of challenges. */
int registry_challenge_parse(const char *value, struct registry_challenge *ret_challenge, struct err *e) must_check;

/* "token" or "access_token" of a token server's answer; the caller frees. */
int registry_token_parse(const char *json, size_t length, char **ret_token, struct err *e) must_check;

#endif
