/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. Flows live in a map of the kernel, which the program at each port's entry reads, the one at its exit renews
 * (fast_program.c), and this file fills and empties. Nothing else is remembered: an agent that is new finds the map by a
 * program that is at a port, replaces the programs, and goes on.
 *
 *   sample   the exit saw a packet of a connection that is not known: it passed the rules. If connection tracking says that
 *            it is settled, it gets a flow; if it never can have one (translated, MTU, no port of ours) a refused one, so
 *            that nobody asks again.
 *   flow     fresh for FAST_LEASE_NS after each packet that took the usual way. Its packets renew it, so one whose lease
 *            ended long ago is of a connection that is silent, and goes: what went through it is added to its port's total.
 *
 * Each direction has its own flow, its own proof and its own lease. A FIN, RST or SYN closes the flow of its direction; the
 * other one keeps meeting the rules twice a second, like all.
 *
 * Limits: FAST_FLOWS_MOST flows; a TTL or MTU that the usual way would complain about takes the usual way, or none is made.
 */
#include "network/fast.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/mem.h"
#include "base/own.h"
#include "network/fast_connection.h"
#include "network/fast_kernel.h"
#include "network/netlink.h"

#define SECOND_NS  1000000000ull
#define IDLE_NS    (10 * SECOND_NS)
#define LEARN_MOST 256 /* at a time: who sends under many numbers does not keep the agent busy */

struct place {
	struct fast_port port;
	unsigned index;
	unsigned mtu;
	unsigned char gate[6]; /* of its bridge */
};

struct fast {
	struct netlink link;
	struct fast_connections *connections;
	struct fast_maps maps;
	struct fast_ring ring;
	int in_program, out_program;
	bool ready;
	uint32_t generation;
	struct place *places; /* by index */
	size_t place_count;
};

/* --- life --- */

static int load_programs(const struct fast_maps *m, int *ret_in, int *ret_out, struct err *e)
{
	struct fast_program p;
	own_fd int in = -1, out = -1;

	if (fast_compile_in(&p, m, e) < 0 || fast_program_load(&p, "carrel_fast_in", &in, e) < 0 ||
	    fast_maps_bind(m, in, e) < 0)
		return -EINVAL;
	if (fast_compile_out(&p, m, e) < 0 || fast_program_load(&p, "carrel_fast_out", &out, e) < 0)
		return -EINVAL;
	*ret_in = TAKE_FD(in);
	*ret_out = TAKE_FD(out);
	return 0;
}

static int try_all(struct err *e)
{
	struct fast_maps m;
	int in, out, r = fault_point("fast.probe");

	if (r > 0)
		return err_errno(e, r, "probe");
	if ((r = fast_maps_make(&m, e)) < 0)
		return r;
	if ((r = load_programs(&m, &in, &out, e)) == 0) {
		(void)close(in);
		(void)close(out);
	}
	fast_maps_close(&m);
	return r;
}

int fast_probe(struct err *e)
{
	int r = try_all(e);

	if (r >= 0)
		return 0;
	char why[sizeof e->message];
	(void)snprintf(why, sizeof why, "%s", e->message);
	(void)err_set(e, ERR_UNSUPPORTED, "packets between workspaces cannot take the short way on this host: %s", why);
	return err_hint(
		e, "the kernel must have BPF with ring buffers and bpf_redirect_peer (Linux 5.11), sch_ingress and cls_bpf");
}

int fast_new(struct fast **ret_fast, struct err *e)
{
	struct fast *f = mem_alloc(sizeof *f);

	f->in_program = f->out_program = f->link.fd = -1;
	f->maps = (struct fast_maps){ -1, -1, -1, -1 };
	int r = netlink_open(&f->link, -1, e);
	if (r < 0 || (r = fast_connections_open(&f->connections, e)) < 0) {
		fast_free(f);
		return r;
	}
	*ret_fast = f;
	return 0;
}

void fast_free(struct fast *f)
{
	if (!f)
		return;
	fast_ring_close(&f->ring);
	fast_maps_close(&f->maps);
	own_close(&f->in_program);
	own_close(&f->out_program);
	fast_connections_free(f->connections);
	if (f->link.fd >= 0)
		netlink_close(&f->link);
	free(f->places);
	free(f);
}

int fast_fd(const struct fast *f) { return f->ready ? f->maps.sample : -1; }

/* --- ports --- */

