/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Times links alone, in a network namespace of its own that plays the host:
 *   attach N         one cable after the other into N namespaces: milliseconds of each
 *   parallel N T     the same by T threads at once: milliseconds for all
 *   shape N          a rate for one more of N ports, after the other: milliseconds of each
 * The namespaces are there before, as a workspace's is, made with its first process.
 */
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/mem.h"
#include "network/link.h"
#include "network/shape.h"

#define BRIDGE "crbbench"

static int *spaces;
static size_t count;
static atomic_size_t next_one;

static double now_ms(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static void must(int r, const struct err *e)
{
	if (r >= 0)
		return;
	(void)fprintf(stderr, "%s\n", e->message);
	exit(1);
}

static int new_space(void)
{
	if (unshare(CLONE_NEWNET) < 0) {
		(void)printf("skip\tnetwork namespaces are made by root\n");
		exit(77);
	}
	return open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
}

static void make_world(void)
{
	const struct link_bridge bridge = { .name = BRIDGE, .ipv4 = "10.64.0.1/16", .ipv6 = "fd64::1/64", .number = 1,
					    .mtu = 1500 };
	struct err e;

	spaces = mem_alloc_array(count, sizeof *spaces);
	for (size_t i = 0; i < count; i++)
		spaces[i] = new_space();
	(void)new_space();
	must(link_bridge_make(&bridge, &e), &e);
}

static void attach(size_t i)
{
	struct err e;
	char port[16], mac[18], four[32], six[32];

	(void)snprintf(port, sizeof port, "cr%zx", i + 0x1000);
	(void)snprintf(mac, sizeof mac, "02:00:00:00:%02zx:%02zx", i >> 8 & 0xff, i & 0xff);
	(void)snprintf(four, sizeof four, "10.64.%zu.%zu/16", i / 250 + 1, i % 250 + 1);
	(void)snprintf(six, sizeof six, "fd64::%zx/64", i + 2);
	const struct link_port p = { .port = port, .bridge = BRIDGE, .owner = "bench", .device = "eth0", .mac = mac,
				     .index = LINK_INSIDE_FIRST, .mtu = 1500, .isolated = true, .ipv4 = four, .ipv6 = six,
				     .gateway4 = "10.64.0.1", .gateway6 = "fe80::1" };
	must(link_ports_make(&p, 1, spaces[i], &e), &e);
}

static void one_after_the_other(void)
{
	for (size_t i = 0; i < count; i++) {
		double begun = now_ms();
		attach(i);
		(void)printf("%.4f\n", now_ms() - begun);
	}
}

static void *attach_some(void *unused)
{
	for (size_t i; (i = atomic_fetch_add(&next_one, 1)) < count;)
		attach(i);
	return unused;
}

static void at_once(size_t threads)
{
	pthread_t running[64];
	double begun = now_ms();

	for (size_t t = 0; t < threads && t < ARRAY_SIZE(running); t++)
		(void)pthread_create(&running[t], NULL, attach_some, NULL);
	for (size_t t = 0; t < threads && t < ARRAY_SIZE(running); t++)
		(void)pthread_join(running[t], NULL);
	(void)printf("%.4f\n", now_ms() - begun);
}

static void rates(void)
{
	struct network_rates most = { .in_most = 100000000, .out_most = 100000000 };
	struct attachment *attachments = mem_alloc_array(count, sizeof *attachments);
	struct shape_port *ports = mem_alloc_array(count, sizeof *ports);
	struct shape_intent intent = { .instance = "bench", .ports = ports, .port_count = count };
	struct shaper *s = shaper_new();
	struct err e;

	for (size_t i = 0; i < count; i++) {
		attach(i);
		attachments[i].number = i + 0x1000;
		ports[i] = (struct shape_port){ .port = mem_printf("cr%zx", i + 0x1000), .attachment = &attachments[i] };
	}
	for (size_t i = 0; i < count; i++) {
		attachments[i].rates = &most;
		double begun = now_ms();
		int r = shape_apply(s, &intent, &e);
		if (r < 0 && e.kind == ERR_UNSUPPORTED) {
			(void)printf("skip\t%s\n", e.message);
			exit(77);
		}
		must(r, &e);
		(void)printf("%.4f\n", now_ms() - begun);
	}
	shaper_free(s);
}

int main(int argc, char **argv)
{
	if (argc < 3)
		return 2;
	count = strtoul(argv[2], NULL, 10);
	make_world();
	if (strcmp(argv[1], "attach") == 0)
		one_after_the_other();
	else if (strcmp(argv[1], "parallel") == 0 && argc > 3)
		at_once(strtoul(argv[3], NULL, 10));
	else
		rates();
	return 0;
}
