/* SPDX-License-Identifier: Apache-2.0 */
/* What CRIU is told, against a golden file (CARREL_GOLDEN=update writes it anew); the record; CRIU's messages. */
#include "../golden.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"
#include "engine/workspace/checkpoint.h"
#include "engine/workspace/checkpoint_ids.h"
#include "engine/workspace/checkpoint_program.h"

static struct err e;

static struct step steps[] = {
	{ STEP_MOUNT, 0, "proc", "/proc", "" },		    { STEP_HIDE, 0, "", "/proc/kcore", "" },	    { STEP_HIDE, 0, "",
	  "/sys/firmware", "" },
	{ STEP_MOUNT, 0, "cgroup2", "/sys/fs/cgroup", "" }, { STEP_DEVICE, 0, "", "/dev/null", "" },	    { STEP_CONSOLE, 0,
	  "", "/dev/console", "" },
	{ STEP_FIRST, 0, "/usr/libexec/carrel/carrel-first", PLAN_FIRST, "" }, { STEP_VOLUME, 0, "data", "/srv/my data", "" },
	{ STEP_DEVICE, 0, "", "/dev/full", "" },
};
static const struct plan plan = { .steps = steps, .step_count = ARRAY_SIZE(steps), .flags = PLAN_TERMINAL };

static const char mountinfo[] =
	"103 50 0:47 / / rw,relatime - overlay overlay rw,lowerdir=0\n"
	"78 103 0:42 / /proc rw,nosuid,nodev,noexec,relatime - proc none rw\n"
	"84 78 0:41 /none /proc/kcore ro - tmpfs carrel rw\n"
	"88 87 0:41 /nothing /sys/firmware ro - tmpfs carrel rw\n"
	"89 87 0:38 / /sys/fs/cgroup rw - cgroup2 none rw\n"
	"91 90 0:6 /null /dev/null rw,relatime - devtmpfs devtmpfs rw\n"
	"92 90 0:48 /0 /dev/console rw - devpts devpts rw\n"
	"93 90 8:1 /usr/libexec/carrel/carrel-first /dev/.first ro - ext4 /dev/sda1 rw\n"
	"94 103 7:2 /data /srv/my\\040data rw,nosuid,nodev - ext4 /dev/loop2 rw\n";

static void describe(const struct checkpoint_options *o, struct str *out)
{
	for (size_t i = 0; i < o->count; i++) {
		const struct checkpoint_option *x = &o->items[i];
		if (!x->text)
			str_printf(out, "%s %" PRId64 "\n", x->name, x->number);
		else if (str_eq(x->name, "inherit_fd"))
			str_printf(out, "%s %s %" PRId64 "\n", x->name, x->text, x->number);
		else
			str_printf(out, "%s %s\n", x->name, x->text);
	}
}

static void make(struct checkpoint *c)
{
	static pid_t processes[] = { 1, 17 };

	*c = (struct checkpoint){ .pipes = { 0, 11, 12 }, .terminal_device = 0x8800, .terminal_file = 0x29 };
	assert_ok(checkpoint_find_mounts(&plan, mountinfo, c, &e), &e);
	(void)checkpoint_add_cgroup(c, "");
	struct checkpoint_cgroup *g = checkpoint_add_cgroup(c, "/system.slice/a b.service");
	g->mode = 0755;
	g->theirs = true;
	free(g->subtree);
	g->subtree = mem_strdup("memory pids");
	for (size_t i = 0; i < ARRAY_SIZE(processes); i++) {
		MEM_PUSH_ROOM(g->processes, g->process_count, g->process_room);
		g->processes[g->process_count++] = processes[i];
	}
}

static void test_golden(void **state)
{
	const struct checkpoint_how how = { .folder_fd = 5, .pid = 4711,
					    .freeze_folder = "/sys/fs/cgroup/unified/carrel/0123456789abcdef",
					    .scratch = "/tmp", .streams = { 4, 5, 6 }, .terminal = 7, .seconds = 300 };
	own_strbuf struct str text = { 0 };
	struct checkpoint_options o;
	struct checkpoint c;

	(void)state;
	make(&c);
	str_puts(&text, "--- record\n");
	checkpoint_encode(&c, &text);
	str_puts(&text, "--- dump\n");
	checkpoint_dump_options(&c, &how, &o);
	describe(&o, &text);
	checkpoint_options_done(&o);
	str_puts(&text, "--- restore\n");
	checkpoint_restore_options(&c, &how, &o);
	describe(&o, &text);
	checkpoint_options_done(&o);
	checkpoint_done(&c);
	assert_golden(str_text(&text), "engine/golden/checkpoint.txt");
}

