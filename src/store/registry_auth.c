/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two parsers of what a registry sends, run in the child that has the network. The header's grammar is ambiguous without
 * looking ahead: after a parameter and a comma comes another parameter, or the next scheme, which is a token that no '='
 * follows. What does not fit its array is an error, never cut; of several challenges that can be answered the stronger is
 * taken.
 */
#include "store/registry_auth.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"

/* --- challenges --- */

static bool is_token_char(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
	       (c && strchr("!#$%&'*+-.^_`|~", c));
}

static void skip(const char **at, const char *characters) { *at += strspn(*at, characters); }

/* A token (RFC 9110, 5.6.2) into out; false when there is none or it does not fit. */
static bool take_token(const char **at, char *out, size_t size)
{
	size_t length = 0;

	while (is_token_char((*at)[length]))
		length++;
	if (length == 0 || length >= size)
		return false;
	memcpy(out, *at, length);
	out[length] = '\0';
	*at += length;
	return true;
}

static bool take_quoted(const char **at, char *out, size_t size)
{
	size_t length = 0;

	for ((*at)++; **at != '"'; (*at)++) {
		if (**at == '\\')
			(*at)++;
		if ((unsigned char)**at < 0x20 || **at == 0x7f || length + 1 >= size)
			return false;
		out[length++] = **at;
	}
	(*at)++;
	out[length] = '\0';
	return true;
}

struct parameter {
	char name[32], value[1024];
};

/* name = value, where the value is a token or quoted. */
static bool take_parameter(const char **at, struct parameter *p)
{
	if (!take_token(at, p->name, sizeof p->name))
		return false;
	skip(at, " \t");
	if (**at != '=')
		return false;
	(*at)++;
	skip(at, " \t");
	return **at == '"' ? take_quoted(at, p->value, sizeof p->value) : take_token(at, p->value, sizeof p->value);
}

static bool keep_parameter(struct registry_challenge *c, const struct parameter *p)
{
	char *into = NULL;
	size_t size = 0;

	if (strcasecmp(p->name, "realm") == 0) {
		into = c->realm;
		size = sizeof c->realm;
	} else if (strcasecmp(p->name, "service") == 0) {
		into = c->service;
		size = sizeof c->service;
	} else if (strcasecmp(p->name, "scope") == 0) {
		into = c->scope;
		size = sizeof c->scope;
	}
	if (!into)
		return true;
	if (strlen(p->value) >= size)
		return false;
	memcpy(into, p->value, strlen(p->value) + 1);
	return true;
}

/* The parameters behind a scheme. Stops before what may be the next scheme: a token that no '=' follows. */
static bool take_parameters(const char **at, struct registry_challenge *c)
{
	struct parameter p;

	for (;;) {
		const char *before = *at;
		skip(at, " \t,");
		if (!**at)
			return true;
		const char *look = *at;
		char token[1024];
		if (!take_token(&look, token, sizeof token))
			return false;
		skip(&look, " \t");
		if (*look != '=') {
			*at = before;
			return true;
		}
		if (!take_parameter(at, &p) || !keep_parameter(c, &p))
			return false;
	}
}

int registry_challenge_parse(const char *value, struct registry_challenge *ret_challenge, struct err *e)
{
	struct registry_challenge best = { 0 };
	const char *at = value;

	for (skip(&at, " \t,"); *at; skip(&at, " \t,")) {
		struct registry_challenge c = { 0 };
		char scheme[32];
		if (!take_token(&at, scheme, sizeof scheme) || (*at && !strchr(" \t,", *at)) || !take_parameters(&at, &c))
			return err_set(e, ERR_INVALID, "the registry's WWW-Authenticate header is not a list of challenges");
		if (strcasecmp(scheme, "Bearer") == 0 && c.realm[0])
			c.kind = CHALLENGE_BEARER;
		else if (strcasecmp(scheme, "Basic") == 0)
			c.kind = CHALLENGE_BASIC;
		if (c.kind > best.kind)
			best = c;
	}
	*ret_challenge = best;
	return 0;
}

/* --- tokens --- */

static bool text_sendable(const char *text)
{
	for (; *text; text++)
		if ((unsigned char)*text <= 0x20 || (unsigned char)*text >= 0x7f)
			return false;
	return true;
}

int registry_token_parse(const char *json, size_t length, char **ret_token, struct err *e)
{
	json_t *answer = json_loadb(json, length, JSON_REJECT_DUPLICATES, NULL);
	const char *token = json_string_value(json_object_get(answer, "token"));
	int r = 0;

	if (!token)
		token = json_string_value(json_object_get(answer, "access_token"));
	if (!token || !token[0])
		r = err_set(e, ERR_CORRUPT, "the token server's answer has no token");
	else if (strlen(token) > 16384 || !text_sendable(token))
		r = err_set(e, ERR_CORRUPT, "the token server's token is not a token");
	else
		*ret_token = mem_strdup(token);
	json_decref(answer);
	return r;
}
