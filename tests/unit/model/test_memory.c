/* SPDX-License-Identifier: Apache-2.0 */
/* The manifest of a memory state: strict in what it reads, and one refusal for each thing that differs. */
#include "../test.h"

#include <stdlib.h>
#include <string.h>

#include "model/memory.h"

#define DIGEST "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
#define HEAD                                                                                                                   \
	"{\"format\":1,\"kind\":\"qemu\",\"engine\":\"emulator\",\"workspace\":\"00112233aabbccdd\",\"run\":3,\"taken\":5,"    \
	"\"architecture\":\"amd64\",\"program\":\"qemu-system-x86_64\",\"version\":\"7.2.22\",\"machine\":\"pc-q35-7.2\","     \
	"\"features\":[\"sse2\"],\"partitions\":[\"" DIGEST                                                                    \
	"\"],\"volumes\":[{\"name\":\"root\",\"size\":4096,\"generation\":1}],"
#define WHOLE HEAD "\"files\":[{\"name\":\"state\",\"length\":5,\"digest\":\"" DIGEST "\"},{\"name\":\"ram\",\"length\":4096}]}"

static struct err e;

static int read_text(const char *text, struct memory_manifest *m)
{
	*m = (struct memory_manifest){ 0 };
	return memory_manifest_decode(text, strlen(text), "test", m, &e);
}

static void round_trip(void **state)
{
	(void)state;
	struct memory_manifest m, again;
	assert_ok(read_text(WHOLE, &m), &e);
	assert_int_equal(memory_manifest_bytes(&m), 4101);
	assert_int_equal(memory_manifest_file(&m, "ram")->length, 4096);
	assert_null(memory_manifest_file(&m, "other"));
	char *text = memory_manifest_encode(&m);
	assert_ok(read_text(text, &again), &e);
	char *twice = memory_manifest_encode(&again);
	assert_string_equal(text, twice);
	free(text);
	free(twice);
	memory_manifest_done(&m);
	memory_manifest_done(&again);
}

static void packed_files(void **state)
{
	(void)state;
	struct memory_manifest m;
	assert_ok(read_text(HEAD "\"files\":[{\"name\":\"ram\",\"length\":4096,\"packed\":\"" DIGEST "\",\"stored\":77}]}", &m),
		  &e);
	assert_int_equal(memory_manifest_bytes(&m), 77);
	char *place = memory_file_place(memory_manifest_file(&m, "ram"));
	assert_string_equal(place, "ram.packed");
	free(place);
	memory_manifest_done(&m);
}

static void another_host_s_facts(void **state)
{
	(void)state;
	static const char *const facts[] = {
		/* the same; another version; machines that it does not know; a processor without a feature; no program */
		"{\"architecture\":\"amd64\",\"features\":[\"sse2\"],\"programs\":[{\"name\":\"qemu-system-x86_64\",\"version\":\"7.2.22\","
		"\"machines\":[\"pc-q35-7.2\"]}]}",
		"{\"architecture\":\"amd64\",\"features\":[\"sse2\"],\"programs\":[{\"name\":\"qemu-system-x86_64\",\"version\":\"8.0\","
		"\"machines\":[\"pc-q35-7.2\"]}]}",
		"{\"architecture\":\"amd64\",\"features\":[\"sse2\"],\"programs\":[{\"name\":\"qemu-system-x86_64\",\"version\":\"7.2.22\"}]}",
		"{\"architecture\":\"amd64\",\"programs\":[{\"name\":\"qemu-system-x86_64\",\"version\":\"7.2.22\",\"machines\":[\"pc-q35-7.2\"]}]}",
		"{\"architecture\":\"amd64\",\"features\":[\"sse2\"]}",
	};
	static const char *const words[] = { NULL, "8.0", "pc-q35-7.2", "sse2", "none" };
	struct memory_manifest m;
	assert_ok(read_text(WHOLE, &m), &e);
	json_t *json = memory_needs_encode(&m);
	for (size_t i = 0; i < sizeof facts / sizeof *facts; i++) {
		struct memory_needs needs = { 0 };
		struct memory_facts f = { 0 };
		assert_ok(decode_json(json, "needs", &memory_needs_shape, &needs, &e), &e);
		assert_ok(decode_text(facts[i], strlen(facts[i]), "facts", &memory_facts_shape, &f, &e), &e);
		if (words[i])
			assert_fails(memory_check_facts(&needs, &f, &e), &e, ERR_UNSUPPORTED, words[i]);
		else
			assert_ok(memory_check_facts(&needs, &f, &e), &e);
		shape_done(&memory_needs_shape, &needs);
		shape_done(&memory_facts_shape, &f);
	}
	json_decref(json);
	memory_manifest_done(&m);
}

