/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../test.h"
#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/settings.h"

struct sample {
	char *name;
	uint64_t count, size_bytes;
	bool loud;
	struct texts words;
};

#define S(member) offsetof(struct sample, member)
static const struct field fields[] = {
	{ "name", FIELD_TEXT, S(name), "a name", .example = "x" },
	{ "count", FIELD_NUMBER, S(count), "a number", .preset = 7 },
	{ "size", FIELD_BYTES, S(size_bytes), "a size" },
	{ "loud", FIELD_BOOL, S(loud), "a switch" },
	{ "words", FIELD_TEXTS, S(words), "a list" },
	{ 0 },
};
static const struct shape shape = { "sample", sizeof(struct sample), fields, "A sample." };

static char path[64];
static struct settings settings = { .program = "sample", .what = "A sample.", .shape = &shape };
static struct sample value;
static struct err e;

static int setup(void **state)
{
	(void)state;
	(void)snprintf(path, sizeof path, "/tmp/carrel-test-settings-%d.yaml", (int)getpid());
	settings.config_path = path;
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	(void)unlink(path);
	shape_done(&shape, &value);
	return 0;
}

static int with(const char *config, const char *arguments)
{
	own_str char *copy = mem_strdup(arguments);
	char *argv[16] = { path }, *at = copy;
	int argc = 1;

	if (config)
		assert_ok(fs_write_file(AT_FDCWD, path, config, strlen(config), 0600, false, &e), &e);
	for (char *word; (word = strsep(&at, " "));)
		if (*word)
			argv[argc++] = word;
	return settings_read(&settings, argc, argv, &value, &e);
}

static void test_presets(void **state)
{
	(void)state;
	assert_ok(with(NULL, ""), &e);
	assert_int_equal(value.count, 7);
	assert_null(value.name);
}

static void test_command_line_wins(void **state)
{
	(void)state;
	assert_ok(with("name: file\ncount: 3\nsize: 2M\n", "--name=line --loud --words a --words b"), &e);
	assert_string_equal(value.name, "line");
	assert_int_equal(value.count, 3);
	assert_int_equal(value.size_bytes, 2 << 20);
	assert_true(value.loud);
	assert_int_equal(value.words.count, 2);
}

static void test_mistakes(void **state)
{
	(void)state;
	assert_fails(with(NULL, "--nam x"), &e, ERR_INVALID, "--nam: unknown argument");
	assert_non_null(strstr(e.hint, "--name"));
	assert_fails(with(NULL, "stray"), &e, ERR_INVALID, "stray");
	assert_fails(with(NULL, "--count"), &e, ERR_INVALID, "needs a value");
	assert_fails(with(NULL, "--count many"), &e, ERR_INVALID, "count");
	assert_fails(with("nmae: x\n", ""), &e, ERR_INVALID, ":1:1: unknown key");
	assert_fails(with(NULL, "--config /nonexistent/file"), &e, ERR_NOT_FOUND, "/nonexistent/file");
}

static void test_help_and_manual(void **state)
{
	own_strbuf struct str help = { 0 }, man = { 0 };

	(void)state;
	settings_help(&settings, &help);
	assert_non_null(strstr(str_text(&help), "--size SIZE"));
	assert_non_null(strstr(str_text(&help), "a switch"));
	settings_man(&settings, &man);
	assert_non_null(strstr(str_text(&man), ".B \\-\\-count N\na number"));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = { TEST(test_presets), TEST(test_command_line_wins), TEST(test_mistakes),
					    TEST(test_help_and_manual) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
