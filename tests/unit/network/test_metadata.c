/* SPDX-License-Identifier: Apache-2.0 */
#include "../test.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "network/metadata.h"

static struct err e;
static const struct metadata_key key = { { 1, 2, 3 } }, other_key = { { 4 } };

static json_t *identity(void)
{
	static const char text[] =
		"{\"id\":\"0123456789abcdef\",\"run\":1,\"generation\":1,\"wish\":\"running\",\"image\":{\"digest\":\"sha256:aa\","
		"\"architecture\":\"amd64\",\"partitions\":[]},\"spec\":{\"name\":\"web\",\"image\":\"debian\",\"ssh-keys\":[\"ssh-ed25519 AAAA me\"],"
		"\"user-data\":\"#cloud-config\\n\"},\"attachments\":[{\"network\":\"lab\",\"number\":7,\"device\":\"eth0\",\"port\":\"cr7\","
		"\"mac\":\"02:00:00:00:00:07\",\"ipv4\":\"10.88.0.7/24\",\"ipv6\":\"fd00:88::7/64\"}]}";
	struct assignment a = { 0 };

	assert_ok(decode_text(text, strlen(text), "test", &assignment_shape, &a, &e), &e);
	json_t *made = metadata_identity(&a, 0);
	assignment_done(&a);
	assert_non_null(made);
	return made;
}

/* Status; the body is left in `ret_body`. */
static unsigned ask(const char *request, uint64_t attachment, uint64_t now_s, char **ret_body)
{
	struct metadata_request r;
	struct str response = { 0 };
	unsigned status = 0;
	json_t *who = attachment ? identity() : NULL;

	assert_int_equal(metadata_parse(request, strlen(request), &r, &e), 1);
	metadata_answer(&r, who, attachment, &key, now_s, &response);
	json_decref(who);
	assert_int_equal(sscanf(response.bytes, "HTTP/1.1 %u ", &status), 1);
	*ret_body = mem_strdup(strstr(response.bytes, "\r\n\r\n") + 4);
	str_done(&response);
	return status;
}

