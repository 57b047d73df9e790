/* SPDX-License-Identifier: Apache-2.0 */
/* The decision for every pair of wish and state: it follows the matrix of model/state.c but where data or a dead runner come
 * first. */
#include "../test.h"
#include "node/task.h"

#include <stdlib.h>

#include "base/mem.h"
#include "base/own.h"

static struct spec spec;
static struct report report;
static struct truth truth;
static struct assignment wish;
static struct task_view view;

static int setup(void **unused)
{
	(void)unused;
	spec = (struct spec){ 0 };
	report = (struct report){ .generation = 1, .run = 1, .exit_status = FIELD_NO_PRESET };
	free(truth.sizes);
	truth = (struct truth){ .report = &report };
	wish = (struct assignment){ .generation = 1, .run = 1, .spec = &spec };
	view = (struct task_view){ .wish = &wish, .truth = &truth };
	truth.sizes = spec_sizes(&spec);
	return 0;
}

static enum task next(enum wish w, enum state s)
{
	wish.wish = w;
	report.state = s;
	return task_next(&view);
}

static void test_every_pair(void **unused)
{
	static const enum task of_action[] = { TASK_NONE,    TASK_STAGE,   TASK_PREPARE, TASK_START,  TASK_PAUSE, TASK_RESUME,
					       TASK_SUSPEND, TASK_DISCARD, TASK_STOP,	 TASK_REMOVE, TASK_NONE };

	(void)unused;
	for (int w = 0; w < WISH_COUNT; w++)
		for (int s = 0; s < STATE_COUNT; s++) {
			wish.wish = (enum wish)w;
			report.state = (enum state)s;
			enum action action = assignment_next_action(&wish, &report);
			if (task_next(&view) != of_action[action])
				fail_msg("%s, %s: %s", wish_names[w], state_names[s], task_names[task_next(&view)]);
		}
}

static void test_a_dead_runner_comes_first(void **unused)
{
	(void)unused;
	view.runner_gone = true;
	for (int w = 0; w < WISH_COUNT; w++)
		for (int s = 0; s < STATE_COUNT; s++)
			assert_int_equal(next((enum wish)w, (enum state)s) == TASK_REAP, state_is_live((enum state)s));
	truth.restart_waits = true; /* there is no runner to be gone */
	assert_int_equal(next(WISH_RUNNING, STATE_STARTING), TASK_NONE);
}

static void test_a_restart_waits_for_its_time(void **unused)
{
	(void)unused;
	truth.restart_waits = true;
	assert_int_equal(next(WISH_RUNNING, STATE_STARTING), TASK_NONE);
	view.restart_due = true;
	assert_int_equal(next(WISH_RUNNING, STATE_STARTING), TASK_START);
	assert_int_equal(next(WISH_STOPPED, STATE_STARTING), TASK_STOP);
	assert_int_equal(next(WISH_REMOVED, STATE_STARTING), TASK_STOP);
}

static void test_another_engine_is_a_stop_and_a_start(void **unused)
{
	(void)unused;
	report.engine = (char[]){ "workspace" };
	spec.engine = ENGINE_EMULATOR;
	assert_int_equal(next(WISH_RUNNING, STATE_RUNNING), TASK_NONE); /* without a newer run the next start does it */
	wish.run = 2;
	assert_int_equal(next(WISH_RUNNING, STATE_RUNNING), TASK_STOP);
	assert_int_equal(next(WISH_PAUSED, STATE_PAUSED), TASK_STOP);
	assert_int_equal(next(WISH_RUNNING, STATE_STOPPED), TASK_START);
	truth.gave_up = 1; /* this host cannot start it: it runs on */
	assert_int_equal(next(WISH_RUNNING, STATE_RUNNING), TASK_NONE);
	assert_int_equal(next(WISH_STOPPED, STATE_RUNNING), TASK_STOP);
}

