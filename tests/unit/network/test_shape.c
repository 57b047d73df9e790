/* SPDX-License-Identifier: Apache-2.0 */
/* Rates, planned and kept: traffic between network namespaces of this test's own. */
#include "../test.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/mem.h"
#include "network/link.h"
#include "network/shape.h"

#define M UINT64_C(1000000)
#define HOSTS 3

static struct err e;

/* --- plans --- */

static struct network_rates rates[HOSTS];
static struct attachment attachments[HOSTS];
static struct shape_port ports[HOSTS];
static char port_names[HOSTS][16];

static struct shape_intent intent_of(uint64_t link_bits, size_t count)
{
	memset(rates, 0, sizeof rates);
	for (size_t i = 0; i < HOSTS; i++) {
		(void)snprintf(port_names[i], sizeof port_names[i], "cr%zx", 0x20 + i);
		attachments[i] = (struct attachment){ .number = 0x20 + i, .rates = &rates[i] };
		ports[i] = (struct shape_port){ .port = port_names[i], .attachment = &attachments[i] };
	}
	return (struct shape_intent){ .instance = "test", .link_bits = link_bits, .ports = ports, .port_count = count };
}

static void describe(const struct shape_plan *plan, struct str *out)
{
	static const char *const words[] = { "in", "out" };

	if (plan->count)
		str_printf(out, "total %" PRIu64 "\n", plan->total_bits);
	for (size_t i = 0; i < plan->count; i++) {
		const struct shape_class *c = &plan->classes[i];
		for (int d = 0; d < SHAPE_DIRECTIONS; d++)
			if (c->used[d])
				str_printf(out, "%s %s 1:%x least %" PRIu64 " most %" PRIu64 "\n", c->port, words[d], c->minor,
					   c->least_bits[d], c->most_bits[d]);
	}
}

static void assert_plan(const struct shape_plan *plan, const char *expected)
{
	own_strbuf struct str text = { 0 };

	describe(plan, &text);
	assert_string_equal(str_text(&text), expected);
}

static void only_limited_ports_are_scheduled(void **state)
{
	(void)state;
	struct shape_intent intent = intent_of(0, 3);
	struct shape_plan plan = { 0 };

	assert_ok(shape_plan(&intent, NULL, &plan, &e), &e);
	assert_plan(&plan, "");
	shape_plan_done(&plan);
	rates[0].in_most = 10 * M;
	rates[2].out_most = 20 * M;
	rates[2].in_most = 5 * M;
	assert_ok(shape_plan(&intent, NULL, &plan, &e), &e);
	assert_plan(&plan, "total 400000000000\n"
			   "cr20 in 1:2 least 0 most 10000000\n"
			   "cr22 in 1:3 least 0 most 5000000\n"
			   "cr22 out 1:3 least 0 most 20000000\n");
	shape_plan_done(&plan);
}

static void a_guarantee_brings_all_ports_in(void **state)
{
	(void)state;
	struct shape_intent intent = intent_of(1000 * M, 3);
	struct shape_plan plan = { 0 };

	rates[1].out_least = 600 * M;
	rates[2].out_most = 5000 * M;
	assert_ok(shape_plan(&intent, NULL, &plan, &e), &e);
	assert_plan(&plan, "total 1000000000\n"
			   "cr20 out 1:2 least 0 most 1000000000\n"
			   "cr21 out 1:3 least 600000000 most 1000000000\n"
			   "cr22 out 1:4 least 0 most 1000000000\n");
	shape_plan_done(&plan);
}

static void more_than_there_is_is_not_promised(void **state)
{
	(void)state;
	struct shape_intent intent = intent_of(1000 * M, 3);
	struct shape_plan plan = { 0 };

	rates[0].in_least = 600 * M;
	rates[1].in_least = 401 * M;
	assert_fails(shape_plan(&intent, NULL, &plan, &e), &e, ERR_NO_CAPACITY, "1001000000 bit/s are guaranteed towards workspaces");
	rates[1].in_least = UINT64_MAX;
	assert_fails(shape_plan(&intent, NULL, &plan, &e), &e, ERR_NO_CAPACITY, "are guaranteed");
	rates[1].in_least = 400 * M;
	assert_ok(shape_plan(&intent, NULL, &plan, &e), &e);
	shape_plan_done(&plan);
	intent.link_bits = 0;
	assert_fails(shape_plan(&intent, NULL, &plan, &e), &e, ERR_UNSUPPORTED, "not known");
}