static void test_record_comes_back(void **state)
{
	own_strbuf struct str text = { 0 }, again = { 0 };
	struct checkpoint c, d;

	(void)state;
	make(&c);
	checkpoint_encode(&c, &text);
	assert_ok(checkpoint_decode(text.bytes, text.length, &d, &e), &e);
	checkpoint_encode(&d, &again);
	assert_string_equal(str_text(&text), str_text(&again));
	d.pipes[1] = d.pipes[2] = 0;
	assert_ok(checkpoint_check(&d, &plan, &e), &e);
	checkpoint_done(&c);
	checkpoint_done(&d);
}

/* A record may come from anywhere: it gets nothing that the plan does not give. */
static void test_hostile_records(void **state)
{
	static const char *const broken[] = { "", "carrel", "carrel checkpoint 1\nmount", "carrel checkpoint 1\nmount device "
											  "dev/null\n",
					      "carrel checkpoint 1\nmount nonsense /x\n", "carrel checkpoint 1\ncgroup 755 "
					      "theirs /../x\n",
					      "carrel checkpoint 1\ncgroup 755 theirs /..\n", "carrel checkpoint 1\ncgroup "
					      "7777 theirs /a\n",
					      "carrel checkpoint 1\nprocess 1\n", "carrel checkpoint 1\nsource /etc\n",
					      "carrel checkpoint 1\npipe 3 1\n",
					      "carrel checkpoint 1\ncgroup 755 theirs \nprocess -4\n" };
	static const char *const foreign[] = { "mount device /dev/sda\n", "mount host /etc\nsource /etc\n",
					       "mount volume /srv/my data\nsource other\n", "mount first /bin/sh\n",
					       "pipe 1 12\n" };
	struct checkpoint c;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(broken); i++)
		assert_int_equal(checkpoint_decode(broken[i], strlen(broken[i]), &c, &e), -EBADMSG);
	assert_int_equal(checkpoint_decode("carrel checkpoint 1\nmount device /dev\0/null\n", 42, &c, &e), -EBADMSG);
	for (size_t i = 0; i < ARRAY_SIZE(foreign); i++) {
		own_str char *text = mem_printf("carrel checkpoint 1\n%s", foreign[i]);
		assert_ok(checkpoint_decode(text, strlen(text), &c, &e), &e);
		assert_int_equal(checkpoint_check(&c, &plan, &e), -EBUSY);
		checkpoint_done(&c);
	}
}

/* Bytes as protoc makes them from rpc.proto. */
static void test_requests(void **state)
{
	static const unsigned char expected[] = { 0x08, 0x02, 0x12, 0x1a, 0x08, 0x05, 0x6a, 0x04, '/', 'a',
						  '/',  'b',  0xda, 0x01, 0x0d, 0x0a, 0x09, 'p',  'i', 'p',
						  'e',  ':',  '[',  '1',  '1',  ']',  0x10, 0x04 };
	own_strbuf struct str out = { 0 };
	struct checkpoint_options o = { 0 };

	(void)state;
	checkpoint_options_number(&o, "images_dir_fd", 5);
	checkpoint_options_text(&o, "root", mem_strdup("/a/b"), 0);
	checkpoint_options_text(&o, "inherit_fd", mem_strdup("pipe:[11]"), 4);
	assert_ok(checkpoint_encode_request(CHECKPOINT_RESTORE, &o, &out, &e), &e);
	/* the options are 24 bytes long */
	assert_int_equal(out.length, sizeof expected);
	assert_memory_equal(out.bytes + 4, expected + 4, sizeof expected - 4);
	checkpoint_options_done(&o);
	checkpoint_options_number(&o, "no-such-option", 1);
	assert_int_equal(checkpoint_encode_request(CHECKPOINT_DUMP, &o, &out, &e), -EIO);
	checkpoint_options_done(&o);
}