bool fast_port_set(struct fast_port *p, const struct attachment *a, const char *bridge)
{
	*p = (struct fast_port){ .number = (uint32_t)a->number, .has = { a->ipv4 != NULL, a->ipv6 != NULL } };
	(void)snprintf(p->port, sizeof p->port, "%s", a->port);
	(void)snprintf(p->bridge, sizeof p->bridge, "%s", bridge);
	return a->mac &&
	       sscanf(a->mac, "%2hhx:%2hhx:%2hhx:%2hhx:%2hhx:%2hhx", &p->mac[0], &p->mac[1], &p->mac[2], &p->mac[3], &p->mac[4],
		      &p->mac[5]) == 6 &&
	       (!a->ipv4 || filter_address_parse(a->ipv4, &p->address[0]) == 0) &&
	       (!a->ipv6 || filter_address_parse(a->ipv6, &p->address[1]) == 0);
}

static unsigned index_of(const struct fast *f, const char *device)
{
	struct ifreq q = { 0 };

	(void)snprintf(q.ifr_name, sizeof q.ifr_name, "%s", device);
	return ioctl(f->link.fd, SIOCGIFINDEX, &q) < 0 ? 0 : (unsigned)q.ifr_ifindex;
}

/* Everything that a flow needs to know of it; false: it is not there. */
static bool look_at(const struct fast *f, struct place *p)
{
	struct ifreq q = { 0 }, bridge = { 0 };

	(void)snprintf(q.ifr_name, sizeof q.ifr_name, "%s", p->port.port);
	(void)snprintf(bridge.ifr_name, sizeof bridge.ifr_name, "%s", p->port.bridge);
	if (ioctl(f->link.fd, SIOCGIFMTU, &q) < 0 || ioctl(f->link.fd, SIOCGIFHWADDR, &bridge) < 0)
		return false;
	p->mtu = (unsigned)q.ifr_mtu;
	memcpy(p->gate, bridge.ifr_hwaddr.sa_data, sizeof p->gate);
	p->index = index_of(f, p->port.port);
	return p->index;
}

static int compare_index(const void *a, const void *b)
{
	const struct place *x = a, *y = b;
	return x->index < y->index ? -1 : x->index > y->index;
}

static struct place *find(struct place *list, size_t count, unsigned index)
{
	struct place key = { .index = index };
	return count ? bsearch(&key, list, count, sizeof *list, compare_index) : NULL;
}

static struct place *by_index(const struct fast *f, unsigned index) { return find(f->places, f->place_count, index); }

static struct place *by_number(const struct fast *f, uint32_t number)
{
	for (size_t i = 0; i < f->place_count; i++)
		if (f->places[i].port.number == number)
			return &f->places[i];
	return NULL;
}

/* Maps of an agent before this one, if one of the ports has its program. */
static int find_maps(struct fast *f, const struct place *places, size_t count)
{
	struct err ignored;
	uint32_t program;

	for (size_t i = 0; i < count; i++)
		if (fast_attached(&f->link, places[i].index, &program, &ignored) == 0 && program &&
		    fast_maps_find(program, &f->maps, &ignored) == 0)
			return 0;
	return -ENOENT;
}

static int get_ready(struct fast *f, const struct place *places, size_t count, struct err *e)
{
	int r = find_maps(f, places, count);

	if (r < 0 && (r = fast_maps_make(&f->maps, e)) < 0)
		return r;
	if ((r = fast_rules_get(&f->maps, &f->generation, e)) < 0 ||
	    (r = load_programs(&f->maps, &f->in_program, &f->out_program, e)) < 0 ||
	    (r = fast_ring_open(f->maps.sample, &f->ring, e)) < 0 || (r = fast_connection_rest_all(f->connections, e)) < 0) {
		fast_maps_close(&f->maps);
		own_close(&f->in_program);
		own_close(&f->out_program);
		f->in_program = f->out_program = -1;
		return r;
	}
	f->ready = true;
	return 0;
}

static int end_flow(struct fast *f, const struct fast_key *key, struct err *e)
{
	struct fast_flow flow;
	int r = fast_flow_take(&f->maps, key, &flow);

	if (fault_point("fast.end") > 0)
		return err_set(e, ERR_INTERNAL, "end a flow");
	if (r == 0 && flow.packets)
		fast_total_add(&f->maps, flow.out_index, flow.packets, flow.bytes);
	return r < 0 && r != -ENOENT ? err_errno(e, -r, "end a flow of the fast path") : 0;
}

static bool is_port(const void *f, uint32_t index) { return by_index(f, index); }

static bool is_quick(const struct fast *f, uint32_t index)
{
	const struct place *p = by_index(f, index);
	return p && !p->port.slow;
}