static void classes_keep_their_numbers(void **state)
{
	(void)state;
	struct shape_intent intent = intent_of(0, 2);
	struct shape_plan first = { 0 }, second = { 0 };

	rates[0].in_most = rates[1].in_most = rates[2].in_most = 10 * M;
	assert_ok(shape_plan(&intent, NULL, &first, &e), &e);
	intent.ports = ports + 1; /* the first goes, another comes */
	assert_ok(shape_plan(&intent, &first, &second, &e), &e);
	assert_plan(&second, "total 400000000000\n"
			     "cr21 in 1:3 least 0 most 10000000\n"
			     "cr22 in 1:4 least 0 most 10000000\n");
	shape_plan_done(&first);
	shape_plan_done(&second);
}

/* --- traffic --- */

static int home = -1, spaces[HOSTS];

static int namespace_here(void) { return open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC); }

/* A host with a bridge and HOSTS workspaces, 10.9.0.1 and 10.9.0.2... The test runs in the host's namespace. */
static int make_world(void **state)
{
	(void)state;
	const struct link_bridge bridge = { .name = "crbtest1", .ipv4 = "10.9.0.1/24", .number = 1, .mtu = 1500 };

	if (geteuid() != 0 || unshare(CLONE_NEWNET) < 0)
		return 0;
	home = namespace_here();
	(void)intent_of(0, HOSTS);
	assert_ok(link_bridge_make(&bridge, &e), &e);
	for (int i = 0; i < HOSTS; i++) {
		char address[32];
		(void)snprintf(address, sizeof address, "10.9.0.%d/24", i + 2);
		const struct link_port port = { .port = port_names[i], .bridge = "crbtest1", .owner = "w", .device = "eth0", .index = LINK_INSIDE_FIRST,
						.mtu = 1500, .isolated = true, .ipv4 = address };
		assert_int_equal(unshare(CLONE_NEWNET), 0);
		spaces[i] = namespace_here();
		assert_int_equal(setns(home, CLONE_NEWNET), 0);
		assert_ok(link_ports_make(&port, 1, spaces[i], &e), &e);
	}
	return 0;
}

static int listen_in(int space, uint32_t address, struct sockaddr_in *ret_address)
{
	socklen_t size = sizeof *ret_address;
	int fd;

	assert_int_equal(setns(space, CLONE_NEWNET), 0);
	fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	*ret_address = (struct sockaddr_in){ .sin_family = AF_INET, .sin_addr.s_addr = htonl(address) };
	assert_int_equal(bind(fd, (struct sockaddr *)ret_address, sizeof *ret_address), 0);
	assert_int_equal(listen(fd, 64), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)ret_address, &size), 0);
	assert_int_equal(setns(home, CLONE_NEWNET), 0);
	return fd;
}

/* A process in `space` that sends as much as it can, by `connections`, until it is killed. */
static pid_t send_from(int space, const struct sockaddr_in *to, int connections)
{
	static char bytes[65536];
	pid_t pid = fork();

	if (pid)
		return pid;
	struct pollfd fds[16];
	if (setns(space, CLONE_NEWNET) < 0)
		_exit(1);
	for (int i = 0; i < connections; i++) {
		fds[i] = (struct pollfd){ .fd = socket(AF_INET, SOCK_STREAM, 0), .events = POLLOUT };
		if (connect(fds[i].fd, (const struct sockaddr *)to, sizeof *to) < 0)
			_exit(1);
		(void)fcntl(fds[i].fd, F_SETFL, O_NONBLOCK);
	}
	for (;;) {
		(void)poll(fds, (nfds_t)connections, -1);
		for (int i = 0; i < connections; i++)
			if (fds[i].revents && send(fds[i].fd, bytes, sizeof bytes, MSG_NOSIGNAL) < 0 && errno != EAGAIN)
				_exit(1);
	}
}

