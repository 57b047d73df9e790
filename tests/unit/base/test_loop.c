/* SPDX-License-Identifier: Apache-2.0 */
#include "../test.h"

#include <dirent.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "base/loop.h"
#include "base/mem.h"

struct seen {
	struct loop *loop;
	char order[64];
	struct loop_source *other;
	int fd, count;
};

static void note(struct seen *s, char c)
{
	size_t n = strlen(s->order);
	s->order[n] = c;
	s->order[n + 1] = '\0';
}

static void on_a(void *data) { note(data, 'a'); }
static void on_b(void *data) { note(data, 'b'); }
static void on_stop(void *data)
{
	struct seen *s = data;
	note(s, '.');
	loop_stop(s->loop);
}

static void on_remove_other(void *data)
{
	struct seen *s = data;
	note(s, 'r');
	loop_remove(s->other);
}

static void timers_run_in_order(void **state)
{
	(void)state;
	struct err e;
	struct seen s = { .loop = loop_new() };
	struct loop_source *never = loop_add_timer(s.loop, 2, on_b, &s);
	(void)loop_add_timer(s.loop, 8, on_stop, &s);
	(void)loop_add_timer(s.loop, 3, on_b, &s);
	(void)loop_add_timer(s.loop, 1, on_a, &s);
	s.other = loop_add_timer(s.loop, 6, on_b, &s);
	(void)loop_add_timer(s.loop, 5, on_remove_other, &s);
	loop_remove(never);
	assert_ok(loop_run(s.loop, &e), &e);
	assert_string_equal(s.order, "abr.");
	loop_free(s.loop);
}

static void many_timers_keep_the_heap(void **state)
{
	(void)state;
	struct err e;
	struct seen s = { .loop = loop_new() };
	struct loop_source *timers[500];
	for (unsigned i = 0; i < 500; i++)
		timers[i] = loop_add_timer(s.loop, 100000 + (i * 7919) % 1000, on_a, &s);
	for (unsigned i = 0; i < 500; i += 2)
		loop_remove(timers[(i * 31) % 500]);
	(void)loop_add_timer(s.loop, 1, on_stop, &s);
	assert_ok(loop_run(s.loop, &e), &e);
	assert_string_equal(s.order, ".");
	loop_free(s.loop);
}

static void on_readable(void *data, uint32_t events)
{
	struct seen *s = data;
	char c;
	assert_true(events & EPOLLIN);
	assert_int_equal(read(s->fd, &c, 1), 1);
	note(s, c);
	if (c == 'z') {
		loop_remove(s->other);
		loop_stop(s->loop);
	}
}

static void descriptors_call_back_until_removed(void **state)
{
	(void)state;
	struct err e;
	int pair[2];
	assert_int_equal(pipe(pair), 0);
	struct seen s = { .loop = loop_new(), .fd = pair[0] };
	s.other = loop_add_fd(s.loop, pair[0], EPOLLIN, on_readable, &s);
	assert_int_equal(write(pair[1], "xyz!", 4), 4);
	assert_ok(loop_run(s.loop, &e), &e);
	assert_string_equal(s.order, "xyz");
	loop_free(s.loop);
	(void)close(pair[0]);
	(void)close(pair[1]);
}

static void on_posted(void *data)
{
	struct seen *s = data;
	if (++s->count == 1000)
		loop_stop(s->loop);
}

static void *poster(void *data)
{
	struct seen *s = data;
	for (int i = 0; i < 500; i++)
		loop_post(s->loop, on_posted, s);
	return NULL;
}

static void other_threads_may_post(void **state)
{
	(void)state;
	struct err e;
	struct seen s = { .loop = loop_new() };
	pthread_t threads[2];
	for (int i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, poster, &s), 0);
	assert_ok(loop_run(s.loop, &e), &e);
	for (int i = 0; i < 2; i++)
		(void)pthread_join(threads[i], NULL);
	assert_int_equal(s.count, 1000);
	loop_free(s.loop);
}

static void signals_arrive_as_events(void **state)
{
	(void)state;
	struct err e;
	struct seen s = { .loop = loop_new() };
	struct loop_source *source = loop_add_signal(s.loop, SIGUSR1, on_stop, &s);
	assert_int_equal(kill(getpid(), SIGUSR1), 0);
	assert_ok(loop_run(s.loop, &e), &e);
	assert_string_equal(s.order, ".");
	loop_remove(source);
	loop_free(s.loop);
}

static size_t open_descriptors(void)
{
	size_t count = 0;
	DIR *dir = opendir("/proc/self/fd");

	assert_non_null(dir);
	while (readdir(dir))
		count++;
	(void)closedir(dir);
	return count;
}

static void a_loop_takes_its_sources_along(void **state)
{
	(void)state;
	size_t before = open_descriptors();
	int pair[2];
	struct seen s = { .loop = loop_new() };

	assert_int_equal(pipe(pair), 0);
	(void)loop_add_signal(s.loop, SIGUSR2, on_stop, &s);
	struct loop_source *middle = loop_add_fd(s.loop, pair[0], EPOLLIN, on_readable, &s);
	(void)loop_add_timer(s.loop, 1000, on_stop, &s);
	(void)loop_add_signal(s.loop, SIGUSR1, on_stop, &s);
	loop_remove(middle);
	loop_free(s.loop);
	(void)close(pair[0]);
	(void)close(pair[1]);
	assert_int_equal(open_descriptors(), before);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(timers_run_in_order),
					    cmocka_unit_test(many_timers_keep_the_heap),
					    cmocka_unit_test(descriptors_call_back_until_removed),
					    cmocka_unit_test(other_threads_may_post),
					    cmocka_unit_test(signals_arrive_as_events),
					    cmocka_unit_test(a_loop_takes_its_sources_along) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
