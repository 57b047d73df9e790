/* SPDX-License-Identifier: Apache-2.0 */
/* Every pair of wish and state, and every pair of states. */
#include "../test.h"

#include <string.h>

#include "model/assignment.h"

/* What an action leads to when all goes well; the transition table must permit each step of the way. */
static enum state after(enum action action, enum state s, enum wish w)
{
	switch (action) {
	case ACTION_STAGE:
		return STATE_STAGED;
	case ACTION_PREPARE:
		return STATE_PREPARED;
	case ACTION_START:
		return w == WISH_PAUSED ? STATE_PAUSED : STATE_RUNNING;
	case ACTION_PAUSE:
		return STATE_PAUSED;
	case ACTION_RESUME:
		return STATE_RUNNING;
	case ACTION_SUSPEND:
		return STATE_SUSPENDED;
	case ACTION_DISCARD:
	case ACTION_STOP:
		return STATE_STOPPED;
	case ACTION_REMOVE:
		return STATE_REMOVED;
	case ACTION_WAIT: /* the thing under way ends */
		return s == STATE_STARTING   ? STATE_RUNNING :
		       s == STATE_SUSPENDING ? STATE_SUSPENDED :
		       s == STATE_STOPPING   ? STATE_STOPPED :
					       STATE_REMOVED;
	default:
		return s;
	}
}

static bool reachable(enum state from, enum state to)
{
	if (state_may_follow(from, to))
		return true;
	for (int via = 0; via < STATE_COUNT; via++)
		if ((int)from != via && state_may_follow(from, (enum state)via) && state_may_follow((enum state)via, to))
			return true;
	return false;
}

static void every_wish_is_reached_from_every_state(void **state)
{
	(void)state;
	for (int w = 0; w < WISH_COUNT; w++) {
		for (int from = 0; from < STATE_COUNT; from++) {
			enum state s = (enum state)from;
			int steps = 0;
			for (; state_next_action((enum wish)w, s) != ACTION_NONE && steps < 8; steps++) {
				enum state next = after(state_next_action((enum wish)w, s), s, (enum wish)w);
				if (!reachable(s, next))
					fail_msg("wish %s: %s -> %s is not permitted", wish_names[w], state_names[s],
						 state_names[next]);
				s = next;
			}
			if (steps == 8)
				fail_msg("wish %s is never reached from %s", wish_names[w], state_names[from]);
		}
	}
}

static void states_end_only_in_removed(void **state)
{
	(void)state;
	for (int from = 0; from < STATE_COUNT; from++) {
		int followers = 0;
		for (int to = 0; to < STATE_COUNT; to++)
			followers += from != to && state_may_follow((enum state)from, (enum state)to);
		assert_true(state_may_follow((enum state)from, (enum state)from));
		assert_int_equal(followers == 0, from == STATE_REMOVED);
		if (from != STATE_REMOVED && from != STATE_REMOVING && from != STATE_DEFINED)
			assert_false(state_may_follow((enum state)from, STATE_DEFINED));
	}
	assert_true(state_is_live(STATE_PAUSED));
	assert_true(state_is_live(STATE_SUSPENDING));
	assert_false(state_is_live(STATE_STOPPED));
	assert_false(state_is_live(STATE_SUSPENDED));
	/* A suspend that fails goes back to where it came from, a resume that fails to the memory state. */
	assert_true(state_may_follow(STATE_SUSPENDING, STATE_RUNNING) && state_may_follow(STATE_SUSPENDING, STATE_PAUSED));
	assert_true(state_may_follow(STATE_STARTING, STATE_SUSPENDED));
	assert_false(state_may_follow(STATE_SUSPENDED, STATE_FAILED));
}

/* What the wish is decides whether memory is given up: never on the way to a living workspace, and never by a wish for less. */
static void memory_is_given_up_only_when_asked(void **state)
{
	(void)state;
	for (int w = 0; w < WISH_COUNT; w++) {
		enum action a = state_next_action((enum wish)w, STATE_SUSPENDED);
		assert_int_equal(a == ACTION_DISCARD, w == WISH_STOPPED);
		assert_int_equal(a == ACTION_REMOVE, w == WISH_REMOVED);
		assert_int_equal(a == ACTION_START, w == WISH_RUNNING || w == WISH_PAUSED);
		for (int s = 0; s < STATE_COUNT; s++)
			assert_int_equal(state_next_action((enum wish)w, (enum state)s) == ACTION_SUSPEND,
					 w == WISH_SUSPENDED && (s == STATE_RUNNING || s == STATE_PAUSED));
	}
}

static void names_are_complete(void **state)
{
	(void)state;
	int n = 0;
	while (state_names[n])
		n++;
	assert_int_equal(n, STATE_COUNT);
	for (n = 0; wish_names[n];)
		n++;
	assert_int_equal(n, WISH_COUNT);
}

static void runs_and_generations(void **state)
{
	(void)state;
	struct assignment a = { .generation = 5, .wish = WISH_RUNNING, .run = 2 };
	struct report t = { .generation = 5, .state = STATE_RUNNING, .run = 1 };
	assert_int_equal(assignment_next_action(&a, &t), ACTION_STOP); /* restart: the old run goes first */
	t.state = STATE_STOPPED;
	assert_int_equal(assignment_next_action(&a, &t), ACTION_START);
	t.run = 2; /* this run has ended: it stays ended */
	assert_int_equal(assignment_next_action(&a, &t), ACTION_NONE);
	t.state = STATE_SUSPENDED; /* the same run goes on; a newer one begins anew */
	assert_int_equal(assignment_next_action(&a, &t), ACTION_START);
	t.run = 1;
	assert_int_equal(assignment_next_action(&a, &t), ACTION_DISCARD);
	t.state = STATE_SUSPENDING;
	assert_int_equal(assignment_next_action(&a, &t), ACTION_WAIT);
	t.run = 2;
	t.state = STATE_FAILED;
	assert_int_equal(assignment_next_action(&a, &t), ACTION_NONE);
	a.generation = 6; /* a new wish: try again */
	assert_int_equal(assignment_next_action(&a, &t), ACTION_STAGE);
	a.wish = WISH_REMOVED;
	t.generation = 6;
	assert_int_equal(assignment_next_action(&a, &t), ACTION_REMOVE);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(every_wish_is_reached_from_every_state),
					    cmocka_unit_test(states_end_only_in_removed),
					    cmocka_unit_test(memory_is_given_up_only_when_asked),
					    cmocka_unit_test(names_are_complete), cmocka_unit_test(runs_and_generations) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