static double now(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

struct flow {
	int from, to;    /* index of spaces; -1: the host */
	int connections;
	double bits;     /* measured, a second, as on the wire */
};

struct sink {
	int fds[17], count;
	double bytes;
};

static void drain(struct sink *sinks, int count, double until, bool counted)
{
	static char bytes[1 << 18];

	while (now() < until)
		for (int f = 0; f < count; f++) {
			struct pollfd p[17];
			for (int i = 0; i < sinks[f].count; i++)
				p[i] = (struct pollfd){ .fd = sinks[f].fds[i], .events = POLLIN };
			if (poll(p, (nfds_t)sinks[f].count, count > 1 ? 0 : 5) <= 0)
				continue;
			for (int i = 0; i < sinks[f].count; i++) {
				ssize_t n = p[i].revents ? recv(p[i].fd, bytes, sizeof bytes, MSG_DONTWAIT) : 0;
				sinks[f].bytes += counted && n > 0 ? (double)n : 0;
			}
		}
}

/* All flows at the same time. What connections collect while they begin is not counted. */
static void measure(struct flow *flows, int count)
{
	struct sink sinks[HOSTS] = { 0 };
	pid_t senders[HOSTS];

	for (int f = 0; f < count; f++) {
		struct sockaddr_in address;
		int listener = listen_in(flows[f].to < 0 ? home : spaces[flows[f].to], 0x0a090001u + (uint32_t)(flows[f].to + 1), &address);
		senders[f] = send_from(flows[f].from < 0 ? home : spaces[flows[f].from], &address, flows[f].connections);
		for (int i = 0; i < flows[f].connections; i++)
			sinks[f].fds[sinks[f].count++] = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
		(void)close(listener);
	}
	drain(sinks, count, now() + 0.3, false);
	double start = now();
	drain(sinks, count, start + 0.8, true);
	double seconds = now() - start;
	for (int f = 0; f < count; f++) {
		flows[f].bits = sinks[f].bytes * 8 / seconds * 1514 / 1448;
		(void)kill(senders[f], SIGKILL);
		(void)waitpid(senders[f], NULL, 0);
		for (int i = 0; i < sinks[f].count; i++)
			(void)close(sinks[f].fds[i]);
	}
}

#define TRIES 25

static bool is_near(double bits, double promised) { return bits >= promised * 0.9 && bits <= promised * 1.1; }

/* A machine with other work sends less than it may, and takes what has waited at once; a rate that is wrong is wrong each time. */
static void assert_rate(struct flow *flow, double promised, const char *what)
{
	for (int i = 0; i < TRIES; i++) {
		measure(flow, 1);
		print_message("# %s: %.1f of %.1f Mbit/s\n", what, flow->bits / 1e6, promised / 1e6);
		if (is_near(flow->bits, promised))
			return;
	}
	fail_msg("%s: %.1f Mbit/s instead of %.1f", what, flow->bits / 1e6, promised / 1e6);
}

static void assert_free(struct flow *flow, const char *what)
{
	for (int i = 0; i < TRIES; i++) {
		measure(flow, 1);
		if (flow->bits > 200e6)
			return;
	}
	fail_msg("%s: %.1f Mbit/s, which looks like a limit", what, flow->bits / 1e6);
}

static bool cannot(struct shaper *s, const struct shape_intent *intent)
{
	if (home >= 0 && shape_apply(s, intent, &e) >= 0)
		return false;
	if (home >= 0 && e.kind != ERR_UNSUPPORTED)
		fail_msg("%s", e.message);
	print_message("# not run: %s\n", home < 0 ? "network namespaces are made by root" : e.message);
	shaper_free(s);
	return true;
}

static unsigned blocks(void)
{
	return !!if_nametoindex("critestai") + !!if_nametoindex("critestao") + !!if_nametoindex("critestbi") + !!if_nametoindex("critestbo");
}

static void limits_are_kept_in_both_directions(void **state)
{
	(void)state;
	struct shaper *s = shaper_new();
	struct shape_intent intent = intent_of(0, HOSTS);

	rates[0].in_most = 40 * M;
	rates[0].out_most = 100 * M;
	if (cannot(s, &intent))
		skip();
	struct flow in = { .from = -1, .to = 0, .connections = 1 }, out = { .from = 0, .to = -1, .connections = 1 };
	assert_rate(&in, 40e6, "towards the workspace");
	assert_rate(&out, 100e6, "from the workspace");
	struct flow free_one = { .from = 1, .to = -1, .connections = 1 };
	assert_free(&free_one, "without a limit"); /* who has no limit is not touched */
	rates[0].in_most = 80 * M;
	rates[0].out_most = 0;
	assert_ok(shape_apply(s, &intent, &e), &e);
	assert_rate(&in, 80e6, "changed");
	assert_free(&out, "without a limit");
	rates[0].in_most = 0;
	assert_ok(shape_apply(s, &intent, &e), &e);
	assert_int_equal(blocks(), 0);
	assert_free(&in, "without a limit");
	shaper_free(s);
}

static void a_guarantee_holds_against_a_greedy_neighbour(void **state)
{
	(void)state;
	struct shaper *s = shaper_new();
	struct shape_intent intent = intent_of(100 * M, HOSTS);

	rates[0].out_least = 70 * M;
	if (cannot(s, &intent))
		skip();
	struct flow flows[] = { { .from = 0, .to = -1, .connections = 1 }, { .from = 1, .to = -1, .connections = 16 } };
	for (int i = 0;; i++) {
		measure(flows, 2);
		print_message("# %.1f of 70 Mbit/s beside %.1f\n", flows[0].bits / 1e6, flows[1].bits / 1e6);
		if (flows[0].bits > 70e6 * 0.9 && is_near(flows[0].bits + flows[1].bits, 100e6))
			break;
		assert_true(i < TRIES);
	}
	assert_rate(flows + 1, 100e6, "lent"); /* what is not used is lent */
	intent.port_count = 0;
	assert_ok(shape_apply(s, &intent, &e), &e);
	assert_int_equal(blocks(), 0);
	shaper_free(s);
}

static void another_process_takes_over(void **state)
{
	(void)state;
	struct shaper *s = shaper_new();
	struct shape_intent intent = intent_of(0, HOSTS);

	rates[0].out_most = 40 * M;
	rates[1].out_most = 40 * M;
	if (cannot(s, &intent))
		skip();
	shaper_free(s);
	assert_int_equal(blocks(), 2);
	s = shaper_new();
	rates[1].out_most = 0; /* while nobody was there */
	assert_ok(shape_apply(s, &intent, &e), &e);
	assert_int_equal(blocks(), 2);
	struct flow out = { .from = 0, .to = -1, .connections = 1 }, freed = { .from = 1, .to = -1, .connections = 1 };
	assert_rate(&out, 40e6, "taken over");
	assert_free(&freed, "without a limit");
	assert_ok(link_remove(port_names[0], &e), &e); /* behind its back */
	assert_ok(shape_apply(s, &intent, &e), &e);
	shaper_free(s);
	s = shaper_new();
	rates[0].out_most = 0;
	assert_ok(shape_apply(s, &intent, &e), &e);
	assert_int_equal(blocks(), 0);
	shaper_free(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(only_limited_ports_are_scheduled),
		cmocka_unit_test(a_guarantee_brings_all_ports_in),
		cmocka_unit_test(more_than_there_is_is_not_promised),
		cmocka_unit_test(classes_keep_their_numbers),
		cmocka_unit_test(limits_are_kept_in_both_directions),
		cmocka_unit_test(a_guarantee_holds_against_a_greedy_neighbour),
		cmocka_unit_test(another_process_takes_over),
	};

	return cmocka_run_group_tests(tests, make_world, NULL);
}
