/* SPDX-License-Identifier: Apache-2.0 */
#include "../test.h"

#include <string.h>

#include "model/assignment.h"
#include "model/spec.h"

static struct err e;
static int parse(const char *text, struct spec *s) { return spec_parse(text, strlen(text), "web.yaml", s, &e); }

static void a_whole_spec(void **state)
{
	(void)state;
	struct spec s;
	assert_ok(
		parse("name: web\nimage: lab/web:1\nengine: workspace\nmode: program\ncommand: [sh, -c, 'exit 3']\n"
		      "environment: {A: b}\nuser: www-data:www-data\ndirectory: /srv\nterminal: true\n"
		      "resources: {cpu: 1.5, memory: 1GiB, disk: 2G, processes: 100}\n"
		      "volumes:\n  - {name: data, size: 1G, mount: /srv/data, keep: true}\n"
		      "hostname: w\nnetwork: none\nlabels: {team: a}\nrestart: on-failure\nuntil: prepared\nstop-timeout: 3s\n",
		      &s),
		&e);
	assert_int_equal(s.resources->cpu_milli, 1500);
	assert_int_equal(s.until, UNTIL_PREPARED);
	assert_int_equal(s.stop_timeout_ms, 3000);
	assert_int_equal(((struct spec_volume *)s.volumes.items)[0].size_bytes, 1ULL << 30);
	json_t *json = encode(&spec_shape, &s);
	struct spec again = { 0 };
	assert_ok(decode_json(json, "again", &spec_shape, &again, &e), &e);
	assert_string_equal(again.image, "lab/web:1");
	json_decref(json);
	spec_done(&s);
	spec_done(&again);
}

static void defaults(void **state)
{
	(void)state;
	struct spec s;
	assert_ok(parse("image: debian\n", &s), &e);
	struct spec_resources r = spec_resources_or_default(&s);
	assert_true(r.disk_bytes == SPEC_DISK_DEFAULT);
	assert_int_equal(r.processes, SPEC_PROCESSES_DEFAULT);
	assert_int_equal(s.engine, ENGINE_AUTO);
	assert_int_equal(s.until, UNTIL_RUNNING);
	assert_int_equal(s.stop_timeout_ms, 10000);
	spec_done(&s);
}

static void impossible_wishes_are_refused(void **state)
{
	(void)state;
	static const struct {
		const char *text, *part;
	} bad[] = {
		{ "name: x\n", "key 'image' is missing" },
		{ "image: ../../etc\n", "image" },
		{ "image: sha256:12\n", "64 hex digits" },
		{ "image: d\nname: a/b\n", "name: a name may contain only" },
		{ "image: d\nname: \"a\\u001b\"\n", "name: a name may contain only" },
		{ "image: d\nresources: {memory: 1}\n", "too small" },
		{ "image: d\nresources: {memory: 99999999T}\n", "too large" },
		{ "image: d\nresources: {disk: 0}\n", "too small" },
		{ "image: d\nresources: {cpu: -1}\n", "must be a number" },
		{ "image: d\nresources: {cpus: 1}\n", "unknown key 'cpus'" },
		{ "image: d\nvolumes: [{name: root, size: 1G, mount: /x}]\n", "belong to the root volume" },
		{ "image: d\nvolumes: [{name: a, size: 1G, mount: /}]\n", "belong to the root volume" },
		{ "image: d\nvolumes: [{name: a, size: 1G, mount: /x}, {name: b, size: 1G, mount: /x}]\n", "same mount" },
		{ "image: d\nvolumes: [{name: a, size: 1G, mount: ../x}]\n", "a path must begin with '/'" },
		{ "image: d\nmode: system\ncommand: [x]\n", "takes no command" },
		{ "image: d\ncommand: ['']\n", "first word is empty" },
		{ "image: d\nrestart: always\nremove-on-exit: true\n", "exclude each other" },
		{ "image: d\nenvironment: {'A=B': c}\n", "a key may not contain" },
		{ "image: d\nuser: a/b\n", "user" },
		{ "image: d\nengine: docker\n", "engine must be one of" },
	};
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		struct spec s;
		err_clear(&e);
		if (parse(bad[i].text, &s) == 0 || !strstr(e.message, bad[i].part))
			fail_msg("%s -> \"%s\"", bad[i].text, e.message);
	}
}

static void messages_between_versions_are_open(void **state)
{
	(void)state;
	static const char text[] = "{\"id\":\"0123456789abcdef\",\"state\":\"running\",\"news\":1}";
	struct report r = { 0 };
	assert_ok(decode_text(text, strlen(text), "report", &report_shape, &r, &e), &e);
	assert_int_equal(r.state, STATE_RUNNING);
	assert_true(r.exit_status == FIELD_NO_PRESET);
	json_t *json = encode(&report_shape, &r);
	assert_null(json_object_get(json, "exit-status"));
	json_decref(json);
	report_done(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(a_whole_spec), cmocka_unit_test(defaults),
					    cmocka_unit_test(impossible_wishes_are_refused),
					    cmocka_unit_test(messages_between_versions_are_open) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
