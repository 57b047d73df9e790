/* SPDX-License-Identifier: Apache-2.0 */
/* The runner's side of a machine's channel, and a guest that lies and floods, played here over a socket pair. */
#include "../test.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/mem.h"
#include "runner/machine_channel.h"
#include "runner/session.h"

static struct err e;

struct play {
	struct loop *loop;
	struct channel *channel;
	struct session *opened;
	int other;                /* the guest's end */
	uint32_t session, stream; /* numbers that the guest learned */
	int hellos, states, answers, result, ends, status;
	uint64_t accepted;
	struct str flood;
	struct guest_reader reader;
	uint32_t credit; /* that the guest got back */
};

static void on_hello(void *data, const struct guest_hello *h)
{
	(void)h;
	((struct play *)data)->hellos++;
}

static void on_state(void *data, const struct guest_state *s)
{
	(void)s;
	((struct play *)data)->states++;
}

static void on_answer(void *data, int result, const struct err *why)
{
	struct play *p = data;

	(void)why;
	p->answers++;
	p->result = result;
}

static void on_end(void *data, struct session *s, int status)
{
	struct play *p = data;

	(void)s;
	p->ends++;
	p->status = status;
}

static void stop(void *data) { loop_stop(((struct play *)data)->loop); }

static void run(struct play *p, uint64_t ms)
{
	(void)loop_add_timer(p->loop, ms, stop, p);
	assert_ok(loop_run(p->loop, &e), &e);
}

/* What the host said so far: its session's number, the last stream it opened, credit. */
static void listen_to_host(struct play *p)
{
	struct guest_frame f;
	char bytes[65536];
	ssize_t n;

	while ((n = recv(p->other, bytes, sizeof bytes, MSG_DONTWAIT)) > 0)
		guest_reader_add(&p->reader, bytes, (size_t)n);
	while (guest_reader_next(&p->reader, &f)) {
		p->session = f.session;
		if (f.type == GUEST_OPEN)
			p->stream = f.number;
		if (f.type == GUEST_CREDIT)
			p->credit += guest_get_u32(f.payload);
	}
}

static void begin(struct play *p)
{
	const struct channel_events events = { on_hello, on_state, p };
	int pair[2];

	*p = (struct play){ .loop = loop_new() };
	guest_reader_init(&p->reader, GUEST_PAYLOAD_LONGEST);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
	p->other = pair[1];
	p->channel = channel_new(p->loop, pair[0], &events);
	listen_to_host(p);
	assert_int_not_equal(p->session, 0);
}

static void end(struct play *p)
{
	channel_free(p->channel);
	if (p->opened)
		session_free(p->opened);
	loop_free(p->loop);
	guest_reader_done(&p->reader);
	str_done(&p->flood);
	(void)close(p->other);
}

static void say(struct play *p, uint32_t session, enum guest_type type, uint32_t number, const void *payload, size_t length)
{
	struct str frame = { 0 };

	guest_frame_put(&frame, session, type, number, payload, length);
	assert_int_equal(send(p->other, frame.bytes, frame.length, MSG_DONTWAIT), frame.length);
	str_done(&frame);
}

static void open_stream(struct play *p, int *ret_client)
{
	static char nothing[] = "", program[] = "true";
	char *words[] = { program, NULL };
	const struct guest_open o = { .kind = GUEST_EXEC, .user = nothing, .directory = nothing, .path = nothing, .command = { words, 1 } };
	const struct session_options how = { .streams = { -1, -1, -1, -1, -1 }, .patient = true, .single = true, .done = on_end, .data = p };
	int pair[2];

	p->opened = channel_open(p->channel, &o, &how, &e);
	assert_non_null(p->opened);
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
	session_add_client(p->opened, pair[0], false, 0, 0);
	*ret_client = pair[1];
	run(p, 10);
	listen_to_host(p);
	assert_int_not_equal(p->stream, 0);
}

/* --- lies --- */

