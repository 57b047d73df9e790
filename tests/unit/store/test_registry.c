/* SPDX-License-Identifier: Apache-2.0 */
#include "../test.h"

#include <stdlib.h>
#include <string.h>

#include "base/own.h"
#include "model/registry_login.h"
#include "model/registry_reference.h"
#include "store/registry_auth.h"

static struct err e;

static void test_references(void **state)
{
	static const struct {
		const char *text, *host, *repository, *tag, *base;
	} rows[] = {
		{ "debian", "docker.io", "library/debian", "latest", "https://registry-1.docker.io" },
		{ "docker://debian:12", "docker.io", "library/debian", "12", "https://registry-1.docker.io" },
		{ "grafana/grafana:10.0.1", "docker.io", "grafana/grafana", "10.0.1", "https://registry-1.docker.io" },
		{ "docker://index.docker.io/library/a", "docker.io", "library/a", "latest", "https://registry-1.docker.io" },
		{ "docker://Quay.IO/a/b/c:v1", "quay.io", "a/b/c", "v1", "https://quay.io" },
		{ "docker://localhost/a", "localhost", "a", "latest", "http://localhost" },
		{ "docker://localhost:5000/a", "localhost:5000", "a", "latest", "http://localhost:5000" },
		{ "docker://127.0.0.1:5000/a", "127.0.0.1:5000", "a", "latest", "http://127.0.0.1:5000" },
		{ "docker://[::1]:5000/a:t", "[::1]:5000", "a", "t", "http://[::1]:5000" },
		{ "docker://10.0.0.1:5000/a:t", "10.0.0.1:5000", "a", "t", "https://10.0.0.1:5000" },
		{ "docker://localhost.example.org/a", "localhost.example.org", "a", "latest", "https://localhost.example.org" },
		{ "docker://r.example.org/a__b/c--d", "r.example.org", "a__b/c--d", "latest", "https://r.example.org" },
	};
	char base[300];

	(void)state;
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		struct registry_reference r;
		assert_ok(registry_reference_parse(rows[i].text, &r, &e), &e);
		assert_string_equal(r.host, rows[i].host);
		assert_string_equal(r.repository, rows[i].repository);
		assert_string_equal(r.tag, rows[i].tag);
		assert_false(r.has_digest);
		registry_reference_base(&r, base, sizeof base);
		assert_string_equal(base, rows[i].base);
	}
}

#define HEX "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

static void test_reference_digests(void **state)
{
	struct registry_reference r;

	(void)state;
	assert_ok(registry_reference_parse("docker://r.example.org/a:t@sha256:" HEX, &r, &e), &e);
	assert_true(r.has_digest);
	assert_string_equal(r.tag, "t");
	assert_ok(registry_reference_parse("a@sha256:" HEX, &r, &e), &e);
	assert_string_equal(r.tag, "");
	assert_fails(registry_reference_parse("a@sha512:00", &r, &e), &e, ERR_UNSUPPORTED, "sha256");
	assert_fails(registry_reference_parse("a@sha256:00", &r, &e), &e, ERR_INVALID, "hex");
}

static void test_reference_refusals(void **state)
{
	static const char *const bad[] = {
		"",	"docker://",	    "/a",	     "a/",	   "a//b",	    "A/b",	   "a:",
		"a:b:c",	"a:-x",	    "a b",	     "../a",	   "a/../b",	    "r.example.org/",
		"r.example.org:0/a", "r.example.org:99999/a", "-r.example.org/a", "r..org/a", "[::1/a",	   "[::1]x/a",
		"a.b/c?d=e",   "u@r.org/a", "a___b",	"a\n",	    "r.example.org:80:90/a",
	};
	struct registry_reference r;

	(void)state;
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		if (registry_reference_parse(bad[i], &r, &e) >= 0)
			fail_msg("'%s' was accepted", bad[i]);
	char longest[2000];
	memset(longest, 'a', sizeof longest);
	longest[300] = '\0';
	assert_fails(registry_reference_parse(longest, &r, &e), &e, ERR_INVALID, "longer than 255");
}

