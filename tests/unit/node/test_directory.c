/* SPDX-License-Identifier: Apache-2.0 */
#include "../test.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "node/directory.h"

static struct err e;

static int take(struct directory *d, const char *text)
{
	json_t *message = json_loads(text, 0, NULL);
	assert_non_null(message);
	int r = directory_take(d, message, &e);
	json_decref(message);
	return r;
}

#define LAB "{\"name\":\"lab\",\"ipv4\":\"10.1.0.0/24\",\"number\":1}"
#define DB                                                                                                                     \
	"{\"id\":\"00000000000000aa\",\"name\":\"db\",\"owner\":7,\"groups\":[\"g\"],"                                         \
	"\"addresses\":[{\"network\":\"lab\",\"number\":3,\"ipv4\":\"10.1.0.2\"}]}"

static void messages_are_levels(void **state)
{
	(void)state;
	struct directory d = { 0 };

	for (int i = 0; i < 2; i++)
		assert_ok(take(&d, "{\"full\":true,\"networks\":[" LAB "],\"members\":[" DB "]}"), &e);
	const struct member *m = map_get(&d.members, "00000000000000aa");
	assert_non_null(m);
	assert_int_equal(d.members.count, 1);
	assert_string_equal(((const struct member_address *)m->addresses.items)[0].ipv4, "10.1.0.2");
	assert_non_null(map_get(&d.networks, "lab"));
	assert_ok(take(&d,
		       "{\"full\":false,\"gone\":[\"00000000000000aa\",\"00000000000000bb\"],\"networks\":[{\"name\":\"x\",\"number\":2}]}"), &e);
	assert_int_equal(d.members.count, 0);
	assert_int_equal(d.networks.count, 2);
	assert_ok(take(&d, "{\"full\":true,\"networks\":[],\"members\":[]}"), &e);
	assert_int_equal(d.networks.count, 0);
	directory_done(&d);
}

static void what_cannot_be_read_changes_nothing(void **state)
{
	(void)state;
	struct directory d = { 0 };

	assert_ok(take(&d, "{\"full\":true,\"networks\":[" LAB "],\"members\":[" DB "]}"), &e);
	assert_true(take(&d, "{\"full\":true,\"networks\":[],\"members\":[{\"id\":\"x\"}]}") < 0);
	assert_int_equal(d.networks.count, 1);
	assert_int_equal(d.members.count, 1);
	directory_done(&d);
}

static void it_is_found_again(void **state)
{
	(void)state;
	char folder[] = "/tmp/test-directory-XXXXXX", path[64];
	struct directory d = { 0 }, again = { 0 };

	assert_non_null(mkdtemp(folder));
	(void)snprintf(path, sizeof path, "%s/networks.json", folder);
	assert_ok(directory_load(&again, path, &e), &e);
	assert_int_equal(again.networks.count, 0);
	assert_ok(take(&d, "{\"full\":true,\"networks\":[" LAB "],\"members\":[" DB "]}"), &e);
	json_t *one = directory_encode(&d);
	assert_ok(directory_save(one, path, &e), &e);
	assert_ok(directory_load(&again, path, &e), &e);
	json_t *two = directory_encode(&again);
	assert_true(json_equal(one, two));
	json_decref(one);
	json_decref(two);
	directory_done(&d);
	directory_done(&again);
	(void)unlink(path);
	(void)rmdir(folder);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(messages_are_levels),
					    cmocka_unit_test(what_cannot_be_read_changes_nothing),
					    cmocka_unit_test(it_is_found_again) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