static void expect(const char *path, unsigned status, const char *body)
{
	char *request = mem_printf("GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path), *got;
	unsigned s = ask(request, 7, 1000, &got);

	if (s != status || (body && !str_eq(got, body)))
		fail_msg("%s: %u \"%s\", not %u \"%s\"", path, s, got, status, body ? body : "");
	free(got);
	free(request);
}

static void ec2(void **state)
{
	(void)state;
	expect("/latest/meta-data/instance-id", 200, "0123456789abcdef");
	expect("/2021-03-23/meta-data/instance-id", 200, "0123456789abcdef");
	expect("//latest//meta-data/local-ipv4/", 200, "10.88.0.7");
	expect("/latest/meta-data/mac", 200, "02:00:00:00:00:07");
	expect("/latest/meta-data/public-keys/", 200, "0=key-0");
	expect("/latest/meta-data/public-keys/0/", 200, "openssh-key");
	expect("/latest/meta-data/public-keys/0/openssh-key", 200, "ssh-ed25519 AAAA me");
	expect("/latest/meta-data/network/interfaces/macs/", 200, "02:00:00:00:00:07/");
	expect("/latest/meta-data/network/interfaces/macs/02%3A00:00:00:00:07/ipv6s", 200, "fd00:88::7");
	expect("/latest/user-data", 200, "#cloud-config\n");
	expect("/latest", 200, "meta-data/\nuser-data");
	expect("/latest/meta-data/nothing", 404, NULL);
	expect("/latest/meta-data/instance", 404, NULL);
	expect("/latest/meta-datax", 404, NULL);
	expect("/1999-01-01/meta-data/", 404, NULL);
	expect("/etc/passwd", 404, NULL);
	expect("/latest/meta-data/../../etc/passwd", 404, NULL);
}

static void openstack(void **state)
{
	(void)state;
	char *body;

	assert_int_equal(ask("GET /openstack/latest/meta_data.json HTTP/1.0\r\n\r\n", 7, 1000, &body), 200);
	json_t *data = json_loads(body, 0, NULL);
	assert_string_equal(json_string_value(json_object_get(data, "uuid")), "0123456789abcdef");
	assert_string_equal(json_string_value(json_object_get(json_object_get(data, "public_keys"), "key-0")),
			    "ssh-ed25519 AAAA me");
	json_decref(data);
	free(body);
	assert_int_equal(ask("GET /openstack/2018-08-27/network_data.json HTTP/1.1\r\n\r\n", 7, 1000, &body), 200);
	data = json_loads(body, 0, NULL);
	assert_int_equal(json_array_size(json_object_get(data, "networks")), 2);
	json_decref(data);
	free(body);
	expect("/openstack/latest/user_data", 200, "#cloud-config\n");
	expect("/openstack/1970-01-01/user_data", 404, NULL);
	expect("/openstackx", 404, NULL);
}

static void tokens(void **state)
{
	(void)state;
	char *token, *body, *request;

	assert_int_equal(ask("PUT /latest/api/token HTTP/1.1\r\nX-aws-ec2-metadata-token-ttl-seconds: 60\r\n\r\n", 7, 1000,
			     &token), 200);
	request = mem_printf("GET /latest/meta-data/mac HTTP/1.1\r\nx-aws-EC2-metadata-token: %s\r\n\r\n", token);
	assert_int_equal(ask(request, 7, 1059, &body), 200);
	free(body);
	assert_int_equal(ask(request, 7, 1060, &body), 401); /* over */
	free(body);
	assert_int_equal(ask(request, 8, 1000, &body), 401); /* another's */
	free(body);
	char *digit = strstr(request, token) + 20;
	*digit = *digit == '0' ? '1' : '0';
	assert_int_equal(ask(request, 7, 1000, &body), 401);
	free(body);
	free(request);
	free(token);
	assert_int_equal(ask("PUT /latest/api/token HTTP/1.1\r\n\r\n", 7, 1000, &body), 400);
	free(body);
	assert_int_equal(ask("PUT /latest/api/token HTTP/1.1\r\nX-Forwarded-For: "
			     "1.2.3.4\r\nX-aws-ec2-metadata-token-ttl-seconds: 60\r\n\r\n", 7,
			     1000, &body), 403);
	free(body);
	assert_int_equal(ask("PUT /latest/user-data HTTP/1.1\r\nContent-Length: 0\r\n\r\n", 7, 1000, &body), 405);
	free(body);
	assert_int_equal(ask("GET /latest/meta-data/mac HTTP/1.1\r\n\r\n", 0, 1000, &body), 404); /* nobody we know */
	free(body);
	assert_true(memcmp(&key, &other_key, sizeof key) != 0);
}

static void bad_requests(void **state)
{
	(void)state;
	static const char *const bad[] = {
		"\r\n\r\n", "GET\r\n\r\n", "GET / HTTP/2.0\r\n\r\n", "POST / HTTP/1.1\r\n\r\n", "GET x HTTP/1.1\r\n\r\n",
		"GET  HTTP/1.1\r\n\r\n", "GET /%zz HTTP/1.1\r\n\r\n", "GET /% HTTP/1.1\r\n\r\n", "GET /%00 HTTP/1.1\r\n\r\n",
		"GET /a b "
												     "HTTP/1.1\r\n\r\n",
		"GET / HTTP/1.1\r\nContent-Length: 5\r\n\r\n", "GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
		"PUT / HTTP/1.1\r\nX-aws-ec2-metadata-token-ttl-seconds: 21601\r\n\r\n",
		"PUT / HTTP/1.1\r\nX-aws-ec2-metadata-token-ttl-seconds: 0\r\n\r\n",
		"PUT / HTTP/1.1\r\nX-aws-ec2-metadata-token-ttl-seconds: -1\r\n\r\n",
	};
	struct metadata_request r;
	char *longest = mem_alloc(METADATA_HEAD_MOST + 2);

	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		if (metadata_parse(bad[i], strlen(bad[i]), &r, &e) >= 0)
			fail_msg("accepted: %s", bad[i]);
	memset(longest, 'a', METADATA_HEAD_MOST + 1);
	memcpy(longest, "GET /", 5);
	assert_int_equal(metadata_parse(longest, METADATA_HEAD_MOST, &r, &e), 0);
	assert_fails(metadata_parse(longest, METADATA_HEAD_MOST + 1, &r, &e), &e, ERR_TOO_LARGE, "too long");
	free(longest);
	assert_int_equal(metadata_parse("GET / HTTP/1.1\r\n", 16, &r, &e), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(ec2), cmocka_unit_test(openstack), cmocka_unit_test(tokens),
					    cmocka_unit_test(bad_requests) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