static void test_challenges(void **state)
{
	struct registry_challenge c;

	(void)state;
	assert_ok(registry_challenge_parse("Bearer realm=\"https://auth.docker.io/token\",service=\"registry.docker.io\","
					   "scope=\"repository:library/debian:pull\"",
					   &c, &e),
		  &e);
	assert_int_equal(c.kind, CHALLENGE_BEARER);
	assert_string_equal(c.realm, "https://auth.docker.io/token");
	assert_string_equal(c.service, "registry.docker.io");
	assert_string_equal(c.scope, "repository:library/debian:pull");
	assert_ok(registry_challenge_parse("Basic realm=\"say \\\"x\\\"\"", &c, &e), &e);
	assert_int_equal(c.kind, CHALLENGE_BASIC);
	assert_string_equal(c.realm, "say \"x\"");
	assert_ok(registry_challenge_parse("Negotiate, Basic realm=x , bearer Realm = \"https://t\" ,error=\"e\"", &c, &e), &e);
	assert_int_equal(c.kind, CHALLENGE_BEARER);
	assert_string_equal(c.realm, "https://t");
	assert_ok(registry_challenge_parse("Digest realm=\"x\", nonce=\"y\"", &c, &e), &e);
	assert_int_equal(c.kind, CHALLENGE_NONE);
	assert_ok(registry_challenge_parse("", &c, &e), &e);
	assert_int_equal(c.kind, CHALLENGE_NONE);
	assert_ok(registry_challenge_parse("Bearer", &c, &e), &e); /* a bearer challenge needs its realm */
	assert_int_equal(c.kind, CHALLENGE_NONE);
	assert_fails(registry_challenge_parse("Bearer realm=\"x", &c, &e), &e, ERR_INVALID, "list of challenges");
	assert_fails(registry_challenge_parse("Bearer realm=\"a\\", &c, &e), &e, ERR_INVALID, "list of challenges");
	assert_fails(registry_challenge_parse("\"x\"", &c, &e), &e, ERR_INVALID, "list of challenges");
	assert_fails(registry_challenge_parse("Bearer realm=\"a\nb\"", &c, &e), &e, ERR_INVALID, "list of challenges");
}

static void test_tokens(void **state)
{
	own_str char *token = NULL, *other = NULL;
	char *none = NULL;

	(void)state;
	assert_ok(registry_token_parse("{\"token\":\"abc.def\"}", 19, &token, &e), &e);
	assert_string_equal(token, "abc.def");
	assert_ok(registry_token_parse("{\"access_token\":\"x\"}", 20, &other, &e), &e);
	assert_string_equal(other, "x");
	assert_fails(registry_token_parse("{}", 2, &none, &e), &e, ERR_CORRUPT, "no token");
	assert_fails(registry_token_parse("<html>", 6, &none, &e), &e, ERR_CORRUPT, "no token");
	assert_fails(registry_token_parse("{\"token\":\"a\\r\\nX: y\"}", 21, &none, &e), &e, ERR_CORRUPT, "not a token");
}

static void find(const char *json, const char *host, const char *user, const char *password)
{
	struct registry_login l = { 0 };

	assert_ok(registry_login_find(json, strlen(json), host, &l, &e), &e);
	if (!user) {
		assert_null(l.user);
		return;
	}
	assert_string_equal(l.user, user);
	assert_string_equal(l.password, password);
	registry_login_done(&l);
}

static void test_logins(void **state)
{
	static const char file[] =
		"{\"auths\":{\"https://index.docker.io/v1/\":{\"auth\":\"YWxpY2U6czNjOnJldA==\"},"
		"\"r.example.org:5000\":{\"username\":\"bob\",\"password\":\"pw\"},\"bad.org\":{\"auth\":\"%%%\"},"
		"\"empty.org\":{}}}";
	struct registry_login l = { 0 };

	(void)state;
	find(file, "docker.io", "alice", "s3c:ret");
	find(file, "r.example.org:5000", "bob", "pw");
	find(file, "r.example.org", NULL, NULL);
	find(file, "empty.org", NULL, NULL);
	find("{}", "docker.io", NULL, NULL);
	assert_fails(registry_login_find(file, strlen(file), "bad.org", &l, &e), &e, ERR_INVALID, "bad.org");
	assert_fails(registry_login_find("[]", 2, "a", &l, &e), &e, ERR_INVALID, "JSON object");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_references),
		cmocka_unit_test(test_reference_digests),
		cmocka_unit_test(test_reference_refusals),
		cmocka_unit_test(test_challenges),
		cmocka_unit_test(test_tokens),
		cmocka_unit_test(test_logins),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