/* Flows from or to a port that is not among them (any more), and refusals: what was refused may be possible now. */
static int end_strays(struct fast *f, struct err *e)
{
	struct fast_flows all = { 0 };
	int r = fast_flows_read(&f->maps, &all, e);

	for (size_t i = 0; i < all.count && r == 0; i++)
		if (!is_quick(f, all.flows[i].in_index) || !is_quick(f, all.flows[i].out_index))
			r = end_flow(f, &all.keys[i], e);
	fast_flows_done(&all);
	fast_totals_sweep(&f->maps, is_port, f);
	return r;
}

static bool same_place(const struct place *a, const struct place *b)
{
	return a->index == b->index && a->mtu == b->mtu && memcmp(a->gate, b->gate, sizeof a->gate) == 0 &&
	       a->port.number == b->port.number && a->port.slow == b->port.slow &&
	       memcmp(a->port.mac, b->port.mac, sizeof a->port.mac) == 0 &&
	       memcmp(a->port.has, b->port.has, sizeof a->port.has) == 0 &&
	       memcmp(a->port.address, b->port.address, sizeof a->port.address) == 0;
}

static bool among(struct place *list, size_t count, const struct place *p)
{
	const struct place *other = find(list, count, p->index);
	return other && same_place(other, p);
}

/* What the port was, or is by another name or number, is not what flows were made for. */
static int leave_ports(struct fast *f, struct place *now, size_t count, bool *ret_any, struct err *e)
{
	int r = 0;

	for (size_t i = 0; i < f->place_count && r == 0; i++) {
		struct place *p = &f->places[i];
		if (among(now, count, p))
			continue;
		*ret_any = true;
		if (index_of(f, p->port.port) == p->index)
			r = fast_detach(&f->link, p->index, e);
	}
	return r;
}

static int attach_new(struct fast *f, struct place *before, size_t count, bool *ret_any, struct err *e)
{
	int r = 0;

	for (size_t i = 0; i < f->place_count && r == 0; i++) {
		if (among(before, count, &f->places[i]))
			continue;
		*ret_any = true;
		if (f->places[i].port.slow)
			continue;
		if ((r = fault_point("fast.attach")) > 0)
			return err_errno(e, r, "attach");
		r = fast_attach(&f->link, f->places[i].index, f->in_program, f->out_program, e);
	}
	return r;
}

int fast_set_ports(struct fast *f, const struct fast_port *ports, size_t count, struct err *e)
{
	struct place *now = mem_alloc_array(count + 1, sizeof *now), *before = f->places;
	size_t found = 0, before_count = f->place_count;
	bool changed = false;
	int r = 0;

	for (size_t i = 0; i < count; i++) {
		now[found] = (struct place){ .port = ports[i] };
		found += look_at(f, &now[found]);
	}
	qsort(now, found, sizeof *now, compare_index);
	if (!f->ready && found)
		r = get_ready(f, now, found, e);
	if (r == 0 && f->ready)
		r = leave_ports(f, now, found, &changed, e);
	f->places = now;
	f->place_count = r == 0 ? found : 0;
	if (r == 0 && f->ready)
		r = attach_new(f, before, before_count, &changed, e);
	if (r == 0 && changed)
		r = end_strays(f, e);
	if (r < 0)
		f->place_count = 0; /* unknown: the next call tries all */
	free(before);
	return r;
}

int fast_rules_changed(struct fast *f, struct err *e) { return f->ready ? fast_rules_put(&f->maps, ++f->generation, e) : 0; }

/* --- flows --- */

static uint64_t now_ns(void)
{
	struct timespec t;
	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * SECOND_NS + (uint64_t)t.tv_nsec;
}

static bool has_address(const struct place *p, bool ipv6, const uint8_t *bytes)
{
	return p->port.has[ipv6] && memcmp(p->port.address[ipv6].bytes, bytes, ipv6 ? 16 : 4) == 0;
}

/* Refused when it is not from one of our ports to another one as their addresses say. */
static struct fast_flow flow_of(const struct fast *f, const struct fast_sample *s)
{
	const struct place *in = by_number(f, s->mark), *out = by_index(f, s->out_index);
	bool ipv6 = s->key.family == 6;
	struct fast_flow flow = { .refused = 1, .out_index = s->out_index, .until_ns = now_ns() };