static void a_newer_criu_reads_an_older_one_s(void **state)
{
	(void)state;
	struct memory_program criu = { .name = (char[]){ "criu" }, .version = (char[]){ "4.2" } };
	const struct memory_facts f = { .architecture = (char[]){ "amd64" }, .programs = { &criu, 1 } };
	struct memory_needs needs = { .architecture = (char[]){ "amd64" }, .program = (char[]){ "criu" },
				      .version = (char[]){ "4.1.1" } };
	assert_ok(memory_check_facts(&needs, &f, &e), &e);
	needs.version = (char[]){ "4.10" };
	assert_fails(memory_check_facts(&needs, &f, &e), &e, ERR_UNSUPPORTED, "4.10");
}

static void bad_manifests(void **state)
{
	(void)state;
	static const char *const bad[] = {
		"", "{}", "{\"format\":2}", HEAD "\"files\":[{\"name\":\"../state\",\"length\":5}]}",
		HEAD "\"files\":[{\"name\":\"manifest.json\",\"length\":5}]}",
		HEAD "\"files\":[{\"name\":\".x\",\"length\":5}]}",
		HEAD "\"files\":[{\"name\":\"a\",\"length\":5},{\"name\":\"a\",\"length\":5}]}",
		HEAD "\"files\":[{\"name\":\"a\",\"length\":5,\"digest\":\"sha256:00\"}]}", HEAD "\"files\":[],\"more\":1}",
		HEAD "}", HEAD "\"files\":[{\"name\":\"ram.packed\",\"length\":5}]}",
		HEAD "\"files\":[{\"name\":\"ram\",\"length\":5,\"stored\":3}]}",
		HEAD "\"files\":[{\"name\":\"ram\",\"length\":5,\"packed\":\"" DIGEST "\"}]}",
	};
	struct memory_manifest m;
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		assert_true(read_text(bad[i], &m) < 0);
}

static void each_difference_is_refused(void **state)
{
	(void)state;
	static const char *const machines[] = { "pc-q35-7.1", "pc-q35-7.2", NULL }, *const other[] = { "pc-q35-8.0", NULL };
	static const char *const features[] = { "sse", "sse2", NULL }, *const fewer[] = { "sse", NULL };
	const struct memory_host good = { "amd64", "qemu-system-x86_64", "7.2.22", machines, features, NULL };
	struct memory_manifest m;
	assert_ok(read_text(WHOLE, &m), &e);
	assert_ok(memory_check(&m, &good, &e), &e);
	struct memory_host hosts[6] = { good, good, good, good, good, { 0 } };
	hosts[0].architecture = "arm64";
	hosts[1].program = NULL;
	hosts[2].version = "10.0.2";
	hosts[3].machines = other;
	hosts[4].features = fewer;
	for (size_t i = 0; i < 6; i++)
		assert_fails(memory_check(&m, &hosts[i], &e), &e, ERR_UNSUPPORTED, "");
	m.kernel = strdup("6.1.0");
	assert_fails(memory_check(&m, &good, &e), &e, ERR_UNSUPPORTED, "kernel");
	memory_manifest_done(&m);
}

static void it_belongs_to_one_workspace(void **state)
{
	(void)state;
	struct memory_manifest m;
	struct texts partitions = { 0 };
	texts_add(&partitions, DIGEST);
	assert_ok(read_text(WHOLE, &m), &e);
	assert_ok(memory_check_workspace(&m, "00112233aabbccdd", &partitions, 1, &e), &e);
	assert_fails(memory_check_workspace(&m, "00112233aabbccde", &partitions, 1, &e), &e, ERR_CONFLICT, "workspace");
	assert_fails(memory_check_workspace(&m, "00112233aabbccdd", &partitions, 2, &e), &e, ERR_CONFLICT, "restored");
	texts_add(&partitions, DIGEST);
	assert_fails(memory_check_workspace(&m, "00112233aabbccdd", &partitions, 1, &e), &e, ERR_CONFLICT, "image");
	texts_done(&partitions);
	memory_manifest_done(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(round_trip),
					    cmocka_unit_test(packed_files),
					    cmocka_unit_test(another_host_s_facts),
					    cmocka_unit_test(a_newer_criu_reads_an_older_one_s),
					    cmocka_unit_test(bad_manifests),
					    cmocka_unit_test(each_difference_is_refused),
					    cmocka_unit_test(it_belongs_to_one_workspace) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
