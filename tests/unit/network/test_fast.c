/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The programs of the fast path: their assembler, and what the kernel's own interpreter or compiler does with them, frame by
 * frame (BPF_PROG_TEST_RUN). Whole connections are in tests/e2e/test_fast.py.
 */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <linux/pkt_cls.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/mem.h"
#include "network/fast_kernel.h"

/* --- the assembler --- */

static void test_jumps_lead_to_their_labels(void **state)
{
	struct fast_program p = { 0 };
	struct err e;

	(void)state;
	fast_jump_if_value(&p, BPF_JEQ, BPF_REG_1, 7, 1);
	fast_set(&p, BPF_REG_0, 1);
	fast_jump(&p, 2);
	fast_label(&p, 1);
	fast_map(&p, BPF_REG_2, 5); /* two places long */
	fast_label(&p, 2);
	fast_leave(&p, -1);
	assert_int_equal(fast_program_end(&p, &e), 0);
	assert_int_equal(p.count, 7);
	assert_int_equal(p.at[0].off, 2);
	assert_int_equal(p.at[2].off, 2);
	assert_int_equal(p.at[3].src_reg, BPF_PSEUDO_MAP_FD);
	assert_int_equal(p.at[6].code, BPF_JMP | BPF_EXIT);
}

static void test_wrong_programs_are_refused(void **state)
{
	struct fast_program nowhere = { 0 }, twice = { 0 }, back = { 0 }, longest = { 0 }, other = { 0 };
	struct err e;

	(void)state;
	fast_jump(&nowhere, 1);
	fast_leave(&nowhere, 0);
	assert_true(fast_program_end(&nowhere, &e) < 0);
	fast_set(&twice, 0, 0);
	fast_label(&twice, 1);
	fast_leave(&twice, 0);
	fast_label(&twice, 1);
	fast_leave(&twice, 0);
	assert_true(fast_program_end(&twice, &e) < 0);
	fast_set(&back, 0, 0);
	fast_label(&back, 1);
	fast_jump(&back, 1);
	assert_true(fast_program_end(&back, &e) < 0);
	for (int i = 0; i <= FAST_PROGRAM_MOST; i++)
		fast_set(&longest, 0, 0);
	assert_true(fast_program_end(&longest, &e) < 0);
	fast_jump(&other, FAST_LABELS);
	assert_true(fast_program_end(&other, &e) < 0);
}

/* --- frames --- */

#define SENDER   "\x02\x00\x00\x00\x00\x0a"
#define GATE_IN  "\x02\xff\x00\x00\x00\x01"
#define GATE_OUT "\x02\xff\x00\x00\x00\x02"
#define RECEIVER "\x02\x00\x00\x00\x00\x0b"
#define HERE     1 /* lo */
#define MARK     10

struct world {
	struct fast_maps maps;
	int in, out;
	struct fast_key key;
	struct fast_flow flow;
	unsigned char frame[128];
	unsigned length;
	uint32_t mark;
};