static void nothing_follows_from_what_nobody_asked_for(void **state)
{
	static const uint8_t bytes[64] = { 1, 'x' }, broken[64] = { 3, 0, 0, 0, 0xff, 0xff, 0xff, 0xff };
	struct play p;

	(void)state;
	begin(&p);
	channel_request(p.channel, GUEST_PING, NULL, 0, 60000, on_answer, &p);
	listen_to_host(&p);
	for (uint32_t number = 2; number < 20; number++)
		say(&p, p.session, GUEST_ANSWER, number, NULL, 0); /* no such request */
	say(&p, p.session + 2, GUEST_ANSWER, 1, NULL, 0);          /* of another session */
	say(&p, p.session, GUEST_DATA, 7, bytes, sizeof bytes);
	say(&p, p.session, GUEST_CREDIT, 7, bytes, 4);
	say(&p, p.session, GUEST_CLOSE, 7, bytes, sizeof bytes);
	say(&p, p.session, GUEST_CONFIGURE, 1, bytes, sizeof bytes); /* the host's to say */
	say(&p, p.session, (enum guest_type)999, 1, bytes, sizeof bytes);
	say(&p, p.session, GUEST_STATE, 0, broken, sizeof broken); /* no state */
	say(&p, p.session, GUEST_HELLO, 0, broken, sizeof broken);
	run(&p, 20);
	assert_int_equal(p.answers, 0);
	assert_int_equal(p.hellos + p.states, 0);
	say(&p, p.session, GUEST_ANSWER, 1, NULL, 0);
	run(&p, 20);
	assert_int_equal(p.answers, 1);
	assert_int_equal(p.result, 0);
	say(&p, p.session, GUEST_ANSWER, 1, NULL, 0); /* once more */
	run(&p, 20);
	assert_int_equal(p.answers, 1);
	end(&p);
}

static void an_answer_that_cannot_be_read_is_a_failure(void **state)
{
	static const uint8_t bytes[64] = { 3, 0, 0, 0, 0xff, 0xff, 0xff, 0xff };
	struct play p;

	(void)state;
	begin(&p);
	channel_request(p.channel, GUEST_PING, NULL, 0, 60000, on_answer, &p);
	say(&p, p.session, GUEST_ANSWER, 1, bytes, sizeof bytes);
	run(&p, 20);
	assert_int_equal(p.answers, 1);
	assert_true(p.result < 0);
	end(&p);
}

/* A header that promises a gigabyte is noise; what is real behind it is found. */
static void lengths_beyond_the_limit_are_noise(void **state)
{
	static const uint32_t lengths[] = { GUEST_ANSWER_LONGEST + 1, 1u << 30, UINT32_MAX };
	struct play p;

	(void)state;
	begin(&p);
	channel_request(p.channel, GUEST_PING, NULL, 0, 60000, on_answer, &p);
	for (size_t i = 0; i < ARRAY_SIZE(lengths); i++) {
		struct str frame = { 0 };
		guest_frame_put(&frame, p.session, GUEST_ANSWER, 1, NULL, 0);
		memcpy(frame.bytes + 16, &lengths[i], 4);
		assert_int_equal(send(p.other, frame.bytes, frame.length, 0), frame.length);
		str_done(&frame);
	}
	say(&p, p.session, GUEST_ANSWER, 1, NULL, 0);
	run(&p, 20);
	assert_int_equal(p.answers, 1);
	end(&p);
}

static void more_than_its_credit_ends_a_stream(void **state)
{
	static uint8_t bytes[GUEST_DATA_LONGEST] = { 1 };
	struct play p;
	int client;

	(void)state;
	begin(&p);
	open_stream(&p, &client); /* whose client reads nothing */
	for (int i = 0; i < 400 && !p.ends; i++) {
		struct str frame = { 0 };
		guest_frame_put(&frame, p.session, GUEST_DATA, p.stream, bytes, sizeof bytes);
		for (size_t at = 0; at < frame.length;) {
			ssize_t n = send(p.other, frame.bytes + at, frame.length - at, MSG_DONTWAIT);
			at += n > 0 ? (size_t)n : 0;
			run(&p, 1);
		}
		str_done(&frame);
	}
	(void)close(client);
	run(&p, 20);
	assert_int_equal(p.ends, 1);
	end(&p);
}

static void data_of_wrong_channels_and_lengths_ends_a_stream(void **state)
{
	static const struct {
		uint8_t bytes[2];
		size_t length;
	} wrong[] = { { { 0, 'x' }, 2 }, { { 3, 'x' }, 2 }, { { 255, 'x' }, 2 }, { { 0 }, 0 } };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		struct play p;
		int client;
		begin(&p);
		open_stream(&p, &client);
		say(&p, p.session, GUEST_DATA, p.stream, wrong[i].bytes, wrong[i].length);
		say(&p, p.session, GUEST_DATA, p.stream, wrong[i].bytes, wrong[i].length); /* its end is no end of the channel */
		run(&p, 20);
		assert_int_equal(p.ends, 1);
		assert_int_equal(p.status, 125);
		(void)close(client);
		end(&p);
	}
}

