/* SPDX-License-Identifier: Apache-2.0 */
/* What the helpers of a refill are: what they take of a workspace's wish, and what of it they must not have. */
#include "../test.h"

#include <string.h>

#include "base/decode.h"
#include "base/own.h"
#include "base/str.h"
#include "node/refill.h"

#define HELPER "fedcba9876543210"
#define GIB (UINT64_C(1) << 30)

static struct err e;

/* One that could do much: networks, a published port, a kernel of its own choice, secrets, another volume, remove-on-exit. */
static void make(struct assignment *a)
{
	static const char text[] =
		"{\"id\":\"0123456789abcdef\",\"generation\":7,\"wish\":\"running\",\"run\":3,\"owner\":1000,"
		"\"image\":{\"digest\":\"sha256:0000000000000000000000000000000000000000000000000000000000000000\","
		"\"architecture\":\"amd64\",\"partitions\":[]},"
		"\"kernel\":{\"name\":\"linux-amd64\",\"release\":\"6.1.0\","
		"\"digest\":\"sha256:1111111111111111111111111111111111111111111111111111111111111111\"},"
		"\"spec\":{\"image\":\"x\",\"name\":\"w\",\"command\":[\"true\"],\"environment\":{\"PASSWORD\":\"secret\"},"
		"\"resources\":{\"disk\":\"10G\",\"cpu\":8},\"restart\":\"always\",\"user-data\":\"#cloud-config\\n\","
		"\"volumes\":[{\"name\":\"data\",\"size\":\"1G\",\"mount\":\"/data\",\"keep\":true}]}}";

	assert_ok(decode_text(text, strlen(text), "test", &assignment_shape, a, &e), &e);
}

static void test_both_helpers(void **state)
{
	(void)state;
	for (int machine = 0; machine < 2; machine++) {
		struct assignment of = { 0 }, wish = { 0 };
		make(&of);
		assert_ok(refill_wish(&of, HELPER, machine, 3 * GIB, &wish, &e), &e);
		assert_string_equal(wish.id, HELPER);
		assert_string_equal(wish.spec->name, HELPER);
		assert_int_equal(wish.wish, WISH_PREPARED); /* in maintenance, never started */
		assert_int_equal(wish.run, 0);
		assert_int_equal(wish.owner_uid, 1000);
		assert_string_equal(wish.image->digest, of.image->digest);
		assert_string_equal(wish.kernel->digest, of.kernel->digest);
		assert_int_equal(wish.spec->engine, machine ? ENGINE_AUTO : ENGINE_WORKSPACE);
		assert_int_equal(wish.spec->isolation, machine ? ISOLATION_MACHINE : ISOLATION_NAMESPACE);
		assert_int_equal(wish.spec->network, NETWORK_NONE);
		assert_int_equal(wish.attachments.count, 0);
		assert_int_equal(wish.spec->volumes.count, 1);
		const struct spec_volume *v = wish.spec->volumes.items;
		assert_int_equal(v->size_bytes, 3 * GIB);
		assert_false(v->keep);
		json_t *json = encode(&assignment_shape, &wish);
		own_str char *text = json_dumps(json, JSON_COMPACT);
		json_decref(json);
		assert_null(strstr(text, "secret"));
		assert_null(strstr(text, "cloud-config"));
		assert_null(strstr(text, "\"data\""));
		shape_done(&assignment_shape, &wish);
		shape_done(&assignment_shape, &of);
	}
}

/* Disks that bring their own kernel, and namespaces that need none. */
static void test_without_a_kernel(void **state)
{
	struct assignment of = { 0 }, wish = { 0 };

	(void)state;
	make(&of);
	struct assignment plain = of;
	plain.kernel = NULL;
	assert_ok(refill_wish(&plain, HELPER, false, GIB, &wish, &e), &e);
	assert_null(wish.kernel);
	shape_done(&assignment_shape, &wish);
	shape_done(&assignment_shape, &of);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_both_helpers), cmocka_unit_test(test_without_a_kernel) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
