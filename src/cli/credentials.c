/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/credentials.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"
#include "model/registry_reference.h"

#define PASSWORD_MOST 65535
#define FILE_MOST (1 << 20)

/* Bytes that were a secret: gone before the memory is. */
static void forget(struct str *s)
{
	if (s->bytes)
		explicit_bzero(s->bytes, s->length);
	str_done(s);
}

/* --- what is typed --- */

static int read_password(char **ret_password, struct err *e)
{
	struct str text = { 0 };

	if (isatty(STDIN_FILENO)) {
		(void)err_set(e, ERR_INVALID, "--password-stdin reads a file or a pipe, and standard input is a terminal");
		return err_hint(e, "carrel image import ... --password-stdin <FILE, or log in with another tool and use its "
				   "password file");
	}
	int r = fs_read_fd(STDIN_FILENO, PASSWORD_MOST, &text, e);
	if (r < 0) {
		forget(&text);
		return err_wrap(e, "--password-stdin");
	}
	while (text.length && (text.bytes[text.length - 1] == '\n' || text.bytes[text.length - 1] == '\r'))
		text.bytes[--text.length] = '\0';
	if (!text.length || strlen(text.bytes) != text.length) {
		forget(&text);
		return err_set(e, ERR_INVALID, "--password-stdin: standard input holds no password");
	}
	*ret_password = str_take(&text);
	return 0;
}

static int from_options(const char *user, bool password, struct registry_login *ret_login, struct err *e)
{
	struct registry_login login = { 0 };

	if (!user || !password) {
		(void)err_set(e, ERR_INVALID, user ? "--username needs --password-stdin" : "--password-stdin needs --username");
		return err_hint(e, "a password is read from standard input, never from the command line, where everybody can "
				   "see it");
	}
	int r = read_password(&login.password, e);
	if (r < 0)
		return r;
	login.user = mem_strdup(user);
	*ret_login = login;
	return 0;
}

/* --- password files --- */

static int from_file(const char *path, const char *host, struct registry_login *ret_login, struct err *e)
{
	struct str text = { 0 };
	int r = fs_read_file(AT_FDCWD, path, FILE_MOST, &text, e);

	if (r == 0)
		r = registry_login_find(str_text(&text), text.length, host, ret_login, e);
	forget(&text);
	return r < 0 ? err_wrap(e, "%s", path) : 0;
}

/* An empty variable is none. */
static const char *environment(const char *name)
{
	const char *value = getenv(name);
	return value && *value ? value : NULL;
}

/* The places where other tools keep theirs: the first that there is and that knows the host. */
static int from_places(const char *host, struct registry_login *ret_login, struct err *e)
{
	const char *run = environment("XDG_RUNTIME_DIR"), *docker = environment("DOCKER_CONFIG"), *home = environment("HOME");
	own_str char *podman = run ? mem_printf("%s/containers/auth.json", run) : NULL;
	own_str char *file = docker ? mem_printf("%s/config.json", docker) :
			     home   ? mem_printf("%s/.docker/config.json", home) :
				      NULL;
	const char *const places[] = { podman, file };

	for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
		if (!places[i] || access(places[i], F_OK) < 0)
			continue;
		int r = from_file(places[i], host, ret_login, e);
		if (r < 0 || ret_login->user)
			return r;
	}
	return 0;
}

int credentials_find(const struct args *a, const char *source, struct registry_login *ret_login, struct err *e)
{
	const char *user = args_text(a, "username"), *file = args_text(a, "authfile");
	bool password = args_flag(a, "password-stdin");
	struct registry_reference reference;
	int r = registry_reference_parse(source, &reference, e);

	if (r < 0)
		return r;
	if (user || password)
		return from_options(user, password, ret_login, e);
	if (!file)
		file = environment("REGISTRY_AUTH_FILE");
	return file ? from_file(file, reference.host, ret_login, e) : from_places(reference.host, ret_login, e);
}
