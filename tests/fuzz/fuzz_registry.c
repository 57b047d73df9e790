/* SPDX-License-Identifier: Apache-2.0 */
/* References, challenges, tokens and password files. The first byte chooses; the rest is the text. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "model/registry_login.h"
#include "model/registry_reference.h"
#include "store/registry_auth.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

/* A reference that was accepted gives an address without anything that could lead elsewhere. */
static void reference(const char *text)
{
	struct registry_reference r;
	char base[300];

	if (registry_reference_parse(text, &r, NULL) < 0)
		return;
	registry_reference_base(&r, base, sizeof base);
	if (strpbrk(base, " @?#\\\r\n") || strpbrk(r.repository, " @?#\\%:\r\n") || strstr(r.repository, "..") ||
	    strpbrk(r.tag, "/?#%"))
		abort();
	if (strncmp(base, "http://", 7) == 0 && !registry_host_is_loopback(r.host))
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
	struct registry_challenge challenge;
	struct registry_login login = { 0 };
	char *token = NULL;

	if (length == 0)
		return 0;
	char *text = mem_strndup((const char *)bytes + 1, length - 1);
	switch (bytes[0]) {
	case 'r':
		reference(text);
		break;
	case 'c':
		if (registry_challenge_parse(text, &challenge, NULL) == 0 && challenge.kind == CHALLENGE_BEARER &&
		    !challenge.realm[0])
			abort();
		break;
	case 't':
		if (registry_token_parse(text, strlen(text), &token, NULL) == 0 && (!token[0] || strpbrk(token, "\r\n ")))
			abort();
		free(token);
		break;
	default:
		if (registry_login_find(text, strlen(text), "docker.io", &login, NULL) == 0 && login.user && !login.password)
			abort();
		registry_login_done(&login);
	}
	free(text);
	return 0;
}
