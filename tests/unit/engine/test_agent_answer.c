/* SPDX-License-Identifier: Apache-2.0 */
#include "../test.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/own.h"
#include "engine/qemu/agent_answer.h"

static struct err e;

static struct qmp_value value(const char *text) { return (struct qmp_value){ text, strlen(text) }; }

static void test_base64(void **state)
{
	struct str all = { 0 }, text = { 0 }, back = { 0 };

	(void)state;
	for (int i = 0; i < 256; i++) {
		str_clear(&text);
		str_clear(&back);
		str_putc(&text, '"');
		str_add_base64(&text, all.bytes, all.length);
		str_putc(&text, '"');
		assert_true(agent_decode(&back, (struct qmp_value){ text.bytes, text.length }));
		assert_int_equal(back.length, all.length);
		assert_true(!all.length || memcmp(back.bytes, all.bytes, all.length) == 0);
		str_putc(&all, (char)(i * 7));
	}
	str_clear(&text);
	str_add_base64(&text, "any carnal pleas", 16);
	assert_string_equal(str_text(&text), "YW55IGNhcm5hbCBwbGVhcw==");
	static const char *const wrong[] = { "\"YQ\"",         "\"YQ=\"",  "\"Y===\"", "\"====\"",
					     "\"Y\\u0051==\"", "\"Y=Q=\"", "12",       "\"" };
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++)
		if (agent_decode(&back, value(wrong[i])))
			fail_msg("%s is base64", wrong[i]);
	str_clear(&back);
	agent_decode_some(&back, value("\"aGVsbG8=\""), 3);
	assert_string_equal(str_text(&back), "hel");
	str_done(&all);
	str_done(&text);
	str_done(&back);
}

static void test_files(void **state)
{
	struct str out = { 0 };
	uint64_t handle = 0;
	size_t count = 0;

	(void)state;
	assert_ok(agent_handle(value("1000"), &handle, &e), &e);
	assert_int_equal(handle, 1000);
	static const char *const handles[] = { "", "-1", "{}", "\"5\"", "1e3", "9223372036854775808", "99999999999999999999" };
	for (size_t i = 0; i < ARRAY_SIZE(handles); i++)
		assert_int_equal(agent_handle(value(handles[i]), &handle, &e), -EBADMSG);
	str_puts(&out, ">");
	assert_ok(agent_read(value("{\"count\":5,\"buf-b64\":\"aGVsbG8=\",\"eof\":false}"), &out, &e), &e);
	assert_ok(agent_read(value("{\"count\":0,\"eof\":true}"), &out, &e), &e);
	assert_string_equal(str_text(&out), ">hello");
	static const char *const reads[] = { "{}",
					     "[]",
					     "7",
					     "{\"count\":4,\"buf-b64\":\"aGVsbG8=\"}",
					     "{\"count\":6,\"buf-b64\":\"aGVsbG8=\"}",
					     "{\"count\":5,\"buf-b64\":5}",
					     "{\"count\":5}",
					     "{\"count\":49153,\"buf-b64\":\"\"}",
					     "{\"count\":\"5\",\"buf-b64\":\"aGVsbG8=\"}",
					     "{\"count\":5,\"buf-b64\":\"aGVsbG8\"}" };
	for (size_t i = 0; i < ARRAY_SIZE(reads); i++)
		assert_int_equal(agent_read(value(reads[i]), &out, &e), -EBADMSG);
	assert_string_equal(str_text(&out), ">hello");
	assert_ok(agent_written(value("{\"count\":3}"), 5, &count, &e), &e);
	assert_int_equal(count, 3);
	assert_int_equal(agent_written(value("{\"count\":6}"), 5, &count, &e), -EBADMSG);
	assert_int_equal(agent_written(value("{\"count\":0}"), 5, &count, &e), -EBADMSG);
	str_done(&out);
}

static int status_of(const char *text)
{
	struct agent_status s;

	return agent_status(value(text), &s, &e) < 0 ? -1 : s.exited ? s.status : -2;
}

static void test_programs(void **state)
{
	uint64_t pid = 0;

	(void)state;
	assert_ok(agent_pid(value("{\"pid\":7}"), &pid, &e), &e);
	assert_int_equal(pid, 7);
	assert_int_equal(agent_pid(value("{\"pid\":\"7\"}"), &pid, &e), -EBADMSG);
	assert_int_equal(status_of("{\"exited\":false}"), -2);
	assert_int_equal(status_of("{\"exited\":true,\"exitcode\":2}"), 2);
	assert_int_equal(status_of("{\"exited\":true,\"exitcode\":256}"), 255);
	assert_int_equal(status_of("{\"exited\":true,\"signal\":9}"), 137);
	assert_int_equal(status_of("{\"exited\":true}"), 255);
	assert_int_equal(status_of("{\"exited\":1}"), -1);
	assert_int_equal(status_of("{}"), -1);
}

static void test_words(void **state)
{
	static const struct {
		const char *said;
		int number;
	} rows[] = { { "tar: x: Cannot stat: No such file or directory\n", ENOENT },
		     { "tar: write error: No space left on device", ENOSPC },
		     { "tar: can't open 'x': Permission denied", EACCES },
		     { "tar: can't change directory to 'x': Not a directory", EBUSY },
		     { "\001\377 what", EIO },
		     { "", EIO } };
	struct str said = { 0 };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		str_clear(&said);
		str_puts(&said, rows[i].said);
		assert_int_equal(agent_tar_error(&said, &e), -rows[i].number);
	}
	str_clear(&said);
	str_puts(&said, "a\nb\001\033\n");
	assert_int_equal(agent_tar_error(&said, &e), -EIO);
	assert_string_equal(e.message, "in the guest, a b??");
	str_clear(&said);
	agent_quote(&said, "a\"b\\\nc");
	assert_string_equal(str_text(&said), "\"a\\u0022b\\u005c\\u000ac\"");
	str_done(&said);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_base64), cmocka_unit_test(test_files),
					    cmocka_unit_test(test_programs), cmocka_unit_test(test_words) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