static void test_answers(void **state)
{
	static const unsigned char notify[] = { 0x08, 0x06, 0x10, 0x01, 0x2a, 0x15, 0x0a, 0x10, 's', 'e', 't',  'u',  'p', '-',
						'n',  'a',  'm',  'e',  's',  'p',  'a',  'c',  'e', 's', 0x10, 0xd2, 0x09 };
	static const unsigned char refused[] = { 0x08, 0x01, 0x10, 0x00, 0x38, 0x0d, 0x4a, 0x02, 'n', 'o' };
	static const unsigned char version[] = { 0x08, 0x0a, 0x10, 0x01, 0x52, 0x06, 0x08, 0x04, 0x10, 0x02, 0x20, 0x01 };
	struct checkpoint_answer a;

	(void)state;
	assert_ok(checkpoint_decode_answer(notify, sizeof notify, &a, &e), &e);
	assert_int_equal(a.type, CHECKPOINT_NOTIFY);
	assert_string_equal(a.script, "setup-namespaces");
	assert_int_equal(a.pid, 1234);
	assert_ok(checkpoint_decode_answer(refused, sizeof refused, &a, &e), &e);
	assert_false(a.success);
	assert_int_equal(a.number, 13);
	assert_string_equal(a.message, "no");
	assert_ok(checkpoint_decode_answer(version, sizeof version, &a, &e), &e);
	assert_int_equal(a.major * 100 + a.minor * 10 + a.sublevel, 421);
	for (size_t n = 1; n < sizeof notify; n++)
		if (n != 2 && n != 4)
			assert_int_equal(checkpoint_decode_answer(notify, n, &a, &e), -EBADMSG);
}

static void test_log(void **state)
{
	static const char log[] =
		"(00.01) Error (criu/util.c:1534): rlimit: Can't setup RLIMIT_NOFILE for self: Operation not permitted\n"
		"(00.02) Warn  (criu/mount.c:1267): mnt: Can't create\n"
		"(00.03) Error (criu/namespaces.c:1): Can't dump nested uts namespace for 21602\n"
		"(00.04) Error (criu/cr-dump.c:1): Dumping FAILED.\n";
	char line[64];

	(void)state;
	assert_true(checkpoint_log_error(log, line, sizeof line));
	assert_string_equal(line, "Can't dump nested uts namespace for 21602");
	assert_int_equal(checkpoint_explain(line, "suspend", &e), -EOPNOTSUPP);
	assert_non_null(strstr(e.message, "namespaces of its own"));
	assert_false(checkpoint_log_error("all is well\n", line, sizeof line));
}

/* CRIU 4.2 wrote it. */
static void test_ids(void **state)
{
	static const char written[] = "\x19\x43\x56\x54\x06\x49\x47\x55\x1c\0\0\0"
				      "\x0a\x0c\x08\0\x10\x80\x80\x9c\xf8\x05\x18\x80\x80\x04"
				      "\x12\x0c\x08\0\x10\x80\x80\x9c\xf8\x05\x18\x80\x80\x04";
	own_strbuf struct str was = { 0 }, small = { 0 }, back = { 0 };
	uint32_t first = 0x5f070000;

	str_add(&was, written, sizeof written - 1);
	assert_ok(checkpoint_ids_move(&was, 65536, &small, &e), &e);
	assert_int_equal(small.length, was.length - 4);
	assert_ok(checkpoint_ids_move(&small, first, &back, &e), &e);
	assert_int_equal(back.length, was.length);
	assert_memory_equal(back.bytes, was.bytes, was.length);
	for (size_t i = 0; i < was.length; i++) { /* any other byte is noticed, but for those of both numbers alike */
		own_strbuf struct str other = { 0 }, out = { 0 };
		str_add(&other, was.bytes, was.length);
		other.bytes[i] = (char)(other.bytes[i] ^ 1);
		assert_int_equal(checkpoint_ids_move(&other, first, &out, &e), -EBADMSG);
		str_drop_front(&other, 1);
		assert_int_equal(checkpoint_ids_move(&other, first, &out, &e), -EBADMSG);
	}
	(void)state;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_golden),
		cmocka_unit_test(test_ids),          cmocka_unit_test(test_record_comes_back),
		cmocka_unit_test(test_hostile_records), cmocka_unit_test(test_requests),
		cmocka_unit_test(test_answers),         cmocka_unit_test(test_log),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