static uint64_t now_ns(void)
{
	struct timespec t;
	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint16_t sum(const unsigned char *header)
{
	uint32_t total = 0;

	for (int i = 0; i < 20; i += 2)
		total += (uint32_t)(header[i] << 8 | header[i + 1]);
	total = (total >> 16) + (total & 0xffff);
	return (uint16_t)((total >> 16) + total);
}

/* A segment with 8 bytes from 10.0.0.1:1000 to 10.0.0.2:2000, or the same of IPv6 or UDP. */
static void fill(struct world *w, bool ipv6, unsigned protocol)
{
	unsigned char *f = w->frame, *ip = f + 14, *transport = ip + (ipv6 ? 40 : 20);

	memset(f, 0, sizeof w->frame);
	memcpy(f, GATE_IN SENDER, 12);
	memcpy(f + 12, ipv6 ? "\x86\xdd" : "\x08\x00", 2);
	w->length = 14 + (ipv6 ? 40 : 20) + (protocol == IPPROTO_TCP ? 20 : 8) + 8;
	w->key = (struct fast_key){ .protocol = (uint8_t)protocol,
				    .family = ipv6 ? 6 : 4,
				    .ports = { htons(1000), htons(2000) } };
	if (ipv6) {
		ip[0] = 0x60;
		ip[6] = (unsigned char)protocol;
		ip[7] = 64;
		memcpy(ip + 8, "\xfd\0\0\0\0\0\0\0\0\0\0\0\0\0\0\1\xfd\0\0\0\0\0\0\0\0\0\0\0\0\0\0\2", 32);
		memcpy(w->key.from, ip + 8, 32);
	} else {
		ip[0] = 0x45;
		ip[3] = (unsigned char)(w->length - 14);
		ip[8] = 64;
		ip[9] = (unsigned char)protocol;
		memcpy(ip + 12, "\x0a\0\0\1\x0a\0\0\2", 8);
		uint16_t check = (uint16_t)~sum(ip);
		ip[10] = (unsigned char)(check >> 8);
		ip[11] = (unsigned char)check;
		memcpy(w->key.from, ip + 12, 4);
		memcpy(w->key.to, ip + 16, 4);
	}
	memcpy(transport, w->key.ports, 4);
	if (protocol == IPPROTO_TCP)
		transport[13] = 0x10; /* ACK */
}

static void put(struct world *w)
{
	struct fast_flow ignored;

	if (fast_flow_take(&w->maps, &w->key, &ignored) < 0)
		memset(&ignored, 0, sizeof ignored);
	assert_int_equal(fast_flow_put(&w->maps, &w->key, &w->flow), 0);
}

static void begin(struct world *w, bool ipv6, unsigned protocol)
{
	fill(w, ipv6, protocol);
	w->mark = MARK;
	w->flow = (struct fast_flow){ .is = GATE_IN SENDER,
				      .becomes = { 0 },
				      .in_index = HERE,
				      .out_index = HERE,
				      .mark = MARK,
				      .until_ns = now_ns() + 1000000000000u };
	memcpy(w->flow.becomes, RECEIVER GATE_OUT, 12);
	put(w);
}

/* The program's answer; the frame is as it left it. */
static int run(struct world *w, int program, unsigned times)
{
	struct __sk_buff context = { .mark = w->mark, .ifindex = HERE };
	unsigned char out[sizeof w->frame];
	union bpf_attr a;

	memset(&a, 0, sizeof a);
	a.test.prog_fd = (uint32_t)program;
	a.test.data_in = (uintptr_t)w->frame;
	a.test.data_size_in = w->length;
	a.test.data_out = (uintptr_t)out;
	a.test.data_size_out = sizeof out;
	a.test.ctx_in = (uintptr_t)&context;
	a.test.ctx_size_in = sizeof context;
	a.test.repeat = times;
	if (syscall(SYS_bpf, BPF_PROG_TEST_RUN, &a, sizeof a) < 0)
		fail_msg("BPF_PROG_TEST_RUN: %s", strerrordesc_np(errno));
	memcpy(w->frame, out, w->length);
	return (int)a.test.retval;
}

static bool goes(struct world *w) { return run(w, w->in, 1) == TC_ACT_REDIRECT; }

static int set_up(void **state)
{
	struct world *w = mem_alloc(sizeof *w);
	struct fast_program p;
	struct err e = { 0 };

	*state = w;
	w->in = w->out = -1;
	if (geteuid() != 0 || unshare(CLONE_NEWNET) < 0)
		return 0;
	assert_int_equal(fast_maps_make(&w->maps, &e), 0);
	if (fast_compile_in(&p, &w->maps, &e) < 0 || fast_program_load(&p, "carrel_fast_in", &w->in, &e) < 0 ||
	    fast_compile_out(&p, &w->maps, &e) < 0 || fast_program_load(&p, "carrel_fast_out", &w->out, &e) < 0)
		print_message("# %s\n", e.message);
	return 0;
}

static int tear_down(void **state)
{
	struct world *w = *state;

	if (w->in >= 0) {
		(void)close(w->in);
		(void)close(w->out);
		fast_maps_close(&w->maps);
	}
	free(w);
	return 0;
}

static struct world *needs_kernel(void **state)
{
	struct world *w = *state;

	if (w->in < 0 || w->out < 0) {
		print_message("# programs for packets need root and a kernel with BPF\n");
		skip();
	}
	return w;
}

static void test_a_flow_goes_as_the_host_would_route_it(void **state)
{
	struct world *w = needs_kernel(state);
	static const unsigned protocols[] = { IPPROTO_TCP, IPPROTO_UDP };
	struct fast_flow flow;

	for (int ipv6 = 0; ipv6 < 2; ipv6++)
		for (size_t i = 0; i < ARRAY_SIZE(protocols); i++) {
			unsigned char before[sizeof w->frame];
			begin(w, ipv6, protocols[i]);
			memcpy(before, w->frame, sizeof before);
			assert_true(goes(w));
			assert_memory_equal(w->frame, RECEIVER GATE_OUT, 12);
			assert_int_equal(w->frame[14 + (ipv6 ? 7 : 8)], 63);
			if (!ipv6)
				assert_int_equal(sum(w->frame + 14), 0xffff);
			assert_memory_equal(w->frame + 26, before + 26, w->length - 26);
			assert_int_equal(fast_flow_get(&w->maps, &w->key, &flow), 0);
			assert_int_equal(flow.packets, 1);
			assert_int_equal(flow.bytes, w->length);
		}
}

/* The carry of the checksum, at every value that it can have. */
static void test_checksums_of_every_value(void **state)
{
	struct world *w = needs_kernel(state);

	for (unsigned id = 0; id < 0x10000; id += 251) {
		begin(w, false, IPPROTO_UDP);
		unsigned char *ip = w->frame + 14;
		ip[4] = (unsigned char)(id >> 8);
		ip[5] = (unsigned char)id;
		ip[10] = ip[11] = 0;
		uint16_t check = (uint16_t)~sum(ip);
		ip[10] = (unsigned char)(check >> 8);
		ip[11] = (unsigned char)check;
		assert_true(goes(w));
		assert_int_equal(sum(ip), 0xffff);
	}
}

static void change_mac(struct world *w) { w->frame[11] ^= 1; }
static void change_gate(struct world *w) { w->frame[5] ^= 1; }
static void change_broadcast(struct world *w) { memset(w->frame, 0xff, 6); }
static void change_from(struct world *w) { w->frame[w->key.family == 6 ? 14 + 23 : 14 + 15] ^= 8; }
static void change_to(struct world *w) { w->frame[w->key.family == 6 ? 14 + 39 : 14 + 19] ^= 8; }
static void change_port(struct world *w) { w->frame[14 + (w->key.family == 6 ? 40 : 20) + 3] ^= 1; }
static void change_ttl(struct world *w) { w->frame[14 + (w->key.family == 6 ? 7 : 8)] = 1; }
static void change_type(struct world *w)
{
	w->frame[12] = 0x81;
	w->frame[13] = 0;
}
static void change_protocol(struct world *w) { w->frame[14 + (w->key.family == 6 ? 6 : 9)] = IPPROTO_SCTP; }
static void change_options(struct world *w)
{
	w->frame[14] = w->key.family == 6 ? w->frame[14] : 0x46;
	w->frame[20] = w->key.family == 6 ? 0 : w->frame[20];
}
static void change_fragment(struct world *w)
{
	if (w->key.family == 4)
		w->frame[20] = 0x20;
	else
		w->frame[20] = IPPROTO_FRAGMENT;
}
static void change_last_fragment(struct world *w)
{
	if (w->key.family == 4)
		w->frame[21] = 0x10;
	else
		w->frame[20] = IPPROTO_FRAGMENT;
}
static void change_length(struct world *w) { w->length = 14 + (w->key.family == 6 ? 40 : 20) + 4; }
static void change_index(struct world *w)
{
	w->flow.in_index = HERE + 1;
	put(w);
}
static void change_lease(struct world *w)
{
	w->flow.until_ns = now_ns() - 10000000;
	put(w);
}
static void change_refused(struct world *w)
{
	w->flow.refused = 1;
	put(w);
}
static void change_closed(struct world *w)
{
	w->flow.closed = 1;
	put(w);
}
static void change_generation(struct world *w)
{
	w->flow.generation = 1;
	put(w);
}

/* Everything else takes the usual way, untouched, where the rules see it. */
static void test_everything_else_takes_the_usual_way(void **state)
{
	struct world *w = needs_kernel(state);
	static const struct {
		const char *what;
		void (*change)(struct world *w);
	} cases[] = {
		{ "another sender's MAC", change_mac },  { "not to the gate", change_gate },
		{ "to all", change_broadcast },          { "another sender", change_from },
		{ "another receiver", change_to },       { "another port", change_port },
		{ "a TTL that ends", change_ttl },       { "a VLAN", change_type },
		{ "another protocol", change_protocol }, { "options", change_options },
		{ "a first fragment", change_fragment }, { "a last fragment", change_last_fragment },
		{ "a short frame", change_length },      { "another interface", change_index },
		{ "a lease that ended", change_lease },  { "a refused flow", change_refused },
		{ "a closed flow", change_closed },      { "rules that changed", change_generation },
	};
	static const unsigned protocols[] = { IPPROTO_TCP, IPPROTO_UDP };

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		for (int ipv6 = 0; ipv6 < 2; ipv6++)
			for (size_t k = 0; k < ARRAY_SIZE(protocols); k++) {
				unsigned char before[sizeof w->frame];
				begin(w, ipv6, protocols[k]);
				cases[i].change(w);
				memcpy(before, w->frame, sizeof before);
				if (goes(w) || memcmp(before, w->frame, w->length) != 0)
					fail_msg("%s, IPv%d, protocol %u: went", cases[i].what, ipv6 ? 6 : 4, protocols[k]);
			}
}

static void test_fin_rst_and_syn_close(void **state)
{
	struct world *w = needs_kernel(state);
	static const unsigned char flags[] = { 0x11, 0x14, 0x02 };
	struct fast_flow flow;

	for (int ipv6 = 0; ipv6 < 2; ipv6++)
		for (size_t i = 0; i < sizeof flags; i++) {
			begin(w, ipv6, IPPROTO_TCP);
			unsigned char *flag = w->frame + 14 + (ipv6 ? 40 : 20) + 13;
			*flag = flags[i];
			assert_false(goes(w));
			assert_int_equal(fast_flow_get(&w->maps, &w->key, &flow), 0);
			assert_int_equal(flow.closed, 1);
			*flag = 0x10;
			assert_false(goes(w));
		}
	begin(w, false, IPPROTO_TCP);
	w->frame[14 + 20 + 13] = 0x11;
	change_mac(w); /* nobody else closes it */
	assert_false(goes(w));
	assert_int_equal(fast_flow_get(&w->maps, &w->key, &flow), 0);
	assert_int_equal(flow.closed, 0);
}

static void test_what_passed_the_rules_renews(void **state)
{
	struct world *w = needs_kernel(state);
	struct fast_flow flow;
	struct err e;

	begin(w, false, IPPROTO_TCP);
	assert_int_equal(fast_rules_put(&w->maps, 5, &e), 0);
	assert_false(goes(w));
	w->mark = MARK + 1;
	assert_int_equal(run(w, w->out, 1), -1);
	assert_false(goes(w)); /* not that sender */
	w->flow.out_index = HERE + 1;
	put(w);
	w->mark = MARK;
	assert_int_equal(run(w, w->out, 1), -1);
	assert_false(goes(w)); /* not that receiver */
	w->flow.out_index = HERE;
	put(w);
	assert_int_equal(run(w, w->out, 1), -1);
	assert_int_equal(fast_flow_get(&w->maps, &w->key, &flow), 0);
	assert_int_equal(flow.generation, 5);
	assert_true(flow.until_ns > now_ns() && flow.until_ns < now_ns() + 2 * (uint64_t)FAST_LEASE_NS);
	assert_true(goes(w));
	assert_int_equal(fast_rules_put(&w->maps, 0, &e), 0);
}

static void test_some_of_the_unknown_are_told(void **state)
{
	struct world *w = needs_kernel(state);
	struct fast_ring ring;
	struct fast_sample s;
	struct fast_flow flow;
	struct err e;
	int told = 0;

	begin(w, true, IPPROTO_UDP);
	assert_int_equal(fast_flow_take(&w->maps, &w->key, &flow), 0);
	assert_int_equal(fast_ring_open(w->maps.sample, &ring, &e), 0);
	fast_ring_skip(&ring);
	assert_int_equal(run(w, w->out, 64 * FAST_ONE_IN), -1);
	while (fast_ring_next(&ring, &s)) {
		assert_memory_equal(&s.key, &w->key, sizeof s.key);
		assert_int_equal(s.mark, MARK);
		assert_int_equal(s.out_index, HERE);
		told++;
	}
	assert_in_range(told, 16, 256); /* 64 are expected */
	w->mark = 0;                    /* from outside */
	assert_int_equal(run(w, w->out, 64 * FAST_ONE_IN), -1);
	assert_false(fast_ring_next(&ring, &s));
	begin(w, false, IPPROTO_TCP);
	assert_int_equal(fast_flow_take(&w->maps, &w->key, &flow), 0);
	w->frame[14 + 20 + 13] = 0x02; /* SYN */
	assert_int_equal(run(w, w->out, 64 * FAST_ONE_IN), -1);
	assert_false(fast_ring_next(&ring, &s));
	w->frame[14 + 20 + 13] = 0x10;
	assert_int_equal(run(w, w->out, 100000), -1); /* more than fits: what does not is not told */
	for (told = 0; fast_ring_next(&ring, &s); told++)
		;
	assert_in_range(told, 512, 2048);
	fast_ring_close(&ring);
}

static bool is_seven(const void *context, uint32_t index)
{
	(void)context;
	return index == 7;
}

static void test_flows_are_read_and_taken(void **state)
{
	struct world *w = needs_kernel(state);
	struct fast_flows all;
	struct fast_flow flow;
	struct err e;

	begin(w, false, IPPROTO_TCP);
	for (unsigned i = 0; i < 5000; i++) {
		w->key.ports[0] = (uint16_t)i;
		put(w);
	}
	assert_int_equal(fast_flows_read(&w->maps, &all, &e), 0);
	assert_true(all.count >= 5000);
	for (size_t i = 0; i < all.count; i++)
		assert_int_equal(fast_flow_take(&w->maps, &all.keys[i], &flow), 0);
	fast_flows_done(&all);
	assert_int_equal(fast_flows_read(&w->maps, &all, &e), 0);
	assert_int_equal(all.count, 0);
	fast_flows_done(&all);
	fast_total_add(&w->maps, 7, 2, 300);
	fast_total_add(&w->maps, 7, 1, 100);
	assert_int_equal(fast_total_get(&w->maps, 7).packets, 3);
	assert_int_equal(fast_total_get(&w->maps, 7).bytes, 400);
	for (uint32_t i = 100; i < 200; i++)
		fast_total_add(&w->maps, i, 1, 1);
	fast_totals_sweep(&w->maps, is_seven, NULL);
	assert_int_equal(fast_total_get(&w->maps, 7).packets, 3);
	for (uint32_t i = 100; i < 200; i++)
		assert_int_equal(fast_total_get(&w->maps, i).packets, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_jumps_lead_to_their_labels),
		cmocka_unit_test(test_wrong_programs_are_refused),
		cmocka_unit_test(test_a_flow_goes_as_the_host_would_route_it),
		cmocka_unit_test(test_checksums_of_every_value),
		cmocka_unit_test(test_everything_else_takes_the_usual_way),
		cmocka_unit_test(test_fin_rst_and_syn_close),
		cmocka_unit_test(test_what_passed_the_rules_renews),
		cmocka_unit_test(test_some_of_the_unknown_are_told),
		cmocka_unit_test(test_flows_are_read_and_taken),
	};
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