static void test_data_only_at_rest(void **unused)
{
	struct assignment_snapshot one = { (char[]){ "0123456789abcdef" }, (char[]){ "one" } };

	(void)unused;
	wish.snapshots = (struct objects){ &one, 1 };
	assert_int_equal(next(WISH_STOPPED, STATE_STOPPED), TASK_SNAPSHOT);
	assert_int_equal(next(WISH_PAUSED, STATE_PAUSED), TASK_SNAPSHOT);
	assert_int_equal(next(WISH_RUNNING, STATE_RUNNING), TASK_NONE);
	assert_int_equal(next(WISH_REMOVED, STATE_STOPPED), TASK_REMOVE);
	texts_add(&report.snapshots, "ffffffffffffffff"); /* one that is not wanted goes at any time */
	assert_int_equal(next(WISH_RUNNING, STATE_RUNNING), TASK_SNAPSHOT);
	texts_done(&report.snapshots);
	wish.restore = 1;
	assert_int_equal(next(WISH_STOPPED, STATE_STOPPED), TASK_RESTORE);
	assert_int_equal(next(WISH_PAUSED, STATE_PAUSED), TASK_SNAPSHOT);
	wish.run = 2; /* a restore comes before the start that is wanted too */
	assert_int_equal(next(WISH_RUNNING, STATE_STOPPED), TASK_RESTORE);
	truth.gave_up = 1;
	assert_int_equal(next(WISH_RUNNING, STATE_STOPPED), TASK_START);
	truth.gave_up = 0; /* volumes that memory goes with stay as they are */
	assert_int_equal(next(WISH_SUSPENDED, STATE_SUSPENDED), TASK_SNAPSHOT);
	wish.restore = wish.snapshots.count = 0;
	struct spec_resources more = { .cpu_milli = 500 };
	spec.resources = &more;
	assert_int_equal(next(WISH_STOPPED, STATE_STOPPED), TASK_RESIZE);
	assert_int_equal(next(WISH_RUNNING, STATE_STOPPED), TASK_START); /* which brings the sizes about */
	assert_int_equal(next(WISH_SUSPENDED, STATE_SUSPENDED), TASK_RESIZE);
	own_str char *sizes = spec_sizes(&spec), *suspended = mem_printf("suspended %s", sizes), *before = truth.sizes;
	truth.sizes = suspended;
	assert_int_equal(next(WISH_SUSPENDED, STATE_SUSPENDED), TASK_NONE);
	report.run = wish.run;
	assert_int_equal(next(WISH_RUNNING, STATE_SUSPENDED), TASK_START);
	assert_int_equal(next(WISH_RUNNING, STATE_RUNNING), TASK_RESIZE);
	truth.sizes = TAKE(before);
	truth.gave_up = 1;
	assert_int_equal(next(WISH_RUNNING, STATE_RUNNING), TASK_NONE);
}

static void test_a_stop_is_said_again_for_a_newer_wish(void **unused)
{
	(void)unused;
	assert_int_equal(next(WISH_STOPPED, STATE_STOPPING), TASK_NONE);
	wish.generation = 2;
	assert_int_equal(next(WISH_STOPPED, STATE_STOPPING), TASK_STOP);
}

static void test_restart_policy(void **unused)
{
	(void)unused;
	wish.wish = WISH_RUNNING;
	report.state = STATE_RUNNING;
	assert_false(task_wants_restart(&wish, &truth, 1));
	spec.restart = RESTART_ON_FAILURE;
	assert_true(task_wants_restart(&wish, &truth, 1));
	assert_false(task_wants_restart(&wish, &truth, 0));
	spec.restart = RESTART_ALWAYS;
	assert_true(task_wants_restart(&wish, &truth, 0));
	report.state = STATE_STOPPING;
	assert_false(task_wants_restart(&wish, &truth, 0));
	report.state = STATE_RUNNING;
	wish.run = 2;
	assert_false(task_wants_restart(&wish, &truth, 0));
	assert_true(task_restart_delay_ms(0) < task_restart_delay_ms(3));
	assert_int_equal(task_restart_delay_ms(100), 60000);
}

#define TEST(name) cmocka_unit_test_setup(name, setup)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_every_pair),
		TEST(test_a_dead_runner_comes_first),
		TEST(test_a_restart_waits_for_its_time),
		TEST(test_data_only_at_rest),
		TEST(test_another_engine_is_a_stop_and_a_start),
		TEST(test_a_stop_is_said_again_for_a_newer_wish),
		TEST(test_restart_policy),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
