/* SPDX-License-Identifier: Apache-2.0 */
#include "model/registry_login.h"

#include <jansson.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"

void registry_login_done(struct registry_login *l)
{
	if (l->password)
		explicit_bzero(l->password, strlen(l->password));
	free(l->password);
	free(l->user);
	*l = (struct registry_login){ 0 };
}

/* base64 of user:password */
static int login_from_auth(const char *auth, struct registry_login *login, struct err *e)
{
	size_t length = strlen(auth);
	own_str unsigned char *plain = mem_alloc(length + 4);

	if (length % 4 || length > 8192 || EVP_DecodeBlock(plain, (const unsigned char *)auth, (int)length) < 0)
		return err_set(e, ERR_INVALID, "its auth is not base64");
	char *colon = strchr((char *)plain, ':');
	if (!colon)
		return err_set(e, ERR_INVALID, "its auth is not user:password");
	*colon = '\0';
	login->user = mem_strdup((char *)plain);
	login->password = mem_strdup(colon + 1);
	explicit_bzero(plain, length);
	return 0;
}

/* Files name docker.io by the address of its first API; others by host, some with https:// in front. */
static bool entry_is_for(const char *key, const char *host)
{
	if (str_starts(key, "https://"))
		key += strlen("https://");
	else if (str_starts(key, "http://"))
		key += strlen("http://");
	size_t length = strcspn(key, "/");
	if (str_eq(host, "docker.io") && (length == 15 && strncasecmp(key, "index.docker.io", 15) == 0))
		return true;
	return length == strlen(host) && strncasecmp(key, host, length) == 0;
}

static int login_from_entry(const json_t *entry, struct registry_login *login, struct err *e)
{
	const char *auth = json_string_value(json_object_get(entry, "auth"));
	const char *user = json_string_value(json_object_get(entry, "username"));
	const char *password = json_string_value(json_object_get(entry, "password"));

	if (auth && auth[0])
		return login_from_auth(auth, login, e);
	if (user && password) {
		login->user = mem_strdup(user);
		login->password = mem_strdup(password);
	}
	return 0;
}

int registry_login_find(const char *json, size_t length, const char *host, struct registry_login *ret_login, struct err *e)
{
	json_t *file = json_loadb(json, length, 0, NULL), *entry;
	const char *key;
	int r = 0;

	if (!json_is_object(file)) {
		json_decref(file);
		return err_set(e, ERR_INVALID, "the password file is not a JSON object");
	}
	json_object_foreach(json_object_get(file, "auths"), key, entry) {
		if (!entry_is_for(key, host))
			continue;
		r = login_from_entry(entry, ret_login, e);
		if (r < 0)
			r = err_wrap(e, "the password file's entry for %s", host);
		break;
	}
	json_decref(file);
	return r;
}