static void a_second_end_is_none(void **state)
{
	struct guest_close c = { .exit_status = 1000000 };
	struct str payload = { 0 };
	struct play p;
	int client;

	(void)state;
	begin(&p);
	open_stream(&p, &client);
	guest_encode(&guest_close_shape, &c, &payload);
	for (int i = 0; i < 3; i++)
		say(&p, p.session, GUEST_CLOSE, p.stream, payload.bytes, payload.length);
	run(&p, 20);
	assert_int_equal(p.ends, 1);
	assert_int_equal(p.status, 255);
	str_done(&payload);
	(void)close(client);
	end(&p);
}

/* --- floods --- */

#define FLOOD_MS 600
#define FLOOD_MOST (2u << 20) /* six reads of 32 KiB, and what socket buffers hold; without a brake it is hundreds of megabytes */

static void pour(void *data)
{
	struct play *p = data;
	ssize_t n;

	for (int i = 0; i < 64 && (n = send(p->other, p->flood.bytes, p->flood.length, MSG_DONTWAIT)) > 0; i++)
		p->accepted += (uint64_t)n;
	(void)loop_add_timer(p->loop, 1, pour, p);
}

static void flood(struct play *p)
{
	size_t length = p->flood.length;
	char *one = mem_dup(p->flood.bytes, length);

	while (p->flood.length < 8192)
		str_add(&p->flood, one, length);
	free(one);
	pour(p);
	run(p, FLOOD_MS);
	assert_true(p->accepted < FLOOD_MOST);
}

static void floods_of_what_nobody_asked_for_are_slowed(void **state)
{
	static const struct {
		enum guest_type type;
		uint32_t session, number;
		size_t length;
	} kinds[] = { { GUEST_ANSWER, 0, 77, 8 }, { GUEST_DATA, 0, 77, 8 }, { GUEST_CREDIT, 0, 77, 4 }, { GUEST_HELLO, 0, 0, 0 },
		      { GUEST_STATE, 0, 0, 0 },   { GUEST_PING, 0, 77, 0 }, { GUEST_DATA, 2, 1, 8 } };
	static const uint8_t bytes[8] = { 1 };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		struct play p;
		begin(&p);
		guest_frame_put(&p.flood, p.session + kinds[i].session, kinds[i].type, kinds[i].number, bytes, kinds[i].length);
		flood(&p);
		end(&p);
	}
}

static void floods_of_noise_and_full_credit_are_slowed(void **state)
{
	static const uint8_t more[4] = { 0, 0x10 };
	struct play p;
	int client;

	(void)state;
	begin(&p);
	str_add(&p.flood, "nothing that has a mark. ", 25);
	flood(&p);
	end(&p);
	begin(&p);
	open_stream(&p, &client);
	guest_frame_put(&p.flood, p.session, GUEST_CREDIT, p.stream, more, sizeof more);
	flood(&p);
	(void)close(client);
	end(&p);
}

/* What is slowed is only slowed. */
static void an_answer_behind_a_flood_arrives(void **state)
{
	static const uint8_t bytes[8] = { 1 };
	struct play p;

	(void)state;
	begin(&p);
	channel_request(p.channel, GUEST_PING, NULL, 0, 60000, on_answer, &p);
	for (int i = 0; i < 200; i++)
		say(&p, p.session, GUEST_DATA, 77, bytes, sizeof bytes);
	say(&p, p.session, GUEST_ANSWER, 1, NULL, 0);
	for (int i = 0; i < 600 && !p.answers; i++)
		run(&p, 20);
	assert_int_equal(p.answers, 1);
	end(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nothing_follows_from_what_nobody_asked_for),
		cmocka_unit_test(an_answer_that_cannot_be_read_is_a_failure),
		cmocka_unit_test(lengths_beyond_the_limit_are_noise),
		cmocka_unit_test(more_than_its_credit_ends_a_stream),
		cmocka_unit_test(data_of_wrong_channels_and_lengths_ends_a_stream),
		cmocka_unit_test(a_second_end_is_none),
		cmocka_unit_test(floods_of_what_nobody_asked_for_are_slowed),
		cmocka_unit_test(floods_of_noise_and_full_credit_are_slowed),
		cmocka_unit_test(an_answer_behind_a_flood_arrives),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