	if (!in || !out || in == out || in->port.slow || out->port.slow || !has_address(in, ipv6, s->key.from) ||
	    !has_address(out, ipv6, s->key.to) || in->mtu > out->mtu)
		return flow;
	flow.refused = 0;
	flow.in_index = in->index;
	flow.mark = s->mark;
	memcpy(flow.is, in->gate, 6);
	memcpy(flow.is + 6, in->port.mac, 6);
	memcpy(flow.becomes, out->port.mac, 6);
	memcpy(flow.becomes + 6, out->gate, 6);
	return flow;
}

/* It is made without a lease: its next packet takes the usual way and gives it one. */
static int learn(struct fast *f, const struct fast_sample *s, struct err *e)
{
	struct fast_flow flow = flow_of(f, s);
	int r = flow.refused ? -EPERM : fast_connection_settled(f->connections, &s->key, e);

	if (r == 0 || r == -ENOENT)
		return 0;
	if (r == -EPERM)
		flow.refused = 1;
	else if (r < 0)
		return r;
	if (flow.refused)
		flow.mark = 0;
	else if ((r = fast_connection_loosen(f->connections, &s->key, e)) < 0)
		return r == -ENOENT ? 0 : r;
	if ((r = fault_point("fast.loosen")) > 0)
		return err_errno(e, r, "make a flow");
	r = fast_flow_put(&f->maps, &s->key, &flow);
	if (fault_point("fast.flow") > 0)
		return err_set(e, ERR_INTERNAL, "make a flow");
	return r < 0 && r != -EEXIST && r != -E2BIG && r != -ENOMEM ? err_errno(e, -r, "make a flow of the fast path")
								    : 0; /* no room: the usual way */
}

int fast_learn(struct fast *f, struct err *e)
{
	struct fast_sample s;
	struct fast_flow ignored;
	int r = 0;

	if (!f->ready)
		return 0;
	for (int i = 0; i < LEARN_MOST && r == 0 && fast_ring_next(&f->ring, &s); i++)
		if (fast_flow_get(&f->maps, &s.key, &ignored) == -ENOENT)
			r = learn(f, &s, e);
	fast_ring_skip(&f->ring);
	return r;
}

/* 1: it is still there. */
static int care_for(struct fast *f, const struct fast_key *key, const struct fast_flow *flow, uint64_t now, struct err *e)
{
	bool silent = now > flow->until_ns + IDLE_NS;
	int r = 0;

	if (silent && !flow->refused && (r = fast_connection_rest(f->connections, key, e)) < 0)
		return r;
	if (silent || flow->closed)
		return end_flow(f, key, e);
	if (flow->refused || now > flow->until_ns + 2 * SECOND_NS)
		return 1;
	r = fast_connection_loosen(f->connections, key, e);
	return r == -ENOENT ? end_flow(f, key, e) : r < 0 ? r : 1;
}

int fast_care(struct fast *f, struct err *e)
{
	struct fast_flows all = { 0 };
	uint64_t now = now_ns();
	int left = 0, r = f->ready ? fast_flows_read(&f->maps, &all, e) : 0;

	for (size_t i = 0; i < all.count && r >= 0; i++)
		if ((r = care_for(f, &all.keys[i], &all.flows[i], now, e)) > 0)
			left++;
	fast_flows_done(&all);
	return r < 0 ? r : left;
}

static int compare_port(const void *a, const void *b)
{
	const struct fast_count *x = a, *y = b;
	return strcmp(x->port, y->port);
}

int fast_counts(struct fast *f, struct fast_count **ret_counts, size_t *ret_count, struct err *e)
{
	struct fast_flows all = { 0 };
	int r = f->ready ? fast_flows_read(&f->maps, &all, e) : 0;

	if (r < 0)
		return r;
	struct fast_count *counts = mem_alloc_array(f->place_count + 1, sizeof *counts);
	for (size_t i = 0; i < f->place_count; i++) {
		struct fast_total total = fast_total_get(&f->maps, f->places[i].index);
		counts[i] = (struct fast_count){ .packets = total.packets, .bytes = total.bytes };
		memcpy(counts[i].port, f->places[i].port.port, sizeof counts[i].port);
	}
	for (size_t i = 0; i < all.count; i++) {
		const struct place *p = by_index(f, all.flows[i].out_index);
		if (p) {
			counts[p - f->places].packets += all.flows[i].packets;
			counts[p - f->places].bytes += all.flows[i].bytes;
		}
	}
	fast_flows_done(&all);
	qsort(counts, f->place_count, sizeof *counts, compare_port);
	*ret_counts = counts;
	*ret_count = f->place_count;
	return 0;
}
